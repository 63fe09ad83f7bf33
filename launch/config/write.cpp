#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "launch/config.hpp"

namespace yumoe {
namespace {

std::string toml_value(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}
std::string toml_value(bool value) { return option_detail::text_of(value); }
std::string toml_value(std::int64_t value) { return option_detail::text_of(value); }
std::string toml_value(double value) {
  std::string text = option_detail::text_of(value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}
std::string toml_value(const std::vector<std::string>& items) {
  std::string list = "[";
  for (const std::string& item : items) list += (list.size() > 1 ? ", " : "") + toml_value(item);
  return list + "]";
}

// Calls each(key, value, is_default, info) for the options of a struct.
template <typename Options, typename Each>
void for_each_option(Options options, Each each) {
  const OptionTexts defaults = texts_of(Options{});
  std::size_t index = 0;
  auto visitor = [&](std::string_view key, auto& value, const OptionInfo& info) {
    each(std::string(key), value, option_detail::text_of(value) == defaults[index].second, info);
    ++index;
  };
  options.visit(visitor);
}

template <typename Options>
std::string toml_lines(const Options& options) {
  std::string lines;
  for_each_option(
      options, [&](const std::string& key, const auto& value, bool is_default, const OptionInfo&) {
        lines += key + " = " + toml_value(value) + (is_default ? "  # default\n" : "\n");
      });
  return lines;
}

std::string range_of(const OptionInfo& info) {
  if (!info.choices.empty()) {
    std::string choices(info.choices);
    std::replace(choices.begin(), choices.end(), '|', ' ');
    return choices;
  }
  std::string range;
  const bool bounded_below = !std::isinf(info.min);
  const bool bounded_above = !std::isinf(info.max);
  if (bounded_below && bounded_above) {
    range = option_detail::text_of(info.min) + " to " + option_detail::text_of(info.max);
  } else if (bounded_below) {
    range = "at least " + option_detail::text_of(info.min);
  } else if (bounded_above) {
    range = "at most " + option_detail::text_of(info.max);
  }
  if (!info.unit.empty()) range += (range.empty() ? "" : " ") + std::string(info.unit);
  return range;
}

template <typename Options>
std::string reference_table() {
  std::string table = "| key | default | values | meaning |\n|---|---|---|---|\n";
  for_each_option(Options{},
                  [&](const std::string& key, const auto& value, bool, const OptionInfo& info) {
                    table += "| `" + key + "` | `" + toml_value(value) + "` | " + range_of(info) +
                             " | " + std::string(info.help) + " |\n";
                  });
  return table;
}

}  // namespace

OptionTexts shared_texts(const RunConfig& config) {
  OptionTexts texts;
  auto add = [&](const std::string& section, OptionScope scope, auto& options, std::string_view) {
    if (scope != OptionScope::shared) return;
    for (auto& [key, value] : texts_of(options)) texts.emplace_back(section + "." + key, value);
  };
  RunConfig copy = config;
  copy.visit_sections(add);
  std::sort(texts.begin(), texts.end());
  return texts;
}

Digest shared_digest(const RunConfig& config) { return digest_of(shared_texts(config)); }

std::string toml_of(const RunConfig& config) {
  std::string toml = "# shared digest " + shared_digest(config).hex() + "\n";
  auto add_section = [&](const std::string& section, OptionScope, auto& options, std::string_view) {
    toml += "\n[" + section + "]\n" + toml_lines(options);
  };
  auto add_list = [&](const std::string& list, auto& entries, std::string_view) {
    for (const auto& entry : entries) toml += "\n[[" + list + "]]\n" + toml_lines(entry);
  };
  RunConfig copy = config;
  copy.visit_sections(add_section);
  copy.visit_lists(add_list);
  return toml;
}

std::string json_of(const RunConfig& config) {
  nlohmann::ordered_json json;
  json["shared_digest"] = shared_digest(config).hex();
  nlohmann::ordered_json defaults = nlohmann::ordered_json::array();
  auto add_section = [&](const std::string& section, OptionScope, auto& options, std::string_view) {
    for_each_option(options, [&](const std::string& key, const auto& value, bool is_default,
                                 const OptionInfo&) {
      json[section][key] = value;
      if (is_default) defaults.push_back(section + "." + key);
    });
  };
  auto add_list = [&](const std::string& list, auto& entries, std::string_view) {
    json[list] = nlohmann::ordered_json::array();
    for (const auto& entry : entries) {
      nlohmann::ordered_json object;
      for_each_option(entry, [&](const std::string& key, const auto& value, bool,
                                 const OptionInfo&) { object[key] = value; });
      json[list].push_back(std::move(object));
    }
  };
  RunConfig copy = config;
  copy.visit_sections(add_section);
  copy.visit_lists(add_list);
  json["defaults"] = std::move(defaults);
  return json.dump();
}

std::string config_reference() {
  std::string page =
      "# Configuration\n\n"
      "Written by `yumoe config reference`; do not edit. A configuration is a TOML file; every\n"
      "option is also a flag, `--section.key=value`, which wins over the file. Relative paths "
      "start\n"
      "from the folder that `yumoe` was started in.\n\n"
      "Options marked *shared* must be equal for all participants of a run: they compare the "
      "digest\n"
      "that `yumoe config print` shows. The others may differ from process to process.\n";
  RunConfig config;
  auto add_section = [&]<typename Options>(const std::string& section, OptionScope scope, Options&,
                                           std::string_view help) {
    page += "\n## [" + section + "]" + (scope == OptionScope::shared ? " (shared)" : "") + "\n\n" +
            std::string(help) + "\n\n" + reference_table<Options>();
  };
  auto add_list = [&]<typename Options>(const std::string& list, std::vector<Options>&,
                                        std::string_view help) {
    page += "\n## [[" + list + "]]\n\n" + std::string(help) +
            " Flags name it by its name or by its place from 0: `--" + list + ".0." +
            texts_of(Options{}).back().first + "=...`.\n\n" + reference_table<Options>();
  };
  config.visit_sections(add_section);
  config.visit_lists(add_list);
  return page;
}

}  // namespace yumoe

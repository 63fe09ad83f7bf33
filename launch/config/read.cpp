#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <concepts>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <utility>

#include "cluster/error.hpp"
#include "config/nearest_name.hpp"
#include "config/relations.hpp"
#include "data/documents.hpp"
#include "launch/config.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kShownBytesMax = 60;

// What was typed, fit for one line of an error.
std::string shown(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  if (text.size() > kShownBytesMax) text = text.substr(0, kShownBytesMax) + "...";
  return text;
}

std::string shown(const toml::node& node) {
  std::ostringstream out;
  node.visit([&](const auto& value) {
    if constexpr (toml::is_table<decltype(value)>) {
      out << "{...}";
    } else if constexpr (toml::is_array<decltype(value)>) {
      out << "[...]";
    } else {
      out << value;
    }
  });
  return shown(out.str());
}

template <typename Value>
constexpr std::string_view type_rule() {
  if constexpr (std::same_as<Value, bool>) return "must be true or false";
  if constexpr (std::same_as<Value, std::int64_t>) return "must be a whole number";
  if constexpr (std::same_as<Value, double>) return "must be a number";
  if constexpr (std::same_as<Value, std::string>) return "must be text in quotes";
  return "must be a list of texts in quotes";
}

// Text goes to logs, tables and digests: one line of UTF-8.
std::string broken_text_rule(std::string_view text) {
  Utf8Checker checker;
  if (!checker.feed(text) || !checker.complete()) return "must be UTF-8";
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; };
  if (std::any_of(text.begin(), text.end(), is_control)) {
    return "must not contain control characters";
  }
  return "";
}

template <typename Value>
std::string broken_value_rule(const Value& value, const OptionInfo& info) {
  if constexpr (std::same_as<Value, double>) {
    if (!std::isfinite(value)) return "must be a finite number";
  } else if constexpr (std::same_as<Value, std::string>) {
    if (std::string rule = broken_text_rule(value); !rule.empty()) return rule;
  } else if constexpr (std::same_as<Value, std::vector<std::string>>) {
    for (const std::string& item : value) {
      if (std::string rule = broken_text_rule(item); !rule.empty()) return rule;
    }
  }
  return broken_rule(value, info);
}

// Takes a TOML value; returns the rule it breaks, or "".
template <typename Value>
std::string assign(const toml::node& node, Value& value, const OptionInfo& info) {
  const std::string wrong_type(type_rule<Value>());
  if constexpr (std::same_as<Value, std::vector<std::string>>) {
    const toml::array* array = node.as_array();
    if (array == nullptr) return wrong_type;
    value.clear();
    for (const toml::node& item : *array) {
      const auto text = item.value_exact<std::string>();
      if (!text) return wrong_type;
      value.push_back(*text);
    }
  } else if constexpr (std::same_as<Value, double>) {
    if (!node.is_number()) return wrong_type;
    value = node.value<double>().value_or(0);
  } else {
    const auto exact = node.value_exact<Value>();
    if (!exact) return wrong_type;
    value = *exact;
  }
  return broken_value_rule(value, info);
}

// Takes a flag's text; returns the rule it breaks, or "".
template <typename Value>
std::string assign_text(std::string text, Value& value, const OptionInfo& info) {
  if constexpr (std::same_as<Value, std::vector<std::string>>) {
    if (!text.empty()) text += ',';
    std::replace(text.begin(), text.end(), ',', '\n');
  }
  if (!option_detail::parse(text, value)) return std::string(type_rule<Value>());
  return broken_value_rule(value, info);
}

std::string suggestion(std::string_view typed, const std::vector<std::string>& names) {
  const std::string nearest = nearest_name(typed, names);
  return nearest.empty() ? "" : "; did you mean " + nearest + "?";
}

// Reads one TOML text into a configuration and remembers where each key stood.
class FileReader {
 public:
  explicit FileReader(std::string_view name) : name_(name) {}

  void read(std::string_view text, RunConfig& config) {
    toml::table root;
    try {
      root = toml::parse(text, std::string(name_));
    } catch (const toml::parse_error& error) {
      fail(error.source().begin.line, shown(std::string(error.description())));
    }
    std::vector<std::string> known;
    auto read_section = [&](const std::string& section, OptionScope, auto& options,
                            std::string_view) {
      known.push_back(section);
      const toml::node* node = root.get(section);
      if (node == nullptr) return;
      if (!node->is_table()) {
        fail(line_of(*node), section + " must be a section: [" + section + "]");
      }
      read_table(*node->as_table(), section, options);
    };
    auto read_list = [&](const std::string& list, auto& entries, std::string_view) {
      known.push_back(list);
      const toml::node* node = root.get(list);
      if (node == nullptr) return;
      const toml::array* array = node->as_array();
      if (array == nullptr || !array->is_homogeneous(toml::node_type::table)) {
        fail(line_of(*node), list + " must be a list of sections: [[" + list + "]]");
      }
      entries.resize(array->size());
      for (std::size_t i = 0; i < array->size(); ++i) {
        const std::string key = list + "." + std::to_string(i);
        lines_[key] = line_of((*array)[i]);
        read_table(*(*array)[i].as_table(), key, entries[i]);
      }
    };
    config.visit_sections(read_section);
    config.visit_lists(read_list);
    for (const auto& [key, node] : root) {
      const std::string typed(key.str());
      if (std::find(known.begin(), known.end(), typed) != known.end()) continue;
      fail(key.source().begin.line,
           "[" + shown(typed) + "] is no section" + suggestion(typed, known));
    }
  }

  // "run.toml:12: " if the key stood in the file, else "run.toml: ".
  std::string place_of(std::string key) const {
    while (true) {
      const auto found = lines_.find(key);
      if (found != lines_.end()) return name_ + ":" + std::to_string(found->second) + ": ";
      const std::size_t dot = key.rfind('.');
      if (dot == std::string::npos) return name_ + ": ";
      key.resize(dot);
    }
  }

 private:
  static std::uint32_t line_of(const toml::node& node) { return node.source().begin.line; }

  [[noreturn]] void fail(std::uint32_t line, const std::string& what) const {
    throw Error(ErrorCode::config_invalid, name_ + ":" + std::to_string(line) + ": " + what);
  }

  template <typename Options>
  void read_table(const toml::table& table, const std::string& section, Options& options) {
    std::vector<std::string> known;
    auto read_option = [&](std::string_view option, auto& value, const OptionInfo& info) {
      known.emplace_back(option);
      const toml::node* node = table.get(option);
      if (node == nullptr) return;
      const std::string key = section + "." + std::string(option);
      lines_[key] = line_of(*node);
      if (const std::string rule = assign(*node, value, info); !rule.empty()) {
        fail(line_of(*node), key + " = " + shown(*node) + " " + rule);
      }
    };
    options.visit(read_option);
    for (const auto& [key, node] : table) {
      const std::string typed(key.str());
      if (std::find(known.begin(), known.end(), typed) != known.end()) continue;
      fail(key.source().begin.line, section + "." + shown(typed) + " = " + shown(node) +
                                        " is no option" + suggestion(typed, known));
    }
  }

  std::string name_;
  std::map<std::string, std::uint32_t> lines_;
};

// Applies one flag "--section.key=value".
class FlagReader {
 public:
  explicit FlagReader(const std::string& flag) {
    const std::size_t equals = flag.find('=');
    shown_ = shown(flag);
    if (!flag.starts_with("--") || equals == std::string::npos) {
      fail("must have the form --section.key=value");
    }
    name_ = flag.substr(2, equals - 2);
    value_ = flag.substr(equals + 1);
    const std::size_t first = name_.find('.');
    const std::size_t last = name_.rfind('.');
    if (first == std::string::npos) fail("must have the form --section.key=value");
    section_ = name_.substr(0, first);
    key_ = name_.substr(last + 1);
    if (last > first) entry_ = name_.substr(first + 1, last - first - 1);
  }

  void apply(RunConfig& config) {
    std::vector<std::string> known;
    bool found = false;
    auto in_section = [&](const std::string& section, OptionScope, auto& options,
                          std::string_view) {
      known.push_back(section);
      if (section != section_) return;
      found = true;
      if (!entry_.empty()) fail("must have the form --" + section + ".key=value");
      apply_to(options);
    };
    auto in_list = [&](const std::string& list, auto& entries, std::string_view) {
      known.push_back(list);
      if (list != section_) return;
      found = true;
      apply_to(entry_of(entries));
    };
    config.visit_sections(in_section);
    config.visit_lists(in_list);
    if (!found) fail("names no section" + suggestion(section_, known));
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::config_invalid, shown_ + ": " + what);
  }

  template <typename Options>
  void apply_to(Options& options) {
    std::vector<std::string> known;
    bool found = false;
    auto apply_option = [&](std::string_view option, auto& value, const OptionInfo& info) {
      known.emplace_back(option);
      if (option != key_) return;
      found = true;
      if (const std::string rule = assign_text(value_, value, info); !rule.empty()) fail(rule);
    };
    options.visit(apply_option);
    if (!found) {
      const std::string before = "--" + section_ + (entry_.empty() ? "." : "." + entry_ + ".");
      for (std::string& name : known) name.insert(0, before);
      fail("names no option" + suggestion(before + key_, known));
    }
  }

  template <typename Options>
  Options& entry_of(std::vector<Options>& entries) const {
    for (Options& entry : entries) {
      if (!entry_.empty() && entry.name == entry_) return entry;
    }
    std::size_t index = 0;
    const auto end = std::from_chars(entry_.data(), entry_.data() + entry_.size(), index);
    if (entry_.empty() || end.ec != std::errc{} || end.ptr != entry_.data() + entry_.size() ||
        index >= entries.size()) {
      fail("names no " + section_ + "; there are " + std::to_string(entries.size()) +
           ", called by name or by place from 0");
    }
    return entries[index];
  }

  std::string shown_, name_, value_, section_, key_, entry_;
};

template <typename Options>
void name_entries(std::vector<Options>& entries, const std::string& list) {
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (entries[i].name.empty()) entries[i].name = list + "-" + std::to_string(i + 1);
  }
}

}  // namespace

RunConfig parse_config(std::string_view toml, std::string_view name,
                       std::span<const std::string> flags) {
  if (toml.size() > kConfigBytesMax) {
    throw Error(ErrorCode::config_invalid, std::string(name) + " is larger than 1 MiB");
  }
  RunConfig config;
  FileReader reader(name);
  reader.read(toml, config);
  name_entries(config.workers, "worker");
  name_entries(config.validators, "validator");
  for (const std::string& flag : flags) FlagReader(flag).apply(config);
  if (const auto broken = broken_relation(config)) {
    throw Error(ErrorCode::config_invalid, reader.place_of(broken->key) + broken->rule);
  }
  return config;
}

RunConfig read_config(const std::filesystem::path& file, std::span<const std::string> flags) {
  std::error_code error;
  std::ifstream in(file, std::ios::binary);
  if (std::filesystem::is_directory(file, error) || !in) {
    throw Error(ErrorCode::file_missing, file.string() +
                                             " cannot be read; `yumoe config init` "
                                             "writes a configuration to start from");
  }
  std::string text(kConfigBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  return parse_config(text, file.string(), flags);
}

void check_config(const RunConfig& config) {
  if (const auto broken = broken_relation(config)) {
    throw Error(ErrorCode::config_invalid, broken->rule);
  }
}

}  // namespace yumoe

#pragma once
// How configuration is declared: once, as a plain struct beside the code that reads it.
//
//   struct TransportOptions {
//     std::int64_t heartbeat_interval_ms = 2'000;
//     template <typename Visitor>
//     void visit(Visitor& option) {
//       option("heartbeat_interval_ms", heartbeat_interval_ms,
//              {.unit = "ms", .min = 10, .max = 60'000, .help = "how often a worker says it lives"});
//     }
//   };
//
// Reading TOML, reading flags, --help, the reference page, the shared digest and the form on the
// wire are all visitors of that one declaration. Types: bool, std::int64_t, double, std::string and
// std::vector<std::string>. An enumeration is a std::string with `choices`.

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/error.hpp"

namespace yumoe {

struct OptionInfo {
  std::string_view unit = "";  // "ms", "tokens", "share": empty for names and switches
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  std::string_view choices = "";  // "sparseloco|diloco"; empty: any text
  std::string_view help = "";     // what it does, one clause
};

// Option values as text, in declaration order: "name" -> "value". A double is written so that it
// reads back to the same bits; a list is joined by '\n'.
using OptionTexts = std::vector<std::pair<std::string, std::string>>;

namespace option_detail {

inline std::string text_of(bool value) { return value ? "true" : "false"; }
inline std::string text_of(std::int64_t value) { return std::to_string(value); }
inline std::string text_of(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value);
  return std::string(buffer, end.ptr);
}
inline std::string text_of(const std::string& value) { return value; }
inline std::string text_of(const std::vector<std::string>& value) {
  std::string joined;
  for (const std::string& item : value) joined += item + '\n';
  return joined;
}

inline bool parse(std::string_view text, bool& value) {
  value = text == "true";
  return value || text == "false";
}
template <typename Number>
bool parse_number(std::string_view text, Number& value) {
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  return end.ec == std::errc{} && end.ptr == text.data() + text.size();
}
inline bool parse(std::string_view text, std::int64_t& value) { return parse_number(text, value); }
inline bool parse(std::string_view text, double& value) { return parse_number(text, value); }
inline bool parse(std::string_view text, std::string& value) {
  value = text;
  return true;
}
inline bool parse(std::string_view text, std::vector<std::string>& value) {
  value.clear();
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return false;
    value.emplace_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  return true;
}

inline bool is_choice(std::string_view choices, std::string_view value) {
  while (true) {
    const std::size_t bar = choices.find('|');
    if (choices.substr(0, bar) == value) return true;
    if (bar == std::string_view::npos) return false;
    choices.remove_prefix(bar + 1);
  }
}

}  // namespace option_detail

// What rule `value` breaks, or "" if none: "must be between 1 and 4096 tokens".
template <typename Value>
std::string broken_rule(const Value& value, const OptionInfo& info) {
  if constexpr (std::is_same_v<Value, std::int64_t> || std::is_same_v<Value, double>) {
    const double number = static_cast<double>(value);
    if (!(number >= info.min && number <= info.max)) {
      std::string rule = "must be ";
      if (std::isinf(info.max)) {
        rule += "at least " + option_detail::text_of(info.min);
      } else if (std::isinf(info.min)) {
        rule += "at most " + option_detail::text_of(info.max);
      } else {
        rule += "between " + option_detail::text_of(info.min) + " and " +
                option_detail::text_of(info.max);
      }
      return info.unit.empty() ? rule : rule + " " + std::string(info.unit);
    }
  } else if constexpr (std::is_same_v<Value, std::string>) {
    if (!info.choices.empty() && !option_detail::is_choice(info.choices, value)) {
      return "must be one of " + std::string(info.choices);
    }
  }
  return "";
}

// Writes all options of a struct as text.
template <typename Options>
OptionTexts texts_of(const Options& options) {
  OptionTexts texts;
  auto write = [&](std::string_view name, auto& value, const OptionInfo&) {
    texts.emplace_back(name, option_detail::text_of(value));
  };
  Options copy = options;
  copy.visit(write);
  return texts;
}

// Reads options from text; every option must be there, in any order, and none beside them.
// Throws Error{config_invalid} naming the option and the rule.
template <typename Options>
Options options_from(const OptionTexts& texts) {
  Options options;
  std::size_t read = 0;
  auto parse_one = [&](std::string_view name, auto& value, const OptionInfo& info) {
    for (const auto& [key, text] : texts) {
      if (key != name) continue;
      if (!option_detail::parse(text, value)) {
        throw Error(ErrorCode::config_invalid,
                    std::string(name) + " = " + text + " has another type");
      }
      if (const std::string rule = broken_rule(value, info); !rule.empty()) {
        throw Error(ErrorCode::config_invalid, std::string(name) + " = " + text + " " + rule);
      }
      ++read;
      return;
    }
    throw Error(ErrorCode::config_invalid, "option " + std::string(name) + " is missing");
  };
  options.visit(parse_one);
  if (read != texts.size()) throw Error(ErrorCode::config_invalid, "unknown option in the list");
  return options;
}

// What participants agree on: BLAKE2b over the lines "key=value\n" in the order given.
Digest digest_of(const OptionTexts& texts);

// One section of a whole configuration's texts ("section.key" -> value).
template <typename Options>
Options section_from(const OptionTexts& texts, std::string_view section) {
  OptionTexts own;
  for (const auto& [key, value] : texts) {
    if (key.starts_with(section) && key.size() > section.size() && key[section.size()] == '.') {
      own.emplace_back(key.substr(section.size() + 1), value);
    }
  }
  return options_from<Options>(own);
}

}  // namespace yumoe

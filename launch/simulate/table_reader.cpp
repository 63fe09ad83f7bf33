#include "simulate/table_reader.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "cluster/error.hpp"
#include "config/nearest_name.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kShownBytesMax = 60;
constexpr std::size_t kNameBytesMax = 64;

std::string shown(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  if (text.size() > kShownBytesMax) text = text.substr(0, kShownBytesMax) + "...";
  return text;
}

std::string shown(const toml::node& node) {
  if (node.is_table()) return "{...}";
  if (node.is_array()) return "[...]";
  std::ostringstream out;
  node.visit([&](const auto& value) {
    if constexpr (toml::is_value<decltype(value)>) out << value;
  });
  return shown(out.str());
}

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kNameBytesMax &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-' || c == '/';
         });
}

}  // namespace

const toml::node* TableReader::find(std::string_view name) {
  known_.emplace_back(name);
  return table_.get(name);
}

const toml::node& TableReader::need(std::string_view name) {
  const toml::node* node = find(name);
  if (node == nullptr) fail(name, "is missing");
  return *node;
}

std::uint64_t TableReader::whole(std::string_view name, std::optional<std::uint64_t> fallback,
                                 std::uint64_t min, std::uint64_t max) {
  if (fallback && table_.get(name) == nullptr) {
    find(name);
    return *fallback;
  }
  const auto value = need(name).value_exact<std::int64_t>();
  if (!value) fail(name, "must be a whole number");
  if (*value < 0 || static_cast<std::uint64_t>(*value) < min ||
      static_cast<std::uint64_t>(*value) > max) {
    fail(name, "must be between " + std::to_string(min) + " and " + std::to_string(max));
  }
  return static_cast<std::uint64_t>(*value);
}

bool TableReader::flag(std::string_view name, std::optional<bool> fallback) {
  const toml::node* node = fallback ? find(name) : &need(name);
  if (node == nullptr) return *fallback;
  const auto value = node->value_exact<bool>();
  if (!value) fail(name, "must be true or false");
  return *value;
}

std::string TableReader::text(std::string_view name, std::optional<std::string> fallback) {
  const toml::node* node = fallback ? find(name) : &need(name);
  if (node == nullptr) return *fallback;
  const auto value = node->value_exact<std::string>();
  if (!value) fail(name, "must be text in quotes");
  return *value;
}

std::string TableReader::name(std::string_view name) {
  std::string value = text(name, std::nullopt);
  if (!is_name(value)) fail(name, "must be 1 to 64 of a-z A-Z 0-9 . _ - /");
  return value;
}

std::uint64_t TableReader::amount(std::string_view name, std::optional<std::uint64_t> fallback) {
  const toml::node* node = fallback ? find(name) : &need(name);
  if (node == nullptr) return *fallback;
  const std::string range = "must be a number between 0 and 21000000";
  if (const auto whole = node->value_exact<std::int64_t>()) {
    if (*whole < 0 || *whole > 21'000'000) fail(name, range);
    return static_cast<std::uint64_t>(*whole) * kUnits;
  }
  const auto decimal = node->value_exact<double>();
  if (!decimal || !(*decimal >= 0 && *decimal <= 21e6)) fail(name, range);
  return static_cast<std::uint64_t>(std::llround(*decimal * static_cast<double>(kUnits)));
}

std::vector<std::uint16_t> TableReader::numbers(std::string_view name) {
  const toml::node* node = find(name);
  if (node == nullptr) return {};
  const toml::array* array = node->as_array();
  std::vector<std::uint16_t> values;
  for (std::size_t i = 0; array != nullptr && i < array->size(); ++i) {
    const auto value = (*array)[i].value_exact<std::int64_t>();
    if (!value || *value < 0 || *value > 65'535) break;
    values.push_back(static_cast<std::uint16_t>(*value));
  }
  if (array == nullptr || values.size() != array->size()) {
    fail(name, "must be a list of whole numbers between 0 and 65535");
  }
  return values;
}

std::optional<TableReader> TableReader::table(std::string_view name) {
  const toml::node* node = find(name);
  if (node == nullptr) return std::nullopt;
  if (!node->is_table()) fail(name, "must be a section: [" + key_of(name) + "]");
  return TableReader(file_, key_of(name), *node->as_table());
}

std::vector<TableReader> TableReader::tables(std::string_view name) {
  const toml::node* node = find(name);
  if (node == nullptr) return {};
  const toml::array* array = node->as_array();
  if (array == nullptr || !array->is_homogeneous(toml::node_type::table)) {
    fail(name, "must be a list of sections: [[" + std::string(name) + "]]");
  }
  std::vector<TableReader> readers;
  for (std::size_t i = 0; i < array->size(); ++i) {
    readers.emplace_back(file_, key_of(name) + "." + std::to_string(i), *(*array)[i].as_table());
  }
  return readers;
}

std::vector<std::string> TableReader::names() {
  std::vector<std::string> all;
  for (const auto& [key, node] : table_) {
    all.emplace_back(key.str());
    if (!is_name(key.str()))
      fail(key.str(), "has a name that is not 1 to 64 of a-z A-Z 0-9 . _ - /");
  }
  return all;
}

void TableReader::finish() const {
  for (const auto& [key, node] : table_) {
    if (std::find(known_.begin(), known_.end(), key.str()) != known_.end()) continue;
    const std::string nearest = nearest_name(key.str(), known_);
    fail_at(key.source().begin.line,
            key_of(shown(std::string(key.str()))) + " is no key here" +
                (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
  }
}

void TableReader::fail(std::string_view name, const std::string& rule) const {
  const std::string key = key_of(shown(std::string(name)));
  const toml::node* node = table_.get(name);
  if (node == nullptr) fail_at(table_.source().begin.line, key + " " + rule);
  fail_at(node->source().begin.line, key + " = " + shown(*node) + " " + rule);
}

std::string TableReader::key_of(std::string_view name) const {
  return key_.empty() ? std::string(name) : key_ + "." + std::string(name);
}

void TableReader::fail_at(std::uint32_t line, const std::string& what) const {
  throw Error(ErrorCode::config_invalid, file_ + ":" + std::to_string(line) + ": " + what);
}

}  // namespace yumoe

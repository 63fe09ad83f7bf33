#pragma once
// Takes checked values out of one TOML table and complains about what is left. Private to simulate.

#include <toml++/toml.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/option.hpp"

namespace yumoe {

inline constexpr std::uint64_t kUnits = 1'000'000'000;  // rao in a TAO, and as many in an alpha
inline constexpr std::uint64_t kAmountMax = 21'000'000 * kUnits;

// A value that is not there is the fallback; without one it must be there.
class TableReader {
 public:
  // `key` is the table's own ("subnets.0"), empty for the file. All must outlive the reader.
  TableReader(const std::string& file, std::string key, const toml::table& table)
      : file_(file), key_(std::move(key)), table_(table) {}

  // Remembers that the name is a known one.
  const toml::node* find(std::string_view name);

  std::uint64_t whole(std::string_view name, std::optional<std::uint64_t> fallback,
                      std::uint64_t min, std::uint64_t max);
  bool flag(std::string_view name, std::optional<bool> fallback);
  std::string text(std::string_view name, std::optional<std::string> fallback);
  // Of an account or a subnet: 1 to 64 of a-z A-Z 0-9 . _ - /
  std::string name(std::string_view name);
  // Decimal TAO or alpha, as billionths.
  std::uint64_t amount(std::string_view name, std::optional<std::uint64_t> fallback);
  std::vector<std::uint16_t> numbers(std::string_view name);

  // The table's tables and lists of tables; none if the name is not there.
  std::optional<TableReader> table(std::string_view name);
  std::vector<TableReader> tables(std::string_view name);

  // The names of a table whose names are free.
  std::vector<std::string> names();

  // An option as LedgerOptions declares it.
  template <typename Value>
  void option(std::string_view name, Value& value, const OptionInfo& info) {
    const toml::node* node = find(name);
    if (node == nullptr) return;
    if constexpr (std::is_same_v<Value, double>) {
      if (!node->is_number()) fail(name, "must be a number");
      value = node->value<double>().value_or(0);
    } else {
      const auto exact = node->value_exact<Value>();
      if (!exact) fail(name, type_rule(value));
      value = *exact;
    }
    if (const std::string rule = broken_rule(value, info); !rule.empty()) fail(name, rule);
  }

  // Throws if the table holds a name nobody asked for.
  void finish() const;

  // "FILE:LINE: KEY = VALUE RULE", or "FILE:LINE: KEY RULE" where there is no such value.
  [[noreturn]] void fail(std::string_view name, const std::string& rule) const;

 private:
  static std::string type_rule(bool) { return "must be true or false"; }
  static std::string type_rule(std::int64_t) { return "must be a whole number"; }
  static std::string type_rule(const std::string&) { return "must be text in quotes"; }
  const toml::node& need(std::string_view name);
  std::string key_of(std::string_view name) const;
  [[noreturn]] void fail_at(std::uint32_t line, const std::string& what) const;

  const std::string& file_;
  std::string key_;
  const toml::table& table_;
  std::vector<std::string> known_;
};

}  // namespace yumoe

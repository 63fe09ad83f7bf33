#pragma once
// The one flat JSON object of a key file, read without letting a secret out of locked memory, as a
// general parser would.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/locked.hpp"

namespace yumoe {

class KeyfileJson {
 public:
  // Strings, numbers, true, false and null; nested values are passed over. Throws
  // Error{key_invalid}.
  explicit KeyfileJson(std::string_view text);

  // The text of a string, or a number's digits; nullptr if there is no such field or it is null.
  const LockedBytes* find(std::string_view name) const;
  bool has(std::string_view name) const;

 private:
  struct Field {
    std::string name;
    LockedBytes value;
    bool is_scalar;
  };
  std::vector<Field> fields_;
};

}  // namespace yumoe

#pragma once
// "Did you mean ...?": the name that somebody probably wanted to type.

#include <span>
#include <string>
#include <string_view>

namespace yumoe {

// The candidate with the smallest edit distance (insert, delete, replace, swap of neighbours), the
// first of equals; "" if none is within a third of the typed name's length, at least 2 edits.
std::string nearest_name(std::string_view typed, std::span<const std::string> candidates);

}  // namespace yumoe

#pragma once
// How bytes and wide integers look as text.

#include <optional>
#include <string>
#include <string_view>

#include "cluster/bytes.hpp"

namespace yumoe {

// Unicode's well-formed sequences only (no surrogates, no overlong forms).
bool is_utf8(ByteView bytes);

inline std::string to_0x(ByteView bytes) { return "0x" + to_hex(bytes); }

// nullopt unless the text is "0x" and an even number of hexadecimal digits.
std::optional<Bytes> parse_0x(std::string_view text);

// A little-endian integer as decimal digits; `is_signed`: two's complement.
std::string to_decimal(ByteView little_endian, bool is_signed);

// The inverse: decimal digits or "0x" (big-endian), with a leading '-' if `is_signed`. nullopt if
// the text is no integer or does not fit `size` bytes.
std::optional<Bytes> parse_integer(std::string_view text, std::size_t size, bool is_signed);

}  // namespace yumoe

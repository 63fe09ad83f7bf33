#include "chain/text.hpp"

#include <algorithm>
#include <cstring>

namespace yumoe {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void negate(Bytes& number) {
  unsigned carry = 1;
  for (auto& byte : number) {
    carry += static_cast<std::uint8_t>(~byte);
    byte = static_cast<std::uint8_t>(carry);
    carry >>= 8;
  }
}

bool is_negative(ByteView number) { return !number.empty() && (number.back() & 0x80) != 0; }

}  // namespace

bool is_utf8(ByteView bytes) {
  for (std::size_t i = 0; i < bytes.size();) {
    const std::uint8_t first = bytes[i];
    if (first < 0x80) {
      ++i;
      continue;
    }
    const std::size_t more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4 || i + more >= bytes.size()) return false;
    // The second byte's range shuts out overlong forms, surrogates and what lies above U+10FFFF.
    const std::uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const std::uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (bytes[i + 1] < low || bytes[i + 1] > high) return false;
    for (std::size_t j = 2; j <= more; ++j) {
      if ((bytes[i + j] & 0xc0) != 0x80) return false;
    }
    i += more + 1;
  }
  return true;
}

std::optional<Bytes> parse_0x(std::string_view text) {
  if (!text.starts_with("0x") || text.size() % 2 != 0) return std::nullopt;
  text.remove_prefix(2);
  Bytes bytes(text.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return bytes;
}

std::string to_decimal(ByteView little_endian, bool is_signed) {
  Bytes number(little_endian.begin(), little_endian.end());
  const bool negative = is_signed && is_negative(number);
  if (negative) negate(number);
  std::string digits;
  while (!number.empty()) {
    unsigned rest = 0;
    for (auto byte = number.rbegin(); byte != number.rend(); ++byte) {
      rest = rest << 8 | *byte;
      *byte = static_cast<std::uint8_t>(rest / 10);
      rest %= 10;
    }
    digits += static_cast<char>('0' + rest);
    while (!number.empty() && number.back() == 0) number.pop_back();
  }
  if (digits.empty()) digits = "0";
  while (digits.size() > 1 && digits.back() == '0') digits.pop_back();
  if (negative) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return digits;
}

std::optional<Bytes> parse_integer(std::string_view text, std::size_t size, bool is_signed) {
  const bool negative = is_signed && text.starts_with('-');
  if (negative) text.remove_prefix(1);
  const unsigned base = text.starts_with("0x") ? 16 : 10;
  if (base == 16) text.remove_prefix(2);
  if (text.empty() || text.size() > 200) return std::nullopt;
  Bytes number(size);
  for (const char c : text) {
    const int digit = hex_digit(c);
    if (digit < 0 || static_cast<unsigned>(digit) >= base) return std::nullopt;
    unsigned carry = static_cast<unsigned>(digit);
    for (auto& byte : number) {
      carry += byte * base;
      byte = static_cast<std::uint8_t>(carry);
      carry >>= 8;
    }
    if (carry != 0) return std::nullopt;
  }
  if (!is_signed) return number;
  const bool is_zero = std::all_of(number.begin(), number.end(), [](auto b) { return b == 0; });
  if (negative) negate(number);
  if (!is_zero && is_negative(number) != negative) return std::nullopt;
  return number;
}

}  // namespace yumoe

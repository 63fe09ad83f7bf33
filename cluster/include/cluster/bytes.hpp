#pragma once
// Byte strings, their hexadecimal form and their digest.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace yumoe {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;

inline ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

// Views numbers as their bytes in memory (little-endian hosts only, checked at compile time).
template <typename T>
ByteView as_bytes(std::span<T> values) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<const std::uint8_t*>(values.data()), values.size_bytes()};
}

// Lower-case hexadecimal without "0x".
std::string to_hex(ByteView bytes);

// Accepts an optional "0x". Throws Error{message_malformed} on odd length or another character.
Bytes from_hex(std::string_view hex);

// BLAKE2b with a 32-byte output, unkeyed: the one digest of this project and of the chain.
// Source: RFC 7693.
struct Digest {
  std::array<std::uint8_t, 32> bytes{};
  friend auto operator<=>(const Digest&, const Digest&) = default;
  std::string hex() const { return to_hex(bytes); }
};

Digest digest_of(ByteView bytes);

// Digest over several pieces as if they were one. Cost: about 1 GB/s a core.
class Digester {
 public:
  Digester();
  ~Digester();
  Digester(const Digester&) = delete;
  Digester& operator=(const Digester&) = delete;

  Digester& update(ByteView piece);
  Digest finish();  // once

 private:
  struct alignas(64) State {
    std::array<std::uint8_t, 384> bytes;
  };
  State state_;
};

}  // namespace yumoe

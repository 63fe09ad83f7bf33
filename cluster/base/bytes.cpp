#include "cluster/bytes.hpp"

#include <sodium.h>

#include <bit>
#include <new>

#include "cluster/error.hpp"

namespace yumoe {

static_assert(std::endian::native == std::endian::little, "files and messages are little-endian");

namespace {

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string to_hex(ByteView bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const std::uint8_t byte : bytes) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

Bytes from_hex(std::string_view hex) {
  if (hex.starts_with("0x")) hex.remove_prefix(2);
  if (hex.size() % 2 != 0) throw Error(ErrorCode::message_malformed, "hexadecimal of odd length");
  Bytes bytes(hex.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const int high = digit_of(hex[2 * i]);
    const int low = digit_of(hex[2 * i + 1]);
    if (high < 0 || low < 0) {
      throw Error(ErrorCode::message_malformed, "character that is not hexadecimal");
    }
    bytes[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return bytes;
}

Digest digest_of(ByteView bytes) {
  Digest digest;
  crypto_generichash(digest.bytes.data(), digest.bytes.size(), bytes.data(), bytes.size(), nullptr,
                     0);
  return digest;
}

static_assert(sizeof(crypto_generichash_state) <= 384);

Digester::Digester() {
  crypto_generichash_init(reinterpret_cast<crypto_generichash_state*>(&state_), nullptr, 0, 32);
}
Digester::~Digester() { sodium_memzero(&state_, sizeof state_); }

Digester& Digester::update(ByteView piece) {
  crypto_generichash_update(reinterpret_cast<crypto_generichash_state*>(&state_), piece.data(),
                            piece.size());
  return *this;
}

Digest Digester::finish() {
  Digest digest;
  crypto_generichash_final(reinterpret_cast<crypto_generichash_state*>(&state_),
                           digest.bytes.data(), digest.bytes.size());
  return digest;
}

}  // namespace yumoe

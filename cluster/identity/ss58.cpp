#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cluster/error.hpp"
#include "cluster/identity.hpp"

namespace yumoe {
namespace {

constexpr std::string_view kAlphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
constexpr std::size_t kChecksumBytes = 2;
constexpr std::size_t kAddressLengthMax = 64;  // a 32-byte key needs at most 50

std::array<std::uint8_t, kChecksumBytes> checksum(ByteView body) {
  crypto_generichash_state state;
  std::array<std::uint8_t, 64> hash;
  crypto_generichash_init(&state, nullptr, 0, hash.size());
  crypto_generichash_update(&state, reinterpret_cast<const std::uint8_t*>("SS58PRE"), 7);
  crypto_generichash_update(&state, body.data(), body.size());
  crypto_generichash_final(&state, hash.data(), hash.size());
  return {hash[0], hash[1]};
}

std::string to_base58(ByteView bytes) {
  std::vector<std::uint8_t> digits;
  for (const std::uint8_t byte : bytes) {
    unsigned carry = byte;
    for (auto& digit : digits) {
      carry += digit * 256u;
      digit = static_cast<std::uint8_t>(carry % 58);
      carry /= 58;
    }
    for (; carry != 0; carry /= 58) digits.push_back(static_cast<std::uint8_t>(carry % 58));
  }
  std::string text;
  for (std::size_t i = 0; i < bytes.size() && bytes[i] == 0; ++i) text += kAlphabet[0];
  for (auto digit = digits.rbegin(); digit != digits.rend(); ++digit) text += kAlphabet[*digit];
  return text;
}

[[noreturn]] void refuse(std::string_view address, const std::string& why) {
  // An address can be pasted wrongly, a secret even: quote no more than its beginning.
  throw Error(ErrorCode::key_invalid,
              "reading SS58 address '" + std::string(address.substr(0, 8)) + "...': " + why);
}

Bytes from_base58(std::string_view text) {
  Bytes little;
  for (const char letter : text) {
    const std::size_t value = kAlphabet.find(letter);
    if (value == kAlphabet.npos) refuse(text, "a character is not base58: copy the address again");
    unsigned carry = static_cast<unsigned>(value);
    for (auto& byte : little) {
      carry += byte * 58u;
      byte = static_cast<std::uint8_t>(carry);
      carry >>= 8;
    }
    for (; carry != 0; carry >>= 8) little.push_back(static_cast<std::uint8_t>(carry));
  }
  for (std::size_t i = 0; i < text.size() && text[i] == kAlphabet[0]; ++i) little.push_back(0);
  std::reverse(little.begin(), little.end());
  return little;
}

}  // namespace

std::string to_ss58(const PublicKey& key, std::uint16_t prefix) {
  if (prefix >= 1 << 14) {
    throw Error(ErrorCode::key_invalid,
                "writing an SS58 address: prefix " + std::to_string(prefix) + " is above 16383");
  }
  Bytes body;
  if (prefix < 64) {
    body.push_back(static_cast<std::uint8_t>(prefix));
  } else {  // two bytes, bits in SS58's own order
    body.push_back(static_cast<std::uint8_t>((prefix & 0xfc) >> 2 | 0x40));
    body.push_back(static_cast<std::uint8_t>(prefix >> 8 | (prefix & 3) << 6));
  }
  body.insert(body.end(), key.bytes.begin(), key.bytes.end());
  const auto check = checksum(body);
  body.insert(body.end(), check.begin(), check.end());
  return to_base58(body);
}

PublicKey from_ss58(std::string_view address, KeyType type) {
  if (address.empty() || address.size() > kAddressLengthMax) {
    refuse(address,
           "it has " + std::to_string(address.size()) + " characters: an address has 46 to 50");
  }
  const Bytes bytes = from_base58(address);
  const std::size_t prefix_bytes = !bytes.empty() && bytes[0] >= 64 ? 2 : 1;
  if (bytes.size() != prefix_bytes + 32 + kChecksumBytes || bytes[0] >= 128) {
    refuse(address, "its length is wrong: characters are missing or too many");
  }
  const ByteView body(bytes.data(), prefix_bytes + 32);
  const auto check = checksum(body);
  if (!std::equal(check.begin(), check.end(), bytes.end() - kChecksumBytes)) {
    refuse(address, "its checksum is wrong: a character is mistaken");
  }
  PublicKey key{type, {}};
  std::copy_n(bytes.begin() + static_cast<std::ptrdiff_t>(prefix_bytes), 32, key.bytes.begin());
  return key;
}

}  // namespace yumoe

#include "identity/mnemonic.hpp"

#include <openssl/evp.h>
#include <sodium.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr std::array<std::string_view, 2048> kWords = {
#include "identity/bip39_english.inc"
};
constexpr std::size_t kWordBits = 11;

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  constexpr std::string_view kSpace = " \t\r\n";
  for (std::size_t at = text.find_first_not_of(kSpace); at != text.npos && parts.size() <= 24;) {
    const std::size_t end = std::min(text.find_first_of(kSpace, at), text.size());
    parts.push_back(text.substr(at, end - at));
    at = text.find_first_not_of(kSpace, end);
  }
  return parts;
}

std::size_t index_of(std::string_view word, std::size_t place) {
  const auto* found = std::lower_bound(kWords.begin(), kWords.end(), word);
  if (found == kWords.end() || *found != word) {
    throw Error(ErrorCode::key_invalid, "reading a mnemonic: word " + std::to_string(place + 1) +
                                            " is not in the English list: check its spelling");
  }
  return static_cast<std::size_t>(found - kWords.begin());
}

bool bit_at(ByteView bytes, std::size_t bit) { return bytes[bit / 8] >> (7 - bit % 8) & 1; }

}  // namespace

LockedBytes entropy_from_mnemonic(std::string_view words) {
  const auto parts = split(words);
  if (parts.size() < 12 || parts.size() > 24 || parts.size() % 3 != 0) {
    throw Error(ErrorCode::key_invalid,
                "reading a mnemonic: it has " +
                    (parts.size() > 24 ? "more than 24" : std::to_string(parts.size())) +
                    " words: give all 12, 15, 18, 21 or 24");
  }
  const std::size_t bits = parts.size() * kWordBits, checksum_bits = bits / 33;
  LockedBytes all((bits + 7) / 8);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const std::size_t index = index_of(parts[i], i);
    for (std::size_t b = 0; b < kWordBits; ++b) {
      const std::size_t at = i * kWordBits + b;
      all[at / 8] |= static_cast<std::uint8_t>((index >> (kWordBits - 1 - b) & 1) << (7 - at % 8));
    }
  }
  const std::size_t entropy_bytes = (bits - checksum_bits) / 8;
  const auto shift = 8 - checksum_bits;
  const std::uint8_t given = all[entropy_bytes] >> shift;
  all.shrink(entropy_bytes);
  LockedBytes hash(crypto_hash_sha256_BYTES);
  crypto_hash_sha256(hash.data(), all.data(), all.size());
  if (hash[0] >> shift != given) {
    throw Error(ErrorCode::key_invalid,
                "reading a mnemonic: its checksum is wrong: a word is mistaken or out of place");
  }
  return all;
}

LockedBytes mnemonic_from_entropy(ByteView entropy) {
  YUMOE_ASSERT(entropy.size() >= 16 && entropy.size() <= 32 && entropy.size() % 4 == 0);
  LockedBytes all(entropy.size() + 1);
  std::copy(entropy.begin(), entropy.end(), all.data());
  LockedBytes hash(crypto_hash_sha256_BYTES);
  crypto_hash_sha256(hash.data(), entropy.data(), entropy.size());
  all[entropy.size()] = hash[0];
  const std::size_t count = entropy.size() * 8 * 33 / 32 / kWordBits;
  LockedBytes text(count * 9);
  std::size_t length = 0;
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t index = 0;
    for (std::size_t b = 0; b < kWordBits; ++b) {
      index = index << 1 | static_cast<std::size_t>(bit_at(all, i * kWordBits + b));
    }
    if (i > 0) text[length++] = ' ';
    for (const char letter : kWords[index]) text[length++] = static_cast<std::uint8_t>(letter);
  }
  text.shrink(length);
  return text;
}

LockedBytes seed_from_mnemonic(std::string_view words, std::string_view password) {
  const LockedBytes entropy = entropy_from_mnemonic(words);
  constexpr std::string_view kPrefix = "mnemonic";
  LockedBytes salt(kPrefix.size() + password.size());
  std::copy(kPrefix.begin(), kPrefix.end(), salt.data());
  std::copy(password.begin(), password.end(), salt.data() + kPrefix.size());
  LockedBytes seed(64);
  const int done = PKCS5_PBKDF2_HMAC(reinterpret_cast<const char*>(entropy.data()),
                                     static_cast<int>(entropy.size()), salt.data(),
                                     static_cast<int>(salt.size()), 2048, EVP_sha512(),
                                     static_cast<int>(seed.size()), seed.data());
  YUMOE_ASSERT(done == 1);
  seed.shrink(32);
  return seed;
}

}  // namespace yumoe

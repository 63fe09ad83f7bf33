#pragma once
// Who somebody is: a hotkey, which signs; its SS58 address, which people read.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "cluster/bytes.hpp"

namespace yumoe {

enum class KeyType : std::uint8_t { ed25519 = 0, sr25519 = 1 };

using Signature = std::array<std::uint8_t, 64>;

struct PublicKey {
  KeyType type = KeyType::sr25519;
  std::array<std::uint8_t, 32> bytes{};
  friend auto operator<=>(const PublicKey&, const PublicKey&) = default;
};

// SS58 with network prefix 42 unless told otherwise. Source: SS58 registry; checksum BLAKE2b-512.
std::string to_ss58(const PublicKey& key, std::uint16_t prefix = 42);

// The address does not tell the key's type: the caller says which is meant.
// Throws Error{key_invalid} naming what is wrong (length, checksum, character).
PublicKey from_ss58(std::string_view address, KeyType type = KeyType::sr25519);

// Holds a private key in locked memory, wiped when destroyed; never printed, never copied.
class Keypair {
 public:
  // A fresh key from the system's random source.
  static Keypair generate(KeyType type);
  // From a 32-byte mini-secret (sr25519) or seed (ed25519). Throws Error{key_invalid} on length.
  static Keypair from_seed(KeyType type, ByteView seed);
  // From a 64-byte sr25519 expanded key (canonical scalar, nonce) as wallet files keep it.
  static Keypair from_expanded(ByteView scalar_and_nonce);
  // BIP39 words (12, 15, 18, 21 or 24, English), substrate's derivation of the seed.
  static Keypair from_mnemonic(KeyType type, std::string_view words,
                               std::string_view password = "");
  // "//Alice", "words//hard/soft///password": substrate's secret URI.
  static Keypair from_uri(KeyType type, std::string_view uri);

  Keypair(Keypair&&) noexcept;
  Keypair& operator=(Keypair&&) noexcept;
  ~Keypair();

  const PublicKey& public_key() const noexcept { return public_key_; }

  // sr25519: schnorrkel with context "substrate" and a fresh witness, so two signatures differ.
  // ed25519: RFC 8032, deterministic.
  Signature sign(ByteView message) const;

 private:
  struct Secret;
  friend struct KeypairSecret;  // identity/keypair_secret.hpp: wallet files, which must hold it
  Keypair(PublicKey public_key, std::unique_ptr<Secret> secret);
  PublicKey public_key_;
  std::unique_ptr<Secret> secret_;
};

// Checks one signature. Never throws: a malformed key or signature is simply not valid.
// Cost: at least 10,000 a second a core.
bool verify(const PublicKey& key, ByteView message, const Signature& signature) noexcept;

}  // namespace yumoe

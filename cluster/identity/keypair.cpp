#include <sodium.h>

#include <cstring>

#include "cluster/error.hpp"
#include "cluster/identity.hpp"
#include "identity/keypair_secret.hpp"
#include "identity/mnemonic.hpp"
#include "identity/secret_uri.hpp"
#include "identity/sr25519.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kSeedBytes = 32;

// "Ed25519HDKD" as a SCALE string, the seed, the junction: hashed. ed25519 has no soft junctions.
LockedBytes derive_ed25519(ByteView seed, const Junction& junction) {
  if (!junction.hard) {
    throw Error(ErrorCode::key_invalid,
                "deriving an ed25519 key: it has hard junctions only: write //name, not /name");
  }
  constexpr std::string_view kLabel =
      "\x2c"
      "Ed25519HDKD";
  LockedBytes preimage(kLabel.size() + kSeedBytes + junction.chain_code.size());
  std::memcpy(preimage.data(), kLabel.data(), kLabel.size());
  std::memcpy(preimage.data() + kLabel.size(), seed.data(), kSeedBytes);
  std::memcpy(preimage.data() + kLabel.size() + kSeedBytes, junction.chain_code.data(),
              junction.chain_code.size());
  LockedBytes derived(kSeedBytes);
  crypto_generichash(derived.data(), derived.size(), preimage.data(), preimage.size(), nullptr, 0);
  return derived;
}

LockedBytes seed_from_hex(std::string_view hex) {
  hex.remove_prefix(2);
  LockedBytes seed(kSeedBytes);
  std::size_t length = 0;
  const char* end = nullptr;
  if (hex.size() != 2 * kSeedBytes ||
      sodium_hex2bin(seed.data(), seed.size(), hex.data(), hex.size(), nullptr, &length, &end) !=
          0 ||
      length != kSeedBytes || end != hex.data() + hex.size()) {
    throw Error(ErrorCode::key_invalid,
                "reading a hexadecimal seed: it must be 0x and 64 hexadecimal digits");
  }
  return seed;
}

}  // namespace

LockedBytes seed_bytes_of_uri_phrase(std::string_view phrase, std::string_view password) {
  if (phrase.starts_with("0x")) return seed_from_hex(phrase);
  return seed_from_mnemonic(phrase.empty() ? kDevelopmentPhrase : phrase, password);
}

Keypair::Keypair(PublicKey public_key, std::unique_ptr<Secret> secret)
    : public_key_(public_key), secret_(std::move(secret)) {}
Keypair::Keypair(Keypair&&) noexcept = default;
Keypair& Keypair::operator=(Keypair&&) noexcept = default;
Keypair::~Keypair() = default;

Keypair Keypair::generate(KeyType type) {
  LockedBytes seed(kSeedBytes);
  randombytes_buf(seed.data(), seed.size());
  return from_seed(type, seed);
}

Keypair Keypair::from_seed(KeyType type, ByteView seed) {
  if (seed.size() != kSeedBytes) {
    throw Error(ErrorCode::key_invalid, "making a key from a seed of " +
                                            std::to_string(seed.size()) + " bytes: it needs 32");
  }
  require_sodium();
  if (type == KeyType::sr25519) return from_expanded(sr25519::expand(seed));
  PublicKey key{KeyType::ed25519, {}};
  auto secret = std::make_unique<Secret>(Secret{LockedBytes(crypto_sign_SECRETKEYBYTES)});
  crypto_sign_seed_keypair(key.bytes.data(), secret->key.data(), seed.data());
  return {key, std::move(secret)};
}

Keypair Keypair::from_expanded(ByteView scalar_and_nonce) {
  require_sodium();
  if (!sr25519::is_expanded_key(scalar_and_nonce)) {
    throw Error(ErrorCode::key_invalid,
                "making a key from an expanded sr25519 secret: it needs 64 bytes whose first 32 "
                "are a canonical scalar (polkadot-js keeps another form)");
  }
  auto secret = std::make_unique<Secret>(Secret{LockedBytes(scalar_and_nonce)});
  const PublicKey key{KeyType::sr25519, sr25519::public_key(secret->key)};
  return {key, std::move(secret)};
}

Keypair Keypair::from_mnemonic(KeyType type, std::string_view words, std::string_view password) {
  return from_seed(type, seed_from_mnemonic(words, password));
}

Keypair Keypair::from_uri(KeyType type, std::string_view uri) {
  require_sodium();
  const SecretUri parsed = parse_secret_uri(uri);
  LockedBytes seed = seed_bytes_of_uri_phrase(parsed.phrase, parsed.password);
  if (type == KeyType::ed25519) {
    for (const Junction& junction : parsed.path) seed = derive_ed25519(seed, junction);
    return from_seed(type, seed);
  }
  LockedBytes expanded = sr25519::expand(seed);
  for (const Junction& junction : parsed.path) {
    expanded = junction.hard ? sr25519::expand(sr25519::derive_hard(expanded, junction.chain_code))
                             : sr25519::derive_soft(expanded, sr25519::public_key(expanded),
                                                    junction.chain_code);
  }
  return from_expanded(expanded);
}

Signature Keypair::sign(ByteView message) const {
  YUMOE_ASSERT(secret_ != nullptr);
  if (public_key_.type == KeyType::sr25519) {
    return sr25519::sign(secret_->key, public_key_.bytes, message);
  }
  Signature signature;
  crypto_sign_detached(signature.data(), nullptr, message.data(), message.size(),
                       secret_->key.data());
  return signature;
}

bool verify(const PublicKey& key, ByteView message, const Signature& signature) noexcept {
  switch (key.type) {
    case KeyType::sr25519: return sr25519::verify(key.bytes, message, signature);
    case KeyType::ed25519:
      return crypto_sign_verify_detached(signature.data(), message.data(), message.size(),
                                         key.bytes.data()) == 0;
  }
  return false;
}

ByteView KeypairSecret::of(const Keypair& pair) {
  const ByteView key = pair.secret_->key;
  return pair.public_key().type == KeyType::sr25519 ? key : key.first(kSeedBytes);
}

}  // namespace yumoe

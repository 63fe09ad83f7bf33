#include "identity/sr25519.hpp"

#include <sodium.h>

#include <cstring>

#include "cluster/error.hpp"
#include "identity/ristretto.hpp"
#include "identity/transcript.hpp"

namespace yumoe::sr25519 {
namespace {

Key32 scalar_from_wide(const std::array<std::uint8_t, 64>& wide) {
  Key32 scalar;
  crypto_core_ristretto255_scalar_reduce(scalar.data(), wide.data());
  return scalar;
}

bool is_canonical(const Key32& scalar) {
  std::array<std::uint8_t, 64> wide{};
  const WipeAtEnd wipe(wide);
  std::memcpy(wide.data(), scalar.data(), 32);
  Key32 reduced = scalar_from_wide(wide);
  const WipeAtEnd wipe_reduced(reduced);
  return sodium_memcmp(reduced.data(), scalar.data(), 32) == 0;
}

Transcript signing_transcript(const Key32& public_key, ByteView message) {
  static const Transcript substrate = [] {
    Transcript start("SigningContext");
    start.append("", as_bytes("substrate"));
    return start;
  }();
  Transcript transcript = substrate;
  transcript.append("sign-bytes", message);
  transcript.append("proto-name", as_bytes("Schnorr-sig"));
  transcript.append("sign:pk", public_key);
  return transcript;
}

Key32 challenge_scalar(Transcript& transcript, std::string_view label) {
  std::array<std::uint8_t, 64> wide;
  const WipeAtEnd wipe(wide);
  transcript.challenge(label, wide);
  return scalar_from_wide(wide);
}

// The per-signature nonce: bound to transcript, key and fresh randomness.
Key32 witness_scalar(Transcript transcript, ByteView nonce_seed) {
  const WipeAtEnd wipe_transcript(transcript);
  std::array<std::uint8_t, 32> randomness;
  const WipeAtEnd wipe_randomness(randomness);
  randombytes_buf(randomness.data(), randomness.size());
  transcript.become_random_source("signing", nonce_seed, randomness);
  std::array<std::uint8_t, 64> wide;
  const WipeAtEnd wipe(wide);
  transcript.random_bytes(wide);
  return scalar_from_wide(wide);
}

Transcript derivation_transcript(const Key32& chain_code) {
  Transcript transcript("SchnorrRistrettoHDKD");
  transcript.append("sign-bytes", {});
  transcript.append("chain-code", chain_code);
  return transcript;
}

}  // namespace

LockedBytes expand(ByteView mini_secret) {
  YUMOE_ASSERT(mini_secret.size() == 32);
  LockedBytes key(64);
  crypto_hash_sha512(key.data(), mini_secret.data(), mini_secret.size());
  // ed25519's clamp, then divided by the cofactor: ristretto needs no cofactor in the scalar.
  key[0] &= 248;
  key[31] &= 63;
  key[31] |= 64;
  std::uint8_t carry = 0;
  for (int i = 31; i >= 0; --i) {
    const std::uint8_t byte = key[i];
    key[i] = static_cast<std::uint8_t>(byte >> 3 | carry << 5);
    carry = byte & 7;
  }
  return key;
}

bool is_expanded_key(ByteView expanded) {
  if (expanded.size() != 64 || sodium_is_zero(expanded.data(), 32) != 0) return false;
  Key32 scalar;
  const WipeAtEnd wipe(scalar);
  std::memcpy(scalar.data(), expanded.data(), 32);
  return is_canonical(scalar);
}

Key32 public_key(ByteView expanded) {
  Key32 point;
  if (crypto_scalarmult_ristretto255_base(point.data(), expanded.data()) != 0) {
    throw Error(ErrorCode::key_invalid, "deriving a public key: the private scalar is zero");
  }
  return point;
}

Signature sign(ByteView expanded, const Key32& public_key, ByteView message) {
  Transcript transcript = signing_transcript(public_key, message);
  Key32 nonce = witness_scalar(transcript, expanded.subspan(32, 32));
  const WipeAtEnd wipe_nonce(nonce);
  Key32 commitment;
  YUMOE_ASSERT(crypto_scalarmult_ristretto255_base(commitment.data(), nonce.data()) == 0);
  transcript.append("sign:R", commitment);
  const Key32 challenge = challenge_scalar(transcript, "sign:c");
  Key32 product;
  const WipeAtEnd wipe_product(product);
  crypto_core_ristretto255_scalar_mul(product.data(), challenge.data(), expanded.data());
  Key32 answer;
  crypto_core_ristretto255_scalar_add(answer.data(), product.data(), nonce.data());
  Signature signature;
  std::memcpy(signature.data(), commitment.data(), 32);
  std::memcpy(signature.data() + 32, answer.data(), 32);
  signature[63] |= 0x80;  // marks schnorrkel
  return signature;
}

bool verify(const Key32& public_key, ByteView message, const Signature& signature) noexcept {
  if ((signature[63] & 0x80) == 0) return false;
  Key32 commitment, answer;
  std::memcpy(commitment.data(), signature.data(), 32);
  std::memcpy(answer.data(), signature.data() + 32, 32);
  answer[31] &= 0x7f;
  if (!is_canonical(answer)) return false;
  Transcript transcript = signing_transcript(public_key, message);
  transcript.append("sign:R", commitment);
  const Key32 challenge = challenge_scalar(transcript, "sign:c");
  return ristretto::equals_combination(commitment, answer, challenge, public_key);
}

LockedBytes derive_hard(ByteView expanded, const Key32& chain_code) {
  Transcript transcript = derivation_transcript(chain_code);
  const WipeAtEnd wipe(transcript);
  transcript.append("secret-key", expanded.first(32));
  LockedBytes mini_secret(32);
  transcript.challenge("HDKD-hard", mini_secret.span());
  return mini_secret;
}

LockedBytes derive_soft(ByteView expanded, const Key32& public_key, const Key32& chain_code) {
  Transcript transcript = derivation_transcript(chain_code);
  transcript.append("public-key", public_key);
  const Key32 offset = challenge_scalar(transcript, "HDKD-scalar");
  LockedBytes key(64);
  crypto_core_ristretto255_scalar_add(key.data(), expanded.data(), offset.data());
  // The nonce seed is ours alone; it only has to be secret and different for each key.
  crypto_generichash_state state;
  const WipeAtEnd wipe(state);
  crypto_generichash_init(&state, nullptr, 0, 32);
  crypto_generichash_update(&state, expanded.data() + 32, 32);
  crypto_generichash_update(&state, key.data(), 32);
  crypto_generichash_final(&state, key.data() + 32, 32);
  return key;
}

}  // namespace yumoe::sr25519

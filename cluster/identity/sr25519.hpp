#pragma once
// schnorrkel: Schnorr signatures over ristretto255 with Merlin transcripts, and its key derivation.
// Source: schnorrkel 0.11 (w3f); group work on secrets is libsodium's, constant-time.

#include <array>
#include <cstdint>

#include "cluster/bytes.hpp"
#include "cluster/identity.hpp"
#include "cluster/locked.hpp"

namespace yumoe::sr25519 {

using Key32 = std::array<std::uint8_t, 32>;

// An expanded key is 64 bytes: a canonical scalar, then the nonce seed.
LockedBytes expand(ByteView mini_secret);

// Tells whether the scalar is canonical and not zero.
bool is_expanded_key(ByteView expanded);

Key32 public_key(ByteView expanded);
Signature sign(ByteView expanded, const Key32& public_key, ByteView message);
bool verify(const Key32& public_key, ByteView message, const Signature& signature) noexcept;

// "//junction": a new mini-secret. "/junction": a new expanded key whose public key anyone can
// derive from the parent's public key.
LockedBytes derive_hard(ByteView expanded, const Key32& chain_code);
LockedBytes derive_soft(ByteView expanded, const Key32& public_key, const Key32& chain_code);

}  // namespace yumoe::sr25519

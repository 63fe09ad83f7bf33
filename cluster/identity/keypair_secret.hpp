#pragma once
// What Keypair hides, for the parts of this library that write wallet files.

#include "cluster/identity.hpp"
#include "cluster/locked.hpp"

namespace yumoe {

struct Keypair::Secret {
  // sr25519: scalar, nonce seed. ed25519: seed, public key (libsodium's form).
  LockedBytes key;
};

struct KeypairSecret {
  // The wallet's privateKey: 64 bytes for sr25519, the 32-byte seed for ed25519.
  static ByteView of(const Keypair& pair);
};

// A seed is what a mini-secret is for sr25519 and RFC 8032's for ed25519.
LockedBytes seed_bytes_of_uri_phrase(std::string_view phrase, std::string_view password);

}  // namespace yumoe

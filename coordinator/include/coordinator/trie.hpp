#pragma once
// The chain's base-16 Merkle trie: state roots and proofs that a key has a value or has none.
// Source: Polkadot specification, appendix "Merkle-Patricia trie"; state versions 0 and 1.

#include <map>
#include <optional>
#include <span>

#include "cluster/bytes.hpp"

namespace yumoe {

enum class StateVersion : std::uint8_t { v0 = 0, v1 = 1 };  // 1: values over 32 bytes are hashed

// The root of a complete set of entries.
Digest trie_root(const std::map<Bytes, Bytes>& entries, StateVersion version);

// Reads `key` from a proof (the encoded nodes on its path, any order). nullopt: the proof shows
// that the key is absent. Throws Error{digest_mismatch} if a node is missing, and
// Error{scale_malformed} if one is not a trie node. Bounded by the size of the proof.
std::optional<Bytes> read_proof(const Digest& root, std::span<const Bytes> nodes, ByteView key);

}  // namespace yumoe

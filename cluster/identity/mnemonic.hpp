#pragma once
// BIP-0039 phrases (English) and substrate's way from a phrase to a seed.

#include <string_view>

#include "cluster/locked.hpp"

namespace yumoe {

// The 16, 20, 24, 28 or 32 bytes a phrase stands for. Throws Error{key_invalid} naming what is
// wrong (count, unknown word by its place, checksum), never the words themselves.
LockedBytes entropy_from_mnemonic(std::string_view words);

// The phrase of 16, 20, 24, 28 or 32 bytes.
LockedBytes mnemonic_from_entropy(ByteView entropy);

// Substrate's mini-secret: PBKDF2-HMAC-SHA512 over the entropy (not the phrase), first 32 bytes.
LockedBytes seed_from_mnemonic(std::string_view words, std::string_view password);

}  // namespace yumoe

#pragma once
// ristretto255 for public values only, and quickly: libsodium's is constant-time throughout, which
// verification does not need and pays for four times over. Never given a secret.

#include <array>
#include <cstdint>

namespace yumoe::ristretto {

using Encoded = std::array<std::uint8_t, 32>;

// Tells whether `point` encodes s*B - c*A, where A = `key`. False if `key` is not canonical or is
// the identity. s and c are canonical scalars, little-endian. Variable time. Cost: about 40 us.
// Source: RFC 9496; curve formulae of Hisil et al. 2008.
bool equals_combination(const Encoded& point, const Encoded& s, const Encoded& c,
                        const Encoded& key) noexcept;

}  // namespace yumoe::ristretto

#pragma once
// An update on the wire, little-endian; varint = LEB128, at most 5 bytes here.
//
//   u8      version << 4 | value bits b
//   varint  elements of a group; varint number of experts; varint first expert, then each
//           difference to the one before, less one
//   bits    one a tensor of layout.tensors_of(experts), low bit first, padded to a byte: has a section
//   for each tensor with a section, for each group of its elements in order:
//     varint  n, values kept; if zero the group ends here
//     u8      k
//     varint  bytes of `high`
//     u16[2^b] bfloat16 each code decodes to
//     high    one a value: zeros = gap >> k, then a one; padded with zeros to a byte
//     low     n fields of k + b bits: code, then gap & (2^k - 1) above it; padded to a byte
//   u64     XXH3 of all before, seeded by the layout's digest
//
// gap = elements of the group between a kept one and the kept one before it. This is Golomb-Rice with
// k chosen a group; its unary and its binary part lie apart, so that decoding has no chain of
// dependent shifts: the i-th value's place is (place of the i-th one - i) * 2^k + sum of low parts + i.

#include <bit>
#include <cstdint>
#include <cstring>

#include "cluster/bytes.hpp"
#include "codec/levels.hpp"
#include "router/codec.hpp"

namespace yumoe::codec {

static_assert(std::endian::native == std::endian::little);

inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::uint32_t kGroupElementsMax = 1u << 18;
inline constexpr std::uint32_t kRiceMax = 18;
inline constexpr std::size_t kChecksumBytes = 8;

inline std::uint64_t load64(const std::uint8_t* at) {
  std::uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

std::uint64_t checksum_of(const Layout& layout, ByteView bytes);

}  // namespace yumoe::codec

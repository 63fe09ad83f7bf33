#pragma once
// Arithmetic on whole rows of shares, written once and compiled several times: for any processor,
// for AVX2 and for AVX-512. All give the same bits: a quotient is estimated in double precision and
// then corrected to the exact floor with integers.
//
// A share is an integer of 2^-32 from 0 to 2^32 (1.0). Where it is kept in 32 bits, 2^32 - 1 stands
// for 1.0: a normalised row of u16 weights never holds 2^32 - 1 itself (that would need a sum over
// 2^32). Arrays have `count` elements and do not overlap.

#include <cstddef>
#include <cstdint>

namespace yumoe::ledger {

inline constexpr std::uint64_t kShareOne = std::uint64_t{1} << 32;
inline constexpr std::uint32_t kPackedOne = ~std::uint32_t{0};
inline constexpr std::size_t kTile = 64;      // columns of a tile
inline constexpr std::size_t kRunBlock = 16;  // entries copied at once

// A cell that was written holds kSeen beside its u16 value.
inline constexpr std::uint32_t kSeen = 0x10000;

constexpr std::uint64_t unpack_share(std::uint32_t packed) {
  return packed + std::uint64_t{packed == kPackedOne};
}
constexpr std::uint32_t pack_share(std::uint64_t share) {
  return share >= kShareOne ? kPackedOne : static_cast<std::uint32_t>(share);
}
// floor(a * b / 2^32) of two shares.
constexpr std::uint64_t multiply_shares(std::uint64_t a, std::uint64_t b) {
  const std::uint64_t low = a & 0xffffffffU;
  return ((low * (b & 0xffffffffU)) >> 32) + (b & (0 - (a >> 32))) + (low & (0 - (b >> 32)));
}

// floor(raw * 2^32 / 65535), since 2^32 = 65535 * 65537 + 1.
constexpr std::uint64_t share_of_raw(std::uint16_t raw) {
  return std::uint64_t{raw} * 65537 + (raw == 65535);
}

// A column's divisor with the reciprocal 2^32 / divisor. Zero sums divide by 1: all numbers over
// them are 0.
struct Divisors {
  const std::uint64_t* by;
  const double* reciprocal;
};

// How weights become the weights that bonds follow.
struct BondWeights {
  const std::uint32_t* limit;  // consensus
  std::uint32_t penalty;       // packed share: 1.0 clipped, 0 as they are, else in between
};

struct RowKernels {
  // Reads entries (uid in the low, value in the high half) while their uids follow one another, to
  // cells from the first uid on, in blocks of kRunBlock. Returns how many; seen collects what the
  // cells held.
  std::size_t (*take_run)(const void* entries, std::size_t count, std::uint32_t* cells,
                          std::uint32_t& seen);
  // Entries first, first + 1, ... with these values; returns whether every bond is more than 0.
  bool (*make_entries)(const std::uint64_t* bond, const std::uint16_t* value, std::uint32_t first,
                       void* entries, std::size_t count);
  // out = cell value / sum of the values, packed; all 0 where the sum is 0.
  void (*normalize)(const std::uint32_t* cells, std::uint32_t* out, std::size_t count);
  // out = cell value; sum += it.
  void (*take_raw)(const std::uint32_t* cells, std::uint16_t* out, std::uint64_t* sum,
                   std::size_t count);
  // rank += share * min(weight, limit); returns the sum of min(weight, limit).
  std::uint64_t (*clip_and_rank)(const std::uint32_t* weight, const std::uint32_t* limit,
                                 std::uint64_t share, std::uint64_t* rank, std::size_t count);
  // out = weights for bonds.
  void (*bond_weights)(const std::uint32_t* weight, BondWeights rule, std::uint32_t* out,
                       std::size_t count);
  // sum += share * weight.
  void (*add_scaled)(const std::uint32_t* weight, std::uint64_t share, std::uint64_t* sum,
                     std::size_t count);
  // bond = rate * (share * weight / fresh_sum) + (1 - rate) * raw / raw_sum; bond_sum += bond.
  void (*relative_bonds)(const std::uint32_t* weight, std::uint64_t share, Divisors fresh_sum,
                         const std::uint16_t* raw, Divisors raw_sum, const std::uint64_t* rate,
                         std::uint64_t* bond, std::uint64_t* bond_sum, std::size_t count);
  // bond = rate * weight + (1 - rate) * raw / 65535; bond_sum += bond.
  void (*absolute_bonds)(const std::uint32_t* weight, const std::uint16_t* raw, std::uint64_t rate,
                         std::uint64_t* bond, std::uint64_t* bond_sum, std::size_t count);
  // Returns the sum of (bond / bond_sum) * incentive.
  std::uint64_t (*dividend)(const std::uint64_t* bond, Divisors bond_sum,
                            const std::uint64_t* incentive, std::size_t count);
  // As dividend; bond becomes bond / bond_sum and largest the maximum of both.
  std::uint64_t (*dividend_and_share)(std::uint64_t* bond, Divisors bond_sum,
                                      const std::uint64_t* incentive, std::uint64_t* largest,
                                      std::size_t count);
  // out = u16 of bond / largest.
  void (*quantize_relative)(const std::uint64_t* bond, Divisors largest, std::uint16_t* out,
                            std::size_t count);
  // out = u16 of bond.
  void (*quantize)(const std::uint64_t* bond, std::uint16_t* out, std::size_t count);
  // A tile is rows of kTile cells. Finds the smallest and the largest weight of each of its
  // columns.
  void (*find_range)(const std::uint32_t* tile, std::size_t row_count, std::uint32_t* low,
                     std::uint32_t* high);
  // above = by column, the stake of the rows whose weight is over the limit.
  void (*stake_above)(const std::uint32_t* tile, const std::uint32_t* stake, std::size_t row_count,
                      const std::uint32_t* limit, std::uint32_t* above);
  // inside = for every cell of the tile, whether low <= weight <= high.
  void (*mark_inside)(const std::uint32_t* tile, std::size_t row_count, const std::uint32_t* low,
                      const std::uint32_t* high, std::uint8_t* inside);
};

// The fastest set this processor runs.
const RowKernels& row_kernels();
// By name, for tests: "portable", "avx2", "avx512"; null when it does not run here.
const RowKernels* row_kernels_named(const char* name);

}  // namespace yumoe::ledger

// The bodies of RowKernels. Included by one source per instruction set, which defines
// YUMOE_KERNEL_SET.

#include <algorithm>
#include <bit>
#include <cstring>

#include "ledger/row_kernels.hpp"

namespace yumoe::ledger::YUMOE_KERNEL_SET {
namespace {

// Numbers under 2^52 to double and back by their bit pattern: vector units of this age have no such
// conversion.
inline double to_double(std::uint64_t x) {
  return std::bit_cast<double>(x | 0x4330000000000000ULL) - 0x1p52;
}
inline std::uint64_t to_nearest(double x) {
  return std::bit_cast<std::uint64_t>(x + 0x1p52) & 0xfffffffffffffULL;
}

// floor(x * 2^32 / by), exact, for x <= by < 2^50. The estimate is off by at most one; the
// remainder, taken modulo 2^64, tells which way.
inline std::uint64_t divide(std::uint64_t x, std::uint64_t by, double reciprocal) {
  const std::uint64_t q = to_nearest(to_double(x) * reciprocal);
  const auto rest = static_cast<std::int64_t>((x << 32) - q * by);
  return q - static_cast<std::uint64_t>(rest < 0) +
         static_cast<std::uint64_t>(rest >= static_cast<std::int64_t>(by));
}

inline std::uint16_t to_u16(std::uint64_t share) {
  return static_cast<std::uint16_t>((share * 65535) >> 32);
}

inline std::uint32_t word_at(const void* entries, std::size_t k) {
  std::uint32_t word;
  std::memcpy(&word, static_cast<const char*>(entries) + 4 * k, 4);
  return word;
}

std::size_t take_run(const void* __restrict entries, std::size_t count,
                     std::uint32_t* __restrict cells, std::uint32_t& seen) {
  const std::uint32_t start = word_at(entries, 0) & 0xffff;
  std::size_t done = 0;
  for (; done + kRunBlock <= count; done += kRunBlock) {
    std::uint32_t wrong = 0;
    std::uint32_t held = 0;
    for (std::size_t k = 0; k < kRunBlock; ++k) {
      wrong |=
          (word_at(entries, done + k) & 0xffff) ^ (start + static_cast<std::uint32_t>(done + k));
      held |= cells[done + k];
    }
    if (wrong != 0) break;
    seen |= held;
    for (std::size_t k = 0; k < kRunBlock; ++k)
      cells[done + k] = kSeen | word_at(entries, done + k) >> 16;
  }
  return done;
}

bool make_entries(const std::uint64_t* __restrict bond, const std::uint16_t* __restrict value,
                  std::uint32_t first, void* __restrict entries, std::size_t count) {
  std::uint64_t zeros = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const std::uint32_t word = (first + static_cast<std::uint32_t>(k)) | std::uint32_t{value[k]}
                                                                             << 16;
    std::memcpy(static_cast<char*>(entries) + 4 * k, &word, 4);
    zeros |= static_cast<std::uint64_t>(bond[k] == 0);
  }
  return zeros == 0;
}

void normalize(const std::uint32_t* __restrict cells, std::uint32_t* __restrict out,
               std::size_t count) {
  std::uint64_t sum = 0;
  for (std::size_t k = 0; k < count; ++k) sum += cells[k] & 0xffff;
  if (sum == 0) {
    std::fill_n(out, count, 0U);
    return;
  }
  const double reciprocal = 0x1p32 / static_cast<double>(sum);
  for (std::size_t k = 0; k < count; ++k) {
    const std::uint64_t q = divide(cells[k] & 0xffff, sum, reciprocal);
    out[k] = static_cast<std::uint32_t>(q - (q >> 32));
  }
}

void take_raw(const std::uint32_t* __restrict cells, std::uint16_t* __restrict out,
              std::uint64_t* __restrict sum, std::size_t count) {
  for (std::size_t k = 0; k < count; ++k) {
    out[k] = static_cast<std::uint16_t>(cells[k]);
    sum[k] += cells[k] & 0xffff;
  }
}

std::uint64_t clip_and_rank(const std::uint32_t* __restrict weight,
                            const std::uint32_t* __restrict limit, std::uint64_t share,
                            std::uint64_t* __restrict rank, std::size_t count) {
  std::uint64_t total = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const std::uint64_t clipped = unpack_share(std::min(weight[k], limit[k]));
    total += clipped;
    rank[k] += multiply_shares(clipped, share);
  }
  return total;
}

void bond_weights(const std::uint32_t* __restrict weight, BondWeights rule,
                  std::uint32_t* __restrict out, std::size_t count) {
  const std::uint32_t* __restrict limit = rule.limit;
  if (rule.penalty == 0) {
    std::copy_n(weight, count, out);
    return;
  }
  if (rule.penalty == kPackedOne) {
    for (std::size_t k = 0; k < count; ++k) out[k] = std::min(weight[k], limit[k]);
    return;
  }
  for (std::size_t k = 0; k < count; ++k) {
    const std::uint64_t w = unpack_share(weight[k]);
    const std::uint64_t cut = w - unpack_share(std::min(weight[k], limit[k]));
    // w + floor(penalty * -cut): the floor of a negative product is the ceiling of its size.
    // penalty < 2^32.
    const std::uint64_t product = (cut & 0xffffffffU) * rule.penalty + 0xffffffffU;
    const std::uint64_t v = w - ((product >> 32) + (cut >> 32) * rule.penalty);
    out[k] = static_cast<std::uint32_t>(v - (v >> 32));
  }
}

void add_scaled(const std::uint32_t* __restrict weight, std::uint64_t share,
                std::uint64_t* __restrict sum, std::size_t count) {
  for (std::size_t k = 0; k < count; ++k) sum[k] += multiply_shares(unpack_share(weight[k]), share);
}

void relative_bonds(const std::uint32_t* __restrict weight, std::uint64_t share, Divisors fresh_sum,
                    const std::uint16_t* __restrict raw, Divisors raw_sum,
                    const std::uint64_t* __restrict rate, std::uint64_t* __restrict bond,
                    std::uint64_t* __restrict bond_sum, std::size_t count) {
  for (std::size_t k = 0; k < count; ++k) {
    const std::uint64_t fresh = divide(multiply_shares(unpack_share(weight[k]), share),
                                       fresh_sum.by[k], fresh_sum.reciprocal[k]);
    const std::uint64_t old = divide(raw[k], raw_sum.by[k], raw_sum.reciprocal[k]);
    bond[k] = multiply_shares(fresh, rate[k]) + multiply_shares(old, kShareOne - rate[k]);
    bond_sum[k] += bond[k];
  }
}

void absolute_bonds(const std::uint32_t* __restrict weight, const std::uint16_t* __restrict raw,
                    std::uint64_t rate, std::uint64_t* __restrict bond,
                    std::uint64_t* __restrict bond_sum, std::size_t count) {
  const std::uint64_t keep = kShareOne - rate;
  for (std::size_t k = 0; k < count; ++k) {
    bond[k] = multiply_shares(unpack_share(weight[k]), rate) +
              multiply_shares(share_of_raw(raw[k]), keep);
    bond_sum[k] += bond[k];
  }
}

std::uint64_t dividend(const std::uint64_t* __restrict bond, Divisors bond_sum,
                       const std::uint64_t* __restrict incentive, std::size_t count) {
  std::uint64_t total = 0;
  for (std::size_t k = 0; k < count; ++k) {
    total += multiply_shares(divide(bond[k], bond_sum.by[k], bond_sum.reciprocal[k]), incentive[k]);
  }
  return total;
}

std::uint64_t dividend_and_share(std::uint64_t* __restrict bond, Divisors bond_sum,
                                 const std::uint64_t* __restrict incentive,
                                 std::uint64_t* __restrict largest, std::size_t count) {
  std::uint64_t total = 0;
  for (std::size_t k = 0; k < count; ++k) {
    const std::uint64_t share = divide(bond[k], bond_sum.by[k], bond_sum.reciprocal[k]);
    total += multiply_shares(share, incentive[k]);
    bond[k] = share;
    largest[k] = std::max(largest[k], share);
  }
  return total;
}

void quantize_relative(const std::uint64_t* __restrict bond, Divisors largest,
                       std::uint16_t* __restrict out, std::size_t count) {
  for (std::size_t k = 0; k < count; ++k) {
    out[k] = to_u16(divide(bond[k], largest.by[k], largest.reciprocal[k]));
  }
}

void quantize(const std::uint64_t* __restrict bond, std::uint16_t* __restrict out,
              std::size_t count) {
  for (std::size_t k = 0; k < count; ++k) out[k] = to_u16(bond[k]);
}

// A quarter of a tile's row; the compiler splits it where registers are shorter.
typedef std::uint32_t Lanes __attribute__((vector_size(64)));
typedef std::uint8_t ByteLanes __attribute__((vector_size(16)));
constexpr std::size_t kLanes = 16;
constexpr std::size_t kParts = kTile / kLanes;

// By reference: vectors wider than the target's registers have no settled way to be returned.
inline void load(Lanes& lanes, const std::uint32_t* from) {
  std::memcpy(&lanes, from, sizeof lanes);
}

void find_range(const std::uint32_t* __restrict tile, std::size_t row_count,
                std::uint32_t* __restrict low, std::uint32_t* __restrict high) {
  std::fill_n(low, kTile, kPackedOne);
  std::fill_n(high, kTile, 0U);
  for (std::size_t i = 0; i < row_count; ++i, tile += kTile) {
    for (std::size_t c = 0; c < kTile; ++c) {
      low[c] = std::min(low[c], tile[c]);
      high[c] = std::max(high[c], tile[c]);
    }
  }
}

void stake_above(const std::uint32_t* tile, const std::uint32_t* stake, std::size_t row_count,
                 const std::uint32_t* limit, std::uint32_t* above) {
  Lanes limits[kParts];
  Lanes sums[kParts] = {};
  for (std::size_t p = 0; p < kParts; ++p) load(limits[p], limit + p * kLanes);
  for (std::size_t i = 0; i < row_count; ++i, tile += kTile) {
    for (std::size_t p = 0; p < kParts; ++p) {
      Lanes weights;
      load(weights, tile + p * kLanes);
      sums[p] += (Lanes)(weights > limits[p]) & stake[i];
    }
  }
  std::memcpy(above, sums, sizeof sums);
}

void mark_inside(const std::uint32_t* tile, std::size_t row_count, const std::uint32_t* low,
                 const std::uint32_t* high, std::uint8_t* inside) {
  Lanes floors[kParts];
  Lanes ranges[kParts];
  for (std::size_t p = 0; p < kParts; ++p) {
    load(floors[p], low + p * kLanes);
    load(ranges[p], high + p * kLanes);
    ranges[p] -= floors[p];
  }
  for (std::size_t at = 0; at < row_count * kTile; at += kLanes) {
    const std::size_t p = at % kTile / kLanes;
    Lanes weights;
    load(weights, tile + at);
    const Lanes marks = (Lanes)(weights - floors[p] <= ranges[p]);
    const ByteLanes bytes = __builtin_convertvector(marks, ByteLanes);
    std::memcpy(inside + at, &bytes, sizeof bytes);
  }
}

}  // namespace

extern const RowKernels kernels;
const RowKernels kernels = {take_run,       make_entries, normalize,          take_raw,
                            clip_and_rank,  bond_weights, add_scaled,         relative_bonds,
                            absolute_bonds, dividend,     dividend_and_share, quantize_relative,
                            quantize,       find_range,   stake_above,        mark_inside};

}  // namespace yumoe::ledger::YUMOE_KERNEL_SET

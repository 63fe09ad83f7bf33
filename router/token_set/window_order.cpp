#include "token_set/window_order.hpp"

#include <bit>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr int kRounds = 8;

// The finaliser of SplitMix64: every bit of the input moves every bit of the output.
std::uint64_t mixed(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

std::uint64_t permuted(std::uint64_t index, std::uint64_t count, std::uint64_t key) {
  YUMOE_ASSERT(index < count);
  const int bits = std::bit_width(count - 1);
  const int low_bits = (bits + 1) / 2;
  const std::uint64_t low_mask = (std::uint64_t{1} << low_bits) - 1;
  const std::uint64_t high_mask = (std::uint64_t{1} << (bits - low_bits)) - 1;
  do {
    std::uint64_t low = index & low_mask;
    std::uint64_t high = index >> low_bits;
    // Each half-step changes one half by a function of the other, so it can be undone; both halves
    // take turns because they may differ by one bit in width.
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      const std::uint64_t round_key = mixed(key + (round + 1) * 0x9e3779b97f4a7c15);
      if (round % 2 == 0) {
        low ^= mixed(high ^ round_key) & low_mask;
      } else {
        high ^= mixed(low ^ round_key) & high_mask;
      }
    }
    index = high << low_bits | low;
  } while (index >= count);
  return index;
}

}  // namespace yumoe

#include "ledger/consensus.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "ledger/row_kernels.hpp"

// The chain finds the median by quickselect with a pivot chosen by position. Its answer does not depend on the pivots:
// with F(v) the stake of scores up to v, it is the smallest score with F(v) > minority, or the largest score if there
// is none. With the total T, F(v) > minority means: the stake above v is under T - minority. So any exact selection
// gives the chain's answer, and this one bisects the weights of many columns at once.

namespace yumoe::ledger {
namespace {

constexpr std::size_t kTile = 64;  // columns at once: their rows stay in the second-level cache
constexpr std::size_t kFew = 24;

std::uint32_t median_of_few(std::span<Vote> votes, std::uint64_t base, std::int64_t threshold) {
  std::sort(votes.begin(), votes.end(), [](const Vote& a, const Vote& b) { return a.weight > b.weight; });
  std::uint32_t answer = votes.front().weight;
  std::uint64_t above = base;
  for (std::size_t k = 0; k < votes.size();) {
    if (static_cast<std::int64_t>(above) >= threshold) break;
    answer = votes[k].weight;
    for (; k < votes.size() && votes[k].weight == answer; ++k) above += votes[k].stake;
  }
  return answer;
}

struct Tile {
  std::array<std::uint32_t, kTile> low;
  std::array<std::uint32_t, kTile> high;
  std::array<std::uint32_t, kTile> middle;
  std::array<std::uint32_t, kTile> above;
};

// One halving of every column's range [low, high]; the answer stays inside.
void halve(const RowKernels& kernels, std::span<const std::uint32_t* const> rows, std::span<const std::uint32_t> stake,
           std::size_t first, std::size_t width, std::int64_t threshold, Tile& tile) {
  for (std::size_t c = 0; c < width; ++c) tile.middle[c] = tile.low[c] + (tile.high[c] - tile.low[c]) / 2;
  tile.above.fill(0);
  // Never wraps: the row with the smallest weight of the column, whose stake is not 0, is never above the middle.
  for (std::size_t i = 0; i < rows.size(); ++i) {
    kernels.stake_above(rows[i] + first, tile.middle.data(), stake[i], tile.above.data(), width);
  }
  for (std::size_t c = 0; c < width; ++c) {
    if (std::int64_t{tile.above[c]} < threshold) {
      tile.high[c] = tile.middle[c];
    } else if (tile.middle[c] < tile.high[c]) {
      tile.low[c] = tile.middle[c] + 1;
    }
  }
}

}  // namespace

std::uint32_t median_of(std::span<Vote> votes, std::uint64_t base, std::int64_t threshold) {
  while (votes.size() > kFew) {
    const auto [low, high] = std::minmax_element(votes.begin(), votes.end(), [](const Vote& a, const Vote& b) {
      return a.weight < b.weight;
    });
    if (low->weight == high->weight) return low->weight;
    const std::uint32_t middle = low->weight + (high->weight - low->weight) / 2;
    const auto split = std::partition(votes.begin(), votes.end(), [&](const Vote& v) { return v.weight > middle; });
    std::uint64_t above = base;
    for (auto v = votes.begin(); v != split; ++v) above += v->stake;
    const auto upper = static_cast<std::size_t>(split - votes.begin());
    if (static_cast<std::int64_t>(above) < threshold) {
      votes = votes.subspan(upper);
      base = above;
    } else {
      votes = votes.first(upper);
    }
  }
  return median_of_few(votes, base, threshold);
}

void dense_medians(const RowKernels& kernels, std::span<const std::uint32_t* const> rows,
                   std::span<const std::uint32_t> stake, std::size_t columns, std::int64_t threshold,
                   std::uint32_t* medians) {
  // After so many halvings an evenly spread column has a handful of weights left between low and high.
  const int halvings = std::bit_width(rows.size()) - 1;
  std::array<std::vector<Vote>, kTile> votes;
  alignas(8) std::array<std::uint8_t, kTile> inside{};
  for (std::size_t first = 0; first < columns; first += kTile) {
    const std::size_t width = std::min(kTile, columns - first);
    Tile tile;
    tile.low.fill(kPackedOne);
    tile.high.fill(0);
    for (const std::uint32_t* row : rows) kernels.widen(row + first, tile.low.data(), tile.high.data(), width);
    for (int round = 0; round < halvings && threshold > 0; ++round) {
      halve(kernels, rows, stake, first, width, threshold, tile);
    }
    if (threshold <= 0) {
      std::copy_n(tile.high.data(), width, medians + first);
      continue;
    }
    tile.above.fill(0);
    inside.fill(0);
    for (std::vector<Vote>& column : votes) column.clear();
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const std::uint32_t* row = rows[i] + first;
      kernels.stake_above(row, tile.high.data(), stake[i], tile.above.data(), width);
      kernels.between(row, tile.low.data(), tile.high.data(), inside.data(), width);
      for (std::size_t c = 0; c < width; c += 8) {
        std::uint64_t flags = 0;
        std::memcpy(&flags, inside.data() + c, 8);
        for (; flags != 0; flags &= flags - 1) {
          const std::size_t at = c + static_cast<std::size_t>(std::countr_zero(flags)) / 8;
          votes[at].push_back({row[at], stake[i]});
        }
      }
    }
    for (std::size_t c = 0; c < width; ++c) medians[first + c] = median_of(votes[c], tile.above[c], threshold);
  }
}

}  // namespace yumoe::ledger

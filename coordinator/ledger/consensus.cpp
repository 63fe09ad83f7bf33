#include "ledger/consensus.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "ledger/row_kernels.hpp"

// The chain finds the median by quickselect with a pivot chosen by position. Its answer does not
// depend on the pivots: with F(v) the stake of scores up to v, it is the smallest score with F(v) >
// minority, or the largest score if there is none. With the total T, F(v) > minority means: the
// stake above v is under T - minority. So any exact selection gives the chain's answer, and this
// one bisects the weights of many columns at once.

namespace yumoe::ledger {
namespace {

constexpr std::size_t kFew = 24;

std::uint32_t median_of_few(std::span<Vote> votes, std::uint64_t base, std::int64_t threshold) {
  std::sort(votes.begin(), votes.end(),
            [](const Vote& a, const Vote& b) { return a.weight > b.weight; });
  std::uint32_t answer = votes.front().weight;
  std::uint64_t above = base;
  for (std::size_t k = 0; k < votes.size();) {
    if (static_cast<std::int64_t>(above) >= threshold) break;
    answer = votes[k].weight;
    for (; k < votes.size() && votes[k].weight == answer; ++k) above += votes[k].stake;
  }
  return answer;
}

struct Ranges {
  alignas(64) std::array<std::uint32_t, kTile> low;
  alignas(64) std::array<std::uint32_t, kTile> high;
  alignas(64) std::array<std::uint32_t, kTile> middle;
  alignas(64) std::array<std::uint32_t, kTile> above;
};

// One halving of every column's range [low, high]; the answer stays inside. `above` never wraps:
// the row with a column's smallest weight, whose stake is not 0, is never above the middle.
void halve(const RowKernels& kernels, const std::uint32_t* tile,
           std::span<const std::uint32_t> stake, std::int64_t threshold, Ranges& ranges) {
  for (std::size_t c = 0; c < kTile; ++c) {
    ranges.middle[c] = ranges.low[c] + (ranges.high[c] - ranges.low[c]) / 2;
  }
  kernels.stake_above(tile, stake.data(), stake.size(), ranges.middle.data(), ranges.above.data());
  for (std::size_t c = 0; c < kTile; ++c) {
    const bool down = std::int64_t{ranges.above[c]} < threshold;
    const std::uint32_t up =
        std::min(ranges.high[c], ranges.middle[c] + (ranges.middle[c] < ranges.high[c]));
    ranges.high[c] = down ? ranges.middle[c] : ranges.high[c];
    ranges.low[c] = down ? ranges.low[c] : up;
  }
}

}  // namespace

std::uint32_t median_of(std::span<Vote> votes, std::uint64_t base, std::int64_t threshold) {
  while (votes.size() > kFew) {
    const auto [low, high] =
        std::minmax_element(votes.begin(), votes.end(),
                            [](const Vote& a, const Vote& b) { return a.weight < b.weight; });
    if (low->weight == high->weight) return low->weight;
    const std::uint32_t middle = low->weight + (high->weight - low->weight) / 2;
    const auto split = std::partition(votes.begin(), votes.end(),
                                      [&](const Vote& v) { return v.weight > middle; });
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

void TileMedians::find(const RowKernels& kernels, const std::uint32_t* tile,
                       std::span<const std::uint32_t> stake, std::size_t width,
                       std::int64_t threshold, std::uint32_t* medians) {
  const std::size_t rows = stake.size();
  Ranges ranges;
  kernels.find_range(tile, rows, ranges.low.data(), ranges.high.data());
  if (threshold <= 0) {
    std::copy_n(ranges.high.data(), width, medians);
    return;
  }
  // After so many halvings an evenly spread column has a handful of weights left between low and
  // high.
  const int halvings = std::bit_width(rows) - 1;
  for (int round = 0; round < halvings; ++round) halve(kernels, tile, stake, threshold, ranges);
  kernels.stake_above(tile, stake.data(), rows, ranges.high.data(), ranges.above.data());
  const auto padding =
      static_cast<std::ptrdiff_t>(width);  // its cells are 0: none is inside 1 .. 1
  std::fill(ranges.low.begin() + padding, ranges.low.end(), 1U);
  std::fill(ranges.high.begin() + padding, ranges.high.end(), 1U);
  inside_.resize(rows * kTile);
  kernels.mark_inside(tile, rows, ranges.low.data(), ranges.high.data(), inside_.data());
  votes_.resize(kTile);
  for (std::vector<Vote>& column : votes_) column.clear();
  for (std::size_t at = 0; at < inside_.size(); at += 8) {
    std::uint64_t marks = 0;
    std::memcpy(&marks, inside_.data() + at, 8);
    for (marks &= 0x0101010101010101ULL; marks != 0; marks &= marks - 1) {
      const std::size_t cell = at + static_cast<std::size_t>(std::countr_zero(marks)) / 8;
      votes_[cell % kTile].push_back({tile[cell], stake[cell / kTile]});
    }
  }
  for (std::size_t c = 0; c < width; ++c)
    medians[c] = median_of(votes_[c], ranges.above[c], threshold);
}

}  // namespace yumoe::ledger

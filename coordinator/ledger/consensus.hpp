#pragma once
// The weighted median of each column: the smallest weight above which less than the majority of
// stake votes.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace yumoe::ledger {

struct RowKernels;

// A validator's vote in one column, or all its votes: packed shares (row_kernels.hpp).
struct Vote {
  std::uint32_t weight;
  std::uint32_t stake;
};

// The smallest weight v among the votes such that base + (stake of votes above v) < threshold; the
// largest weight if there is none. votes is not empty; its order is lost. Cost: linear, at most 33
// passes.
std::uint32_t median_of(std::span<Vote> votes, std::uint64_t base, std::int64_t threshold);

// Finds the medians of a tile's columns; keeps its buffers from call to call.
class TileMedians {
 public:
  // `tile` has a row of kTile packed weights for each voter, at least two; stake[i] < 2^32 is that
  // voter's share, their sum at most 2^32. threshold as above, with base 0. Writes the first
  // `width` medians.
  void find(const RowKernels& kernels, const std::uint32_t* tile,
            std::span<const std::uint32_t> stake, std::size_t width, std::int64_t threshold,
            std::uint32_t* medians);

 private:
  std::vector<std::uint8_t> inside_;
  std::vector<std::vector<Vote>> votes_;
};

}  // namespace yumoe::ledger

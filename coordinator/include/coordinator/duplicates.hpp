#pragma once
// Finds contributions that repeat earlier ones, altered or not, without comparing all pairs.
//
// A sketch holds, for each of kBins parts of hash space, the smallest hash of the (element, sign) pairs an
// update keeps there: the share of equal bins estimates the share of pairs that two updates have in common
// (one-permutation min-wise hashing, Li et al. 2012). Workers that train the same model on different data
// have few in common; a copy has most of them, whatever happens to its values.

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "cluster/ids.hpp"
#include "router/codec.hpp"

namespace yumoe {

inline constexpr std::size_t kSketchBins = 128;
struct Sketch {
  std::array<std::uint32_t, kSketchBins> bins;  // 0: nothing fell into it
};

// Cost: decodes the update once.
Sketch sketch_of(const Layout& layout, const Update& update);
// Estimated share of pairs in common, in [0, 1]; 0 if fewer than a quarter of the bins are filled.
double common_share(const Sketch& a, const Sketch& b);

class DuplicateIndex {
 public:
  // Remembers `rounds` rounds; reports what has `share` or more in common with an earlier one.
  DuplicateIndex(std::uint64_t rounds, double share) : rounds_(rounds), share_(share) {}

  struct Match {
    Uid uid;
    RoundId round;
    double share = 0;
  };
  // The most alike of what was added before, if it is alike enough. A contribution to the same shard
  // (`uid` and `round` equal) is no match. Cost: constant in the number remembered once that is large, as
  // long as few are alike.
  std::optional<Match> find(RoundId round, Uid uid, const Sketch& sketch) const;
  // Also forgets what is `rounds` older than `round`.
  void add(RoundId round, Uid uid, const Sketch& sketch);
  std::size_t size() const noexcept { return entries_.size(); }

 private:
  struct Entry {
    RoundId round;
    Uid uid;
    Sketch sketch;
  };
  static constexpr std::size_t kBand = 4;         // bins that must agree for two to be compared
  static constexpr std::size_t kCompareAll = 64;  // fewer are compared each

  std::uint64_t rounds_;
  double share_;
  std::deque<Entry> entries_;  // oldest first
  std::uint64_t first_ = 0;    // number of entries_.front()
  std::unordered_map<std::uint64_t, std::vector<std::uint64_t>> bands_;  // to numbers of entries
};

}  // namespace yumoe

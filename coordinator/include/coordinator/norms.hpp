#pragma once
// How large contributions usually are, group of tensors by group: one that is many times as large as the
// others' is refused before it costs anybody a measurement.
//
// A group holds the tensors that play one part in every layer and expert ("query", "expert.down"); its size
// is the root mean square of their norms over those that were sent. Robust: the median over workers, each
// with its newest contribution, so that nobody moves it alone. Norms grow no faster than the inner steps, so
// who does more steps than the median worker may send more in proportion, and who does fewer as much as it.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cluster/ids.hpp"
#include "router/codec.hpp"

namespace yumoe {

class NormIndex {
 public:
  // Reports a group above `bound` times the median; nothing if `bound` is 0.
  NormIndex(const Layout& layout, double bound);

  struct Excess {
    std::string group;
    double norm = 0, median = 0, most = 0;
    std::size_t others = 0;  // whose median it is
  };
  // The group that is the furthest above its bound, by the others' contributions of this round and the one
  // before. Fewer than kFewest that sent something of it, or than two thirds of the round's `owners`: nothing
  // is known, nothing found, so that a third of the workers who come first decide nothing.
  // Cost: O(groups * others).
  std::optional<Excess> find(RoundId round, Uid uid, std::uint32_t steps, const Update& update,
                             std::size_t owners = 0) const;
  // Also of what was found too large: else whoever came first would keep all others out for ever.
  void add(RoundId round, Uid uid, std::uint32_t steps, const Update& update);

  static constexpr std::size_t kFewest = 3;
  static constexpr std::uint64_t kRounds = 2;

 private:
  struct Entry {
    RoundId round;
    double steps = 0;
    std::vector<double> norms;  // by group
  };
  std::vector<double> norms_of(const Update& update) const;

  double bound_;
  std::vector<std::string> groups_;
  std::vector<std::size_t> group_of_;  // by tensor
  std::map<Uid, Entry> newest_;
};

}  // namespace yumoe

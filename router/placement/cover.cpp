#include "placement/cover.hpp"

#include <algorithm>
#include <numeric>

namespace yumoe::placement {
namespace {

constexpr std::uint32_t kNobody = 0xffff'ffff;

class Cover {
 public:
  Cover(const std::vector<std::uint32_t>& possible, std::uint32_t replicas, std::uint32_t moves_max,
        const std::vector<Seat>& seats, bool with_exemptions)
      : experts_(static_cast<std::uint32_t>(possible.size())),
        with_exemptions_(with_exemptions),
        replicas_(replicas),
        moves_max_(moves_max),
        seats_(seats),
        stride_((experts_ + 63) / 64),
        bits_(seats.size() * stride_),
        size_(seats.size()),
        taken_on_(seats.size()),
        holders_(experts_),
        possible_(possible),
        load_(experts_) {}

  CoverResult run() {
    keep_held();
    fill();
    CoverResult result;
    for (std::uint32_t level = 1; level <= replicas_; ++level) {
      for (std::uint32_t e = 0; e < experts_; ++e) {
        const std::uint32_t wanted = std::min(level, possible_[e]);
        while (holders_[e] < wanted && augment(e, level)) {
        }
      }
    }
    for (std::uint32_t e = 0; e < experts_; ++e) {
      const std::uint32_t wanted = std::min(replicas_, possible_[e]);
      result.lacking += holders_[e] < wanted ? wanted - holders_[e] : 0;
    }
    for (std::uint32_t s = 0; s < seats_.size(); ++s) result.sets.push_back(set_of(s));
    result.holders = holders_;
    return result;
  }

 private:
  bool has(std::uint32_t seat, std::uint32_t expert) const {
    return (bits_[seat * stride_ + expert / 64] >> (expert % 64)) & 1;
  }
  bool held_before(std::uint32_t seat, std::uint32_t expert) const {
    return std::binary_search(seats_[seat].held->begin(), seats_[seat].held->end(), expert);
  }
  bool may(std::uint32_t seat, std::uint32_t expert) const {
    const ExpertSet& allowed = *seats_[seat].allowed;
    return allowed.size() == experts_ || std::binary_search(allowed.begin(), allowed.end(), expert);
  }
  bool can_move(std::uint32_t seat, std::uint32_t expert) const {
    return seats_[seat].held->empty() || taken_on_[seat] < moves_max_ || held_before(seat, expert);
  }
  double share_of(std::uint32_t seat) const {
    return seats_[seat].weight / std::max<double>(1, seats_[seat].cap);
  }
  void add(std::uint32_t seat, std::uint32_t expert) {
    bits_[seat * stride_ + expert / 64] |= std::uint64_t{1} << (expert % 64);
    ++size_[seat];
    ++holders_[expert];
    load_[expert] += share_of(seat);
    if (!held_before(seat, expert)) ++taken_on_[seat];
  }
  void drop(std::uint32_t seat, std::uint32_t expert) {
    bits_[seat * stride_ + expert / 64] &= ~(std::uint64_t{1} << (expert % 64));
    --size_[seat];
    --holders_[expert];
    load_[expert] -= share_of(seat);
    if (!held_before(seat, expert)) --taken_on_[seat];
  }
  ExpertSet set_of(std::uint32_t seat) const {
    ExpertSet set;
    for (std::uint32_t word = 0; word < stride_; ++word) {
      for (std::uint64_t bits = bits_[seat * stride_ + word]; bits != 0; bits &= bits - 1) {
        set.push_back(64 * word + static_cast<std::uint32_t>(__builtin_ctzll(bits)));
      }
    }
    return set;
  }

  void keep_held() {
    for (std::uint32_t s = 0; s < seats_.size(); ++s) {
      for (const std::uint32_t e : *seats_[s].held) {
        if (may(s, e)) add(s, e);
      }
    }
    for (std::uint32_t s = 0; s < seats_.size(); ++s) {
      if (size_[s] <= seats_[s].cap) continue;
      ExpertSet set = set_of(s);
      std::stable_sort(set.begin(), set.end(),
                       [&](std::uint32_t a, std::uint32_t b) { return holders_[a] > holders_[b]; });
      for (std::size_t i = 0; size_[s] > seats_[s].cap; ++i) drop(s, set[i]);
    }
  }

  // Whoever has the fewest experts to choose from chooses first; then whoever brings most.
  void fill() {
    std::vector<std::uint32_t> order(seats_.size());
    std::iota(order.begin(), order.end(), 0u);
    std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
      const Seat &x = seats_[a], &y = seats_[b];
      if (x.allowed->size() != y.allowed->size()) return x.allowed->size() < y.allowed->size();
      return x.weight > y.weight;
    });
    std::vector<std::uint32_t> wish;
    for (const std::uint32_t s : order) {
      std::uint32_t room = seats_[s].cap - std::min(size_[s], seats_[s].cap);
      if (!seats_[s].held->empty()) {
        const std::uint32_t moves = moves_max_ - std::min(moves_max_, taken_on_[s]);
        const std::uint32_t needs = seats_[s].least - std::min(seats_[s].least, size_[s]);
        room = std::min(room, with_exemptions_ ? std::max(moves, needs) : moves);
      }
      if (room == 0) continue;
      wish.clear();
      for (const std::uint32_t e : *seats_[s].allowed) {
        if (!has(s, e)) wish.push_back(e);
      }
      room = std::min<std::uint32_t>(room, static_cast<std::uint32_t>(wish.size()));
      std::partial_sort(wish.begin(), wish.begin() + room, wish.end(),
                        [&](std::uint32_t a, std::uint32_t b) { return before(a, b); });
      for (std::uint32_t i = 0; i < room; ++i) add(s, wish[i]);
    }
  }

  // What is rarest below `replicas`, then what can go to the fewest, then what is trained least.
  bool before(std::uint32_t a, std::uint32_t b) const {
    const std::uint32_t rare_a = std::min(holders_[a], replicas_);
    const std::uint32_t rare_b = std::min(holders_[b], replicas_);
    if (rare_a != rare_b) return rare_a < rare_b;
    if (rare_a < replicas_ && possible_[a] != possible_[b]) return possible_[a] < possible_[b];
    if (load_[a] != load_[b]) return load_[a] < load_[b];
    return a < b;
  }

  // One more holder for `root`, by a path of exchanges that costs no other expert its `level` holders.
  bool augment(std::uint32_t root, std::uint32_t level) {
    const bool exempt = with_exemptions_ && holders_[root] == 0;
    std::vector<std::uint32_t> parent(experts_, kNobody), via(experts_, kNobody);
    std::vector<std::uint8_t> seen_expert(experts_), seen_seat(seats_.size());
    std::vector<std::uint32_t> queue{root};
    seen_expert[root] = 1;
    for (std::size_t head = 0; head < queue.size(); ++head) {
      const std::uint32_t x = queue[head];
      for (std::uint32_t s = 0; s < seats_.size(); ++s) {
        if (seen_seat[s] || seats_[s].cap == 0 || !may(s, x) || has(s, x)) continue;
        // Who may take on no more can still exchange what it took on.
        const bool can = exempt || can_move(s, x);
        if (!can && taken_on_[s] == 0) continue;
        if (can && size_[s] < seats_[s].cap) {
          add(s, x);
          unwind(x, parent, via);
          return true;
        }
        seen_seat[s] = can;
        for (const std::uint32_t f : set_of(s)) {
          if (!can && held_before(s, f)) continue;
          if (holders_[f] > std::min(level, possible_[f])) {
            drop(s, f);
            add(s, x);
            unwind(x, parent, via);
            return true;
          }
          if (seen_expert[f]) continue;
          seen_expert[f] = 1;
          parent[f] = x;
          via[f] = s;
          queue.push_back(f);
        }
      }
    }
    return false;
  }

  // `x` has found a new holder: the seat it was to leave takes its parent instead, up to the root.
  void unwind(std::uint32_t x, const std::vector<std::uint32_t>& parent,
              const std::vector<std::uint32_t>& via) {
    while (parent[x] != kNobody) {
      drop(via[x], x);
      add(via[x], parent[x]);
      x = parent[x];
    }
  }

  std::uint32_t experts_;
  bool with_exemptions_;
  std::uint32_t replicas_, moves_max_;
  const std::vector<Seat>& seats_;
  std::uint32_t stride_;
  std::vector<std::uint64_t> bits_;
  std::vector<std::uint32_t> size_, taken_on_, holders_;
  const std::vector<std::uint32_t>& possible_;
  std::vector<double> load_;
};

}  // namespace

CoverResult cover(const std::vector<std::uint32_t>& possible, std::uint32_t replicas,
                  std::uint32_t moves_max, const std::vector<Seat>& seats, bool with_exemptions) {
  return Cover(possible, replicas, moves_max, seats, with_exemptions).run();
}

}  // namespace yumoe::placement

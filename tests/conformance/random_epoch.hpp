#pragma once
// Random epochs of every shape: sparse and dense, few and many validators, ties, extremes, all
// rules.

#include <cstdint>
#include <numeric>

#include "coordinator/epoch.hpp"

namespace yumoe::ledger {

// Numbers from any source: a seeded generator in tests, the fuzzer's bytes in fuzz targets.
template <typename Next>
class RandomEpoch {
 public:
  explicit RandomEpoch(Next next) : next_(next) {}

  EpochInput draw(std::size_t n_max) {
    EpochInput in;
    n_ = 1 + below(n_max);
    density_ = below(4) == 0 ? 100 : below(101);
    const std::uint64_t rules = below(8);
    in.rules = rules == 0 ? EpochRules::spec233() : EpochRules::newest();
    draw_parameters(in);
    in.block = 100000;
    in.last_step_block = below(2) == 0 ? 0 : in.block - below(1000);
    in.emission = below(8) == 0 ? below(3) : next_() >> (10 + below(50));
    if (below(3) == 0) in.owner_uid = static_cast<std::uint16_t>(below(n_));
    for (std::size_t i = 0; i < n_; ++i) {
      in.stake.push_back(total_stake(draw_stake(), below(2) == 0 ? 0 : draw_stake(), next_()));
      in.registered_at.push_back(draw_block());
      in.permit.push_back(below(4) != 0);
    }
    // Often right at a registration, where the bonds' mask decides.
    if (below(3) == 0) in.last_step_block = in.registered_at[below(n_)] + 1 - below(2);
    const std::size_t mechanisms = below(4) == 0 ? 1 + below(3) : 1;
    for (std::size_t k = 0; k < mechanisms; ++k) in.mechanisms.push_back(draw_mechanism());
    if (mechanisms > 1 && below(2) == 0) {
      std::uint16_t left = 65535;
      for (std::size_t k = 0; k + 1 < mechanisms; ++k) {
        in.emission_split.push_back(static_cast<std::uint16_t>(below(left + 1U)));
        left = static_cast<std::uint16_t>(left - in.emission_split.back());
      }
      in.emission_split.push_back(left);
    }
    return in;
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return next_() % bound; }

  void draw_parameters(EpochInput& in) {
    EpochParameters& p = in.parameters;
    p.yuma = below(2) == 0 ? 2 : 3;
    const auto u16 = [&] {
      const std::uint64_t kind = below(6);
      return static_cast<std::uint16_t>(kind == 0 ? 0 : kind == 1 ? 65535 : below(65536));
    };
    p.kappa = below(2) == 0 ? 32767 : u16();
    p.bonds_penalty = below(2) == 0 ? 65535 : u16();
    p.bonds_moving_average = below(4) == 0 ? below(1'000'001) : 900'000;
    p.liquid_alpha = below(2) == 0;
    p.alpha_low = u16();
    p.alpha_high = u16();
    p.alpha_sigmoid_steepness = static_cast<std::int16_t>(below(65536));
    p.max_allowed_validators = static_cast<std::uint16_t>(below(n_ + 2));
    p.activity_cutoff = 1 + below(6000);
    p.stake_threshold = below(3) == 0 ? draw_stake() : 0;
    p.commit_reveal = below(2) == 0;
  }

  std::uint64_t draw_stake() {
    switch (below(5)) {
      case 0: return 0;
      case 1: return below(4);
      case 2: return 1'000'000'000;
      default: return next_() >> (12 + below(40));
    }
  }
  std::uint64_t draw_block() { return below(3) == 0 ? 98000 + below(2001) : below(90000); }

  Row draw_row() {
    Row row;
    if (below(8) == 0) return row;
    const std::uint64_t range = below(3) == 0 ? 3 : 65536;
    for (std::size_t j = 0; j < n_ + 2; ++j) {
      if (below(100) < density_) {
        row.push_back({static_cast<std::uint16_t>(j), static_cast<std::uint16_t>(below(range))});
      }
    }
    for (std::size_t k = 0; below(2) == 0 && k < row.size(); ++k)
      std::swap(row[k], row[below(row.size())]);
    return row;
  }

  MechanismInput draw_mechanism() {
    MechanismInput m;
    const bool commits = below(2) == 0;
    for (std::size_t i = 0; i < n_; ++i) {
      if (i == 0 || below(40) != 0) m.last_update.push_back(95000 + below(5001));
      m.weights.push_back(draw_row());
      m.bonds.push_back(draw_row());
      if (commits) m.first_commit.push_back(below(2) == 0 ? kNoCommit : draw_block());
    }
    return m;
  }

  Next next_;
  std::size_t n_ = 0;
  std::uint64_t density_ = 100;
};

}  // namespace yumoe::ledger

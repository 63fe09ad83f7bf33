// What the epoch promises beyond the vectors: equal to the plain epoch on random subnets, blind to
// the order of uids, fair to a stake that is split, and clear about input it cannot use.

#include "coordinator/epoch.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "cluster/error.hpp"
#include "conformance/plain_epoch.hpp"
#include "conformance/random_epoch.hpp"

namespace yumoe::ledger {
namespace {

bool same(const MechanismOutput& a, const MechanismOutput& b) {
  return a.incentive == b.incentive && a.bonds == b.bonds;
}

std::string difference(const EpochOutput& a, const EpochOutput& b) {
  if (a.active != b.active) return "active";
  if (a.permit != b.permit) return "permit";
  if (a.stake_weight != b.stake_weight) return "stake_weight";
  if (a.consensus != b.consensus) return "consensus";
  if (a.validator_trust != b.validator_trust) return "validator_trust";
  if (a.dividends != b.dividends) return "dividends";
  if (a.emission != b.emission) return "emission";
  if (a.server_emission != b.server_emission) return "server_emission";
  if (a.validator_emission != b.validator_emission) return "validator_emission";
  if (a.stake != b.stake) return "stake";
  for (std::size_t k = 0; k < a.mechanisms.size(); ++k) {
    if (!same(a.mechanisms[k], b.mechanisms[k]))
      return "incentive or bonds of mechanism " + std::to_string(k);
  }
  return "";
}

EpochInput random_input(std::uint64_t seed, std::size_t n_max) {
  std::mt19937_64 random(seed);
  const auto next = [&random] { return random(); };
  return RandomEpoch<decltype(next)>(next).draw(n_max);
}

TEST(Epoch, EqualsThePlainEpochOnRandomSubnetsOfEveryRule) {
  for (std::uint64_t seed = 0; seed < 1500; ++seed) {
    const EpochInput input = random_input(seed, seed % 10 == 0 ? 150 : 24);
    ASSERT_EQ(difference(run_epoch(input), plain::run_epoch(input)), "") << "seed " << seed;
  }
}

// Renames uid i to names[i].
EpochInput renamed(const EpochInput& in, const std::vector<std::uint16_t>& names) {
  EpochInput out = in;
  const auto row_of = [&](const Row& row) {
    Row moved;
    for (const Entry& e : row) {
      if (e.uid < names.size()) moved.push_back({names[e.uid], e.value});
    }
    return moved;
  };
  for (std::size_t i = 0; i < names.size(); ++i) {
    out.stake[names[i]] = in.stake[i];
    out.registered_at[names[i]] = in.registered_at[i];
    out.permit[names[i]] = in.permit[i];
  }
  if (in.owner_uid) out.owner_uid = names[*in.owner_uid];
  for (std::size_t k = 0; k < in.mechanisms.size(); ++k) {
    const MechanismInput& from = in.mechanisms[k];
    MechanismInput& to = out.mechanisms[k];
    to.last_update.assign(names.size(), 0);
    for (std::size_t i = 0; i < names.size(); ++i) {
      to.last_update[names[i]] = i < from.last_update.size() ? from.last_update[i] : 0;
      to.weights[names[i]] = row_of(from.weights[i]);
      to.bonds[names[i]] = row_of(from.bonds[i]);
      if (!from.first_commit.empty()) to.first_commit[names[i]] = from.first_commit[i];
    }
  }
  return out;
}

Row sorted(Row row) {
  std::sort(row.begin(), row.end(), [](const Entry& a, const Entry& b) { return a.uid < b.uid; });
  return row;
}

// Among equal stakes permits go by uid, so stakes are made distinct first.
void make_stakes_distinct(EpochInput& input) {
  for (std::size_t i = 0; i < input.stake.size(); ++i) {
    input.stake[i] = I64F64::from_integer(1'000'000'000ULL * (1 + i * i) + i);
  }
}

RC_GTEST_PROP(Epoch, RenamingUidsRenamesResultsAndChangesNothingElse, ()) {
  EpochInput input = random_input(*rc::gen::arbitrary<std::uint32_t>(), 20);
  make_stakes_distinct(input);
  std::vector<std::uint16_t> names(input.stake.size());
  std::iota(names.begin(), names.end(), std::uint16_t{0});
  std::mt19937_64 random(*rc::gen::arbitrary<std::uint32_t>());
  std::shuffle(names.begin(), names.end(), random);
  const EpochOutput a = run_epoch(input);
  const EpochOutput b = run_epoch(renamed(input, names));
  for (std::size_t i = 0; i < names.size(); ++i) {
    RC_ASSERT(a.emission[i] == b.emission[names[i]]);
    RC_ASSERT(a.server_emission[i] == b.server_emission[names[i]]);
    RC_ASSERT(a.validator_emission[i] == b.validator_emission[names[i]]);
    RC_ASSERT(a.consensus[i] == b.consensus[names[i]]);
    RC_ASSERT(a.permit[i] == b.permit[names[i]]);
    Row moved = a.mechanisms[0].bonds[i];
    for (Entry& e : moved) e.uid = names[e.uid];
    RC_ASSERT(sorted(moved) == sorted(b.mechanisms[0].bonds[names[i]]));
  }
}

// A validator whose stake is split between two with the same row. Consensus sees the same stake;
// every later product is floored once more, so the two halves together may miss a few units of
// 2^-32 a column. Miners' emission agrees within that under both Yumas. Validators' does under Yuma
// 2 only: Yuma 3 divides bonds by their plain column sum before it multiplies by stake, so a second
// holder of the same bond halves what each is worth (the chain's rule).
TEST(Epoch, SplittingAStakeBetweenTwoEqualValidatorsMovesAtMostRounding) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    std::mt19937_64 random(seed);
    EpochInput one;
    const std::size_t n = 14;
    const std::size_t last = n - 1;  // nobody in the first run, half of validator 0 in the second
    one.block = 1000;
    one.emission = 1'000'000'000'000;
    one.parameters.yuma = seed % 2 == 0 ? 2 : 3;
    one.stake.assign(n, I64F64::zero());
    one.registered_at.assign(n, 0);
    one.permit.assign(n, 1);
    one.mechanisms.resize(1);
    MechanismInput& m = one.mechanisms[0];
    m.last_update.assign(n, 999);
    m.weights.resize(n);
    m.bonds.resize(n);
    for (std::size_t i = 0; i < 4; ++i) {
      one.stake[i] = I64F64::from_integer(2'000'000'000ULL * (1 + random() % 1000));
      for (std::uint16_t j = 4; j < last; ++j)
        m.weights[i].push_back({j, static_cast<std::uint16_t>(random())});
    }
    EpochInput two = one;
    two.stake[0] = two.stake[last] = I64F64::from_bits(one.stake[0].bits() / 2);
    two.mechanisms[0].weights[last] = m.weights[0];
    const EpochOutput a = run_epoch(one);
    const EpochOutput b = run_epoch(two);
    const auto near = [](std::uint64_t x, std::uint64_t y) {
      return (x > y ? x - y : y - x) <= 20'000;
    };  // of 10^12
    for (std::size_t j = 4; j < last; ++j) {
      ASSERT_NEAR(a.consensus[j], b.consensus[j], 1) << seed;
      ASSERT_TRUE(near(a.emission[j], b.emission[j]))
          << seed << ": " << a.emission[j] << " " << b.emission[j];
    }
    if (one.parameters.yuma == 3) continue;
    ASSERT_TRUE(near(a.validator_emission[0], b.validator_emission[0] + b.validator_emission[last]))
        << seed;
  }
}

TEST(Epoch, NeverHandsOutMoreThanItGot) {
  for (std::uint64_t seed = 5000; seed < 5400; ++seed) {
    EpochInput input = random_input(seed, 30);
    const EpochOutput out = run_epoch(input);
    UInt128 servers = 0;
    UInt128 validators = 0;
    for (std::size_t i = 0; i < out.stake.size(); ++i) {
      servers += out.server_emission[i];
      validators += out.validator_emission[i];
    }
    ASSERT_TRUE(servers + validators <= input.emission) << seed;
  }
}

// Two validators, uids 0 and 1, whose stakes are to each other as `first` to 65535 - first, and 18
// miners. Validator 0 gives every miner more of its weight than validator 1, which also weighs uid
// 0.
EpochInput two_validators(std::uint16_t first, bool dense) {
  const std::size_t n = dense ? 20 : 10;
  EpochInput input;
  input.block = 1000;
  input.emission = 1'000'000'000;
  input.last_step_block = 500;
  input.stake.assign(n, I64F64::zero());
  input.stake[0] = I64F64::from_integer(first);
  input.stake[1] = I64F64::from_integer(65535 - first);
  input.registered_at.assign(n, 0);
  input.permit.assign(n, 1);
  input.mechanisms.resize(1);
  MechanismInput& m = input.mechanisms[0];
  m.last_update.assign(n, 999);
  m.weights.resize(n);
  m.bonds.resize(n);
  for (std::uint16_t j = 2; j < n; ++j) {
    m.weights[0].push_back({j, 100});
    m.weights[1].push_back({j, 100});
    m.bonds[0].push_back({j, 40000});
  }
  m.weights[1].push_back({0, 65535});
  return input;
}

// A weight is the consensus when the stake at or above it is at least kappa: exactly kappa is
// enough.
TEST(Epoch, TakesTheWeightThatExactlyKappaOfTheStakeSupports) {
  for (const bool dense : {false, true}) {
    EpochInput input = two_validators(26214, dense);
    input.parameters.kappa = 26214;
    const std::uint16_t at_kappa = run_epoch(input).consensus[2];
    input.parameters.kappa = 26215;
    const std::uint16_t over_kappa = run_epoch(input).consensus[2];
    const double miners = static_cast<double>(input.stake.size() - 2);
    EXPECT_EQ(at_kappa, static_cast<std::uint16_t>(65535 / miners));
    EXPECT_LT(over_kappa, 200);
  }
}

// The bonds' mask compares with the block after the last step: registered in the step's block is
// old, later is new.
TEST(Epoch, KeepsBondsToNeuronsRegisteredUpToTheLastStep) {
  for (const bool dense : {false, true}) {
    EpochInput input = two_validators(30000, dense);
    input.mechanisms[0].weights[0].clear();
    input.mechanisms[0].weights[1].clear();
    input.registered_at[2] = 499;
    input.registered_at[3] = 500;
    input.registered_at[4] = 501;
    const Row kept = run_epoch(input).mechanisms[0].bonds[0];
    const auto has = [&](std::uint16_t uid) {
      return std::any_of(kept.begin(), kept.end(), [&](const Entry& e) { return e.uid == uid; });
    };
    EXPECT_TRUE(has(2));
    EXPECT_TRUE(has(3));
    EXPECT_FALSE(has(4));
    EXPECT_TRUE(has(5));
  }
}

EpochInput one_neuron() {
  EpochInput input;
  input.stake = {I64F64::one()};
  input.registered_at = {0};
  input.permit = {1};
  input.mechanisms.resize(1);
  input.mechanisms[0].weights.resize(1);
  input.mechanisms[0].bonds.resize(1);
  return input;
}

TEST(Epoch, RefusesInputThatDoesNotFitTogether) {
  EXPECT_NO_THROW(run_epoch(one_neuron()));
  EpochInput twice = one_neuron();
  twice.mechanisms[0].weights[0] = {{0, 1}, {0, 2}};
  EXPECT_THROW(run_epoch(twice), Error);
  EpochInput short_permit = one_neuron();
  short_permit.permit.clear();
  EXPECT_THROW(run_epoch(short_permit), Error);
  EpochInput memory = one_neuron();
  memory.parameters.bonds_moving_average = 1'000'001;
  EXPECT_THROW(run_epoch(memory), Error);
}

TEST(Epoch, RunsOnASubnetWithoutNeurons) {
  EpochInput input;
  input.mechanisms.resize(1);
  EXPECT_TRUE(run_epoch(input).emission.empty());
}

}  // namespace
}  // namespace yumoe::ledger

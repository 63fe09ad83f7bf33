// The epoch of a subnet: checks the input, finds stake shares and permits, runs every mechanism and
// adds them up.

#include "coordinator/epoch.hpp"

#include <algorithm>
#include <numeric>
#include <string>

#include "cluster/error.hpp"
#include "ledger/mechanism.hpp"

namespace yumoe::ledger {
namespace {

void require(bool holds, const char* what) {
  if (!holds) throw Error(ErrorCode::config_invalid, std::string("running an epoch: ") + what);
}

void check_input(const EpochInput& in) {
  const std::size_t n = in.stake.size();
  require(n <= 65535, "more than 65535 neurons");
  require(in.registered_at.size() == n && in.permit.size() == n,
          "registrations and permits must have one entry a uid");
  require(!in.mechanisms.empty(), "no mechanism");
  require(in.parameters.yuma == 2 || in.parameters.yuma == 3, "yuma is 2 or 3");
  require(in.parameters.bonds_moving_average <= 1'000'000,
          "bonds_moving_average is at most 1000000");
  for (const MechanismInput& m : in.mechanisms) {
    require(m.weights.size() == n && m.bonds.size() == n,
            "weights and bonds must have one row a uid");
    require(m.last_update.size() <= n, "last_update is longer than the list of neurons");
    require(m.first_commit.empty() || m.first_commit.size() == n,
            "first_commit must have one entry a uid");
  }
}

EpochStake stake_shares(const EpochInput& in) {
  const std::size_t n = in.stake.size();
  const auto exempt = [&](std::size_t i) {
    return in.rules.owner_exempt && in.owner_uid && *in.owner_uid == i;
  };
  EpochStake out{in.permit, {}, {}};
  std::vector<I64F64> counted = in.stake;
  I64F64 total;
  for (std::size_t i = 0; i < n; ++i) {
    const bool too_low = in.rules.stake_threshold_in_epoch && !exempt(i) &&
                         in.stake[i].to_u64() < in.parameters.stake_threshold;
    if (too_low) counted[i] = I64F64::zero();
    total += counted[i];
    if (exempt(i)) out.old_permit[i] = 1;
  }
  out.stake.reserve(n);
  for (const I64F64 stake : counted) {
    out.stake.push_back(
        (total == I64F64::zero() ? stake : stake.safe_div(total)).convert<I32F32>());
  }
  out.new_permit = largest_k(out.stake, in.parameters.max_allowed_validators);
  for (std::size_t i = 0; i < n; ++i) {
    if (in.rules.permit_needs_stake && out.stake[i] == I32F32::zero()) out.new_permit[i] = 0;
    if (exempt(i)) out.new_permit[i] = 1;
  }
  return out;
}

std::uint64_t rao_of(I32F32 share, std::uint64_t emission) {
  return share.convert<I96F32>().saturating_mul(I96F32::from_integer(emission)).to_u64();
}

struct Payout {
  std::vector<I32F32> server;
  std::vector<I32F32> validator;
  std::vector<I32F32> combined;
};

// Incentives and dividends as shares of their sum. Where nobody earns, emission follows active
// stake, or all stake when nobody is active.
Payout shares_of_emission(const MechanismShares& shares, const EpochStake& stake) {
  const std::size_t n = stake.stake.size();
  Payout out{std::vector<I32F32>(n), std::vector<I32F32>(n), std::vector<I32F32>(n)};
  I32F32 total;
  for (std::size_t i = 0; i < n; ++i) {
    out.combined[i] = shares.incentive[i].saturating_add(shares.dividends[i]);
    total += out.combined[i];
  }
  if (total == I32F32::zero()) {
    const bool nobody = std::all_of(shares.active_stake.begin(), shares.active_stake.end(),
                                    [](I32F32 a) { return a == I32F32::zero(); });
    out.validator = out.combined = nobody ? stake.stake : shares.active_stake;
    return out;
  }
  for (std::size_t i = 0; i < n; ++i) {
    out.server[i] = shares.incentive[i].safe_div(total);
    out.validator[i] = shares.dividends[i].safe_div(total);
  }
  normalize(out.combined);
  return out;
}

// acc = floor(acc + x * share), floored at every mechanism.
template <typename T, typename Value>
void accumulate(std::vector<T>& into, U64F64 share, const Value& value) {
  for (std::size_t i = 0; i < into.size(); ++i) {
    const T x = value(i);
    into[i] = share == U64F64::one() && into[i] == 0
                  ? x
                  : U64F64::from_integer(into[i])
                        .saturating_add(U64F64::from_integer(x).saturating_mul(share))
                        .template to<T>();
  }
}

U64F64 weight_of_mechanism(std::size_t k, std::uint64_t part, std::uint64_t emission) {
  if (emission == 0) return k == 0 ? U64F64::one() : U64F64::zero();
  return U64F64::from_integer(part).safe_div(U64F64::from_integer(emission));
}

MechanismOutput add_mechanism(const EpochInput& in, const EpochStake& stake, MechanismShares shares,
                              U64F64 weight, std::uint64_t part, EpochOutput& out) {
  const Payout payout = shares_of_emission(shares, stake);
  const auto u16 = [](const std::vector<I32F32>& values) {
    return [&values](std::size_t i) { return share_to_u16(values[i]); };
  };
  accumulate(out.stake_weight, weight, u16(stake.stake));
  accumulate(out.consensus, weight, u16(shares.consensus));
  accumulate(out.dividends, weight, u16(shares.dividends));
  accumulate(out.validator_trust, weight, u16(shares.validator_trust));
  accumulate(out.emission, weight, [&](std::size_t i) { return rao_of(payout.combined[i], part); });
  MechanismOutput mechanism;
  for (std::size_t i = 0; i < in.stake.size(); ++i) {
    out.active[i] |= shares.active[i];
    out.stake[i] += in.stake[i].to_u64();
    out.server_emission[i] += rao_of(payout.server[i], part);
    out.validator_emission[i] += rao_of(payout.validator[i], part);
    mechanism.incentive.push_back(share_to_u16(shares.incentive[i]));
    if (in.rules.old_scores) mechanism.trust.push_back(share_to_u16(shares.trust[i]));
  }
  if (in.rules.old_scores) mechanism.pruning_scores = upscale_to_u16(payout.combined);
  mechanism.bonds = std::move(shares.bonds);
  return mechanism;
}

}  // namespace

struct EpochRunner::Buffers {
  MechanismRunner mechanisms;
};

EpochRunner::EpochRunner() : buffers_(std::make_unique<Buffers>()) {}
EpochRunner::~EpochRunner() = default;
EpochRunner::EpochRunner(EpochRunner&&) noexcept = default;
EpochRunner& EpochRunner::operator=(EpochRunner&&) noexcept = default;

void EpochRunner::run(const EpochInput& input, EpochOutput& out) {
  check_input(input);
  const std::size_t n = input.stake.size();
  const EpochStake stake = stake_shares(input);
  out.permit = stake.new_permit;
  out.active.assign(n, 0);
  out.stake_weight.assign(n, 0);
  out.consensus.assign(n, 0);
  out.dividends.assign(n, 0);
  out.validator_trust.assign(n, 0);
  out.emission.assign(n, 0);
  out.server_emission.assign(n, 0);
  out.validator_emission.assign(n, 0);
  out.stake.assign(n, 0);
  out.mechanisms.resize(input.mechanisms.size());
  const auto parts = split_emission(input.emission, input.mechanisms.size(), input.emission_split);
  for (std::size_t k = 0; k < parts.size(); ++k) {
    MechanismShares shares = buffers_->mechanisms.run(input, input.mechanisms[k], stake,
                                                      std::move(out.mechanisms[k].bonds));
    const U64F64 weight = weight_of_mechanism(k, parts[k], input.emission);
    out.mechanisms[k] = add_mechanism(input, stake, std::move(shares), weight, parts[k], out);
  }
}

EpochOutput run_epoch(const EpochInput& input) {
  EpochOutput out;
  EpochRunner().run(input, out);
  return out;
}

}  // namespace yumoe::ledger

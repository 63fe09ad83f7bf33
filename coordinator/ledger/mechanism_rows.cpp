#include "ledger/mechanism_rows.hpp"

#include <algorithm>
#include <numeric>

#include "cluster/error.hpp"
#include "ledger/liquid.hpp"

namespace yumoe::ledger {

void MechanismRows::begin(const EpochInput& new_input, const MechanismInput& new_mechanism,
                          const EpochStake& new_shared, std::vector<Row> bonds) {
  input = &new_input;
  mechanism = &new_mechanism;
  shared = &new_shared;
  n = new_input.stake.size();
  out = {};
  out.bonds = std::move(bonds);
  out.bonds.resize(n);
  for (Row& row : out.bonds) row.clear();
  out.validator_trust.assign(n, I32F32::zero());
  newest_registration = 0;
  for (const std::uint64_t block : input->registered_at)
    newest_registration = std::max(newest_registration, block);
  find_active();
  find_live();
  find_voters();
}

std::uint64_t MechanismRows::last_update(std::size_t uid) const {
  return uid < mechanism->last_update.size() ? mechanism->last_update[uid] : 0;
}

void MechanismRows::find_active() {
  out.active.resize(n);
  out.active_stake = shared->stake;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t updated = last_update(i);
    out.active[i] =
        input->block <= updated || input->block - updated <= parameters().activity_cutoff;
    if (!out.active[i] || !shared->old_permit[i]) out.active_stake[i] = I32F32::zero();
  }
  normalize(out.active_stake);
}

void MechanismRows::find_live() {
  live.clear();
  stored = 0;
  for (std::uint32_t i = 0; i < n; ++i) {
    const std::size_t weights = shared->old_permit[i] ? mechanism->weights[i].size() : 0;
    const std::size_t entries = weights + mechanism->bonds[i].size();
    if (entries == 0) continue;
    live.push_back(i);
    stored += entries;
  }
}

void MechanismRows::find_voters() {
  voters.row.clear();
  voters.stake.clear();
  std::vector<I32F32> held;
  std::size_t next = 0;
  for (std::uint32_t i = 0; i < n; ++i) {
    while (next < live.size() && live[next] < i) ++next;
    if (out.active_stake[i] == I32F32::zero()) continue;
    held.push_back(out.active_stake[i]);
    const bool has_row = next < live.size() && live[next] == i;
    voters.row.push_back(has_row ? static_cast<std::uint32_t>(next) : Voters::kNoRow);
  }
  normalize(held);
  const I32F32 total = std::accumulate(held.begin(), held.end(), I32F32::zero());
  const I32F32 minority = total.saturating_sub(share_of_u16(parameters().kappa));
  voters.threshold = (total - minority).bits();
  for (const I32F32 share : held) voters.stake.push_back(static_cast<std::uint32_t>(share.bits()));
}

std::uint64_t MechanismRows::weights_registered_before(std::uint32_t uid) const {
  const std::uint64_t before = last_update(uid);
  if (!input->rules.commits_mask_weights || !parameters().commit_reveal ||
      mechanism->first_commit.empty()) {
    return before;
  }
  // Registered after the oldest commit is dropped, registered with it is kept: `<` where the other
  // mask has `<=`.
  const std::uint64_t commit = mechanism->first_commit[uid];
  return std::min(before, commit == kNoCommit ? commit : commit + 1);
}

std::uint64_t MechanismRows::bonds_registered_before(std::uint32_t uid) const {
  if (!input->rules.bonds_masked_by_last_step) return last_update(uid);
  if (input->last_step_block != 0) return input->last_step_block + 1;
  return input->block > parameters().tempo ? input->block - parameters().tempo : 0;
}

std::vector<std::uint64_t> MechanismRows::column_rates() const {
  const std::uint64_t memory = parameters().bonds_moving_average * kShareOne / 1'000'000;
  std::vector<std::uint64_t> rates(n, kShareOne - memory);
  if (parameters().yuma == 2 && parameters().liquid_alpha &&
      input->rules.liquid == LiquidAlpha::quantile) {
    if (const auto liquid = quantile_rates(parameters(), out.consensus)) {
      for (std::size_t j = 0; j < n; ++j) rates[j] = bits_of((*liquid)[j]);
    }
  }
  return rates;
}

void MechanismRows::store_consensus(std::span<const std::uint32_t> consensus) {
  out.consensus.resize(n);
  for (std::size_t j = 0; j < n; ++j) out.consensus[j] = share_of(unpack_share(consensus[j]));
}

void MechanismRows::store_incentive(std::span<const std::uint64_t> rank,
                                    std::span<const std::uint64_t> unclipped_rank) {
  out.incentive.clear();
  for (std::size_t j = 0; j < n; ++j) {
    out.incentive.push_back(share_of(rank[j]));
    if (input->rules.old_scores)
      out.trust.push_back(share_of(rank[j]).safe_div(share_of(unclipped_rank[j])));
  }
  normalize(out.incentive);
  incentive.clear();
  for (const I32F32 share : out.incentive) incentive.push_back(bits_of(share));
}

// Yuma 3 multiplies by stake only here; Yuma 2 has it in its bonds.
void MechanismRows::store_dividends(std::span<const std::uint64_t> sums) {
  out.dividends.assign(n, I32F32::zero());
  for (std::size_t r = 0; r < live.size(); ++r) {
    const I32F32 sum = share_of(sums[r]);
    I32F32& dividend = out.dividends[live[r]];
    dividend = parameters().yuma == 2
                   ? sum
                   : sum.checked_mul(out.active_stake[live[r]]).value_or(I32F32::zero());
  }
  normalize(out.dividends);
}

void normalize(std::vector<I32F32>& values) {
  const I32F32 total = std::accumulate(values.begin(), values.end(), I32F32::zero());
  if (total == I32F32::zero()) return;
  for (I32F32& value : values) value = value.safe_div(total);
}

void refuse_repeated_uid() {
  throw Error(ErrorCode::config_invalid,
              "running an epoch: a uid stands twice in one row of weights or bonds");
}

}  // namespace yumoe::ledger

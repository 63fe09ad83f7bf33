#include "ledger/block.hpp"

#include <algorithm>

#include "ledger/books.hpp"
#include "ledger/claims.hpp"
#include "ledger/owner.hpp"
#include "ledger/payout.hpp"
#include "ledger/weight_calls.hpp"

namespace yumoe::ledger {
namespace {

constexpr std::uint64_t kTempoMax = 50'400;
constexpr std::uint64_t kRegistrationInterval = 100;  // blocks; counts for root alone

std::vector<U64F64> shares_of(LedgerState& state, const std::vector<Subnet*>& subnets) {
  std::vector<bool> enabled;
  for (const Subnet* subnet : subnets) enabled.push_back(subnet->parameters.emission_enabled);
  if (state.parameters.shares == EmissionRule::flow) {
    std::vector<Flow> flows;
    for (Subnet* subnet : subnets) {
      subnet->user_flow_average = flow_average(subnet->user_flow_average, subnet->user_flow);
      subnet->protocol_flow_average =
          flow_average(subnet->protocol_flow_average, subnet->protocol_flow);
      subnet->user_flow = 0;
      subnet->protocol_flow = 0;
      flows.push_back({subnet->user_flow_average, subnet->protocol_flow_average});
    }
    std::vector<U64F64> shares = flow_shares(flows, I64F64::zero(), U64F64::one());
    redistribute_disabled(shares, enabled);
    return shares;
  }
  std::vector<ShareInput> inputs;
  for (const Subnet* subnet : subnets) {
    inputs.push_back({subnet->dynamic ? subnet->moving_price : I96F32::one(), subnet->miner_burned,
                      subnet->parameters.emission_enabled});
  }
  return emission_shares(inputs, state.parameters.shares == EmissionRule::price_burn);
}

U96F32 root_part(const LedgerState& state, const Subnet& subnet) {
  return root_proportion(state.subnets.at(kRootNetuid).reserves.tao,
                         share_of_u64(state.parameters.tao_weight), subnet.reserves.alpha,
                         subnet.alpha_out);
}

// Puts a subnet's TAO into its pool; returns how much of it was used.
std::uint64_t inject(LedgerState& state, Subnet& subnet, const PoolTerms& terms) {
  std::uint64_t tao_in = terms.tao_in.to_u64();
  std::uint64_t alpha_in = terms.alpha_in.to_u64();
  const std::uint64_t excess = terms.excess.to_u64();
  if (subnet.dynamic && state.parameters.pool == PoolRule::balancer) {
    const auto weight = weight_after_injection(subnet.reserves, tao_in, alpha_in);
    if (weight) {
      subnet.reserves.quote_weight = *weight;
    } else {
      tao_in = 0;
      alpha_in = 0;
    }
  }
  std::uint64_t used = tao_in;
  if (excess > 0) {
    // Sees the new weights with the old reserves. A refused purchase leaves the TAO unused.
    const auto purchase = books::quote(state, subnet, Side::buy, excess, kSwapPriceMax, true);
    if (purchase) {
      books::buy(state, subnet, *purchase);
      subnet.protocol_alpha += purchase->paid_out;
      subnet.protocol_flow += static_cast<std::int64_t>(purchase->paid_in);
      used += purchase->paid_in;
    }
  }
  subnet.reserves.alpha += alpha_in;
  subnet.reserves.tao += tao_in;
  state.total_stake = books::plus(state.total_stake, tao_in);
  subnet.protocol_flow += static_cast<std::int64_t>(tao_in);
  subnet.tao_in_emission = tao_in;
  subnet.alpha_in_emission = alpha_in;
  return used;
}

void fill_buckets(LedgerState& state, Subnet& subnet, std::uint64_t alpha_out, bool root_sell) {
  subnet.alpha_out += alpha_out;
  subnet.alpha_out_emission = alpha_out;
  const PendingSplit split = split_alpha(alpha_out, subnet.parameters.owner_cut_enabled,
                                         state.parameters.owner_cut, root_part(state, subnet));
  subnet.pending.owner_cut += split.owner_cut;
  subnet.pending.server += split.server;
  subnet.pending.validator += split.validator;
  if (root_sell) {
    subnet.pending.root += split.root;
  } else {
    books::recycle_alpha(subnet, split.root);
  }
  // What the floors leave of the block's alpha is nobody's.
  subnet.alpha_adrift += static_cast<std::int64_t>(alpha_out - split.owner_cut - split.server -
                                                   split.validator - split.root);
}

PendingAlpha drain(Subnet& subnet) {
  const PendingAlpha drained = subnet.pending;
  subnet.pending = {};
  subnet.blocks_since_last_step = 0;
  return drained;
}

std::vector<EpochReport> run_epochs(LedgerState& state) {
  std::vector<EpochReport> reports;
  std::map<std::uint16_t, PendingAlpha> drained;
  for (const std::uint16_t netuid : storage_order(state)) {
    if (netuid == kRootNetuid) continue;
    Subnet& subnet = state.subnets.at(netuid);
    subnet.blocks_since_last_step += 1;
    if (!epoch_due(state, subnet)) continue;
    if (drained.size() >= state.parameters.epochs_per_block_max) {
      subnet.pending_epoch_at = state.block + 1;
      EpochReport report;
      report.netuid = netuid;
      report.block = state.block;
      report.deferred = true;
      reports.push_back(report);
      continue;
    }
    drained[netuid] = drain(subnet);
    subnet.last_epoch_block = state.block;
    subnet.pending_epoch_at = 0;
    subnet.epoch_index += 1;
  }
  for (const auto& [netuid, pending] : drained) {
    Subnet& subnet = state.subnets.at(netuid);
    reports.push_back(pay_epoch(state, subnet, pending));
    subnet.last_step_block = state.block;
  }
  return reports;
}

void move_prices(LedgerState& state) {
  for (Subnet* subnet : emitting_subnets(state)) {
    subnet->moving_price = moving_price_after(
        subnet->moving_price, books::price_of(state, *subnet),
        I96F32::from_bits(static_cast<Int128>(state.parameters.moving_alpha_bits)), state.block,
        *subnet->first_emission_block, subnet->parameters.ema_price_halving_blocks);
    subnet->root_proportion = root_part(state, *subnet);
  }
}

}  // namespace

std::vector<std::uint16_t> storage_order(const LedgerState& state) {
  std::vector<std::uint16_t> order;
  for (const auto& [netuid, subnet] : state.subnets) order.push_back(netuid);
  const auto by_bytes = [](std::uint16_t netuid) {
    return static_cast<std::uint16_t>((netuid << 8) | (netuid >> 8));
  };
  std::sort(order.begin(), order.end(),
            [&](std::uint16_t a, std::uint16_t b) { return by_bytes(a) < by_bytes(b); });
  return order;
}

std::vector<Subnet*> emitting_subnets(LedgerState& state) {
  std::vector<Subnet*> found;
  for (auto& [netuid, subnet] : state.subnets) {
    if (netuid == kRootNetuid || !subnet.first_emission_block || !subnet.subtoken_enabled ||
        !subnet.parameters.registration_allowed) {
      continue;
    }
    found.push_back(&subnet);
  }
  return found;
}

bool epoch_due(const LedgerState& state, const Subnet& subnet) {
  const std::uint64_t block = state.block;
  const std::uint64_t tempo = subnet.parameters.tempo;
  if (tempo == 0) return false;
  if (state.parameters.schedule == ScheduleRule::modular) {
    return (block + subnet.netuid + 1) % (tempo + 1) == tempo;
  }
  if (subnet.pending_epoch_at > 0 && block >= subnet.pending_epoch_at) return true;
  if (subnet.blocks_since_last_step > kTempoMax) return true;
  return books::minus(block, subnet.last_epoch_block) >= tempo;
}

void decay_registration_prices(LedgerState& state) {
  for (auto& [netuid, subnet] : state.subnets) {
    subnet.registrations_this_block = 0;
    if (state.block % kRegistrationInterval == 0) subnet.registrations_this_interval = 0;
    if (state.block <= 1) continue;
    const SubnetParameters& p = subnet.parameters;
    subnet.burn = decayed_price(subnet.burn, p.burn_half_life, p.min_burn, p.max_burn);
  }
}

std::uint64_t run_coinbase(LedgerState& state, std::uint64_t emission) {
  const std::vector<Subnet*> subnets = emitting_subnets(state);
  const std::vector<U64F64> shares = shares_of(state, subnets);
  U64F64 prices;
  std::vector<PoolTerms> terms;
  std::vector<std::uint64_t> alpha_out;
  for (std::size_t i = 0; i < subnets.size(); ++i) {
    const Subnet& subnet = *subnets[i];
    prices = prices.saturating_add(
        (subnet.dynamic ? subnet.moving_price : I96F32::one()).convert<U64F64>());
    alpha_out.push_back(block_emission(subnet.reserves.alpha + subnet.alpha_out));
    const U96F32 tao = U64F64::from_integer(emission).saturating_mul(shares[i]).convert<U96F32>();
    terms.push_back(
        pool_terms(tao, books::price_of(state, subnet), root_part(state, subnet), alpha_out[i]));
  }
  const bool root_sell = prices > U64F64::one();
  std::uint64_t used = 0;
  for (std::size_t i = 0; i < subnets.size(); ++i) used += inject(state, *subnets[i], terms[i]);
  for (std::size_t i = 0; i < subnets.size(); ++i) {
    fill_buckets(state, *subnets[i], alpha_out[i], root_sell);
  }
  YUMOE_ASSERT(used <= emission);
  return emission - used;
}

BlockReport step_newest(LedgerState& state) {
  BlockReport report;
  state.block += 1;
  report.block = state.block;
  decay_registration_prices(state);
  const std::uint64_t emission = block_emission(state.issuance);
  state.issuance += emission;
  reveal_due_weights(state);
  const std::uint64_t unused = run_coinbase(state, emission);
  books::recycle_tao(state, unused);
  report.tao_emission = emission - unused;
  report.epochs = run_epochs(state);
  move_prices(state);
  apply_due_children(state);
  claim_automatically(state);
  enact_proposals(state);
  return report;
}

}  // namespace yumoe::ledger

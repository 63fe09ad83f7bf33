#include "ledger/weight_calls.hpp"

#include <algorithm>

#include "ledger/block.hpp"
#include "ledger/books.hpp"
#include "ledger/payout.hpp"

namespace yumoe::ledger {
namespace {

// The facts a weight call needs, and what its spans point to.
class Call {
 public:
  Call(LedgerState& state, std::uint16_t netuid, std::uint8_t mechanism) {
    facts_.netuid = netuid;
    facts_.mechanism = mechanism;
    facts_.block = state.block;
    Subnet* subnet = books::find(state, netuid);
    facts_.exists = subnet != nullptr && mechanism < subnet->mechanisms.size();
    if (!facts_.exists) return;
    slot_ = &subnet->mechanisms[mechanism];
    const SubnetParameters& p = subnet->parameters;
    facts_.epoch = subnet->epoch_index + (epoch_due(state, *subnet) ? 1 : 0);
    facts_.commit_reveal = p.commit_reveal_weights_enabled;
    facts_.reveal_period = p.reveal_period_epochs;
    facts_.version_key = p.weights_version_key;
    facts_.rate_limit = p.weights_set_rate_limit;
    facts_.min_allowed_weights = p.min_allowed_weights;
    facts_.max_weights_limit = p.max_weights_limit;
    facts_.stake_threshold = state.parameters.stake_threshold;
    facts_.owner_hotkey = subnet->owner_hotkey;
    stake_ = stakes_of(state, *subnet);
    for (const Neuron& neuron : subnet->neurons) {
      hotkeys_.push_back(neuron.hotkey);
      permit_.push_back(neuron.permit);
    }
    facts_.hotkeys = hotkeys_;
    facts_.stake = stake_;
    facts_.permit = permit_;
  }

  const WeightFacts& facts() const { return facts_; }
  WeightSlot slot() {
    Mechanism& mechanism = slot_ == nullptr ? nowhere_ : *slot_;
    return {mechanism.weights, mechanism.last_update, mechanism.commits};
  }

 private:
  WeightFacts facts_;
  std::vector<AccountId> hotkeys_;
  std::vector<I64F64> stake_;
  std::vector<std::uint8_t> permit_;
  Mechanism* slot_ = nullptr;
  Mechanism nowhere_;  // for calls to a subnet that does not exist: they are refused
};

WeightReveal reveal_of(const RevealWeights& operation) {
  return {{operation.uids, operation.values, operation.version_key}, operation.salt};
}

Outcome<Done> set_for(LedgerState& state, const AccountId& who, const SetWeights& operation,
                      WeightEvents& events) {
  Call call(state, operation.netuid, operation.mechanism);
  return set_weights(call.facts(), call.slot(), who,
                     {operation.uids, operation.values, operation.version_key}, events);
}

Outcome<Done> commit_for(LedgerState& state, const AccountId& who, const CommitWeights& operation,
                         WeightEvents& events) {
  Call call(state, operation.netuid, operation.mechanism);
  return commit_weights(call.facts(), call.slot(), who, Digest{operation.hash}, events);
}

template <typename Item, typename Run>
Outcome<Done> run_batch(LedgerState& state, const std::vector<Item>& items, const AccountId& who,
                        Run run) {
  WeightEvents events;
  std::vector<BatchItem> batch;
  for (const Item& item : items) {
    batch.push_back({item.netuid, [&state, &item, &who, run](WeightEvents& inner) {
                       return run(state, who, item, inner);
                     }});
  }
  return run_weight_batch(batch.size(), batch.size(), batch, events);
}

}  // namespace

Outcome<Done> apply_to(LedgerState& state, const SetWeights& operation) {
  WeightEvents events;
  return set_for(state, operation.hotkey, operation, events);
}

Outcome<Done> apply_to(LedgerState& state, const CommitWeights& operation) {
  WeightEvents events;
  return commit_for(state, operation.hotkey, operation, events);
}

Outcome<Done> apply_to(LedgerState& state, const RevealWeights& operation) {
  WeightEvents events;
  Call call(state, operation.netuid, operation.mechanism);
  return reveal_weights(call.facts(), call.slot(), operation.hotkey, reveal_of(operation), events);
}

Outcome<Done> apply_to(LedgerState& state, const CommitTimelocked& operation) {
  if (operation.sealed.size() > kTimelockedBytesMax ||
      operation.plaintext.size() > kTimelockedBytesMax) {
    return LedgerError::InvalidValue;
  }
  WeightEvents events;
  Call call(state, operation.netuid, operation.mechanism);
  return commit_timelocked_weights(call.facts(), call.slot(), operation.hotkey, operation.sealed,
                                   operation.plaintext, operation.round, operation.version,
                                   state.pulse_round, events);
}

Outcome<Done> apply_to(LedgerState& state, const BatchReveal& operation) {
  WeightEvents events;
  Call call(state, operation.netuid, operation.mechanism);
  std::vector<WeightReveal> reveals;
  for (const RevealWeights& one : operation.reveals) reveals.push_back(reveal_of(one));
  return batch_reveal_weights(call.facts(), call.slot(), operation.hotkey, reveals, events);
}

Outcome<Done> apply_to(LedgerState& state, const BatchSet& operation) {
  return run_batch(state, operation.items, operation.hotkey, set_for);
}

Outcome<Done> apply_to(LedgerState& state, const BatchCommit& operation) {
  return run_batch(state, operation.items, operation.hotkey, commit_for);
}

Outcome<Done> apply_to(LedgerState& state, const Pulse& operation) {
  state.pulse_round = std::max(state.pulse_round, operation.round);
  return Done{};
}

std::vector<std::uint64_t> first_commits(const LedgerState& state, const Subnet& subnet,
                                         std::size_t mechanism) {
  WeightFacts facts;
  facts.netuid = subnet.netuid;
  facts.mechanism = static_cast<std::uint8_t>(mechanism);
  facts.block = state.block;
  // The drain has moved the schedule on: the epoch's number is the new one, with nothing due.
  facts.epoch = subnet.epoch_index;
  facts.commit_reveal = subnet.parameters.commit_reveal_weights_enabled;
  facts.reveal_period = subnet.parameters.reveal_period_epochs;
  std::vector<std::uint64_t> first;
  for (const Neuron& neuron : subnet.neurons) {
    first.push_back(first_open_commit(facts, subnet.mechanisms[mechanism].commits, neuron.hotkey));
  }
  return first;
}

void reveal_due_weights(LedgerState& state) {
  const auto known = [&state](std::uint64_t round) { return round <= state.pulse_round; };
  for (auto& [netuid, subnet] : state.subnets) {
    if (netuid == kRootNetuid) continue;
    for (std::size_t i = 0; i < subnet.mechanisms.size(); ++i) {
      if (subnet.mechanisms[i].commits.sealed.empty()) continue;
      WeightEvents events;
      Call call(state, netuid, static_cast<std::uint8_t>(i));
      reveal_timelocked_weights(call.facts(), call.slot(), known, events);
    }
  }
}

}  // namespace yumoe::ledger

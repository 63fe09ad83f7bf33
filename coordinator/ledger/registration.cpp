#include "ledger/registration.hpp"

#include <algorithm>
#include <tuple>

#include "ledger/books.hpp"

namespace yumoe::ledger {
namespace {

constexpr std::uint16_t kRootIntervalFactor = 3;

// Uids the owner keeps whatever they earn.
std::vector<std::uint16_t> immortal_uids(const LedgerState& state, const Subnet& subnet) {
  std::vector<std::pair<std::uint64_t, std::uint16_t>> owned;
  for (std::size_t uid = 0; uid < subnet.neurons.size(); ++uid) {
    const Neuron& neuron = subnet.neurons[uid];
    if (books::owns(state, subnet.owner_coldkey, neuron.hotkey)) {
      owned.emplace_back(neuron.registered_at, static_cast<std::uint16_t>(uid));
    }
  }
  std::sort(owned.begin(), owned.end());
  const std::size_t limit = subnet.parameters.immune_owner_uids_limit;
  std::vector<std::uint16_t> uids;
  for (std::size_t i = 0; i < std::min(limit, owned.size()); ++i) uids.push_back(owned[i].second);
  const auto owner = subnet.uids.find(subnet.owner_hotkey);
  if (owner != subnet.uids.end() &&
      std::find(uids.begin(), uids.end(), owner->second) == uids.end()) {
    uids.insert(uids.begin(), owner->second);
  }
  if (uids.size() > limit) uids.resize(limit);
  return uids;
}

void forget_scores(Neuron& neuron) {
  neuron.active = true;
  neuron.permit = false;
  neuron.stake_weight = 0;
  neuron.consensus = 0;
  neuron.dividends = 0;
  neuron.validator_trust = 0;
  neuron.emission = 0;
}

// Sells a uid for TAO that buys alpha nobody gets.
void burn_for_registration(LedgerState& state, Subnet& subnet, const AccountId& coldkey,
                           const SwapResult& purchase) {
  const std::uint64_t spent = purchase.paid_in + purchase.fee;
  state.coldkeys.at(coldkey).free -= spent;
  books::buy(state, subnet, purchase);
  books::recycle_alpha(subnet, purchase.paid_out);
  subnet.user_flow += static_cast<std::int64_t>(spent);
  subnet.registration_recycled = books::plus(subnet.registration_recycled, spent);
}

// Becoming known binds a hotkey to its first payer.
bool may_bind(const LedgerState& state, const AccountId& hotkey, const AccountId& coldkey) {
  return !books::known(state, hotkey) || books::owns(state, coldkey, hotkey);
}

void bind(LedgerState& state, const AccountId& hotkey, const AccountId& coldkey) {
  state.hotkeys.try_emplace(hotkey, Hotkey{coldkey, std::nullopt, 0});
}

Outcome<Done> register_on_root(LedgerState& state, const Register& operation) {
  Subnet* root = books::find(state, kRootNetuid);
  if (root == nullptr) return LedgerError::RootNetworkDoesNotExist;
  if (root->registrations_this_block >= root->parameters.max_registrations_per_block) {
    return LedgerError::TooManyRegistrationsThisBlock;
  }
  if (root->registrations_this_interval >=
      kRootIntervalFactor * root->parameters.target_registrations_per_interval) {
    return LedgerError::TooManyRegistrationsThisInterval;
  }
  if (root->uids.contains(operation.hotkey)) return LedgerError::HotKeyAlreadyRegisteredInSubNet;
  if (!may_bind(state, operation.hotkey, operation.coldkey))
    return LedgerError::NonAssociatedColdKey;
  std::optional<std::uint16_t> lowest;
  if (root->neurons.size() >= state.parameters.root_uids_max) {
    const auto stake_at = [&](std::size_t uid) {
      return books::total_of(*root, root->neurons[uid].hotkey);
    };
    lowest = 0;
    for (std::size_t uid = 1; uid < root->neurons.size(); ++uid) {
      if (stake_at(uid) < stake_at(*lowest)) lowest = static_cast<std::uint16_t>(uid);
    }
    if (books::total_of(*root, operation.hotkey) <= stake_at(*lowest)) {
      return LedgerError::StakeTooLowForRoot;
    }
  }
  bind(state, operation.hotkey, operation.coldkey);
  Hotkey& account = state.hotkeys.at(operation.hotkey);
  if (!account.take) account.take = state.parameters.default_take;
  if (lowest) {
    replace_neuron(state, *root, *lowest, operation.hotkey);
  } else {
    append_neuron(state, *root, operation.hotkey);
  }
  root->registrations_this_block += 1;
  root->registrations_this_interval += 1;
  return Done{};
}

}  // namespace

std::optional<std::uint16_t> uid_to_replace(const LedgerState& state, const Subnet& subnet) {
  const std::vector<std::uint16_t> immortal = immortal_uids(state, subnet);
  using Rank = std::tuple<std::uint64_t, std::uint64_t, std::uint16_t>;
  std::optional<Rank> best;
  std::optional<Rank> best_immune;
  std::size_t mortal = 0;
  for (std::size_t i = 0; i < subnet.neurons.size(); ++i) {
    const auto uid = static_cast<std::uint16_t>(i);
    if (std::find(immortal.begin(), immortal.end(), uid) != immortal.end()) continue;
    const Neuron& neuron = subnet.neurons[i];
    const Rank rank{neuron.emission, neuron.registered_at, uid};
    const bool immune =
        books::minus(state.block, neuron.registered_at) < subnet.parameters.immunity_period;
    std::optional<Rank>& slot = immune ? best_immune : best;
    if (!slot || rank < *slot) slot = rank;
    mortal += immune ? 0 : 1;
  }
  if (mortal > subnet.parameters.min_non_immune_uids && best) return std::get<2>(*best);
  if (best_immune) return std::get<2>(*best_immune);
  return std::nullopt;
}

void append_neuron(const LedgerState& state, Subnet& subnet, const AccountId& hotkey) {
  Neuron neuron;
  neuron.hotkey = hotkey;
  neuron.registered_at = state.block;
  subnet.uids[hotkey] = static_cast<std::uint16_t>(subnet.neurons.size());
  subnet.neurons.push_back(neuron);
  for (Mechanism& mechanism : subnet.mechanisms) {
    mechanism.incentive.push_back(0);
    mechanism.last_update.push_back(state.block);
    mechanism.weights.emplace_back();
    mechanism.bonds.emplace_back();
  }
}

void replace_neuron(const LedgerState& state, Subnet& subnet, std::uint16_t uid,
                    const AccountId& hotkey) {
  Neuron& neuron = subnet.neurons[uid];
  if (neuron.hotkey == subnet.owner_hotkey && subnet.netuid != kRootNetuid) return;
  subnet.uids.erase(neuron.hotkey);
  neuron.hotkey = hotkey;
  neuron.registered_at = state.block;
  forget_scores(neuron);
  subnet.uids[hotkey] = uid;
  for (Mechanism& mechanism : subnet.mechanisms) {
    mechanism.incentive[uid] = 0;
    mechanism.last_update[uid] = state.block;
    mechanism.weights[uid].clear();
    mechanism.bonds[uid].clear();
    for (Row& row : mechanism.weights) {
      for (Entry& entry : row) {
        if (entry.uid == uid) entry.value = 0;  // the entry stays
      }
    }
  }
}

Outcome<Done> apply_to(LedgerState& state, const Register& operation) {
  if (operation.netuid == kRootNetuid) return register_on_root(state, operation);
  Subnet* subnet = books::find(state, operation.netuid);
  if (subnet == nullptr) return LedgerError::SubnetNotExists;
  if (operation.burn_limit && subnet->burn > *operation.burn_limit) {
    return LedgerError::RegistrationPriceLimitExceeded;
  }
  if (!subnet->parameters.registration_allowed) return LedgerError::SubNetRegistrationDisabled;
  if (subnet->uids.contains(operation.hotkey)) return LedgerError::HotKeyAlreadyRegisteredInSubNet;
  if (books::free_of(state, operation.coldkey) < subnet->burn)
    return LedgerError::NotEnoughBalanceToStake;
  if (operation.hotkey == AccountId{} || operation.coldkey == AccountId{}) {
    return LedgerError::CannotUseSystemAccount;
  }
  if (!may_bind(state, operation.hotkey, operation.coldkey))
    return LedgerError::NonAssociatedColdKey;
  const bool full = subnet->neurons.size() >= subnet->parameters.max_allowed_uids;
  const auto victim = full ? uid_to_replace(state, *subnet) : std::nullopt;
  if (subnet->parameters.max_allowed_uids == 0 || (full && !victim)) {
    return LedgerError::NoNeuronIdAvailable;
  }
  SwapResult purchase;
  if (subnet->burn > 0) {
    const auto quoted = books::quote(state, *subnet, Side::buy, subnet->burn, kSwapPriceMax);
    if (!quoted) return quoted.error();
    purchase = *quoted;
    burn_for_registration(state, *subnet, operation.coldkey, purchase);
  }
  bind(state, operation.hotkey, operation.coldkey);
  if (victim) {
    replace_neuron(state, *subnet, *victim, operation.hotkey);
  } else {
    append_neuron(state, *subnet, operation.hotkey);
  }
  const SubnetParameters& p = subnet->parameters;
  // 1.26 as the chain writes it: the nearest double, which 64 fraction bits hold exactly.
  const U64F64 factor = U64F64::from_literal(static_cast<double>(p.burn_increase_milli) / 1000.0);
  subnet->burn = raised_price(subnet->burn, factor, p.min_burn, p.max_burn);
  subnet->registrations_this_block += 1;
  subnet->registrations_this_interval += 1;
  return Done{};
}

}  // namespace yumoe::ledger

#include "ledger/payout.hpp"

#include <algorithm>

#include "ledger/books.hpp"
#include "ledger/weight_calls.hpp"

namespace yumoe::ledger {
namespace {

using books::whole;

std::uint64_t inherited(const Subnet& subnet, const Subnet& stakes_of, const AccountId& hotkey) {
  const std::uint64_t own = books::total_of(stakes_of, hotkey);
  const auto family = subnet.families.find(hotkey);
  if (family == subnet.families.end()) return own;
  std::vector<std::uint64_t> children;
  for (const Relation& child : family->second.children) children.push_back(child.proportion);
  std::vector<ParentStake> parents;
  for (const Relation& parent : family->second.parents) {
    parents.push_back({parent.proportion, books::total_of(stakes_of, parent.key)});
  }
  return inherited_stake(own, children, parents);
}

// One payment run: who has what left to hand out, and the report it fills.
class Payment {
 public:
  Payment(LedgerState& state, Subnet& subnet, EpochReport& report)
      : state_(state), subnet_(subnet), tao_weight_(share_of_u64(state.parameters.tao_weight)) {
    for (Payout& payout : report.payouts) payouts_[payout.hotkey] = &payout;
  }

  // Alpha that reaches a staker leaves what is adrift.
  bool give(const AccountId& hotkey, const AccountId& coldkey, std::uint64_t alpha) {
    if (!books::stake(state_, subnet_, hotkey, coldkey, alpha)) return false;
    subnet_.alpha_adrift -= static_cast<std::int64_t>(alpha);
    return true;
  }

  void pay_incentives(const std::map<AccountId, std::uint64_t>& incentives) {
    std::uint64_t total = 0;
    std::uint64_t withheld = 0;
    for (const auto& [hotkey, amount] : incentives) {
      total += amount;
      Payout& payout = *payouts_.at(hotkey);
      payout.incentive = amount;
      const AccountId coldkey = state_.hotkeys.at(hotkey).coldkey;
      payout.withheld = hotkey == subnet_.owner_hotkey || coldkey == subnet_.owner_coldkey;
      if (payout.withheld) {
        withheld += amount;
        if (subnet_.parameters.recycle) recycle(amount);
        continue;
      }
      give(autostake(coldkey).value_or(hotkey), coldkey, amount);
    }
    subnet_.miner_burned = whole(withheld).safe_div(whole(total));
  }

  // What each hotkey's dividend becomes after its parents, and childkey burns, have had theirs.
  std::map<AccountId, U96F32> with_parents(const std::map<AccountId, std::uint64_t>& dividends) {
    std::map<AccountId, U96F32> shared;
    for (const auto& [hotkey, dividend] : dividends) share(hotkey, dividend, shared);
    return shared;
  }

  DividendSplit split(const std::map<AccountId, U96F32>& shared, std::uint64_t pv,
                      std::uint64_t pr) {
    std::map<AccountId, OwnStake> stakes;
    for (const auto& [hotkey, dividend] : shared) stakes[hotkey] = own(hotkey);
    return split_dividends(shared, stakes, pv, pr, tao_weight_);
  }

  void pay_alpha(const std::map<AccountId, U96F32>& dividends) {
    subnet_.alpha_dividends.clear();
    for (const auto& [hotkey, amount] : dividends) {
      const std::uint64_t take = pay_take(hotkey, amount);
      const std::uint64_t rest = amount.saturating_sub(taken(hotkey, amount)).to_u64();
      if (rest > 0) {
        books::pool_of(state_, subnet_, hotkey).deposit_for_all(rest);
        subnet_.alpha_adrift -= static_cast<std::int64_t>(rest);
      }
      subnet_.alpha_dividends[hotkey] = rest;
      if (Payout* payout = payout_of(hotkey)) {
        payout->dividend_alpha = rest + take;
        payout->take += take;
      }
    }
  }

  void pay_root(const std::map<AccountId, U96F32>& dividends) {
    for (const auto& [hotkey, amount] : dividends) {
      const std::uint64_t take = pay_take(hotkey, amount);
      const std::uint64_t rest = amount.saturating_sub(taken(hotkey, amount)).to_u64();
      const std::uint64_t root = books::root_stake_of(state_, hotkey);
      if (rest > root) {
        give(hotkey, state_.hotkeys.at(hotkey).coldkey, rest);
      } else if (rest > 0) {
        RootClaim& claim = subnet_.claims[hotkey];
        claim.rate = claim.rate.saturating_add(
            I96F32::from_integer(rest).safe_div(I96F32::from_integer(root)));
        subnet_.alpha_root_owed += static_cast<std::int64_t>(rest);
        subnet_.alpha_adrift -= static_cast<std::int64_t>(rest);
      }
      if (Payout* payout = payout_of(hotkey)) {
        payout->dividend_root = rest + take;
        payout->take += take;
      }
    }
  }

 private:
  Payout* payout_of(const AccountId& hotkey) {
    const auto at = payouts_.find(hotkey);
    return at == payouts_.end() ? nullptr : at->second;  // a parent need not be registered here
  }

  OwnStake own(const AccountId& hotkey) const {
    return {books::total_of(subnet_, hotkey), books::root_stake_of(state_, hotkey)};
  }

  std::optional<AccountId> autostake(const AccountId& coldkey) const {
    const auto account = state_.coldkeys.find(coldkey);
    if (account == state_.coldkeys.end()) return std::nullopt;
    const auto at = account->second.autostake.find(subnet_.netuid);
    if (at == account->second.autostake.end()) return std::nullopt;
    return at->second;
  }

  U96F32 taken(const AccountId& hotkey, U96F32 amount) const {
    const Hotkey& account = state_.hotkeys.at(hotkey);
    return books::u16_share(account.take.value_or(state_.parameters.default_take))
        .saturating_mul(amount);
  }

  std::uint64_t pay_take(const AccountId& hotkey, U96F32 amount) {
    const std::uint64_t take = taken(hotkey, amount).to_u64();
    give(hotkey, state_.hotkeys.at(hotkey).coldkey, take);
    return take;
  }

  void recycle(std::uint64_t alpha) {
    books::recycle_alpha(subnet_, alpha);
    subnet_.alpha_adrift -= static_cast<std::int64_t>(alpha);
  }

  void share(const AccountId& hotkey, std::uint64_t dividend, std::map<AccountId, U96F32>& shared) {
    static const Family kNone;
    const auto at = subnet_.families.find(hotkey);
    const Family& family = at == subnet_.families.end() ? kNone : at->second;
    std::vector<std::uint64_t> children;
    for (const Relation& child : family.children) children.push_back(child.proportion);
    std::vector<ParentShare> parents;
    for (const Relation& parent : family.parents) {
      parents.push_back(
          {parent.proportion, own(parent.key),
           state_.hotkeys.at(parent.key).coldkey == state_.hotkeys.at(hotkey).coldkey});
    }
    const std::uint16_t take =
        std::max(family.childkey_take.value_or(0), state_.parameters.childkey_take_min);
    const ParentDividends parts =
        divide_among_parents(dividend, own(hotkey), children, parents, tao_weight_,
                             books::u16_share(take), share_of_u64(state_.parameters.childkey_burn));
    for (std::size_t i = 0; i < parts.parents.size(); ++i) {
      U96F32& due = shared[family.parents[i].key];
      due = due.saturating_add(whole(parts.parents[i]));
    }
    U96F32& due = shared[hotkey];
    due = due.saturating_add(whole(parts.own));
    recycle(std::min(parts.burned, subnet_.alpha_out));
  }

  LedgerState& state_;
  Subnet& subnet_;
  U96F32 tao_weight_;
  std::map<AccountId, Payout*> payouts_;
};

EpochRules rules_of(const LedgerState& state) {
  return state.parameters.blocks == BlockRule::spec233 ? EpochRules::spec233()
                                                       : EpochRules::newest();
}

EpochParameters parameters_of(const LedgerState& state, const Subnet& subnet) {
  const SubnetParameters& p = subnet.parameters;
  EpochParameters out;
  out.yuma = p.yuma;
  out.kappa = p.kappa;
  out.bonds_penalty = p.bonds_penalty;
  out.bonds_moving_average = p.bonds_moving_average;
  out.liquid_alpha = p.liquid_alpha_on;
  out.alpha_low = p.alpha_low;
  out.alpha_high = p.alpha_high;
  out.alpha_sigmoid_steepness = static_cast<std::int16_t>(p.alpha_sigmoid_steepness);
  out.max_allowed_validators = p.max_allowed_validators;
  out.activity_cutoff =
      std::max<std::uint64_t>(1, std::uint64_t{p.activity_cutoff_factor_milli} * p.tempo / 1000);
  out.tempo = p.tempo;
  out.stake_threshold = state.parameters.stake_threshold;
  out.commit_reveal = p.commit_reveal_weights_enabled;
  return out;
}

}  // namespace

std::vector<I64F64> stakes_of(const LedgerState& state, const Subnet& subnet) {
  const Subnet& root = state.subnets.at(kRootNetuid);
  std::vector<I64F64> stakes;
  for (const Neuron& neuron : subnet.neurons) {
    stakes.push_back(total_stake(inherited(subnet, subnet, neuron.hotkey),
                                 inherited(subnet, root, neuron.hotkey),
                                 state.parameters.tao_weight));
  }
  return stakes;
}

EpochInput epoch_input(const LedgerState& state, const Subnet& subnet, std::uint64_t emission) {
  EpochInput input;
  input.rules = rules_of(state);
  input.parameters = parameters_of(state, subnet);
  input.block = state.block;
  input.last_step_block = subnet.last_step_block;
  input.emission = emission;
  const auto owner = subnet.uids.find(subnet.owner_hotkey);
  if (owner != subnet.uids.end()) input.owner_uid = owner->second;
  input.stake = stakes_of(state, subnet);
  for (const Neuron& neuron : subnet.neurons) {
    input.registered_at.push_back(neuron.registered_at);
    input.permit.push_back(neuron.permit);
  }
  input.emission_split = subnet.emission_split;
  for (std::size_t i = 0; i < subnet.mechanisms.size(); ++i) {
    const Mechanism& mechanism = subnet.mechanisms[i];
    MechanismInput one;
    one.last_update = mechanism.last_update;
    one.weights = mechanism.weights;
    one.bonds = mechanism.bonds;
    if (input.parameters.commit_reveal) one.first_commit = first_commits(state, subnet, i);
    input.mechanisms.push_back(std::move(one));
  }
  return input;
}

void store_epoch(Subnet& subnet, const EpochOutput& output) {
  for (std::size_t uid = 0; uid < subnet.neurons.size(); ++uid) {
    Neuron& neuron = subnet.neurons[uid];
    neuron.active = output.active[uid] != 0;
    neuron.permit = output.permit[uid] != 0;
    neuron.stake_weight = output.stake_weight[uid];
    neuron.consensus = output.consensus[uid];
    neuron.dividends = output.dividends[uid];
    neuron.validator_trust = output.validator_trust[uid];
    neuron.emission = output.emission[uid];
  }
  for (std::size_t i = 0; i < subnet.mechanisms.size(); ++i) {
    subnet.mechanisms[i].incentive = output.mechanisms[i].incentive;
    subnet.mechanisms[i].bonds = output.mechanisms[i].bonds;
  }
}

EpochReport pay_epoch(LedgerState& state, Subnet& subnet, const PendingAlpha& drained) {
  EpochReport report;
  report.netuid = subnet.netuid;
  report.block = state.block;
  report.owner_cut = drained.owner_cut;
  // All that was drained is nobody's until it is paid.
  const std::uint64_t emission = drained.server + drained.validator + drained.root;
  subnet.alpha_adrift += static_cast<std::int64_t>(emission + drained.owner_cut);

  std::map<AccountId, std::uint64_t> incentives;
  std::map<AccountId, std::uint64_t> dividends;
  std::uint64_t servers = 0;
  if (!subnet.neurons.empty()) {
    const EpochOutput output = run_epoch(epoch_input(state, subnet, emission));
    store_epoch(subnet, output);
    for (std::size_t uid = 0; uid < subnet.neurons.size(); ++uid) {
      const AccountId& hotkey = subnet.neurons[uid].hotkey;
      incentives[hotkey] = output.server_emission[uid];
      dividends[hotkey] = output.validator_emission[uid];
      servers += output.server_emission[uid];
      Payout payout;
      payout.uid = static_cast<std::uint16_t>(uid);
      payout.hotkey = hotkey;
      payout.emission = output.emission[uid];
      report.payouts.push_back(payout);
    }
  }
  const std::uint64_t for_validators = drained.validator + (servers == 0 ? drained.server : 0);

  Payment payment(state, subnet, report);
  const DividendSplit split =
      payment.split(payment.with_parents(dividends), for_validators, drained.root);
  payment.give(subnet.owner_hotkey, subnet.owner_coldkey, drained.owner_cut);
  payment.pay_incentives(incentives);
  payment.pay_alpha(split.alpha);
  payment.pay_root(split.root);
  return report;
}

}  // namespace yumoe::ledger

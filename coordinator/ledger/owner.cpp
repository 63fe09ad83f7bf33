#include "ledger/owner.hpp"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "ledger/books.hpp"

namespace yumoe::ledger {
namespace {

constexpr std::size_t kChildrenMax = 5;
constexpr std::size_t kUidsTimesMechanismsMax = 256;
constexpr std::uint64_t kOwnerRateLimitTempos = 2;
constexpr std::size_t kProposalsMax = 64;
constexpr std::string_view kEmissionSwitch = "emission_enabled/";

Outcome<Done> check_hotkey(const LedgerState& state, const AccountId& hotkey,
                           const AccountId& coldkey) {
  if (!books::known(state, hotkey)) return LedgerError::HotKeyAccountNotExists;
  if (!books::owns(state, coldkey, hotkey)) return LedgerError::NonAssociatedColdKey;
  return Done{};
}

bool too_soon(const LedgerState& state, std::uint64_t last, std::uint64_t limit) {
  return last != 0 && books::minus(state.block, last) < limit;
}

Outcome<Done> check_children(const LedgerState& state, const Subnet& subnet,
                             const SetChildren& operation) {
  if (operation.children.size() > kChildrenMax) return LedgerError::TooManyChildren;
  UInt128 sum = 0;
  std::set<AccountId> keys;
  for (const Relation& child : operation.children) {
    if (child.key == operation.hotkey) return LedgerError::InvalidChild;
    sum += child.proportion;
    keys.insert(child.key);
  }
  if (sum > books::kMax) return LedgerError::ProportionOverflow;
  if (keys.size() != operation.children.size()) return LedgerError::DuplicateChild;
  const auto family = subnet.families.find(operation.hotkey);
  if (family != subnet.families.end()) {
    for (const Relation& parent : family->second.parents) {
      if (keys.contains(parent.key)) return LedgerError::ParentChildCannotBeBoth;
    }
  }
  const std::uint64_t own =
      total_stake(books::total_of(subnet, operation.hotkey),
                  books::root_stake_of(state, operation.hotkey), state.parameters.tao_weight)
          .to_u64();
  if (!operation.children.empty() && own < state.parameters.stake_threshold &&
      operation.hotkey != subnet.owner_hotkey) {
    return LedgerError::NotEnoughStakeToSetChildkeys;
  }
  return Done{};
}

void forget_family(Subnet& subnet, const AccountId& hotkey) {
  const auto at = subnet.families.find(hotkey);
  if (at != subnet.families.end() && at->second.empty()) subnet.families.erase(at);
}

void replace_children(Subnet& subnet, const AccountId& hotkey, std::vector<Relation> children) {
  Family& family = subnet.families[hotkey];
  // Between the call and now a child may have become a parent: such a plan is dropped.
  for (const Relation& child : children) {
    for (const Relation& parent : family.parents) {
      if (parent.key == child.key) return;
    }
  }
  const std::vector<Relation> old = family.children;
  for (const Relation& child : old) {
    auto& parents = subnet.families[child.key].parents;
    std::erase_if(parents, [&](const Relation& parent) { return parent.key == hotkey; });
  }
  for (const Relation& child : children) {
    subnet.families[child.key].parents.push_back({child.proportion, hotkey});
  }
  subnet.families[hotkey].children = std::move(children);
  for (const Relation& child : old) forget_family(subnet, child.key);
}

std::uint64_t votes_of(const LedgerState& state, const AccountId& coldkey) {
  const auto account = state.coldkeys.find(coldkey);
  if (account == state.coldkeys.end()) return 0;
  std::uint64_t sum = 0;
  for (const AccountId& hotkey : account->second.staking_hotkeys) {
    sum += books::stake_of(state.subnets.at(kRootNetuid), hotkey, coldkey);
  }
  return sum;
}

// The subnet whose emission switch the name means, if it is such a name.
std::optional<std::uint16_t> switched_subnet(std::string_view name) {
  if (!name.starts_with(kEmissionSwitch)) return std::nullopt;
  name.remove_prefix(kEmissionSwitch.size());
  std::uint16_t netuid = 0;
  const auto end = std::from_chars(name.data(), name.data() + name.size(), netuid);
  if (end.ec != std::errc{} || end.ptr != name.data() + name.size()) return std::nullopt;
  return netuid;
}

bool enact(LedgerState& state, const std::string& name, std::uint64_t value) {
  if (const auto netuid = switched_subnet(name)) {
    Subnet* subnet = books::find(state, *netuid);
    return subnet != nullptr && set_parameter(subnet->parameters, "emission_enabled", value);
  }
  return set_parameter(state.parameters, name, value);
}

}  // namespace

bool consistent(const Subnet& subnet, const SubnetParameters& p) {
  return std::size_t{p.mechanism_count} * p.max_allowed_uids <=
             std::max<std::size_t>(kUidsTimesMechanismsMax, p.max_allowed_uids) &&
         p.max_allowed_uids >= subnet.neurons.size() && p.alpha_low <= p.alpha_high &&
         p.min_burn <= p.max_burn;
}

void fit_to_parameters(Subnet& subnet) {
  const std::size_t n = subnet.neurons.size();
  const std::size_t old = subnet.mechanisms.size();
  subnet.mechanisms.resize(subnet.parameters.mechanism_count);
  for (std::size_t i = old; i < subnet.mechanisms.size(); ++i) {
    Mechanism& mechanism = subnet.mechanisms[i];
    mechanism.incentive.resize(n);
    mechanism.last_update.resize(n);
    mechanism.weights.resize(n);
    mechanism.bonds.resize(n);
  }
  if (subnet.mechanisms.size() != old) subnet.emission_split.clear();
}

Outcome<Done> apply_to(LedgerState& state, const SetTake& operation) {
  if (const auto fit = check_hotkey(state, operation.hotkey, operation.coldkey); !fit) return fit;
  Hotkey& hotkey = state.hotkeys.at(operation.hotkey);
  const std::uint16_t current = hotkey.take.value_or(state.parameters.default_take);
  if (operation.increase) {
    if (hotkey.take && operation.take <= current) return LedgerError::DelegateTakeTooLow;
    if (operation.take > state.parameters.take_max) return LedgerError::DelegateTakeTooHigh;
    if (too_soon(state, hotkey.take_block, state.parameters.take_rate_limit)) {
      return LedgerError::DelegateTxRateLimitExceeded;
    }
    hotkey.take_block = state.block;
  } else {
    if (hotkey.take && operation.take >= current) return LedgerError::DelegateTakeTooLow;
    if (operation.take < state.parameters.take_min) return LedgerError::DelegateTakeTooLow;
  }
  hotkey.take = operation.take;
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const SetChildkeyTake& operation) {
  if (const auto fit = check_hotkey(state, operation.hotkey, operation.coldkey); !fit) return fit;
  Subnet* subnet = books::find(state, operation.netuid);
  if (subnet == nullptr) return LedgerError::SubnetNotExists;
  if (operation.take < state.parameters.childkey_take_min ||
      operation.take > state.parameters.childkey_take_max) {
    return LedgerError::InvalidChildkeyTake;
  }
  std::uint16_t current = state.parameters.childkey_take_min;
  std::uint64_t changed_at = 0;
  const auto at = subnet->families.find(operation.hotkey);
  if (at != subnet->families.end()) {
    current = at->second.childkey_take.value_or(current);
    changed_at = at->second.childkey_take_block;
  }
  if (operation.take > current && too_soon(state, changed_at, state.parameters.take_rate_limit)) {
    return LedgerError::TxChildkeyTakeRateLimitExceeded;
  }
  Family& changed = subnet->families[operation.hotkey];
  changed.childkey_take = operation.take;
  changed.childkey_take_block = state.block;
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const SetChildren& operation) {
  if (operation.netuid == kRootNetuid) return LedgerError::RegistrationNotPermittedOnRootSubnet;
  Subnet* subnet = books::find(state, operation.netuid);
  if (subnet == nullptr) return LedgerError::SubnetNotExists;
  if (const auto fit = check_hotkey(state, operation.hotkey, operation.coldkey); !fit) {
    return LedgerError::NonAssociatedColdKey;
  }
  const auto at = subnet->families.find(operation.hotkey);
  if (at != subnet->families.end() &&
      too_soon(state, at->second.children_block, state.parameters.children_rate_limit)) {
    return LedgerError::TxRateLimitExceeded;
  }
  if (const auto fit = check_children(state, *subnet, operation); !fit) return fit;
  Family& family = subnet->families[operation.hotkey];
  family.children_block = state.block;
  // Before the start call there is nothing to game: the plan holds at once.
  if (!subnet->subtoken_enabled) {
    replace_children(*subnet, operation.hotkey, operation.children);
    return Done{};
  }
  family.pending = PendingChildren{books::plus(state.block, state.parameters.children_delay),
                                   operation.children};
  return Done{};
}

void apply_due_children(LedgerState& state) {
  for (auto& [netuid, subnet] : state.subnets) {
    if (subnet.last_epoch_block != state.block) continue;
    std::vector<AccountId> due;
    for (const auto& [hotkey, family] : subnet.families) {
      if (family.pending && family.pending->due_block <= state.block) due.push_back(hotkey);
    }
    for (const AccountId& hotkey : due) {
      Family& family = subnet.families.at(hotkey);
      std::vector<Relation> children = std::move(family.pending->children);
      family.pending.reset();
      replace_children(subnet, hotkey, std::move(children));
    }
  }
}

Outcome<Done> apply_to(LedgerState& state, const SetAutostake& operation) {
  const Subnet* subnet = books::find(state, operation.netuid);
  if (subnet == nullptr) return LedgerError::SubnetNotExists;
  if (!subnet->uids.contains(operation.hotkey)) return LedgerError::HotKeyNotRegisteredInSubNet;
  state.coldkeys[operation.coldkey].autostake[operation.netuid] = operation.hotkey;
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const SetHyperparameter& operation) {
  Subnet* subnet = books::find(state, operation.netuid);
  if (subnet == nullptr || operation.netuid == kRootNetuid) return LedgerError::SubnetNotExists;
  if (subnet->owner_coldkey != operation.coldkey) return LedgerError::NotSubnetOwner;
  SubnetParameters changed = subnet->parameters;
  if (!set_parameter(changed, operation.name, operation.value, true) ||
      !consistent(*subnet, changed)) {
    return LedgerError::InvalidValue;
  }
  const std::uint64_t left =
      blocks_until_next_auto_epoch(subnet->parameters.tempo, subnet->last_epoch_block, state.block);
  if (left < state.parameters.freeze_window &&
      subnet->parameters.tempo > state.parameters.freeze_window) {
    return LedgerError::AdminActionProhibitedDuringWeightsWindow;
  }
  const auto last = subnet->parameter_blocks.find(operation.name);
  if (last != subnet->parameter_blocks.end() &&
      too_soon(state, last->second, kOwnerRateLimitTempos * subnet->parameters.tempo)) {
    return LedgerError::TxRateLimitExceeded;
  }
  subnet->parameters = changed;
  subnet->parameter_blocks[operation.name] = state.block;
  if (operation.name == "tempo") subnet->last_epoch_block = state.block;
  fit_to_parameters(*subnet);
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const SetEmissionSplit& operation) {
  Subnet* subnet = books::find(state, operation.netuid);
  if (subnet == nullptr || operation.netuid == kRootNetuid) return LedgerError::SubnetNotExists;
  if (subnet->owner_coldkey != operation.coldkey) return LedgerError::NotSubnetOwner;
  const std::uint64_t sum =
      std::accumulate(operation.split.begin(), operation.split.end(), std::uint64_t{0});
  if (!operation.split.empty() &&
      (operation.split.size() > subnet->mechanisms.size() || sum != 65535)) {
    return LedgerError::InvalidValue;
  }
  subnet->emission_split = operation.split;
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const TriggerEpoch& operation) {
  Subnet* subnet = books::find(state, operation.netuid);
  if (subnet == nullptr || operation.netuid == kRootNetuid) return LedgerError::SubnetNotExists;
  if (subnet->owner_coldkey != operation.coldkey) return LedgerError::NotSubnetOwner;
  if (subnet->parameters.commit_reveal_weights_enabled) return LedgerError::CommitRevealEnabled;
  if (subnet->pending_epoch_at != 0) return LedgerError::TxRateLimitExceeded;
  if (blocks_until_next_auto_epoch(subnet->parameters.tempo, subnet->last_epoch_block,
                                   state.block) <= state.parameters.freeze_window) {
    return LedgerError::AdminActionProhibitedDuringWeightsWindow;
  }
  subnet->pending_epoch_at = state.block + state.parameters.freeze_window;
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const Propose& operation) {
  if (votes_of(state, operation.coldkey) == 0) return LedgerError::StakeTooLowForRoot;
  NetworkParameters trial = state.parameters;
  const bool known = switched_subnet(operation.name)
                         ? operation.value <= 1
                         : set_parameter(trial, operation.name, operation.value);
  if (!known || state.proposals.size() >= kProposalsMax) return LedgerError::InvalidValue;
  Proposal proposal{operation.name, operation.value, state.block, {}};
  proposal.votes[operation.coldkey] = true;
  state.proposals[state.next_proposal++] = std::move(proposal);
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const Vote& operation) {
  const auto at = state.proposals.find(operation.proposal);
  if (at == state.proposals.end()) return LedgerError::ProposalMissing;
  if (votes_of(state, operation.coldkey) == 0) return LedgerError::StakeTooLowForRoot;
  at->second.votes[operation.coldkey] = operation.approve;
  return Done{};
}

void enact_proposals(LedgerState& state) {
  for (auto at = state.proposals.begin(); at != state.proposals.end();) {
    if (books::minus(state.block, at->second.proposed_at) < state.parameters.proposal_delay) {
      ++at;
      continue;
    }
    UInt128 pro = 0;
    UInt128 contra = 0;
    for (const auto& [coldkey, approves] : at->second.votes) {
      (approves ? pro : contra) += votes_of(state, coldkey);
    }
    const Proposal decided = std::move(at->second);
    at = state.proposals.erase(at);
    if (pro > contra) enact(state, decided.name, decided.value);
  }
}

}  // namespace yumoe::ledger

#include "coordinator/ledger.hpp"

#include <cmath>

#include "ledger/archive.hpp"
#include "ledger/block.hpp"
#include "ledger/books.hpp"
#include "ledger/claims.hpp"
#include "ledger/networks.hpp"
#include "ledger/owner.hpp"
#include "ledger/payout.hpp"
#include "ledger/registration.hpp"
#include "ledger/staking.hpp"
#include "ledger/weight_calls.hpp"

namespace yumoe::ledger {
namespace {

constexpr std::uint32_t kSnapshotVersion = 2;
constexpr std::size_t kDigestBytes = 32;

// Shares of options become the chain's integers; nothing after this is a double.
std::uint16_t u16_of(double share) { return static_cast<std::uint16_t>(std::floor(share * 65535)); }
std::uint64_t u64_share(double share) {
  if (share >= 1) return ~std::uint64_t{0};
  return static_cast<std::uint64_t>(std::floor(share * 18'446'744'073'709'551'616.0));
}

// A state is what bytes or a caller gave: what the rules take for granted is checked.
std::string first_fault(const LedgerState& state) {
  const auto root = state.subnets.find(kRootNetuid);
  if (root == state.subnets.end() || root->second.dynamic) return "there is no root subnet";
  for (const auto& [netuid, subnet] : state.subnets) {
    const std::string name = "subnet " + std::to_string(netuid) + ": ";
    if (subnet.netuid != netuid) return name + "it calls itself by another number";
    if (subnet.mechanisms.empty() ||
        subnet.mechanisms.size() != subnet.parameters.mechanism_count) {
      return name + "it has another number of mechanisms than it says";
    }
    const std::size_t n = subnet.neurons.size();
    if (n > 65535 || subnet.uids.size() != n) return name + "uids and neurons differ";
    for (std::size_t uid = 0; uid < n; ++uid) {
      const auto at = subnet.uids.find(subnet.neurons[uid].hotkey);
      if (at == subnet.uids.end() || at->second != uid) return name + "uids and neurons differ";
      if (!state.hotkeys.contains(subnet.neurons[uid].hotkey)) return name + "a neuron is unknown";
    }
    for (const auto& [hotkey, family] : subnet.families) {
      for (const Relation& parent : family.parents) {
        if (!state.hotkeys.contains(parent.key)) return name + "a parent is unknown";
      }
    }
    const std::uint64_t weight = subnet.reserves.quote_weight;
    if (weight < kPoolWeightMin || weight > Perquintill::kOne - kPoolWeightMin) {
      return name + "the pool's weight is out of range";
    }
  }
  return "";
}

void check_state(const LedgerState& state) {
  if (const std::string fault = first_fault(state); !fault.empty()) {
    throw Error(ErrorCode::invariant_broken, fault);
  }
  books::check(state, true);
}

Outcome<Done> apply_to(LedgerState& state, const Fund& operation) {
  if (state.block != 0) return LedgerError::FaucetDisabled;
  if (operation.amount > 21'000'000'000'000'000 - state.issuance) return LedgerError::InvalidValue;
  state.coldkeys[operation.account].free += operation.amount;
  state.issuance += operation.amount;
  return Done{};
}

Outcome<Done> apply_to(LedgerState& state, const TransferBalance& operation) {
  if (books::free_of(state, operation.from) < operation.amount)
    return LedgerError::InsufficientBalance;
  state.coldkeys[operation.from].free -= operation.amount;
  state.coldkeys[operation.to].free += operation.amount;
  return Done{};
}

struct Decoder {
  Reader reader;
  template <std::size_t kIndex = 0>
  Operation operator()(std::size_t kind) {
    if constexpr (kIndex < std::variant_size_v<Operation>) {
      if (kind != kIndex) return operator()<kIndex + 1>(kind);
      std::variant_alternative_t<kIndex, Operation> operation;
      reader(operation);
      reader.finish();
      return operation;
    } else {
      Reader::fail("an unknown operation");
    }
  }
};

}  // namespace

NetworkParameters network_parameters(const LedgerOptions& options) {
  NetworkParameters p;
  p.blocks = options.blocks == "spec233" ? BlockRule::spec233 : BlockRule::newest;
  p.pool = options.pool == "constant_product" ? PoolRule::constant_product : PoolRule::balancer;
  p.shares = options.shares == "flow"    ? EmissionRule::flow
             : options.shares == "price" ? EmissionRule::price
                                         : EmissionRule::price_burn;
  p.schedule = options.schedule == "modular" ? ScheduleRule::modular : ScheduleRule::stateful;
  p.tao_weight = u64_share(options.tao_weight);
  p.owner_cut = u16_of(options.owner_cut);
  p.default_take = u16_of(options.take);
  p.take_max = std::max(p.take_max, p.default_take);
  p.stake_threshold = static_cast<std::uint64_t>(options.stake_threshold);
  p.network_lock_min = static_cast<std::uint64_t>(options.network_lock);
  p.network_rate_limit = static_cast<std::uint64_t>(options.network_rate_limit);
  p.epochs_per_block_max = static_cast<std::uint16_t>(options.epochs_per_block);
  p.proposal_delay = static_cast<std::uint64_t>(options.proposal_delay);
  return p;
}

SubnetParameters subnet_parameters(const LedgerOptions& options) {
  SubnetParameters p;
  p.tempo = static_cast<std::uint16_t>(options.tempo);
  p.yuma = static_cast<std::uint16_t>(options.yuma);
  p.kappa = u16_of(options.kappa);
  p.bonds_moving_average =
      static_cast<std::uint64_t>(std::llround(options.bonds_moving_average * 1'000'000));
  p.bonds_penalty = u16_of(options.bonds_penalty);
  p.liquid_alpha_on = options.liquid_alpha;
  p.alpha_low = u16_of(options.alpha_low);
  p.alpha_high = u16_of(options.alpha_high);
  p.commit_reveal_weights_enabled = options.commit_reveal;
  p.max_allowed_validators = static_cast<std::uint16_t>(options.max_allowed_validators);
  p.max_allowed_uids = static_cast<std::uint16_t>(options.max_allowed_uids);
  p.immunity_period = static_cast<std::uint16_t>(options.immunity_period);
  p.weights_set_rate_limit = static_cast<std::uint64_t>(options.weights_set_rate_limit);
  p.min_allowed_weights = static_cast<std::uint16_t>(options.min_allowed_weights);
  p.min_burn = static_cast<std::uint64_t>(options.min_burn);
  p.max_burn = std::max(p.max_burn, p.min_burn);
  p.emission_enabled = options.emission_enabled;
  return p;
}

Ledger::Ledger(const LedgerOptions& options) : new_subnet_(subnet_parameters(options)) {
  state_.parameters = network_parameters(options);
  state_.last_lock = state_.parameters.network_lock_min;
  Subnet& root = state_.subnets[kRootNetuid];
  root.dynamic = false;
  root.subtoken_enabled = true;
  root.parameters.emission_enabled = false;
  root.burn = root.parameters.min_burn;
}

Outcome<Done> Ledger::apply(const Operation& operation) {
  return std::visit(
      [&](const auto& one) -> Outcome<Done> {
        if constexpr (std::is_same_v<std::decay_t<decltype(one)>, RegisterNetwork>) {
          return register_network(state_, one, new_subnet_);
        } else {
          return apply_to(state_, one);
        }
      },
      operation);
}

BlockReport Ledger::step_block() {
  const bool old = state_.parameters.blocks == BlockRule::spec233;
  BlockReport report = old ? step_spec233(state_) : step_newest(state_);
  books::check(state_, false);
  books::check_supply(state_);
  return report;
}

EpochReport Ledger::preview(std::uint16_t netuid, const std::vector<Operation>& operations) const {
  Ledger trial = *this;
  for (const Operation& operation : operations) static_cast<void>(trial.apply(operation));
  Subnet* subnet = books::find(trial.state_, netuid);
  if (subnet == nullptr || netuid == kRootNetuid) {
    throw Error(ErrorCode::config_invalid,
                "preview an epoch: there is no subnet " + std::to_string(netuid));
  }
  subnet->pending_epoch_at = trial.state_.block + 1;
  subnet->parameters.tempo = std::max<std::uint16_t>(subnet->parameters.tempo, 1);
  if (trial.state_.parameters.schedule == ScheduleRule::modular) {
    trial.state_.parameters.schedule = ScheduleRule::stateful;
  }
  trial.state_.parameters.epochs_per_block_max = 65535;
  const BlockReport report = trial.step_block();
  for (const EpochReport& epoch : report.epochs) {
    if (epoch.netuid == netuid) return epoch;
  }
  YUMOE_ASSERT(false);
  return {};
}

void Ledger::audit() const { check_state(state_); }

Bytes Ledger::snapshot() const {
  Writer writer;
  std::uint32_t version = kSnapshotVersion;
  // Writing reads only; visit() is not const because a Reader shares it.
  auto& self = const_cast<Ledger&>(*this);
  writer(version, self.state_, self.new_subnet_);
  Bytes bytes = writer.take();
  const Digest digest = digest_of(bytes);
  bytes.insert(bytes.end(), digest.bytes.begin(), digest.bytes.end());
  return bytes;
}

Digest Ledger::digest() const {
  const Bytes bytes = snapshot();
  Digest digest;
  std::copy(bytes.end() - kDigestBytes, bytes.end(), digest.bytes.begin());
  return digest;
}

Ledger Ledger::restore(ByteView bytes) {
  if (bytes.size() < kDigestBytes + sizeof(std::uint32_t)) {
    throw Error(ErrorCode::checkpoint_corrupt, "restore a ledger: the snapshot is too short");
  }
  const ByteView body = bytes.first(bytes.size() - kDigestBytes);
  const Digest digest = digest_of(body);
  if (!std::equal(digest.bytes.begin(), digest.bytes.end(), bytes.end() - kDigestBytes)) {
    throw Error(ErrorCode::checkpoint_corrupt, "restore a ledger: the snapshot's digest differs");
  }
  Reader reader(body);
  std::uint32_t version = 0;
  reader(version);
  if (version != kSnapshotVersion) {
    throw Error(ErrorCode::version_mismatch, "restore a ledger: the snapshot has version " +
                                                 std::to_string(version) + ", this program reads " +
                                                 std::to_string(kSnapshotVersion));
  }
  Ledger ledger;
  try {
    reader(ledger.state_, ledger.new_subnet_);
    reader.finish();
    check_state(ledger.state_);
  } catch (const Error& error) {
    throw Error(ErrorCode::checkpoint_corrupt, error.what());
  }
  return ledger;
}

bool Ledger::override_parameter(std::optional<std::uint16_t> netuid, const std::string& name,
                                std::uint64_t value) {
  if (!netuid) {
    const bool network = set_parameter(state_.parameters, name, value);
    return set_parameter(new_subnet_, name, value) || network;
  }
  Subnet* subnet = books::find(state_, *netuid);
  if (subnet == nullptr) return false;
  SubnetParameters changed = subnet->parameters;
  if (!set_parameter(changed, name, value) || !consistent(*subnet, changed)) return false;
  subnet->parameters = changed;
  fit_to_parameters(*subnet);
  return true;
}

Ledger Ledger::from_state(LedgerState state, const SubnetParameters& new_subnet) {
  check_state(state);
  Ledger ledger;
  ledger.state_ = std::move(state);
  ledger.new_subnet_ = new_subnet;
  return ledger;
}

std::string_view name_of(const Operation& operation) {
  constexpr std::string_view kNames[] = {"Fund",
                                         "TransferBalance",
                                         "Register",
                                         "AddStake",
                                         "RemoveStake",
                                         "UnstakeAll",
                                         "MoveStake",
                                         "TransferStake",
                                         "SwapStake",
                                         "SetTake",
                                         "SetChildkeyTake",
                                         "SetChildren",
                                         "SetAutostake",
                                         "RegisterNetwork",
                                         "StartCall",
                                         "SetHyperparameter",
                                         "SetEmissionSplit",
                                         "TriggerEpoch",
                                         "ClaimRoot",
                                         "SetClaimKind",
                                         "Propose",
                                         "Vote",
                                         "SetWeights",
                                         "CommitWeights",
                                         "RevealWeights",
                                         "CommitTimelocked",
                                         "BatchReveal",
                                         "BatchSet",
                                         "BatchCommit",
                                         "Pulse",
                                         "RemoveStakeFull"};
  static_assert(std::size(kNames) == std::variant_size_v<Operation>);
  return kNames[operation.index()];
}

Bytes encode(const Operation& operation) {
  Writer writer;
  auto kind = static_cast<std::uint8_t>(operation.index());
  writer(kind);
  Operation copy = operation;
  std::visit([&](auto& one) { writer(one); }, copy);
  return writer.take();
}

Operation decode_operation(ByteView bytes) {
  if (bytes.size() > kOperationBytesMax) {
    throw Error(ErrorCode::message_too_large,
                "read an operation of " + std::to_string(bytes.size()) + " bytes: at most " +
                    std::to_string(kOperationBytesMax) + " are read");
  }
  Decoder decoder{Reader(bytes)};
  std::uint8_t kind = 0;
  decoder.reader(kind);
  return decoder(kind);
}

}  // namespace yumoe::ledger

#include "coordinator/run_ledger.hpp"

#include <algorithm>
#include <utility>

#include "cluster/error.hpp"
#include "coordinator/ledger_rules.hpp"
#include "run_ledger/accounts.hpp"

namespace yumoe {

using ledger::AccountId;

namespace {
// Blocks by the run's own time that a followed chain may be silent before the run goes on alone.
constexpr std::uint64_t kPatience = 5;
}  // namespace

RunLedger::RunLedger(const ledger::LedgerOptions& rules, const EconomyOptions& economy)
    : ledger_(rules), economy_(economy) {
  found(rules);
}

bool RunLedger::attempt(const ledger::Operation& operation, const PublicKey& who) {
  const auto outcome = ledger_.apply(operation);
  if (outcome) return true;
  refusals_.push_back({ledger_.state().block, std::string(ledger::name_of(operation)),
                       outcome.error(), to_ss58(who)});
  return false;
}

std::uint64_t RunLedger::block_due(TimeMs now) const {
  if (economy_.time == "followed") return chain_first_ ? chain_newest_ - *chain_first_ + 1 : 1;
  const auto blocks_since = [&](TimeMs then) {
    const std::int64_t passed = (now - then).count();
    return static_cast<std::uint64_t>(std::max<std::int64_t>(passed, 0) / economy_.block_ms);
  };
  if (chain_first_) {  // told before: on from there, and alone when nothing more is told
    const std::uint64_t alone = blocks_since(chain_told_);
    return chain_newest_ - *chain_first_ + 1 + (alone > kPatience ? alone - kPatience : 0);
  }
  return start_ ? blocks_since(*start_) + 1 : 1;
}

RunLedger::BlockSource RunLedger::block_source(TimeMs now) const {
  if (economy_.time == "followed") return BlockSource::chain;
  const auto patience =
      std::chrono::milliseconds(static_cast<std::int64_t>(kPatience + 1) * economy_.block_ms);
  return chain_first_ && now - chain_told_ < patience ? BlockSource::chain : BlockSource::own_time;
}

void RunLedger::pass_time(TimeMs now) {
  if (!start_) start_ = now;
  const std::uint64_t due = block_due(now);
  while (ledger_.state().block < due) {
    for (ledger::EpochReport& report : ledger_.step_block().epochs) {
      if (report.netuid != kNetuid) continue;
      epochs_.push_back({std::move(report), first_round_, last_round_});
      first_round_ = last_round_ = {};
      if (epoch_watch_) epoch_watch_(epochs_.back());
    }
    weigh_others();
    for (auto& [account, enrolment] : enrolments_) {
      if (enrolment.waits) finish_enrolment(account, enrolment);
    }
  }
}

void RunLedger::apply(const Event& event, const Run& core, TimeMs now) {
  pass_time(now);
  if (const auto* joined = std::get_if<Joined>(&event)) {
    if (!neuron_of(joined->hotkey)) enrol(*joined);
  } else if (const auto* scored = std::get_if<Scored>(&event)) {
    if (scored->scores.entries.empty()) return;
    if (first_round_.value == 0) first_round_ = scored->scores.round;
    last_round_ = scored->scores.round;
    set_weights(scored->validator, core);
  } else if (const auto* called = std::get_if<Called>(&event)) {
    take(*called, now);
  }
}

// Whoever comes back is not paid again, and registers by its own money.
void RunLedger::enrol(const Joined& event) {
  const AccountId account = account_of(event.hotkey);
  const auto found = enrolments_.find(account);
  if (found == enrolments_.end()) {
    const std::uint64_t stake = rao_of(event.stake);
    if (!attempt(ledger::TransferBalance{treasury(), account,
                                         stake + rao_of(economy_.participant_funds)},
                 event.hotkey)) {
      return;
    }
    enrolments_[account] = {true, stake};
  } else {
    found->second.waits = true;
  }
  if (const auto error = finish_enrolment(account, enrolments_.at(account))) {
    // Said once; then it is tried again in each block.
    refusals_.push_back({ledger_.state().block, "Register", *error, to_ss58(event.hotkey)});
  }
}

// Nothing once it is registered, else why not yet. Many who join at once drive the price up; it falls again block by block. What is
// meant as stake pays no price.
std::optional<ledger::LedgerError> RunLedger::finish_enrolment(const AccountId& account,
                                                               Enrolment& enrolment) {
  const auto& state = ledger_.state();
  const auto owner = state.coldkeys.find(account);
  const std::uint64_t price = state.subnets.at(kNetuid).burn;
  if (owner == state.coldkeys.end() || owner->second.free < enrolment.stake + price) {
    return ledger::LedgerError::NotEnoughBalanceToStake;
  }
  const auto outcome = ledger_.apply(ledger::Register{account, account, kNetuid, std::nullopt});
  if (!outcome) return outcome.error();
  enrolment.waits = false;
  const std::uint64_t stake = std::exchange(enrolment.stake, 0);
  if (stake == 0) return std::nullopt;
  const PublicKey who{KeyType::sr25519, account};
  // A tenth as the subnet's alpha, bought from its pool; without any, the chain's rules leave a
  // validator's dividends to nobody (docs/ledger.md).
  attempt(ledger::AddStake{account, account, kNetuid, stake / 10, std::nullopt}, who);
  attempt(ledger::AddStake{account, account, 0, stake - stake / 10, std::nullopt}, who);
  return std::nullopt;
}

// Where weights are committed first, they are sealed until a round of the beacon that genesis has told.
ledger::Operation RunLedger::weight_call(const AccountId& hotkey, std::uint16_t netuid,
                                         std::vector<std::uint16_t> uids,
                                         std::vector<std::uint16_t> values) const {
  const ledger::SubnetParameters& rules = ledger_.state().subnets.at(netuid).parameters;
  if (!rules.commit_reveal_weights_enabled) {
    return ledger::SetWeights{
        hotkey, netuid, 0, std::move(uids), std::move(values), rules.weights_version_key};
  }
  ledger::CommitTimelocked commit;
  commit.hotkey = hotkey;
  commit.netuid = netuid;
  commit.plaintext = ledger::timelocked_plaintext(
      hotkey, {std::move(uids), std::move(values), rules.weights_version_key});
  const Digest sealed = digest_of(commit.plaintext);
  commit.sealed.assign(sealed.bytes.begin(), sealed.bytes.end());
  commit.round = ledger_.state().pulse_round;
  return commit;
}

void RunLedger::set_weights(Uid validator, const Run& core) {
  const PublicKey& hotkey = core.participants().at(validator).hotkey;
  std::vector<std::uint16_t> uids, values;
  for (const auto& [uid, weight] : core.scoring().weights(validator)) {
    const auto neuron = neuron_of(core.participants().at(uid).hotkey);
    if (!neuron) continue;
    uids.push_back(*neuron);
    values.push_back(weight);
  }
  if (uids.empty()) return;
  // The burnt share goes to neuron 0, the owner's, whose own mining the chain withholds.
  if (const double burnt = core.scoring().burn_weight(validator); burnt >= 1) {
    const double scale = std::min(1.0, 65'535 / burnt);
    for (std::uint16_t& value : values) value = static_cast<std::uint16_t>(scale * value);
    uids.push_back(0);
    values.push_back(static_cast<std::uint16_t>(scale * burnt));
  }
  attempt(weight_call(account_of(hotkey), kNetuid, std::move(uids), std::move(values)), hotkey);
}

// As a validator's own program would: once a tempo, while it holds a permit. It needs no report.
void RunLedger::weigh_others() {
  for (const Other& other : others_) {
    const auto at = ledger_.state().subnets.find(other.netuid);
    if (at == ledger_.state().subnets.end() ||
        at->second.owner_coldkey != other_owner(other.name)) {
      continue;  // dissolved on the way
    }
    const ledger::Subnet& subnet = at->second;
    const std::uint64_t tempo = std::max<std::uint64_t>(subnet.parameters.tempo, 1);
    const auto judge = subnet.uids.find(other_judge(other.name));
    if (ledger_.state().block % tempo != 1 % tempo || judge == subnet.uids.end() ||
        !subnet.neurons[judge->second].permit) {
      continue;
    }
    std::vector<std::uint16_t> uids;
    for (std::uint16_t i = 0; i < other.miners; ++i) {
      const auto miner = subnet.uids.find(other_miner(other.name, i));
      if (miner != subnet.uids.end()) uids.push_back(miner->second);
    }
    if (uids.empty()) continue;
    std::vector<std::uint16_t> values(uids.size(), 65'535);
    static_cast<void>(
        ledger_.apply(weight_call(judge->first, other.netuid, std::move(uids), std::move(values))));
  }
}

std::optional<std::uint16_t> RunLedger::neuron_of(const PublicKey& hotkey) const {
  const auto& uids = ledger_.state().subnets.at(kNetuid).uids;
  const auto found = uids.find(account_of(hotkey));
  return found == uids.end() ? std::nullopt : std::optional(found->second);
}

std::uint64_t RunLedger::alpha_of(const PublicKey& hotkey) const {
  const auto& stakes = ledger_.state().subnets.at(kNetuid).stakes;
  const auto found = stakes.find(account_of(hotkey));
  return found == stakes.end() ? 0 : found->second.total();
}

std::uint64_t RunLedger::free_of(const PublicKey& account) const {
  const auto found = ledger_.state().coldkeys.find(account_of(account));
  return found == ledger_.state().coldkeys.end() ? 0 : found->second.free;
}

std::string RunLedger::subnet_name(std::uint16_t netuid) const {
  if (netuid == 0) return "root";
  if (netuid == kNetuid) return "run";
  for (const Other& other : others_) {
    if (other.netuid == netuid) return other.name;
  }
  return "subnet-" + std::to_string(netuid);
}

RunLedger::Preview RunLedger::preview(
    const std::optional<std::vector<std::pair<std::uint16_t, std::uint16_t>>>& weights) const {
  Preview preview;
  // Weights that were set a moment ago, or are committed first, are still the ones asked about.
  ledger::Ledger trial = ledger_;
  if (weights) {
    trial.override_parameter(kNetuid, "weights_set_rate_limit", 0);
    trial.override_parameter(kNetuid, "commit_reveal_weights_enabled", 0);
    const ledger::Subnet& subnet = ledger_.state().subnets.at(kNetuid);
    const bool any = std::any_of(subnet.neurons.begin(), subnet.neurons.end(),
                                 [](const ledger::Neuron& neuron) { return neuron.permit; });
    ledger::SetWeights call;
    call.netuid = kNetuid;
    call.version_key = subnet.parameters.weights_version_key;
    for (const auto& [uid, weight] : *weights) {
      call.uids.push_back(uid);
      call.values.push_back(weight);
    }
    for (std::size_t uid = 0; uid < subnet.neurons.size(); ++uid) {
      call.hotkey = subnet.neurons[uid].hotkey;
      const auto outcome = trial.apply(call);
      if (outcome) {
        if (subnet.neurons[uid].permit) ++preview.taken;
      } else if (subnet.neurons[uid].permit || !any) {
        preview.refused.emplace_back(uid, outcome.error());
      }
    }
  }
  preview.report = trial.preview(kNetuid, {});
  return preview;
}

std::string RunLedger::account_name(const AccountId& account) const {
  if (account == owner_) return "owner";
  if (account == owner_hotkey()) return "owner's hotkey";
  if (account == treasury()) return "treasury";
  for (const Other& other : others_) {
    if (account == other_owner(other.name)) return other.name + " owner";
    if (account == other_owner_hotkey(other.name)) return other.name + " owner's hotkey";
    if (account == other_judge(other.name)) return other.name + " validator";
    for (unsigned i = 0; i < other.miners; ++i) {
      if (account == other_miner(other.name, i)) return other.name + " miner " + std::to_string(i);
    }
  }
  return "";
}

void RunLedger::override_rule(const std::string& name, std::uint64_t value) {
  if (ledger_.override_parameter(kNetuid, name, value)) return;
  const LedgerRule* rule = ledger_rule(name);
  if (rule != nullptr && rule->network && ledger_.override_parameter(std::nullopt, name, value)) {
    return;
  }
  if (rule == nullptr)
    throw Error(ErrorCode::usage, "no rule of the ledger is called '" + name + "'");
  throw Error(ErrorCode::usage, rule_text(name, value) +
                                    " does not go with the run's other rules, or "
                                    "is not " +
                                    bounds_text(*rule));
}

}  // namespace yumoe

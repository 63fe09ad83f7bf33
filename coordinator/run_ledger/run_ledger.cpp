#include "coordinator/run_ledger.hpp"

#include "cluster/error.hpp"

namespace yumoe {
namespace {

using ledger::AccountId;

constexpr double kRaoPerTao = 1e9;
constexpr std::uint64_t kTreasuryRao = 20'000'000'000'000'000;  // 20 of 21 million TAO

AccountId account_of(const PublicKey& key) { return key.bytes; }

AccountId named(std::string_view name) { return digest_of(as_bytes(name)).bytes; }
AccountId treasury() { return named("yumoe treasury"); }
AccountId owner_coldkey() { return named("yumoe subnet owner"); }
AccountId owner_hotkey() { return named("yumoe subnet owner hotkey"); }

std::uint64_t rao_of(double tao) { return static_cast<std::uint64_t>(tao * kRaoPerTao); }

void must(const ledger::Outcome<ledger::Done>& outcome, const char* what) {
  if (!outcome) {
    throw Error(ErrorCode::config_invalid, std::string("the ledger refused ") + what + ": " +
                                               std::string(name_of(outcome.error())) +
                                               "; see [ledger] in the configuration");
  }
}

}  // namespace

RunLedger::RunLedger(const ledger::LedgerOptions& rules, const EconomyOptions& economy)
    : ledger_(rules), economy_(economy) {
  must(ledger_.apply(ledger::Fund{treasury(), kTreasuryRao}), "the treasury's funds");
  const std::uint64_t lock = 2 * static_cast<std::uint64_t>(rules.network_lock);
  must(ledger_.apply(ledger::TransferBalance{treasury(), owner_coldkey(), lock + rao_of(1)}),
       "the owner's funds");
  ledger_.step_block();
  must(ledger_.apply(ledger::RegisterNetwork{owner_coldkey(), owner_hotkey(), 1}), "the subnet");
  must(ledger_.apply(ledger::StartCall{owner_coldkey(), kNetuid}), "the subnet's start");
}

bool RunLedger::attempt(const ledger::Operation& operation, const PublicKey& who) {
  const auto outcome = ledger_.apply(operation);
  if (outcome) return true;
  refusals_.push_back({ledger_.state().block, std::string(ledger::name_of(operation)),
                       outcome.error(), to_ss58(who)});
  return false;
}

void RunLedger::pass_time(TimeMs now) {
  if (!start_) start_ = now;
  const auto due = static_cast<std::uint64_t>((now - *start_).count() / economy_.block_ms) + 1;
  while (ledger_.state().block < due) {
    for (ledger::EpochReport& report : ledger_.step_block().epochs) {
      if (report.netuid != kNetuid) continue;
      epochs_.push_back({std::move(report), first_round_, last_round_});
      first_round_ = last_round_ = {};
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
  }
}

void RunLedger::enrol(const Joined& event) {
  const AccountId account = account_of(event.hotkey);
  const std::uint64_t stake = rao_of(event.stake);
  if (!attempt(ledger::TransferBalance{treasury(), account,
                                       stake + rao_of(economy_.participant_funds)},
               event.hotkey)) {
    return;
  }
  if (!attempt(ledger::Register{account, account, kNetuid, std::nullopt}, event.hotkey)) return;
  if (stake == 0) return;
  // A tenth as the subnet's alpha, bought from its pool; without any, the chain's rules leave a
  // validator's dividends to nobody (docs/ledger.md).
  attempt(ledger::AddStake{account, account, kNetuid, stake / 10, std::nullopt}, event.hotkey);
  attempt(ledger::AddStake{account, account, 0, stake - stake / 10, std::nullopt}, event.hotkey);
}

void RunLedger::set_weights(Uid validator, const Run& core) {
  const PublicKey& hotkey = core.participants().at(validator).hotkey;
  ledger::SetWeights call;
  call.hotkey = account_of(hotkey);
  call.netuid = kNetuid;
  for (const auto& [uid, weight] : core.scoring().weights(validator)) {
    const auto neuron = neuron_of(core.participants().at(uid).hotkey);
    if (!neuron) continue;
    call.uids.push_back(*neuron);
    call.values.push_back(weight);
  }
  if (!call.uids.empty()) attempt(call, hotkey);
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

ledger::EpochReport RunLedger::preview(
    const std::optional<std::vector<std::pair<std::uint16_t, std::uint16_t>>>& weights) const {
  std::vector<ledger::Operation> operations;
  if (weights) {
    for (const ledger::Neuron& neuron : ledger_.state().subnets.at(kNetuid).neurons) {
      ledger::SetWeights call;
      call.hotkey = neuron.hotkey;
      call.netuid = kNetuid;
      for (const auto& [uid, weight] : *weights) {
        call.uids.push_back(uid);
        call.values.push_back(weight);
      }
      operations.push_back(call);
    }
  }
  return ledger_.preview(kNetuid, operations);
}

void RunLedger::override_rule(const std::string& name, std::uint64_t value) {
  if (ledger_.override_parameter(kNetuid, name, value)) return;
  if (ledger_.override_parameter(std::nullopt, name, value)) return;
  throw Error(ErrorCode::usage, "no ledger rule is called '" + name +
                                    "'; the names are those of docs/ledger.md");
}

}  // namespace yumoe

// What is there before the first event: the treasury, the run's subnet, balances, other subnets.
#include <cctype>
#include <set>
#include <sstream>

#include "cluster/error.hpp"
#include "coordinator/ledger_rules.hpp"
#include "coordinator/run_ledger.hpp"
#include "run_ledger/accounts.hpp"

namespace yumoe {
namespace {

using ledger::AccountId;

constexpr std::uint64_t kTreasuryRao = 20'000'000'000'000'000;  // 20 of 21 million TAO
constexpr double kTaoMax = 20e6;
constexpr std::size_t kOthersMax = 32;
constexpr std::size_t kBalancesMax = 10'000;
constexpr std::uint64_t kMinersMax = 63;

[[noreturn]] void fail(const std::string& what) { throw Error(ErrorCode::config_invalid, what); }

void must(const ledger::Outcome<ledger::Done>& outcome, const std::string& what) {
  if (outcome) return;
  fail("the ledger refused " + what + ": " + std::string(name_of(outcome.error())) +
       "; see [ledger] and [economy] in the configuration");
}

std::uint64_t tao_from(std::string_view text, const std::string& what) {
  double tao = 0;
  if (!option_detail::parse(text, tao) || !(tao >= 0 && tao <= kTaoMax)) {
    fail(what + ": '" + std::string(text) + "' must be between 0 and 2e+07 TAO");
  }
  return rao_of(tao);
}

PublicKey address_from(std::string_view text, const std::string& what) {
  try {
    return from_ss58(text);
  } catch (const Error& error) {
    fail(what + ": " + error.what());
  }
}

bool is_name(std::string_view text) {
  if (text.empty() || text.size() > 64 || text == "run" || text == "root") return false;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '_') return false;
  }
  return true;
}

}  // namespace

RunLedger::Other RunLedger::other_from(const std::string& text) {
  const std::string what = "economy.subnets '" + text + "'";
  std::istringstream words(text);
  Other other;
  words >> other.name;
  if (!is_name(other.name)) {
    fail(what + ": begins with a name of letters, digits, - and _, other than run and root");
  }
  for (std::string word; words >> word;) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) fail(what + ": '" + word + "' must be NAME=VALUE");
    const std::string name = word.substr(0, equals), value = word.substr(equals + 1);
    if (name == "lock" || name == "stake" || name == "root") {
      (name == "lock"    ? other.lock
       : name == "stake" ? other.stake
                         : other.root) = tao_from(value, what);
    } else if (name == "miners") {
      std::int64_t miners = 0;
      if (!option_detail::parse(value, miners) || miners < 0 ||
          miners > static_cast<std::int64_t>(kMinersMax)) {
        fail(what + ": miners must be between 0 and 63");
      }
      other.miners = static_cast<std::uint16_t>(miners);
    } else {
      try {
        other.parameters.push_back(rule_from(word));
      } catch (const Error& error) {
        fail(what + ": " + error.what());
      }
    }
  }
  return other;
}

void RunLedger::fund(const AccountId& account, std::uint64_t amount) {
  must(ledger_.apply(ledger::TransferBalance{treasury(), account, amount}), "funds at the start");
}

void RunLedger::found(const ledger::LedgerOptions& rules) {
  if (economy_.subnets.size() > kOthersMax) fail("economy.subnets names more than 32 subnets");
  if (economy_.balances.size() > kBalancesMax) fail("economy.balances has more than 10000 entries");
  must(ledger_.apply(ledger::Fund{treasury(), kTreasuryRao}), "the treasury's funds");
  must(ledger_.apply(ledger::Pulse{1}), "the beacon's first round");
  const AccountId owner = economy_.owner.empty()
                              ? keyless("yumoe subnet owner")
                              : account_of(address_from(economy_.owner, "economy.owner"));
  owner_ = owner;
  if (economy_.time == "followed" && economy_.owner.empty()) {
    fail("economy.time = followed must come with economy.owner, which tells the chain's blocks");
  }
  if (economy_.time == "followed") teller_ = owner;
  if (economy_.time == "chain" && !economy_.teller.empty()) {
    teller_ = account_of(address_from(economy_.teller, "economy.teller"));
  }
  fund(owner, 2 * static_cast<std::uint64_t>(rules.network_lock) + rao_of(1));
  for (const std::string& text : economy_.balances) {
    const std::string what = "economy.balances '" + text + "'";
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos) fail(what + ": must be ADDRESS=TAO");
    fund(account_of(address_from(std::string_view(text).substr(0, equals), what)),
         tao_from(std::string_view(text).substr(equals + 1), what));
  }
  ledger_.step_block();
  must(ledger_.apply(ledger::RegisterNetwork{owner, owner_hotkey(), 1}), "the subnet");
  must(ledger_.apply(ledger::StartCall{owner, kNetuid}), "the subnet's start");
  std::set<std::string> names;
  for (const std::string& text : economy_.subnets) {
    Other other = other_from(text);
    if (!names.insert(other.name).second) fail("economy.subnets names '" + other.name + "' twice");
    found_other(std::move(other));
  }
}

// All subnets begin at once and at one price: the rules that keep them apart hold from here on.
void RunLedger::found_other(Other other) {
  const ledger::NetworkParameters& rules = ledger_.state().parameters;
  const std::uint64_t wait = rules.network_rate_limit, price = rules.network_lock_min;
  const std::string what = "subnet " + other.name;
  const AccountId owner = other_owner(other.name), judge = other_judge(other.name);
  ledger::LedgerState state = ledger_.state();
  state.parameters.network_rate_limit = 0;
  state.parameters.network_lock_min = std::max(price, other.lock);
  state.last_lock = state.parameters.network_lock_min;
  state.last_lock_block = 0;
  ledger_ = ledger::Ledger::from_state(std::move(state), ledger_.new_subnet_parameters());
  fund(owner, std::max(price, other.lock) + rao_of(100));
  other.netuid = 1;
  while (ledger_.state().subnets.contains(other.netuid)) ++other.netuid;
  must(ledger_.apply(ledger::RegisterNetwork{owner, other_owner_hotkey(other.name), 1}), what);
  must(ledger_.apply(ledger::StartCall{owner, other.netuid}), "the start of " + what);
  state = ledger_.state();
  state.parameters.network_rate_limit = wait;
  state.parameters.network_lock_min = price;
  state.last_lock = price;
  ledger_ = ledger::Ledger::from_state(std::move(state), ledger_.new_subnet_parameters());
  for (const auto& [name, value] : other.parameters) {
    if (!ledger_.override_parameter(other.netuid, name, value)) {
      const LedgerRule* rule = ledger_rule(name);
      fail("economy.subnets: " + what + ": " + rule_text(name, value) +
           (rule != nullptr && rule->network ? " is the whole network's: set it in [ledger]"
                                             : " does not go with its other parameters"));
    }
  }
  // The first price of a registration is high and doubles: theirs are bought at the least one.
  const auto enlist = [&](const AccountId& account, std::uint64_t money) {
    ledger::LedgerState cheap = ledger_.state();
    cheap.subnets.at(other.netuid).burn = cheap.subnets.at(other.netuid).parameters.min_burn;
    const std::uint64_t burn = cheap.subnets.at(other.netuid).burn;
    ledger_ = ledger::Ledger::from_state(std::move(cheap), ledger_.new_subnet_parameters());
    fund(account, money + burn);
    must(ledger_.apply(ledger::Register{account, account, other.netuid, std::nullopt}),
         "a neuron of " + what);
  };
  enlist(judge, other.stake + other.root);
  for (std::uint16_t i = 0; i < other.miners; ++i) enlist(other_miner(other.name, i), 0);
  if (other.stake > 0) {
    must(ledger_.apply(ledger::AddStake{judge, judge, other.netuid, other.stake, std::nullopt}),
         "the stake of " + what);
  }
  if (other.root > 0) {
    must(ledger_.apply(ledger::AddStake{judge, judge, 0, other.root, std::nullopt}),
         "the root stake of " + what);
  }
  others_.push_back(std::move(other));
}

}  // namespace yumoe

// yumoe ledger balances, whatif: who has what, and what they would have under other rules.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/ledger_reading.hpp"
#include "cluster/error.hpp"
#include "coordinator/holdings.hpp"
#include "coordinator/ledger_rules.hpp"

namespace yumoe {
namespace {

using Json = nlohmann::ordered_json;
using ledger::AccountId;
using ledger::Holding;

// Everybody who has something, and participants in any case.
std::vector<Holding> holdings_in(const LedgerReading& reading) {
  std::vector<Holding> holdings = ledger::holdings_of(reading.ledger.ledger().state());
  for (const auto& [uid, participant] : reading.core.participants()) {
    const AccountId account = participant.hotkey.bytes;
    const bool there = std::any_of(holdings.begin(), holdings.end(),
                                   [&](const Holding& h) { return h.account == account; });
    if (!there) holdings.push_back({account, 0, {}});
  }
  return holdings;
}

// --- balances -------------------------------------------------------------------------------------------

Json json_of(const LedgerReading& reading, const Holding& holding) {
  Json stakes = Json::array();
  for (const ledger::Stake& stake : holding.stakes) {
    stakes.push_back({{"hotkey", address_of(stake.hotkey)},
                      {"hotkey_name", reading.name_of(stake.hotkey)},
                      {"netuid", stake.netuid},
                      {"subnet", reading.ledger.subnet_name(stake.netuid)},
                      {"amount", stake.amount}});
  }
  return {{"name", reading.name_of(holding.account)},
          {"account", address_of(holding.account)},
          {"free", holding.free},
          {"stakes", stakes}};
}

void print_row(const std::string& name, const std::string& address, const std::string& hotkey,
               const std::string& subnet, const std::string& alpha, const std::string& root,
               const std::string& free) {
  std::printf("%-16.16s %-48s %-16s %-12.12s %20s %20s %20s\n", name.c_str(), address.c_str(),
              hotkey.c_str(), subnet.c_str(), alpha.c_str(), root.c_str(), free.c_str());
}

void print(const LedgerReading& reading, const Holding& holding) {
  std::string name = reading.name_of(holding.account), address = address_of(holding.account);
  std::string free = amount_text(holding.free);
  if (holding.stakes.empty()) print_row(name, address, "-", "-", "", "", free);
  for (const ledger::Stake& stake : holding.stakes) {
    const std::string amount = amount_text(stake.amount);
    const bool root = stake.netuid == ledger::kRootNetuid;
    print_row(name, address, reading.label_of(stake.hotkey),
              reading.ledger.subnet_name(stake.netuid), root ? "" : amount, root ? amount : "",
              free);
    name = address = free = "";
  }
}

void balances(const LedgerChoice& choice) {
  const auto reading = read_ledger(choice.run);
  std::vector<Holding> holdings = holdings_in(*reading);
  if (!choice.account.empty()) {
    const AccountId wanted = reading->account_from(choice.account, "--account");
    std::erase_if(holdings, [&](const Holding& h) { return h.account != wanted; });
    if (holdings.empty()) holdings.push_back({wanted, 0, {}});
  }
  const ledger::Money money = ledger::money_of(reading->ledger.ledger().state());
  if (choice.json) {
    Json accounts = Json::array();
    for (const Holding& holding : holdings) accounts.push_back(json_of(*reading, holding));
    std::cout << Json{{"accounts", accounts},
                      {"money",
                       {{"free", money.free},
                        {"root", money.root},
                        {"pools", money.pools},
                        {"burned", money.burned},
                        {"issuance", money.issuance}}}}
                     .dump()
              << std::endl;
    return;
  }
  print_row("account", "address", "behind hotkey", "subnet", "alpha", "root TAO", "free TAO");
  for (const Holding& holding : holdings) print(*reading, holding);
  if (!choice.account.empty()) return;
  std::printf("free %s + root %s + pools %s + burned %s = issuance %s TAO\n",
              amount_text(money.free).c_str(), amount_text(money.root).c_str(),
              amount_text(money.pools).c_str(), amount_text(money.burned).c_str(),
              amount_text(money.issuance).c_str());
}

// --- whatif ---------------------------------------------------------------------------------------------

// What is compared: alpha behind each hotkey of a subnet, and each account's money.
struct Place {
  std::uint16_t netuid = 0;
  std::string what;  // "alpha", "root TAO", "free TAO"
  AccountId key{};   // of the hotkey, or of the account
  auto operator<=>(const Place&) const = default;
};

std::map<Place, std::uint64_t> places_of(const LedgerReading& reading) {
  std::map<Place, std::uint64_t> places;
  const ledger::LedgerState& state = reading.ledger.ledger().state();
  for (const auto& [netuid, subnet] : state.subnets) {
    if (netuid == ledger::kRootNetuid) continue;
    for (const auto& [hotkey, pool] : subnet.stakes) {
      places[{netuid, "alpha", hotkey}] = pool.total();
    }
  }
  for (const Holding& holding : ledger::holdings_of(state)) {
    if (holding.free > 0) places[{0, "free TAO", holding.account}] = holding.free;
    for (const ledger::Stake& stake : holding.stakes) {
      if (stake.netuid == 0) places[{0, "root TAO", holding.account}] += stake.amount;
    }
  }
  return places;
}

std::optional<std::uint16_t> uid_of(const LedgerReading& reading, const Place& place) {
  const auto& uids = reading.ledger.ledger().state().subnets.at(RunLedger::kNetuid).uids;
  const auto found = uids.find(place.key);
  if (found == uids.end() || (place.what == "alpha" && place.netuid != RunLedger::kNetuid)) {
    return std::nullopt;
  }
  return found->second;
}

void whatif(const LedgerChoice& choice) {
  const auto before = read_ledger(choice.run);
  const auto after = read_ledger(choice.run, choice.set);
  const auto was = places_of(*before), is = places_of(*after);
  auto all = was;
  all.insert(is.begin(), is.end());
  if (!choice.json) {
    for (const std::string& text : choice.set) {
      ledger::LedgerOptions options;
      if (choose_rule(options, text)) {
        std::printf("%s\n", text.c_str());
      } else {
        const auto [name, value] = rule_named(text);
        std::printf("%s\n", rule_text(name, value).c_str());
      }
    }
    std::printf("%4s %-20s %-20s %20s %20s %22s\n", "uid", "name", "what", "as recorded",
                "under this rule", "difference");
  }
  Json rows = Json::array();
  std::size_t same = 0;
  // The run's neurons in their order, then the other subnets, then money.
  std::vector<std::pair<std::uint32_t, Place>> order;
  for (const auto& [place, amount] : all) {
    const auto uid = uid_of(*before, place);
    const bool neuron = place.what == "alpha" && place.netuid == RunLedger::kNetuid;
    order.emplace_back(
        neuron ? uid.value_or(65'535) : 65'536U * (place.netuid == 0 ? 5'000U : place.netuid),
        place);
  }
  std::sort(order.begin(), order.end());
  for (const auto& [rank, place] : order) {
    const auto at = [&](const auto& places) {
      const auto found = places.find(place);
      return found == places.end() ? std::uint64_t{0} : found->second;
    };
    const std::uint64_t recorded = at(was), now = at(is);
    const auto uid = uid_of(*before, place);
    // The run's own neurons are always shown, everything else where it differs.
    const bool neuron = place.what == "alpha" && place.netuid == RunLedger::kNetuid && uid;
    if (recorded == now && !neuron) {
      ++same;
      continue;
    }
    const std::string name = neuron && *uid == 0 ? "(owner)" : before->label_of(place.key);
    const std::string what = place.what == "alpha" && place.netuid != RunLedger::kNetuid
                                 ? "alpha of " + before->ledger.subnet_name(place.netuid)
                                 : place.what;
    if (choice.json) {
      rows.push_back({{"uid", uid ? Json(*uid) : Json(nullptr)},
                      {"name", name},
                      {"what", what},
                      {place.what == "alpha" ? "hotkey" : "account", address_of(place.key)},
                      {"recorded", recorded},
                      {"whatif", now},
                      {"difference", static_cast<std::int64_t>(now - recorded)}});
    } else {
      std::printf("%4s %-20.20s %-20.20s %20s %20s %22s\n",
                  uid ? std::to_string(*uid).c_str() : "-", name.c_str(), what.c_str(),
                  amount_text(recorded).c_str(), amount_text(now).c_str(),
                  difference_text(recorded, now).c_str());
    }
  }
  if (choice.json) {
    std::cout << rows.dump() << std::endl;
  } else if (same > 0) {
    std::printf("%zu other amounts are the same\n", same);
  }
}

}  // namespace

void add_ledger_accounts(CLI::App& group) {
  const auto choice = std::make_shared<LedgerChoice>();
  CLI::App* command = add_ledger_command(group, "balances", "Free TAO and stake of each account",
                                         "yumoe ledger balances runs/mine\n"
                                         "yumoe ledger balances runs/mine --account first",
                                         balances, choice);
  command->add_option("--account", choice->account, "Only this one: a name or an address");
  command = add_ledger_command(group, "whatif", "Read the run again under another rule",
                               "yumoe ledger whatif runs/mine --set kappa=0.6 --set tempo=50\n"
                               "yumoe ledger whatif runs/mine --set pool=constant_product",
                               whatif, choice);
  command
      ->add_option("--set", choice->set,
                   "NAME=VALUE of a rule (docs/ledger.md lists them); a share as 0.6 or 1.0")
      ->required();
}

}  // namespace yumoe

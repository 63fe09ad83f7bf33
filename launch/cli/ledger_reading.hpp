#pragma once
// A run's ledger as the commands of `yumoe ledger` read it. Private to launch/cli.

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/history.hpp"
#include "coordinator/run_ledger.hpp"
#include "coordinator/run_record.hpp"
#include "coordinator/setup.hpp"

namespace CLI {
class App;
}

namespace yumoe {

// Read from the run's record: the core goes along to say who is who.
struct LedgerReading {
  RunSetup setup;
  Layout layout;
  Run core;
  RunLedger ledger;
  TimeMs last;  // of the newest record

  // `rules`: NAME=VALUE texts that hold instead of the run's own.
  LedgerReading(const RunRecord& record, const std::vector<std::string>& rules);
  LedgerReading(const LedgerReading&) = delete;
  LedgerReading& operator=(const LedgerReading&) = delete;

  // A participant's name, or what the ledger calls an account of its own; "" for others.
  std::string name_of(const ledger::AccountId& account) const;
  std::string name_of_neuron(std::uint16_t neuron) const;
  // The name, or the address if there is none.
  std::string label_of(const ledger::AccountId& account) const;
  // An address, or such a name. Throws Error{usage} saying which option (`what`) it was.
  ledger::AccountId account_from(const std::string& text, const char* what) const;
};

std::unique_ptr<LedgerReading> read_ledger(const std::string& run,
                                           const std::vector<std::string>& rules = {});

// rule_from() that knows what somebody probably wanted to type.
std::pair<std::string, std::uint64_t> rule_named(const std::string& text);

// A file of "UID WEIGHT" lines, each uid once and below `neurons` if that is known; # begins a remark.
// Throws Error{usage} naming the line, Error{file_missing}.
using UidWeights = std::vector<std::pair<std::uint16_t, std::uint16_t>>;
UidWeights read_weights(const std::string& path, std::optional<std::size_t> neurons);

std::string address_of(const ledger::AccountId& account);
std::string amount_text(std::uint64_t rao);
// With its sign; amounts are far below 2^63.
std::string difference_text(std::uint64_t from, std::uint64_t to);

// What the commands that read were told.
struct LedgerChoice {
  std::string run;
  bool json = false;
  std::string weights, hotkey, account;
  std::vector<std::string> set;
};
CLI::App* add_ledger_command(CLI::App& group, const char* name, const char* help,
                             const char* example, void (*run)(const LedgerChoice&),
                             const std::shared_ptr<LedgerChoice>& choice);

// Adds `balances` and `whatif` to the group `ledger`.
void add_ledger_accounts(CLI::App& ledger_group);

}  // namespace yumoe

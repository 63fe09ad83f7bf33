#include "cli/ledger_reading.hpp"

#include <CLI/CLI.hpp>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>

#include "cluster/error.hpp"
#include "config/nearest_name.hpp"
#include "coordinator/holdings.hpp"
#include "coordinator/ledger_rules.hpp"

namespace yumoe {
namespace {

using ledger::AccountId;

// The rules that are chosen before the first block go into the setup, the others are left.
RunSetup setup_of(const RunRecord& record, const std::vector<std::string>& rules,
                  std::vector<std::string>* left = nullptr) {
  RunSetup setup = RunSetup::from_journal(record.run(), record.metadata());
  for (const std::string& rule : rules) {
    if (!choose_rule(setup.ledger, rule) && left != nullptr) left->push_back(rule);
  }
  return setup;
}

}  // namespace

LedgerReading::LedgerReading(const RunRecord& record, const std::vector<std::string>& rules)
    : setup(setup_of(record, rules)),
      layout(Layout::of(setup.model)),
      core(layout, setup.settings),
      ledger(setup.ledger, setup.economy) {
  std::vector<std::string> parameters;
  setup_of(record, rules, &parameters);
  for (const std::string& text : parameters) {
    const auto [name, value] = rule_named(text);
    ledger.override_rule(name, value);
  }
  drive(record, core, [this](const Record& r, const Event& event) {
    ledger.apply(event, core, r.time);
    last = r.time;
  });
}

std::string LedgerReading::name_of(const AccountId& account) const {
  for (const auto& [uid, participant] : core.participants()) {
    if (participant.hotkey.bytes == account) return participant.name;
  }
  return ledger.account_name(account);
}

std::string LedgerReading::name_of_neuron(std::uint16_t neuron) const {
  for (const auto& [uid, participant] : core.participants()) {
    if (ledger.neuron_of(participant.hotkey) == neuron) return participant.name;
  }
  return neuron == 0 ? "(owner)" : "?";
}

std::string LedgerReading::label_of(const AccountId& account) const {
  const std::string name = name_of(account);
  return name.empty() ? address_of(account) : name;
}

AccountId LedgerReading::account_from(const std::string& text, const char* what) const {
  for (const auto& [uid, participant] : core.participants()) {
    if (participant.name == text) return participant.hotkey.bytes;
  }
  for (const ledger::Holding& holding : ledger::holdings_of(ledger.ledger().state())) {
    if (ledger.account_name(holding.account) == text) return holding.account;
  }
  try {
    return from_ss58(text).bytes;
  } catch (const Error& error) {
    throw Error(ErrorCode::usage, std::string(what) + " '" + text +
                                      "': nobody of the run has this " +
                                      "name, and it is no address: " + error.what());
  }
}

std::unique_ptr<LedgerReading> read_ledger(const std::string& run,
                                           const std::vector<std::string>& rules) {
  return std::make_unique<LedgerReading>(*open_run_record(run), rules);
}

std::pair<std::string, std::uint64_t> rule_named(const std::string& text) {
  const std::size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  if (equals != std::string::npos && !name.empty() && ledger_rule(name) == nullptr &&
      name.find('/') == std::string::npos) {
    std::vector<std::string> names;
    for (const LedgerRule& rule : ledger_rules()) {
      names.push_back(rule.name);
      if (!rule.option.empty()) names.push_back(rule.option);
    }
    const std::string nearest = nearest_name(name, names);
    throw Error(ErrorCode::usage, "no rule of the ledger is called '" + name + "'" +
                                      (nearest.empty() ? "" : ", did you mean '" + nearest + "'") +
                                      "; docs/ledger.md lists them");
  }
  return rule_from(text);
}

UidWeights read_weights(const std::string& path, std::optional<std::size_t> neurons) {
  std::ifstream in(path);
  if (!in) throw Error(ErrorCode::file_missing, path);
  UidWeights weights;
  std::map<unsigned, int> lines;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    const auto refuse = [&](const std::string& why) {
      throw Error(ErrorCode::usage, path + " line " + std::to_string(number) + ": " + why);
    };
    if (line.find_first_not_of(" \t\r") == std::string::npos || line.front() == '#') continue;
    std::istringstream words(line);
    long long uid = -1, weight = -1;
    std::string rest;
    if (!(words >> uid >> weight) || words >> rest || weight < 0 || weight > 65'535) {
      refuse("expected UID and WEIGHT, both 0 to 65535");
    }
    if (uid < 0 || uid >= static_cast<long long>(neurons.value_or(65'536))) {
      refuse("there is no uid " + std::to_string(uid) + ": uids are 0 to " +
             std::to_string(neurons.value_or(65'536) - 1));
    }
    const auto [before, fresh] = lines.emplace(static_cast<unsigned>(uid), number);
    if (!fresh) {
      refuse("uid " + std::to_string(uid) + " is there already, in line " +
             std::to_string(before->second));
    }
    weights.emplace_back(static_cast<std::uint16_t>(uid), static_cast<std::uint16_t>(weight));
  }
  if (weights.empty())
    throw Error(ErrorCode::usage, path + ": no weights: expected UID WEIGHT lines");
  return weights;
}

std::string address_of(const AccountId& account) {
  return to_ss58(PublicKey{KeyType::sr25519, account});
}

std::string amount_text(std::uint64_t rao) {
  char text[48];
  std::snprintf(text, sizeof text, "%" PRIu64 ".%09" PRIu64, rao / 1'000'000'000,
                rao % 1'000'000'000);
  return text;
}

std::string difference_text(std::uint64_t from, std::uint64_t to) {
  return to < from ? "-" + amount_text(from - to) : "+" + amount_text(to - from);
}

CLI::App* add_ledger_command(CLI::App& group, const char* name, const char* help,
                             const char* example, void (*run)(const LedgerChoice&),
                             const std::shared_ptr<LedgerChoice>& choice) {
  CLI::App* command = group.add_subcommand(name, help);
  command->add_option("run", choice->run, "A run's folder, or an exported .h5 file")->required();
  command->add_flag("--json", choice->json, "JSON; amounts in rao");
  command->footer(example);
  command->callback([choice, run] { run(*choice); });
  return command;
}

}  // namespace yumoe

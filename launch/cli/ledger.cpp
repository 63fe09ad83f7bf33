// yumoe ledger: what a run pays, and what it would pay under other rules.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cluster/error.hpp"
#include "coordinator/history.hpp"
#include "coordinator/run_ledger.hpp"
#include "coordinator/run_record.hpp"
#include "coordinator/setup.hpp"

namespace yumoe {
namespace {

using Rules = std::vector<std::pair<std::string, std::uint64_t>>;

// A run's ledger, read from its record: the core goes along to say who is who.
struct Reading {
  RunSetup setup;
  Layout layout;
  Run core;
  RunLedger ledger;

  Reading(const RunRecord& record, const Rules& rules)
      : setup(RunSetup::from_journal(record.run(), record.metadata())),
        layout(Layout::of(setup.model)),
        core(layout, setup.settings),
        ledger(setup.ledger, setup.economy) {
    for (const auto& [name, value] : rules) ledger.override_rule(name, value);
    drive(record, core,
          [this](const Record& r, const Event& event) { ledger.apply(event, core, r.time); });
  }
  Reading(const Reading&) = delete;

  std::string name_of_neuron(std::uint16_t neuron) const {
    for (const auto& [uid, participant] : core.participants()) {
      if (ledger.neuron_of(participant.hotkey) == neuron) return participant.name;
    }
    return neuron == 0 ? "(owner)" : "?";
  }
};

std::unique_ptr<Reading> read(const std::string& run, const Rules& rules = {}) {
  return std::make_unique<Reading>(*open_run_record(run), rules);
}

std::string tao(std::uint64_t rao) {
  char text[48];
  std::snprintf(text, sizeof text, "%" PRIu64 ".%09" PRIu64, rao / 1'000'000'000, rao % 1'000'000'000);
  return text;
}

std::string rounds_text(const RunLedger::Epoch& epoch) {
  if (epoch.first_round.value == 0) return "none";
  return std::to_string(epoch.first_round.value) + "-" + std::to_string(epoch.last_round.value);
}

nlohmann::json json_of(const Reading& reading, const ledger::EpochReport& report) {
  nlohmann::json payouts = nlohmann::json::array();
  for (const ledger::Payout& p : report.payouts) {
    payouts.push_back({{"uid", p.uid}, {"name", reading.name_of_neuron(p.uid)},
                       {"incentive", p.incentive}, {"withheld", p.withheld},
                       {"dividend_alpha", p.dividend_alpha}, {"dividend_root", p.dividend_root},
                       {"take", p.take}, {"emission", p.emission}});
  }
  return {{"block", report.block}, {"skipped", report.skipped}, {"owner_cut", report.owner_cut},
          {"payouts", payouts}};
}

void print_payouts(const Reading& reading, const ledger::EpochReport& report) {
  std::printf("%4s %-14s %20s %20s %20s\n", "uid", "name", "incentive", "dividends", "root dividends");
  for (const ledger::Payout& p : report.payouts) {
    std::printf("%4u %-14.14s %20s %20s %20s%s\n", p.uid, reading.name_of_neuron(p.uid).c_str(),
                tao(p.incentive).c_str(), tao(p.dividend_alpha).c_str(), tao(p.dividend_root).c_str(),
                p.withheld ? "  (withheld: the owner's own)" : "");
  }
}

// --- the commands ---------------------------------------------------------------------------------------

struct Choice {
  std::string run;
  bool json = false;
  std::string weights, hotkey;
  std::vector<std::string> set;
};

void show(const Choice& choice) {
  const auto reading = read(choice.run);
  const ledger::LedgerState& state = reading->ledger.ledger().state();
  const ledger::Subnet& subnet = state.subnets.at(RunLedger::kNetuid);
  const auto& epochs = reading->ledger.epochs();
  if (choice.json) {
    nlohmann::json out{{"block", state.block}, {"issuance", state.issuance},
                       {"tao_reserve", subnet.reserves.tao}, {"alpha_reserve", subnet.reserves.alpha},
                       {"alpha_out", subnet.alpha_out}, {"epochs", epochs.size()},
                       {"refusals", nlohmann::json::array()},
                       {"digest", reading->ledger.ledger().digest().hex()}};
    for (const auto& r : reading->ledger.refusals()) {
      out["refusals"].push_back({{"block", r.block}, {"operation", r.operation}, {"who", r.who},
                                 {"error", ledger::name_of(r.error)}});
    }
    out["last_epoch"] = epochs.empty() ? nlohmann::json(nullptr) : json_of(*reading, epochs.back().report);
    std::cout << out.dump() << std::endl;
    return;
  }
  std::printf("block %" PRIu64 ", %zu epochs; pool %s TAO and %s alpha, %s alpha outside it\n",
              state.block, epochs.size(), tao(subnet.reserves.tao).c_str(),
              tao(subnet.reserves.alpha).c_str(), tao(subnet.alpha_out).c_str());
  if (epochs.empty()) {
    std::printf("no epoch yet: one comes every %lld blocks of %lld ms\n",
                static_cast<long long>(reading->setup.ledger.tempo),
                static_cast<long long>(reading->setup.economy.block_ms));
  } else {
    std::printf("\nlast epoch, block %" PRIu64 ", weights from rounds %s (alpha):\n",
                epochs.back().report.block, rounds_text(epochs.back()).c_str());
    print_payouts(*reading, epochs.back().report);
  }
  for (const auto& r : reading->ledger.refusals()) {
    std::printf("refused at block %" PRIu64 ": %s of %s: %s\n", r.block, r.operation.c_str(),
                r.who.c_str(), std::string(ledger::name_of(r.error)).c_str());
  }
}

void balances(const Choice& choice) {
  const auto reading = read(choice.run);
  const ledger::LedgerState& state = reading->ledger.ledger().state();
  nlohmann::json rows = nlohmann::json::array();
  if (!choice.json) {
    std::printf("%4s %-14s %-48s %20s %20s\n", "uid", "name", "hotkey", "alpha", "free TAO");
  }
  for (const auto& [uid, participant] : reading->core.participants()) {
    const auto coldkey = state.coldkeys.find(participant.hotkey.bytes);
    const std::uint64_t free = coldkey == state.coldkeys.end() ? 0 : coldkey->second.free;
    const std::uint64_t alpha = reading->ledger.alpha_of(participant.hotkey);
    if (choice.json) {
      rows.push_back({{"name", participant.name}, {"hotkey", to_ss58(participant.hotkey)},
                      {"alpha", alpha}, {"free", free}});
    } else {
      const auto neuron = reading->ledger.neuron_of(participant.hotkey);
      std::printf("%4s %-14.14s %-48s %20s %20s\n", neuron ? std::to_string(*neuron).c_str() : "-",
                  participant.name.c_str(), to_ss58(participant.hotkey).c_str(), tao(alpha).c_str(),
                  tao(free).c_str());
    }
  }
  if (choice.json) std::cout << rows.dump() << std::endl;
}

void history(const Choice& choice) {
  const auto reading = read(choice.run);
  for (const RunLedger::Epoch& epoch : reading->ledger.epochs()) {
    if (choice.json) {
      nlohmann::json line = json_of(*reading, epoch.report);
      line["rounds"] = {epoch.first_round.value, epoch.last_round.value};
      std::cout << line.dump() << "\n";
    } else {
      std::printf("epoch at block %" PRIu64 ", weights from rounds %s%s\n", epoch.report.block,
                  rounds_text(epoch).c_str(), epoch.report.skipped ? " (skipped: duplicate hotkeys)" : "");
      print_payouts(*reading, epoch.report);
    }
  }
  std::cout << std::flush;
}

// "UID WEIGHT" a line, or a JSON list of [uid, weight].
std::vector<std::pair<std::uint16_t, std::uint16_t>> read_weights(const std::string& path) {
  std::ifstream in(path);
  if (!in) throw Error(ErrorCode::file_missing, path);
  std::vector<std::pair<std::uint16_t, std::uint16_t>> weights;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.empty() || line.front() == '#') continue;
    unsigned uid = 0, weight = 0;
    if (std::sscanf(line.c_str(), "%u %u", &uid, &weight) != 2 || uid > 65'535 || weight > 65'535) {
      throw Error(ErrorCode::usage, path + " line " + std::to_string(number) +
                                        ": expected UID and WEIGHT, both 0 to 65535");
    }
    weights.emplace_back(uid, weight);
  }
  return weights;
}

void preview(const Choice& choice) {
  const auto reading = read(choice.run);
  std::optional<std::vector<std::pair<std::uint16_t, std::uint16_t>>> weights;
  if (!choice.weights.empty()) weights = read_weights(choice.weights);
  ledger::EpochReport report = reading->ledger.preview(weights);
  if (!choice.hotkey.empty()) {
    const auto neuron = reading->ledger.neuron_of(from_ss58(choice.hotkey));
    if (!neuron) throw Error(ErrorCode::usage, "hotkey " + choice.hotkey + " is not registered in this run");
    std::erase_if(report.payouts, [&](const ledger::Payout& p) { return p.uid != *neuron; });
  }
  if (choice.json) {
    std::cout << json_of(*reading, report).dump() << std::endl;
  } else {
    std::printf("if the epoch ran after the next block (alpha):\n");
    print_payouts(*reading, report);
  }
}

Rules rules_of(const std::vector<std::string>& texts) {
  Rules rules;
  for (const std::string& text : texts) {
    const std::size_t equals = text.find('=');
    double value = 0;
    if (equals == std::string::npos || !option_detail::parse(std::string_view(text).substr(equals + 1), value) ||
        value < 0) {
      throw Error(ErrorCode::usage, "--set " + text + ": expected NAME=VALUE");
    }
    // Shares are kept as u16 on the chain: 0.6 is 39321 of 65535. A whole number is taken as it is.
    const bool is_share = text.find('.', equals) != std::string::npos && value <= 1;
    rules.emplace_back(text.substr(0, equals),
                       static_cast<std::uint64_t>(is_share ? value * 65'535 : value));
  }
  return rules;
}

void whatif(const Choice& choice) {
  const auto before = read(choice.run);
  const auto after = read(choice.run, rules_of(choice.set));
  if (!choice.json) std::printf("%-14s %20s %20s %22s\n", "name", "as recorded", "under this rule", "difference");
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& [uid, participant] : before->core.participants()) {
    const std::uint64_t was = before->ledger.alpha_of(participant.hotkey);
    const std::uint64_t is = after->ledger.alpha_of(participant.hotkey);
    const auto difference = static_cast<std::int64_t>(is) - static_cast<std::int64_t>(was);
    if (choice.json) {
      rows.push_back({{"name", participant.name}, {"hotkey", to_ss58(participant.hotkey)},
                      {"recorded", was}, {"whatif", is}, {"difference", difference}});
    } else {
      std::printf("%-14.14s %20s %20s %22s\n", participant.name.c_str(), tao(was).c_str(),
                  tao(is).c_str(),
                  ((difference < 0 ? "-" : "+") + tao(static_cast<std::uint64_t>(std::abs(difference)))).c_str());
    }
  }
  if (choice.json) std::cout << rows.dump() << std::endl;
}

void audit(const Choice& choice) {
  const auto reading = read(choice.run);      // every block's conservation is checked on the way
  reading->ledger.ledger().audit();
  const Bytes snapshot = reading->ledger.ledger().snapshot();
  if (ledger::Ledger::restore(snapshot).digest() != reading->ledger.ledger().digest()) {
    throw Error(ErrorCode::invariant_broken, "a snapshot of the ledger does not read back to the same");
  }
  const auto& state = reading->ledger.ledger().state();
  if (choice.json) {
    std::cout << nlohmann::json{{"block", state.block}, {"epochs", reading->ledger.epochs().size()},
                                {"issuance", state.issuance}, {"broken", nullptr},
                                {"digest", reading->ledger.ledger().digest().hex()}}.dump()
              << std::endl;
    return;
  }
  std::printf("%" PRIu64 " blocks and %zu epochs computed again from the journal; every rao and every unit of "
              "alpha has its place.\nissuance %s TAO, ledger digest %s\n",
              state.block, reading->ledger.epochs().size(), tao(state.issuance).c_str(),
              reading->ledger.ledger().digest().hex().c_str());
}

CLI::App* add(CLI::App& group, const char* name, const char* help, const char* example,
              void (*run)(const Choice&), const std::shared_ptr<Choice>& choice) {
  CLI::App* command = group.add_subcommand(name, help);
  command->add_option("run", choice->run, "A run's folder, or an exported .h5 file")->required();
  command->add_flag("--json", choice->json, "JSON; amounts in rao");
  command->footer(example);
  command->callback([choice, run] { run(*choice); });
  return command;
}

}  // namespace

void add_ledger_commands(CLI::App& app) {
  CLI::App* group = app.add_subcommand("ledger", "What a run pays, and what it would pay");
  group->require_subcommand(1);
  const auto choice = std::make_shared<Choice>();
  add(*group, "show", "The subnet, the last epoch, and what was refused", "yumoe ledger show runs/mine", show, choice);
  add(*group, "balances", "Alpha and free TAO of each participant", "yumoe ledger balances runs/mine", balances, choice);
  add(*group, "history", "Each epoch: who earned what, from which rounds", "yumoe ledger history runs/mine --json", history, choice);
  CLI::App* command = add(*group, "preview", "What would be paid if the epoch ran now",
                          "yumoe ledger preview runs/mine --weights weights.txt", preview, choice);
  command->add_option("--weights", choice->weights, "File of UID WEIGHT lines, set by every validator");
  command->add_option("--hotkey", choice->hotkey, "Only this one");
  command = add(*group, "whatif", "Read the run again under another rule",
                "yumoe ledger whatif runs/mine --set kappa=0.6 --set tempo=50", whatif, choice);
  command->add_option("--set", choice->set, "NAME=VALUE of a rule; a share may be given as 0.6")->required();
  add_ledger_simulate(*group);
  add(*group, "audit", "Compute everything again from the journal and check every invariant",
      "yumoe ledger audit runs/mine", audit, choice);
}

}  // namespace yumoe

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
#include "coordinator/ledger_audit.hpp"
#include "coordinator/run_ledger.hpp"
#include "coordinator/run_record.hpp"
#include "coordinator/setup.hpp"
#include "launch/settle_run.hpp"

namespace yumoe {
namespace {

using Rules = std::vector<std::pair<std::string, std::uint64_t>>;

// A run's ledger, read from its record: the core goes along to say who is who.
struct Reading {
  RunSetup setup;
  Layout layout;
  Run core;
  RunLedger ledger;
  TimeMs last;  // of the newest record

  Reading(const RunRecord& record, const Rules& rules)
      : setup(RunSetup::from_journal(record.run(), record.metadata())),
        layout(Layout::of(setup.model)),
        core(layout, setup.settings),
        ledger(setup.ledger, setup.economy) {
    for (const auto& [name, value] : rules) ledger.override_rule(name, value);
    drive(record, core, [this](const Record& r, const Event& event) {
      ledger.apply(event, core, r.time);
      last = r.time;
    });
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
  std::snprintf(text, sizeof text, "%" PRIu64 ".%09" PRIu64, rao / 1'000'000'000,
                rao % 1'000'000'000);
  return text;
}

std::string rounds_text(const RunLedger::Epoch& epoch) {
  if (epoch.first_round.value == 0) return "none";
  return std::to_string(epoch.first_round.value) + "-" + std::to_string(epoch.last_round.value);
}

nlohmann::json json_of(const Reading& reading, const ledger::EpochReport& report) {
  nlohmann::json payouts = nlohmann::json::array();
  for (const ledger::Payout& p : report.payouts) {
    payouts.push_back({{"uid", p.uid},
                       {"name", reading.name_of_neuron(p.uid)},
                       {"incentive", p.incentive},
                       {"withheld", p.withheld},
                       {"dividend_alpha", p.dividend_alpha},
                       {"dividend_root", p.dividend_root},
                       {"take", p.take},
                       {"emission", p.emission}});
  }
  return {{"block", report.block},
          {"skipped", report.skipped},
          {"owner_cut", report.owner_cut},
          {"payouts", payouts}};
}

void print_payouts(const Reading& reading, const ledger::EpochReport& report) {
  std::printf("%4s %-14s %20s %20s %20s\n", "uid", "name", "incentive", "dividends",
              "root dividends");
  for (const ledger::Payout& p : report.payouts) {
    std::printf("%4u %-14.14s %20s %20s %20s%s\n", p.uid, reading.name_of_neuron(p.uid).c_str(),
                tao(p.incentive).c_str(), tao(p.dividend_alpha).c_str(),
                tao(p.dividend_root).c_str(), p.withheld ? "  (withheld: the owner's own)" : "");
  }
}

// --- the commands ---------------------------------------------------------------------------------------

struct Choice {
  std::string run;
  bool json = false;
  std::string weights, hotkey;
  std::vector<std::string> set;
};

double price_of(const ledger::Subnet& subnet) {
  const auto& r = subnet.reserves;
  if (!subnet.dynamic || r.alpha == 0) return subnet.dynamic ? 0 : 1;
  const double quote = static_cast<double>(r.quote_weight) / 1e18;
  return (1 - quote) / quote * static_cast<double>(r.tao) / static_cast<double>(r.alpha);
}

nlohmann::json subnets_json(const Reading& reading) {
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& [netuid, subnet] : reading.ledger.ledger().state().subnets) {
    if (netuid == 0) continue;
    rows.push_back({{"netuid", netuid},
                    {"name", reading.ledger.subnet_name(netuid)},
                    {"price_tao", price_of(subnet)},
                    {"tao_reserve", subnet.reserves.tao},
                    {"alpha_reserve", subnet.reserves.alpha},
                    {"alpha_out", subnet.alpha_out},
                    {"tao_emission", subnet.tao_in_emission},
                    {"neurons", subnet.neurons.size()}});
  }
  return rows;
}

void print_subnets(const Reading& reading) {
  std::printf("%6s %-16s %14s %20s %22s %8s\n", "netuid", "name", "price TAO", "pool TAO",
              "TAO a block", "neurons");
  for (const auto& [netuid, subnet] : reading.ledger.ledger().state().subnets) {
    if (netuid == 0) continue;
    std::printf("%6u %-16.16s %14.6f %20s %22s %8zu\n", netuid,
                reading.ledger.subnet_name(netuid).c_str(), price_of(subnet),
                tao(subnet.reserves.tao).c_str(), tao(subnet.tao_in_emission).c_str(),
                subnet.neurons.size());
  }
}

void show(const Choice& choice) {
  const auto reading = read(choice.run);
  const ledger::LedgerState& state = reading->ledger.ledger().state();
  const ledger::Subnet& subnet = state.subnets.at(RunLedger::kNetuid);
  const auto& epochs = reading->ledger.epochs();
  const std::uint64_t chain_block = reading->ledger.chain_block();
  const bool of_chain =
      reading->ledger.block_source(reading->last) == RunLedger::BlockSource::chain;
  if (choice.json) {
    nlohmann::json out{{"block", state.block},
                       {"block_source", of_chain ? "chain" : "own time"},
                       {"chain_block", chain_block},
                       {"issuance", state.issuance},
                       {"tao_reserve", subnet.reserves.tao},
                       {"alpha_reserve", subnet.reserves.alpha},
                       {"alpha_out", subnet.alpha_out},
                       {"epochs", epochs.size()},
                       {"refusals", nlohmann::json::array()},
                       {"digest", reading->ledger.ledger().digest().hex()}};
    for (const auto& r : reading->ledger.refusals()) {
      out["refusals"].push_back({{"block", r.block},
                                 {"operation", r.operation},
                                 {"who", r.who},
                                 {"error", ledger::name_of(r.error)}});
    }
    out["subnets"] = subnets_json(*reading);
    out["proposals"] = nlohmann::json::array();
    for (const auto& [number, p] : state.proposals) {
      out["proposals"].push_back({{"number", number},
                                  {"name", p.name},
                                  {"value", p.value},
                                  {"decided_at", p.proposed_at + state.parameters.proposal_delay},
                                  {"votes", p.votes.size()}});
    }
    out["last_epoch"] =
        epochs.empty() ? nlohmann::json(nullptr) : json_of(*reading, epochs.back().report);
    std::cout << out.dump() << std::endl;
    return;
  }
  std::printf("block %" PRIu64 ", %zu epochs; pool %s TAO and %s alpha, %s alpha outside it\n",
              state.block, epochs.size(), tao(subnet.reserves.tao).c_str(),
              tao(subnet.reserves.alpha).c_str(), tao(subnet.alpha_out).c_str());
  if (chain_block > 0) {
    std::printf("blocks pass %s; the newest told is the chain's %" PRIu64 "\n",
                of_chain ? "as the chain's do" : "with the run's own time, the chain being away",
                chain_block);
  }
  if (state.subnets.size() > 2) print_subnets(*reading);
  for (const auto& [number, p] : state.proposals) {
    std::printf("proposal %" PRIu64 ": %s = %" PRIu64 ", %zu votes, decided at block %" PRIu64 "\n",
                number, p.name.c_str(), p.value, p.votes.size(),
                p.proposed_at + state.parameters.proposal_delay);
  }
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
      rows.push_back({{"name", participant.name},
                      {"hotkey", to_ss58(participant.hotkey)},
                      {"alpha", alpha},
                      {"free", free}});
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
                  rounds_text(epoch).c_str(),
                  epoch.report.skipped ? " (skipped: duplicate hotkeys)" : "");
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
    if (!neuron)
      throw Error(ErrorCode::usage, "hotkey " + choice.hotkey + " is not registered in this run");
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
  for (const std::string& text : texts) rules.push_back(rule_from(text));
  return rules;
}

void whatif(const Choice& choice) {
  const auto before = read(choice.run);
  const auto after = read(choice.run, rules_of(choice.set));
  if (!choice.json)
    std::printf("%-14s %20s %20s %22s\n", "name", "as recorded", "under this rule", "difference");
  nlohmann::json rows = nlohmann::json::array();
  for (const auto& [uid, participant] : before->core.participants()) {
    const std::uint64_t was = before->ledger.alpha_of(participant.hotkey);
    const std::uint64_t is = after->ledger.alpha_of(participant.hotkey);
    const auto difference = static_cast<std::int64_t>(is) - static_cast<std::int64_t>(was);
    if (choice.json) {
      rows.push_back({{"name", participant.name},
                      {"hotkey", to_ss58(participant.hotkey)},
                      {"recorded", was},
                      {"whatif", is},
                      {"difference", difference}});
    } else {
      std::printf(
          "%-14.14s %20s %20s %22s\n", participant.name.c_str(), tao(was).c_str(), tao(is).c_str(),
          ((difference < 0 ? "-" : "+") + tao(static_cast<std::uint64_t>(std::abs(difference))))
              .c_str());
    }
  }
  if (choice.json) std::cout << rows.dump() << std::endl;
}

void audit(const Choice& choice) {
  const auto record = open_run_record(choice.run);
  const LedgerAudit found = audit_ledger(*record);
  const SettlementAudit settled = audit_settlements(*record, found.epochs);
  if (choice.json) {
    nlohmann::json out{{"block", found.blocks},       {"epochs", found.epochs},
                       {"calls", found.calls},        {"snapshots", found.snapshots},
                       {"issuance", found.issuance},  {"broken", nullptr},
                       {"digest", found.digest.hex()}};
    out["settlements"] = {{"effected", settled.effected},
                          {"refused", settled.refused},
                          {"open", settled.open},
                          {"readings", settled.readings},
                          {"genesis", settled.chain ? nlohmann::json("0x" + settled.chain->hex())
                                                    : nlohmann::json()}};
    std::cout << out.dump() << std::endl;
    return;
  }
  std::printf("%" PRIu64 " blocks and %" PRIu64
              " epochs computed again from the journal; every rao and every "
              "unit of alpha has its place.\n%" PRIu64 " signed calls hold; %" PRIu64
              " checkpoints' snapshots "
              "are what was computed.\nissuance %s TAO, ledger digest %s\n",
              found.blocks, found.epochs, found.calls, found.snapshots, tao(found.issuance).c_str(),
              found.digest.hex().c_str());
  if (!settled.chain) return;
  std::printf(
      "%zu settlements took effect on the chain 0x%s..., no epoch twice; %zu refused, %zu open.\n",
      settled.effected, settled.chain->hex().substr(0, 16).c_str(), settled.refused, settled.open);
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
  add(*group, "show", "The subnet, the last epoch, and what was refused",
      "yumoe ledger show runs/mine", show, choice);
  add(*group, "balances", "Alpha and free TAO of each participant",
      "yumoe ledger balances runs/mine", balances, choice);
  add(*group, "history", "Each epoch: who earned what, from which rounds",
      "yumoe ledger history runs/mine --json", history, choice);
  CLI::App* command = add(*group, "preview", "What would be paid if the epoch ran now",
                          "yumoe ledger preview runs/mine --weights weights.txt", preview, choice);
  command->add_option("--weights", choice->weights,
                      "File of UID WEIGHT lines, set by every validator");
  command->add_option("--hotkey", choice->hotkey, "Only this one");
  command = add(*group, "whatif", "Read the run again under another rule",
                "yumoe ledger whatif runs/mine --set kappa=0.6 --set tempo=50", whatif, choice);
  command->add_option("--set", choice->set, "NAME=VALUE of a rule; a share may be given as 0.6")
      ->required();
  add_ledger_simulate(*group);
  add_ledger_calls(*group);
  add(*group, "audit", "Compute everything again from the journal and check every invariant",
      "yumoe ledger audit runs/mine", audit, choice);
}

}  // namespace yumoe

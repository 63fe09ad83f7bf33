// yumoe ledger: what a run pays, and what it would pay under other rules.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/commands.hpp"
#include "cli/ledger_reading.hpp"
#include "cluster/error.hpp"
#include "coordinator/ledger_advice.hpp"
#include "coordinator/ledger_audit.hpp"
#include "coordinator/ledger_rules.hpp"
#include "launch/settle_run.hpp"

namespace yumoe {
namespace {

std::string rounds_text(const RunLedger::Epoch& epoch) {
  if (epoch.first_round.value == 0) return "none";
  return std::to_string(epoch.first_round.value) + "-" + std::to_string(epoch.last_round.value);
}

nlohmann::json json_of(const LedgerReading& reading, const ledger::EpochReport& report) {
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

void print_payouts(const LedgerReading& reading, const ledger::EpochReport& report) {
  std::printf("%4s %-14s %20s %20s %20s\n", "uid", "name", "incentive", "dividends",
              "root dividends");
  for (const ledger::Payout& p : report.payouts) {
    std::printf("%4u %-14.14s %20s %20s %20s%s\n", p.uid, reading.name_of_neuron(p.uid).c_str(),
                amount_text(p.incentive).c_str(), amount_text(p.dividend_alpha).c_str(),
                amount_text(p.dividend_root).c_str(),
                p.withheld ? "  (withheld: the owner's own)" : "");
  }
}

// --- the commands ---------------------------------------------------------------------------------------

double price_of(const ledger::Subnet& subnet) {
  const auto& r = subnet.reserves;
  if (!subnet.dynamic || r.alpha == 0) return subnet.dynamic ? 0 : 1;
  const double quote = static_cast<double>(r.quote_weight) / 1e18;
  return (1 - quote) / quote * static_cast<double>(r.tao) / static_cast<double>(r.alpha);
}

nlohmann::json subnets_json(const LedgerReading& reading) {
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

void print_subnets(const LedgerReading& reading) {
  std::printf("%6s %-16s %14s %20s %22s %8s\n", "netuid", "name", "price TAO", "pool TAO",
              "TAO a block", "neurons");
  for (const auto& [netuid, subnet] : reading.ledger.ledger().state().subnets) {
    if (netuid == 0) continue;
    std::printf("%6u %-16.16s %14.6f %20s %22s %8zu\n", netuid,
                reading.ledger.subnet_name(netuid).c_str(), price_of(subnet),
                amount_text(subnet.reserves.tao).c_str(),
                amount_text(subnet.tao_in_emission).c_str(), subnet.neurons.size());
  }
}

// One line for each kind: a run's first epochs refuse weights by the dozen.
void print_refusals(const LedgerReading& reading) {
  struct Kind {
    std::uint64_t count = 0, first = 0, last = 0;
    std::set<std::string> who;
  };
  std::map<std::pair<std::string, ledger::LedgerError>, Kind> kinds;
  for (const RunLedger::Refusal& r : reading.ledger.refusals()) {
    Kind& kind = kinds[{r.operation, r.error}];
    if (kind.count++ == 0) kind.first = r.block;
    kind.last = r.block;
    kind.who.insert(reading.label_of(from_ss58(r.who).bytes));
  }
  for (const auto& [key, kind] : kinds) {
    std::string who;
    for (const std::string& name : kind.who) {
      if (who.size() > 60) {
        who += ", ...";
        break;
      }
      who += (who.empty() ? "" : ", ") + name;
    }
    std::printf("refused %" PRIu64 " times, blocks %" PRIu64 " to %" PRIu64 ": %s of %s\n",
                kind.count, kind.first, kind.last, refusal_text(key.first, key.second).c_str(),
                who.c_str());
    const auto& epochs = reading.ledger.epochs();
    if (key.second == ledger::LedgerError::NeuronNoValidatorPermit &&
        (epochs.empty() || kind.last <= epochs.front().report.block)) {
      std::printf("  as expected: nobody holds a permit before the first epoch\n");
    }
  }
}

void show(const LedgerChoice& choice) {
  const auto reading = read_ledger(choice.run);
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
                                  {"text", rule_text(p.name, p.value)},
                                  {"decided_at", p.proposed_at + state.parameters.proposal_delay},
                                  {"votes", p.votes.size()}});
    }
    out["last_epoch"] =
        epochs.empty() ? nlohmann::json(nullptr) : json_of(*reading, epochs.back().report);
    std::cout << out.dump() << std::endl;
    return;
  }
  std::printf("block %" PRIu64 ", %zu epochs; pool %s TAO and %s alpha, %s alpha outside it\n",
              state.block, epochs.size(), amount_text(subnet.reserves.tao).c_str(),
              amount_text(subnet.reserves.alpha).c_str(), amount_text(subnet.alpha_out).c_str());
  if (chain_block > 0) {
    std::printf("blocks pass %s; the newest told is the chain's %" PRIu64 "\n",
                of_chain ? "as the chain's do" : "with the run's own time, the chain being away",
                chain_block);
  }
  if (state.subnets.size() > 2) print_subnets(*reading);
  for (const auto& [number, p] : state.proposals) {
    std::printf("proposal %" PRIu64 ": %s, %zu votes, decided at block %" PRIu64 "\n", number,
                rule_text(p.name, p.value).c_str(), p.votes.size(),
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
  print_refusals(*reading);
}

void history(const LedgerChoice& choice) {
  const auto reading = read_ledger(choice.run);
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

void preview(const LedgerChoice& choice) {
  const auto reading = read_ledger(choice.run);
  const ledger::Subnet& subnet = reading->ledger.ledger().state().subnets.at(RunLedger::kNetuid);
  std::optional<UidWeights> weights;
  if (!choice.weights.empty()) weights = read_weights(choice.weights, subnet.neurons.size());
  std::optional<std::uint16_t> only;
  if (!choice.hotkey.empty()) {
    const auto found = subnet.uids.find(reading->account_from(choice.hotkey, "--hotkey"));
    if (found == subnet.uids.end()) {
      throw Error(ErrorCode::usage, "--hotkey " + choice.hotkey + " is not registered in this run");
    }
    only = found->second;
  }
  RunLedger::Preview preview = reading->ledger.preview(weights);
  if (weights && preview.taken == 0) {
    std::string why;
    for (const auto& [uid, error] : preview.refused) {
      if (!why.empty()) why += "; ";
      why += reading->name_of_neuron(uid) + ": " + refusal_text("SetWeights", error);
      if (why.size() > 300) break;
    }
    throw Error(ErrorCode::usage, choice.weights + ": nobody could set these weights now: " + why);
  }
  if (only) {
    std::erase_if(preview.report.payouts, [&](const ledger::Payout& p) { return p.uid != *only; });
  }
  if (choice.json) {
    nlohmann::json out = json_of(*reading, preview.report);
    out["refused"] = nlohmann::json::array();
    for (const auto& [uid, error] : preview.refused) {
      out["refused"].push_back({{"uid", uid},
                                {"name", reading->name_of_neuron(uid)},
                                {"error", ledger::name_of(error)},
                                {"advice", advice_on(error)}});
    }
    std::cout << out.dump() << std::endl;
    return;
  }
  std::printf("if the epoch ran after the next block (alpha):\n");
  print_payouts(*reading, preview.report);
  for (const auto& [uid, error] : preview.refused) {
    std::printf("uid %u, %s, keeps its own weights: %s\n", uid,
                reading->name_of_neuron(uid).c_str(), refusal_text("SetWeights", error).c_str());
  }
}

// What an audit can find; everything else went wrong before it began.
bool is_finding(ErrorCode code) {
  switch (code) {
    case ErrorCode::invariant_broken:
    case ErrorCode::signature_invalid:
    case ErrorCode::replay_differs:
    case ErrorCode::journal_corrupt:
    case ErrorCode::checkpoint_corrupt: return true;
    default: return false;
  }
}

void audit(const LedgerChoice& choice) {
  LedgerAudit found;
  SettlementAudit settled;
  try {
    const auto record = open_run_record(choice.run);
    // A run that is under way settles an epoch only after its ledger had it, so the queue is read first.
    settled = audit_settlements(*record);
    found = audit_ledger(*record);
    if (settled.newest_epoch > found.epochs) {
      throw Error(ErrorCode::invariant_broken,
                  "a settlement is for epoch " + std::to_string(settled.newest_epoch) +
                      ": the run's ledger has had " + std::to_string(found.epochs));
    }
  } catch (const Error& error) {
    if (!choice.json || !is_finding(error.code())) throw;
    std::cout << nlohmann::json{{"broken",
                                 {{"error", name_of(error.code())}, {"message", error.what()}}}}
                     .dump()
              << std::endl;
    throw CLI::RuntimeError(1);
  }
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
              found.blocks, found.epochs, found.calls, found.snapshots,
              amount_text(found.issuance).c_str(), found.digest.hex().c_str());
  if (!settled.chain) return;
  std::printf(
      "%zu settlements took effect on the chain 0x%s..., no epoch twice; %zu refused, %zu open.\n",
      settled.effected, settled.chain->hex().substr(0, 16).c_str(), settled.refused, settled.open);
}

}  // namespace

void add_ledger_commands(CLI::App& app) {
  CLI::App* group = app.add_subcommand("ledger", "What a run pays, and what it would pay");
  group->require_subcommand(1);
  const auto choice = std::make_shared<LedgerChoice>();
  add_ledger_command(*group, "show", "The subnet, the last epoch, and what was refused",
                     "yumoe ledger show runs/mine", show, choice);
  add_ledger_accounts(*group);
  add_ledger_command(*group, "history", "Each epoch: who earned what, from which rounds",
                     "yumoe ledger history runs/mine --json", history, choice);
  CLI::App* command =
      add_ledger_command(*group, "preview", "What would be paid if the epoch ran now",
                         "yumoe ledger preview runs/mine --weights weights.txt\n"
                         "yumoe ledger preview runs/mine --hotkey large",
                         preview, choice);
  command->add_option("--weights", choice->weights,
                      "File of UID WEIGHT lines, set by every validator");
  command->add_option("--hotkey", choice->hotkey, "Only this one: a name or an address");
  add_ledger_simulate(*group);
  add_ledger_calls(*group);
  add_ledger_command(*group, "audit",
                     "Compute everything again from the journal and check every invariant",
                     "yumoe ledger audit runs/mine", audit, choice);
}

}  // namespace yumoe

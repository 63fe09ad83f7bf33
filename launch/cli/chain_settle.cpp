// yumoe chain settle, reconcile, status: a run beside the chain.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/chain_choice.hpp"
#include "cluster/error.hpp"
#include "launch/settle_run.hpp"

namespace yumoe {
namespace {

using settlement::IntentStatus;
using std::chrono::milliseconds;

struct SettleChoice : ChainChoice {
  std::string run;
  std::int64_t wait_s = 900, block = -1;
  bool all = false;
};

nlohmann::json json_of(const settlement::Receipt& receipt) {
  return {{"id", receipt.id},
          {"effected", receipt.outcome.effected},
          {"reason", receipt.outcome.reason},
          {"advice", receipt.outcome.advice},
          {"block", receipt.outcome.block}};
}

// A run without a chain answers by its ledger, unless a chain is asked for.
bool is_local(const SettleChoice& choice, const ChainOptions& options, const RunRecord& record) {
  return settles_locally(record) && choice.given.empty() && options.rpc.endpoints.empty() &&
         options.target == "local";
}

constexpr const char* kLocalHint =
    "to bring its weights to a chain too, give --endpoints, --netuid, --wallet and --hotkey, or a "
    "[chain] section by --config";

// --- settle ----------------------------------------------------------------------------------------------

// Nothing is to be sent: what the ledger computed is final.
void settle_locally(const SettleChoice& choice, const RunRecord& record) {
  RunFollower follower(record, RunFollower::Keep::weights);
  follower.advance();
  const auto settlements = local_settlements(follower);
  const std::size_t epochs = follower.epochs().size();
  if (choice.json) {
    SettlerStatus status;
    status.ledger_epochs = status.settled_epoch = status.in_force_epoch = epochs;
    nlohmann::json out = nlohmann::json::parse(json_of(status));
    out["target"] = "local";
    out["receipts"] = nlohmann::json::array();
    for (const IntentStatus& s : settlements)
      out["receipts"].push_back(json_of({s.intent.id, *s.outcome}));
    std::cout << out.dump() << std::endl;
    return;
  }
  std::printf("%zu epochs are settled by the run's own ledger, nothing is open; %s\n", epochs,
              kLocalHint);
}

void settle(const SettleChoice& choice) {
  const ChainOptions options = choice.options();
  {
    const auto record = open_run_record(choice.run);
    if (is_local(choice, options, *record)) return settle_locally(choice, *record);
    if (!std::filesystem::is_directory(choice.run)) {
      throw Error(ErrorCode::usage,
                  choice.run + " is an exported file: only a run's folder can be settled");
    }
    RunFollower(*record, RunFollower::Keep::pays)
        .advance();  // says first what is wrong with the run
  }
  const Keypair hotkey = open_chain_hotkey(options);
  { ChainLine reachable(options, chain_progress); }
  RunSettler settler(choice.run, options, hotkey);
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(choice.wait_s);
  std::string told;
  while (!settler.done()) {
    settler.step(milliseconds(500));
    const SettlerStatus& s = settler.status();
    if (s.head != 0 && s.ledger_epochs == 0) {
      throw Error(ErrorCode::usage,
                  choice.run + ": the run's ledger has had no epoch yet, so nothing is due");
    }
    if (!s.missing.empty() && s.waiting == 0) throw Error(ErrorCode::chain_refused, s.missing);
    const std::string now = "block " + std::to_string(s.head) + ": " + std::to_string(s.waiting) +
                            " settlements open" + (s.trouble.empty() ? "" : "; " + s.trouble);
    if (now != told) chain_progress(now);
    told = now;
    if (std::chrono::steady_clock::now() > until) {
      throw Error(ErrorCode::peer_unreachable,
                  "not settled within " + std::to_string(choice.wait_s) + " s (" + now +
                      "): the queue keeps it; give the command again to go on");
    }
  }
  const settlement::Receipt* refused = nullptr;
  nlohmann::json rows = nlohmann::json::array();
  for (const settlement::Receipt& receipt : settler.receipts()) {
    if (!receipt.outcome.effected) {
      refused = &receipt;
    } else if (refused != nullptr && ledger_epoch_of(refused->id) == ledger_epoch_of(receipt.id)) {
      refused = nullptr;  // a later turn of the same epoch did it
    }
    if (choice.json) {
      rows.push_back(json_of(receipt));
    } else {
      std::printf("%-10s %s%s%s\n", receipt.outcome.effected ? "settled" : "refused",
                  receipt.id.c_str(), receipt.outcome.effected ? ", block " : ": ",
                  receipt.outcome.effected ? std::to_string(receipt.outcome.block).c_str()
                                           : receipt.outcome.reason.c_str());
    }
  }
  const SettlerStatus& s = settler.status();
  if (choice.json) {
    nlohmann::json out = nlohmann::json::parse(json_of(s));
    out["receipts"] = rows;
    std::cout << out.dump() << std::endl;
  } else if (settler.receipts().empty()) {
    std::printf("epoch %llu stands on the chain already%s; %zu readings of the chain are kept\n",
                static_cast<unsigned long long>(s.settled_epoch),
                s.in_force_epoch == s.settled_epoch ? " and is in force" : "", s.readings);
  }
  if (refused != nullptr) {
    throw Error(ErrorCode::chain_refused, refused->outcome.reason + ": " + refused->outcome.advice);
  }
}

// --- reconcile -------------------------------------------------------------------------------------------

nlohmann::json json_of(const PredictedPay& pay) {
  return {{"incentive", pay.incentive},
          {"dividend", pay.dividends},
          {"emission", pay.emission},
          {"stake", pay.stake}};
}

nlohmann::json json_of(const ReconcileRow& row) {
  nlohmann::json differences = nlohmann::json::array();
  for (const settlement::Difference& d : row.differences) {
    differences.push_back(
        {{"field", d.field}, {"predicted", d.predicted}, {"paid", d.paid}, {"cause", d.cause}});
  }
  nlohmann::json paid;
  if (row.paid) {
    paid = {{"incentive", row.paid->incentive},
            {"dividend", row.paid->dividend},
            {"emission", row.paid->emission},
            {"stake", row.paid->stake}};
  }
  return {{"uid", row.uid ? nlohmann::json(row.uid->value) : nlohmann::json()},
          {"hotkey", row.hotkey},
          {"name", row.name},
          {"predicted", row.predicted ? json_of(*row.predicted) : nlohmann::json()},
          {"paid", paid},
          {"differences", differences}};
}

void print_table(const Reconciliation& found, bool all) {
  std::printf("\n%5s %-14s %10s %10s %18s %18s  %s\n", "uid", "name", "predicted", "paid",
              "emission predicted", "emission paid", "why they differ");
  std::size_t hidden = 0;
  for (const ReconcileRow& row : found.rows) {
    // Somebody else's neuron: the run says nothing of it.
    if (!all && !row.predicted) {
      ++hidden;
      continue;
    }
    std::string cause;
    for (const settlement::Difference& d : row.differences) {
      if (d.field == "stake" && row.differences.size() > 1) continue;
      if (cause.find(d.cause) == std::string::npos) cause += (cause.empty() ? "" : "; ") + d.cause;
    }
    const auto share = [](std::uint16_t value) {
      char text[16];
      std::snprintf(text, sizeof text, "%.5f", value / 65535.0);
      return std::string(text);
    };
    std::printf("%5s %-14.14s %10s %10s %18s %18s  %s\n",
                row.uid ? std::to_string(row.uid->value).c_str() : "-",
                row.name.empty() ? "?" : row.name.c_str(),
                row.predicted ? share(row.predicted->incentive).c_str() : "-",
                row.paid ? share(row.paid->incentive).c_str() : "-",
                row.predicted ? tao_text(row.predicted->emission).c_str() : "-",
                row.paid ? tao_text(row.paid->emission).c_str() : "-",
                cause.empty() ? "they agree" : cause.c_str());
  }
  if (hidden > 0) std::printf("\n%zu neurons of others are left out (--all)\n", hidden);
}

std::string epoch_text(const RunEpoch& epoch) {
  const std::string first = std::to_string(epoch.first_round.value);
  const std::string last = std::to_string(epoch.last_round.value);
  return "epoch " + std::to_string(epoch.number) + " of the run's ledger (block " +
         std::to_string(epoch.block) +
         (epoch.first_round.value == 0 ? ", no new scores)"
                                       : ", scores of rounds " + first + " to " + last + ")");
}

void print_rows(const Reconciliation& found, bool all) {
  if (found.local) {
    std::printf("%s: settled by the ledger itself, so what it predicted is what it paid\n",
                epoch_text(*found.epoch).c_str());
    return print_table(found, all);
  }
  std::printf("subnet %u at block %u (epoch %llu of the chain) against ",
              found.reading.netuid.value, found.reading.block,
              static_cast<unsigned long long>(found.reading.chain_epoch));
  if (found.epoch) {
    std::printf("%s\n", epoch_text(*found.epoch).c_str());
  } else {
    std::printf("a ledger that has had no epoch yet\n");
  }
  if (!found.reading.has_our_row) {
    std::printf(
        "whose weights the chain's epoch went by is not known: the node has the state before block "
        "%u no more (an archive node has)\n",
        found.reading.epoch_block);
  } else if (found.reading.ledger_epoch == 0) {
    std::printf("the chain's epoch went by no weights of this run\n");
  } else {
    std::printf(
        "the chain's epoch went by the weights handed over after epoch %llu of the ledger%s\n",
        static_cast<unsigned long long>(found.reading.ledger_epoch),
        found.same_weights ? ", which had the same" : "; no epoch of the ledger had just these");
  }
  print_table(found, all);
}

void reconcile(const SettleChoice& choice) {
  const ChainOptions options = choice.options();
  // With a node at hand the newest word counts.
  if (!options.rpc.endpoints.empty() && choice.block < 0 &&
      std::filesystem::is_directory(choice.run)) {
    ChainLine line(options, chain_progress);
    ChainReading reading = read_chain(
        line.node(), Netuid{static_cast<std::uint16_t>(options.netuid)}, chain_hotkey(options));
    append_reading(choice.run, reading);
  }
  std::optional<std::uint32_t> block;
  if (choice.block >= 0) block = static_cast<std::uint32_t>(choice.block);
  const Reconciliation found = reconcile_run(choice.run, block);
  if (!choice.json) return print_rows(found, choice.all);
  nlohmann::json rows = nlohmann::json::array();
  for (const ReconcileRow& row : found.rows) rows.push_back(json_of(row));
  std::cout << nlohmann::json{{"target", found.local ? "local" : "substrate"},
                              {"netuid", found.reading.netuid.value},
                              {"block", found.reading.block},
                              {"epoch_block", found.reading.epoch_block},
                              {"chain_epoch", found.reading.chain_epoch},
                              {"weights_of_ledger_epoch", found.reading.ledger_epoch},
                              {"ledger_epoch", found.epoch ? nlohmann::json(found.epoch->number)
                                                           : nlohmann::json()},
                              {"same_weights", found.same_weights},
                              {"rows", rows}}
                   .dump()
            << std::endl;
}

// --- status ----------------------------------------------------------------------------------------------

std::string_view rule_name(settlement::WeightsRule rule) {
  switch (rule) {
    case settlement::WeightsRule::plain: return "plain";
    case settlement::WeightsRule::hash_commit: return "hash commit-reveal";
    case settlement::WeightsRule::timelocked_commit: return "timelocked commit";
  }
  return "?";
}

nlohmann::json queue_json(const std::vector<IntentStatus>& settlements) {
  nlohmann::json rows = nlohmann::json::array();
  for (const IntentStatus& s : settlements) {
    rows.push_back({{"id", s.intent.id},
                    {"call", s.intent.call},
                    {"phase", s.phase},
                    {"problem", s.problem},
                    {"attempts", s.attempts.size()},
                    {"reason", s.outcome ? s.outcome->reason : ""},
                    {"advice", s.outcome ? s.outcome->advice : ""},
                    {"block", s.outcome ? s.outcome->block : 0}});
  }
  return rows;
}

// What the chain says of a subnet's rule and of a hotkey there.
nlohmann::json chain_json(const SettleChoice& choice, const ChainOptions& options) {
  ChainLine line(options, chain_progress);
  ChainReader reader(line.node());
  nlohmann::json out{
      {"endpoint", line.client().endpoint()},
      {"genesis", "0x" + line.genesis().hex()},
      {"runtime", reader.runtime().spec_name + " " + std::to_string(reader.runtime().spec_version)},
      {"block", reader.block()}};
  const bool has_subnet =
      !choice.config.empty() ||
      std::ranges::any_of(choice.given, [](const auto& flag) { return flag.first == "netuid"; });
  const Netuid netuid{static_cast<std::uint16_t>(options.netuid)};
  if (has_subnet) {
    const auto rule =
        settlement::read_subnet_rule(line.node(), reader.metadata(), reader.block_hash(), netuid);
    out["subnet"] = {{"netuid", netuid.value},
                     {"rule", rule_name(rule.rule)},
                     {"tempo", rule.epochs.tempo},
                     {"next_epoch_block", rule.epochs.next_run_after(reader.block())},
                     {"reveal_period", rule.reveal_period},
                     {"rate_limit", rule.rate_limit},
                     {"immunity_period", rule.immunity_period},
                     {"version_key", rule.version_key},
                     {"block_ms", rule.block_time.count()},
                     {"warnings", settlement::schedule_warnings(rule)}};
  }
  const bool has_key = !options.wallet.empty() || options.hotkey.find('/') != std::string::npos;
  if (has_key) {
    const PublicKey hotkey = chain_hotkey(options);
    nlohmann::json key{{"hotkey", to_ss58(hotkey)}, {"uid", nullptr}};
    if (has_subnet) {
      if (const auto uid = reader.uid_of(netuid, to_ss58(hotkey))) {
        const Metagraph graph = reader.metagraph(netuid);
        if (uid->value < graph.neurons.size()) {
          const ChainNeuron& n = graph.neurons[uid->value];
          key["uid"] = uid->value;
          key["coldkey"] = n.coldkey;
          key["stake"] = n.stake.value_or(0);
          key["incentive"] = n.incentive.value_or(0);
          key["dividends"] = n.dividends.value_or(0);
          key["emission"] = n.emission.value_or(0);
          key["validator_permit"] = n.validator_permit.value_or(false);
          key["last_update"] = n.last_update.value_or(0);
          key["axon"] = n.axon.ip.empty() ? "" : n.axon.ip + ":" + std::to_string(n.axon.port);
          key["free"] = reader.balance(n.coldkey).free;
        }
      }
    }
    out["key"] = key;
  }
  return out;
}

void print_chain(const nlohmann::json& chain) {
  std::printf("node       %s\nruntime    %s, block %u, genesis %s\n",
              chain["endpoint"].get<std::string>().c_str(),
              chain["runtime"].get<std::string>().c_str(), chain["block"].get<unsigned>(),
              chain["genesis"].get<std::string>().c_str());
  if (chain.contains("subnet")) {
    const auto& s = chain["subnet"];
    std::printf(
        "subnet     %u: weights by %s; tempo %u, next epoch in block %u, rate limit %u blocks\n",
        s["netuid"].get<unsigned>(), s["rule"].get<std::string>().c_str(),
        s["tempo"].get<unsigned>(), s["next_epoch_block"].get<unsigned>(),
        s["rate_limit"].get<unsigned>());
    for (const auto& warning : s["warnings"]) {
      std::printf("warning    %s\n", warning.get<std::string>().c_str());
    }
  }
  if (!chain.contains("key")) return;
  const auto& k = chain["key"];
  if (k["uid"].is_null()) {
    std::printf("hotkey     %s: not registered%s\n", k["hotkey"].get<std::string>().c_str(),
                chain.contains("subnet") ? " there: yumoe chain register"
                                         : " anywhere asked about: give --netuid");
    return;
  }
  std::printf(
      "hotkey     %s: uid %u, %s, stake %s, incentive %.5f, emission %s, weights set in block "
      "%llu\n",
      k["hotkey"].get<std::string>().c_str(), k["uid"].get<unsigned>(),
      k["validator_permit"].get<bool>() ? "validator permit" : "no validator permit",
      tao_text(k["stake"].get<std::uint64_t>()).c_str(), k["incentive"].get<unsigned>() / 65535.0,
      tao_text(k["emission"].get<std::uint64_t>()).c_str(),
      k["last_update"].get<unsigned long long>());
  const std::string axon = k["axon"].get<std::string>();
  std::printf("serves     %s\ncoldkey    %s, %s TAO free\n",
              axon.empty() ? "nothing" : axon.c_str(), k["coldkey"].get<std::string>().c_str(),
              tao_text(k["free"].get<std::string>()).c_str());
}

void status(const SettleChoice& choice) {
  const ChainOptions options = choice.options();
  if (choice.run.empty() && options.rpc.endpoints.empty()) {
    throw Error(ErrorCode::usage, "of what: give a run's folder, or --endpoints to ask a node");
  }
  nlohmann::json out;
  bool local = false;
  if (!choice.run.empty()) {
    const auto record = open_run_record(choice.run);
    local = settles_locally(*record);
    out["target"] = local ? "local" : "substrate";
    if (local) {
      RunFollower follower(*record, RunFollower::Keep::weights);
      follower.advance();
      out["settlements"] = queue_json(local_settlements(follower));
      out["epochs"] = follower.epochs().size();
    } else {
      out["settlements"] = queue_json(settlements_of(*record));
    }
    const auto readings = chain_readings(*record);
    out["readings"] = readings.size();
    if (!local) out["in_force_epoch"] = readings.empty() ? 0 : readings.back().ledger_epoch;
  }
  if (!options.rpc.endpoints.empty()) out["chain"] = chain_json(choice, options);
  if (choice.json) {
    std::cout << out.dump() << std::endl;
    return;
  }
  if (out.contains("chain")) print_chain(out["chain"]);
  if (choice.run.empty()) return;
  const nlohmann::json& settlements = out["settlements"];
  std::size_t from = 0;
  if (local) {
    std::printf("run        %s: settles with its own ledger; %zu epochs, all final\n",
                choice.run.c_str(), out["epochs"].get<std::size_t>());
    constexpr std::size_t kShown = 10;
    from = settlements.size() - std::min(settlements.size(), kShown);
    if (from > 0) std::printf("  ... %zu earlier ones (--json has all)\n", from);
  } else {
    std::printf("run        %s: %zu settlements, %zu readings of the chain\n", choice.run.c_str(),
                settlements.size(), out["readings"].get<std::size_t>());
    const auto epoch = out["in_force_epoch"].get<std::uint64_t>();
    if (out["readings"] != 0) {
      std::printf("           the chain's newest epoch read went by %s\n",
                  epoch == 0 ? "no weights of this run"
                             : ("the weights of ledger epoch " + std::to_string(epoch)).c_str());
    }
  }
  for (std::size_t i = from; i < settlements.size(); ++i) {
    const auto& s = settlements[i];
    const std::string why =
        s["reason"].get<std::string>() == "effected" ? "" : s["reason"].get<std::string>();
    const std::string problem = why.empty() ? s["problem"].get<std::string>() : why;
    std::printf("  %-10s %s%s%s\n", s["phase"].get<std::string>().c_str(),
                s["id"].get<std::string>().c_str(),
                s["block"] != 0 ? (", block " + s["block"].dump()).c_str() : "",
                problem.empty() || s["phase"] == "effected" ? "" : (": " + problem).c_str());
  }
}

CLI::App* add(CLI::App& group, const char* name, const char* help, const char* example,
              ChainKey key, void (*run)(const SettleChoice&),
              const std::shared_ptr<SettleChoice>& choice) {
  CLI::App* command = group.add_subcommand(name, help);
  command
      ->add_option("run", choice->run,
                   run == settle ? "A run's folder" : "A run's folder, or an exported .h5 file")
      ->required(run != status);
  add_chain_flags(*command, *choice, key);
  command->footer(example);
  command->callback([choice, run] { run(*choice); });
  return command;
}

}  // namespace

void add_chain_settle_commands(CLI::App& group) {
  auto choice = std::make_shared<SettleChoice>();
  CLI::App* command =
      add(group, "settle", "Bring a run's newest weights to the chain, once, by the subnet's rule",
          "yumoe chain settle runs/mine --endpoints ws://127.0.0.1:9944 --netuid 2 "
          "--wallet mine --hotkey validator",
          ChainKey::hotkey, settle, choice);
  command
      ->add_option("--wait-s", choice->wait_s,
                   "Longest wait, seconds; the queue keeps what is open")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();

  choice = std::make_shared<SettleChoice>();
  command = add(group, "reconcile",
                "Per uid: what the ledger predicted, what the chain paid, why they differ",
                "yumoe chain reconcile runs/mine\n"
                "yumoe chain reconcile runs/mine --config mine.toml --all --json",
                ChainKey::hotkey, reconcile, choice);
  command->add_option("--block", choice->block,
                      "The newest reading up to this block, instead of the newest");
  command->add_flag("--all", choice->all, "Neurons too of which the run knows nothing");

  choice = std::make_shared<SettleChoice>();
  add(group, "status", "How a run's settlement stands; a node, a subnet's rule, a hotkey there",
      "yumoe chain status runs/mine\n"
      "yumoe chain status --endpoints ws://127.0.0.1:9944 --netuid 2 --wallet mine --hotkey miner",
      ChainKey::hotkey, status, choice);
}

}  // namespace yumoe

// What the chain paid, as it was read: one JSON object a line, synced.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "cluster/error.hpp"
#include "coordinator/chain_reader.hpp"
#include "launch/settle_run.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json json_of(const ChainReading& reading) {
  json neurons = json::array(), weights = json::array();
  for (const settlement::NeuronResult& n : reading.neurons) {
    neurons.push_back({n.uid.value, n.hotkey, n.incentive, n.dividend, n.emission, n.stake});
  }
  for (const auto& [uid, row] : reading.weights) weights.push_back({uid.value, row});
  return {{"block", reading.block},
          {"block_hash", reading.block_hash},
          {"chain_epoch", reading.chain_epoch},
          {"spec_version", reading.spec_version},
          {"netuid", reading.netuid.value},
          {"ledger_epoch", reading.ledger_epoch},
          {"our_uid", reading.our_uid ? json(reading.our_uid->value) : json()},
          {"neurons", neurons},
          {"weights", weights}};
}

ChainReading reading_from(const json& value) {
  ChainReading reading;
  reading.block = value.at("block");
  reading.block_hash = value.at("block_hash");
  reading.chain_epoch = value.at("chain_epoch");
  reading.spec_version = value.at("spec_version");
  reading.netuid = Netuid{value.at("netuid").get<std::uint16_t>()};
  reading.ledger_epoch = value.at("ledger_epoch");
  if (const json& uid = value.at("our_uid"); !uid.is_null()) {
    reading.our_uid = Uid{uid.get<std::uint16_t>()};
  }
  for (const json& n : value.at("neurons")) {
    reading.neurons.push_back(
        {Uid{n.at(0).get<std::uint16_t>()}, n.at(1), n.at(2), n.at(3), n.at(4), n.at(5)});
  }
  for (const json& row : value.at("weights")) {
    reading.weights.emplace_back(Uid{row.at(0).get<std::uint16_t>()}, row.at(1).get<WeightRow>());
  }
  return reading;
}

[[noreturn]] void io_failed(const fs::path& file) {
  throw Error(errno == ENOSPC ? ErrorCode::disk_full : ErrorCode::journal_io,
              "append to " + file.string() + ": " + std::strerror(errno));
}

fs::path readings_file(const fs::path& run) { return settlement_folder(run) / "readings.jsonl"; }

}  // namespace

ChainReading read_chain(ChainNode& node, Netuid netuid, const PublicKey& hotkey,
                        MetadataCache* metadata) {
  ChainReader reader(node, {}, metadata);
  const settlement::SubnetRule rule =
      settlement::read_subnet_rule(node, reader.metadata(), reader.block_hash(), netuid);
  const Metagraph graph = reader.metagraph(netuid);
  ChainReading reading;
  reading.block = graph.block;
  reading.block_hash = "0x" + graph.block_hash.hex();
  reading.chain_epoch = rule.epochs.paid_by(graph.block);
  reading.spec_version = graph.spec_version;
  reading.netuid = netuid;
  const std::string ours = to_ss58(hotkey);
  for (const ChainNeuron& n : graph.neurons) {
    if (n.hotkey == ours) reading.our_uid = n.uid;
    reading.neurons.push_back({n.uid, n.hotkey, n.incentive.value_or(0), n.dividends.value_or(0),
                               n.emission.value_or(0), n.stake.value_or(0)});
  }
  for (std::size_t uid = 0; uid < graph.weights.size(); ++uid) {
    if (graph.weights[uid].empty()) continue;
    reading.weights.emplace_back(Uid{static_cast<std::uint16_t>(uid)}, graph.weights[uid]);
  }
  return reading;
}

std::vector<ChainReading> chain_readings(const RunRecord& run) {
  std::vector<ChainReading> readings;
  const Bytes bytes = run.settlement_file("readings.jsonl").value_or(Bytes{});
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  // What follows the last line end is torn: its writer was killed, and reads again.
  for (std::size_t end; (end = text.find('\n')) != std::string_view::npos;
       text.remove_prefix(end + 1)) {
    try {
      readings.push_back(reading_from(json::parse(text.substr(0, end))));
    } catch (const json::exception& error) {
      throw Error(
          ErrorCode::journal_corrupt,
          "readings.jsonl line " + std::to_string(readings.size() + 1) + ": " + error.what());
    }
  }
  return readings;
}

void append_reading(const fs::path& run, const ChainReading& reading) {
  const fs::path file = readings_file(run);
  fs::create_directories(file.parent_path());
  const int descriptor = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) io_failed(file);
  // The run's own settling and `yumoe chain reconcile` may both append; closing lets the other go on.
  if (flock(descriptor, LOCK_EX) != 0) {
    const int reason = errno;
    close(descriptor);
    errno = reason;
    io_failed(file);
  }
  // A torn end is written over.
  std::error_code failed;
  off_t end = static_cast<off_t>(fs::file_size(file, failed));
  char last = '\n';
  while (end > 0 && pread(descriptor, &last, 1, end - 1) == 1 && last != '\n') --end;
  const std::string line = json_of(reading).dump() + "\n";
  const bool written =
      !failed && ftruncate(descriptor, end) == 0 &&
      pwrite(descriptor, line.data(), line.size(), end) == static_cast<ssize_t>(line.size()) &&
      fdatasync(descriptor) == 0;
  const int reason = errno;
  close(descriptor);
  errno = reason;
  if (!written) io_failed(file);
}

namespace {

settlement::SettlementMachine queue_of(const RunRecord& run) {
  const Bytes bytes = run.settlement_file("journal").value_or(Bytes{});
  return settlement::SettlementMachine::recover(
      {}, settlement::settlement_entries(bytes, "settlement/journal"));
}

}  // namespace

std::vector<settlement::IntentStatus> settlements_of(const RunRecord& run) {
  return queue_of(run).status();
}

SettlementAudit audit_settlements(const RunRecord& run, std::uint64_t ledger_epochs) {
  const settlement::SettlementMachine queue = queue_of(run);
  SettlementAudit audit;
  audit.chain = queue.chain();
  audit.readings = chain_readings(run).size();
  std::set<std::string> settled;  // "weights/SUBNET/VALIDATOR/epoch N", and the same with "reveal"
  for (const settlement::IntentStatus& status : queue.status()) {
    const std::string& id = status.intent.id;
    const auto broken = [&](const std::string& why) {
      throw Error(ErrorCode::invariant_broken, "settlement " + id + ": " + why);
    };
    const std::uint64_t epoch = ledger_epoch_of(id);
    if (epoch == 0 || epoch > ledger_epochs) {
      broken("the run's ledger has had " + std::to_string(ledger_epochs) + " epochs");
    }
    if (!status.outcome) {
      ++audit.open;
    } else if (!status.outcome->effected) {
      ++audit.refused;
    } else {
      ++audit.effected;
      if (status.outcome->block == 0) broken("took effect in no block");
      const std::string mark = "/epoch " + std::to_string(epoch) + "/";
      std::string what = id.substr(0, id.find(mark) + mark.size());
      if (id.ends_with("/reveal")) what += "reveal";
      if (!settled.insert(what).second) broken("its epoch took effect before");
    }
  }
  return audit;
}

std::vector<Table> settlement_tables(const RunRecord& run) {
  const auto queue = settlements_of(run);
  const auto readings = chain_readings(run);
  if (queue.empty() && readings.empty()) return {};
  std::vector<std::string> ids, calls, phases, reasons, hashes, arguments;
  std::vector<std::int64_t> epochs, blocks;
  for (const settlement::IntentStatus& status : queue) {
    const settlement::Outcome outcome = status.outcome.value_or(settlement::Outcome{});
    ids.push_back(status.intent.id);
    calls.push_back(status.intent.pallet + "." + status.intent.call);
    arguments.push_back(status.intent.arguments);
    phases.push_back(status.phase);
    reasons.push_back(status.outcome ? outcome.reason : status.problem);
    epochs.push_back(static_cast<std::int64_t>(ledger_epoch_of(status.intent.id)));
    blocks.push_back(outcome.block);
    hashes.push_back(outcome.block == 0 ? "" : "0x" + outcome.block_hash.hex());
  }
  std::vector<std::int64_t> read_at, read_epoch, ledger_epoch, uids, incentive, dividend, emission,
      stake;
  std::vector<std::string> hotkeys;
  for (const ChainReading& reading : readings) {
    for (const settlement::NeuronResult& n : reading.neurons) {
      read_at.push_back(reading.block);
      read_epoch.push_back(static_cast<std::int64_t>(reading.chain_epoch));
      ledger_epoch.push_back(static_cast<std::int64_t>(reading.ledger_epoch));
      uids.push_back(n.uid.value);
      hotkeys.push_back(n.hotkey);
      incentive.push_back(n.incentive);
      dividend.push_back(n.dividend);
      emission.push_back(static_cast<std::int64_t>(n.emission));
      stake.push_back(static_cast<std::int64_t>(n.stake));
    }
  }
  return {{"settlements",
           "what went to the chain, in the order of its queue",
           {{"id", "", "subnet, validator, epoch of the ledger, step", ids},
            {"call", "", "pallet and call", calls},
            {"arguments", "", "JSON by argument name", arguments},
            {"ledger_epoch", "1", "whose weights it carries", epochs},
            {"phase", "", "waiting, in flight, effected or refused", phases},
            {"reason", "", "effected, the error's name, or what is waited for", reasons},
            {"block", "block", "of the chain, in which it stands; 0: in none", blocks},
            {"block_hash", "", "of that block", hashes}}},
          {"chain_readings",
           "what the chain said of its neurons after each of its epochs",
           {{"block", "block", "of the chain", read_at},
            {"chain_epoch", "1", "that had been paid", read_epoch},
            {"ledger_epoch", "1", "whose weights were in force; 0: none of this run", ledger_epoch},
            {"uid", "1", "on the chain", uids},
            {"hotkey", "", "SS58 address", hotkeys},
            {"incentive", "1/65535", "share of the miners' reward", incentive},
            {"dividend", "1/65535", "share of the validators' reward", dividend},
            {"emission", "rao", "in that epoch", emission},
            {"stake", "rao", "on the hotkey", stake}}}};
}

std::uint64_t ledger_epoch_of(const std::string& id) {
  constexpr std::string_view kMark = "/epoch ";
  const std::size_t at = id.find(kMark);
  std::uint64_t number = 0;
  if (at == std::string::npos) return 0;
  const char* first = id.data() + at + kMark.size();
  std::from_chars(first, id.data() + id.size(), number);
  return number;
}

Reconciliation reconcile_run(const fs::path& run, std::optional<std::uint32_t> block) {
  RunFollower follower(run);
  const std::vector<ChainReading> readings = chain_readings(follower.record());
  Reconciliation out;
  bool found = false;
  for (const ChainReading& reading : readings) {
    if (block && reading.block > *block) continue;
    out.reading = reading;
    found = true;
  }
  if (!found) {
    throw Error(
        ErrorCode::file_missing,
        run.string() +
            ": the chain was not read for this run yet; give --endpoints to read it now, or let "
            "`yumoe chain settle` do it");
  }
  follower.advance();
  const auto& epochs = follower.epochs();
  // Without weights of ours in force, the newest says what would have been paid.
  std::uint64_t number = out.reading.ledger_epoch;
  if (number == 0 || number > epochs.size()) number = epochs.size();
  if (number > 0) out.epoch = epochs[number - 1];

  settlement::ReconcileFacts facts;
  facts.our_uid = out.reading.our_uid;
  for (const auto& [uid, row] : out.reading.weights) facts.chain_weights.emplace_back(uid, row);
  for (settlement::IntentStatus& status : settlements_of(follower.record())) {
    if (ledger_epoch_of(status.intent.id) == number) facts.intents.push_back(std::move(status));
  }
  // A turn without effect that was followed by another explains nothing.
  const auto is_reveal = [](const settlement::IntentStatus& status) {
    return status.intent.call == "reveal_weights";
  };
  const auto last =
      std::ranges::find_if_not(facts.intents.rbegin(), facts.intents.rend(), is_reveal);
  if (last != facts.intents.rend()) {
    const std::string newest = last->intent.id;
    std::erase_if(facts.intents, [&](const settlement::IntentStatus& status) {
      return !is_reveal(status) && status.intent.id != newest;
    });
  }
  std::map<std::string, Uid> uids;
  for (const auto& n : out.reading.neurons) uids.emplace(n.hotkey, n.uid);
  std::vector<settlement::NeuronResult> predicted;
  std::map<std::uint16_t, std::size_t> rows;
  for (const auto& n : out.reading.neurons) {
    rows[n.uid.value] = out.rows.size();
    out.rows.push_back({n.uid, n.hotkey, follower.name_of(from_ss58(n.hotkey)), {}, n, {}});
  }
  for (const PredictedPay& pay : out.epoch ? out.epoch->pays : std::vector<PredictedPay>{}) {
    const std::string hotkey = to_ss58(pay.hotkey);
    const auto uid = uids.find(hotkey);
    if (uid == uids.end()) {
      settlement::Difference missing{Uid{},           hotkey, "missing",
                                     "in the ledger", "",     "not registered on the chain"};
      out.rows.push_back({{}, hotkey, pay.name, pay, {}, {missing}});
      continue;
    }
    out.rows[rows[uid->second.value]].predicted = pay;
    out.rows[rows[uid->second.value]].name = pay.name;
    predicted.push_back(
        {uid->second, hotkey, pay.incentive, pay.dividends, pay.emission, pay.stake});
  }
  for (settlement::Difference& d : settlement::reconcile(predicted, out.reading.neurons, facts)) {
    if (const auto row = rows.find(d.uid.value); row != rows.end()) {
      out.rows[row->second].differences.push_back(std::move(d));
    }
  }
  return out;
}

}  // namespace yumoe

// What the chain paid, as it was read: one JSON object a line, synced.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

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

fs::path settlement_folder(const fs::path& run) { return run / "settlement"; }

ChainReading read_chain(ChainNode& node, Netuid netuid, const PublicKey& hotkey) {
  ChainReader reader(node);
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

std::vector<ChainReading> chain_readings(const fs::path& run) {
  std::vector<ChainReading> readings;
  const fs::path file = readings_file(run);
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line)) {
    if (in.eof()) break;  // torn: its writer was killed, and reads again
    try {
      readings.push_back(reading_from(json::parse(line)));
    } catch (const json::exception& error) {
      throw Error(
          ErrorCode::journal_corrupt,
          file.string() + " line " + std::to_string(readings.size() + 1) + ": " + error.what());
    }
  }
  return readings;
}

void append_reading(const fs::path& run, const ChainReading& reading) {
  const fs::path file = readings_file(run);
  fs::create_directories(file.parent_path());
  const int descriptor = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) io_failed(file);
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

std::vector<settlement::IntentStatus> settlements_of(const fs::path& run) {
  const std::vector<Bytes> entries =
      settlement::read_file_journal(settlement_folder(run) / "journal");
  return settlement::SettlementMachine::recover({}, entries).status();
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
  const std::vector<ChainReading> readings = chain_readings(run);
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
        readings_file(run).string() +
            ": the chain was not read for this run yet; give --endpoints to read it now, or let "
            "`yumoe chain settle` do it");
  }
  RunFollower follower(run);
  follower.advance();
  const auto& epochs = follower.epochs();
  // Without weights of ours in force, the newest says what would have been paid.
  std::uint64_t number = out.reading.ledger_epoch;
  if (number == 0 || number > epochs.size()) number = epochs.size();
  if (number > 0) out.epoch = epochs[number - 1];

  settlement::ReconcileFacts facts;
  facts.our_uid = out.reading.our_uid;
  for (const auto& [uid, row] : out.reading.weights) facts.chain_weights.emplace_back(uid, row);
  for (settlement::IntentStatus& status : settlements_of(run)) {
    if (ledger_epoch_of(status.intent.id) == number) facts.intents.push_back(std::move(status));
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

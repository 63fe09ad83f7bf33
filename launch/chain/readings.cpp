// What the chain paid, as it was read: one JSON object a line, synced.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "cluster/error.hpp"
#include "coordinator/chain_reader.hpp"
#include "launch/settle_run.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using settlement::IntentStatus;

json json_of(const ChainReading& reading) {
  json neurons = json::array(), weights = json::array();
  for (const settlement::NeuronResult& n : reading.neurons) {
    neurons.push_back({n.uid.value, n.hotkey, n.incentive, n.dividend, n.emission, n.stake});
  }
  for (const auto& [uid, row] : reading.weights) weights.push_back({uid.value, row});
  return {{"block", reading.block},
          {"epoch_block", reading.epoch_block},
          {"block_hash", reading.block_hash},
          {"chain_epoch", reading.chain_epoch},
          {"spec_version", reading.spec_version},
          {"netuid", reading.netuid.value},
          {"our_uid", reading.our_uid ? json(reading.our_uid->value) : json()},
          {"neurons", neurons},
          {"has_our_row", reading.has_our_row},
          {"weights", weights}};
}

ChainReading reading_from(const json& value) {
  ChainReading reading;
  reading.block = value.at("block");
  reading.block_hash = value.at("block_hash");
  reading.chain_epoch = value.at("chain_epoch");
  reading.spec_version = value.at("spec_version");
  reading.netuid = Netuid{value.at("netuid").get<std::uint16_t>()};
  reading.epoch_block = value.value("epoch_block", 0u);
  reading.has_our_row = value.value("has_our_row", true);
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
  const bool full = errno == ENOSPC || errno == EDQUOT;
  throw Error(full ? ErrorCode::disk_full : ErrorCode::journal_io,
              "append to " + file.string() + ": " + std::strerror(errno) +
                  (full ? ": free some space there; it is read again in the next epoch" : ""));
}

fs::path readings_file(const fs::path& run) { return settlement_folder(run) / "readings.jsonl"; }

}  // namespace

namespace {

// The state in which the epoch of `ran` left the subnet; the newest where a node has that one no more.
ChainReader reader_after(ChainNode& node, ChainReader&& newest, std::uint32_t ran,
                         MetadataCache* metadata) {
  if (ran == 0 || ran == newest.block()) return std::move(newest);
  try {
    if (const auto hash = node.block_hash(ran)) return ChainReader(node, *hash, metadata);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::chain_state_pruned) throw;
  }
  return std::move(newest);
}

// Our row as the epoch of `ran` had it. Timelocked commits are opened at the start of the block in which the
// epoch runs; what extrinsics of that block say came too late for it.
std::optional<WeightRow> row_before(ChainNode& node, Netuid netuid, Uid ours, std::uint32_t ran,
                                    MetadataCache* metadata) {
  try {
    const auto hash = node.block_hash(ran - 1);
    if (hash) return ChainReader(node, *hash, metadata).weights_of(netuid, ours);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::chain_state_pruned) throw;
  }
  return std::nullopt;
}

}  // namespace

ChainReading read_chain(ChainNode& node, Netuid netuid, const PublicKey& hotkey,
                        MetadataCache* metadata) {
  MetadataCache once;
  if (metadata == nullptr) metadata = &once;
  ChainReader newest(node, {}, metadata);
  const settlement::SubnetRule rule =
      settlement::read_subnet_rule(node, newest.metadata(), newest.block_hash(), netuid);
  ChainReading reading;
  reading.chain_epoch = rule.epochs.paid_by(newest.block());
  reading.epoch_block = rule.epochs.last_run_by(newest.block());
  ChainReader reader = reader_after(node, std::move(newest), reading.epoch_block, metadata);
  const Metagraph graph = reader.metagraph(netuid);
  reading.block = graph.block;
  reading.block_hash = "0x" + graph.block_hash.hex();
  reading.spec_version = graph.spec_version;
  reading.netuid = netuid;
  const std::string ours = to_ss58(hotkey);
  for (const ChainNeuron& n : graph.neurons) {
    if (n.hotkey == ours) reading.our_uid = n.uid;
    reading.neurons.push_back({n.uid, n.hotkey, n.incentive.value_or(0), n.dividends.value_or(0),
                               n.emission.value_or(0), n.stake.value_or(0)});
  }
  for (std::size_t uid = 0; uid < graph.weights.size(); ++uid) {
    WeightRow row = graph.weights[uid];
    if (reading.our_uid && reading.our_uid->value == uid && reading.epoch_block != 0 &&
        rule.rule != settlement::WeightsRule::timelocked_commit) {
      const auto before = row_before(node, netuid, *reading.our_uid, reading.epoch_block, metadata);
      reading.has_our_row = before.has_value();
      row = before.value_or(WeightRow{});
    }
    if (!row.empty()) reading.weights.emplace_back(Uid{static_cast<std::uint16_t>(uid)}, row);
  }
  return reading;
}

namespace {

// Asked reading by reading, of the validators that were ours.
class InForce {
 public:
  explicit InForce(const std::vector<settlement::IntentStatus>& settlements)
      : settlements_(settlements) {}

  const settlement::IntentStatus* at(const ChainReading& reading) {
    if (!reading.our_uid || !reading.has_our_row) return nullptr;
    settlement::RanEpoch ran{reading.chain_epoch, reading.epoch_block, {}};
    if (ran.block == 0) ran.block = reading.block + 1;
    for (const auto& [uid, row] : reading.weights) {
      if (uid == *reading.our_uid) ran.row = row;
    }
    for (const settlement::NeuronResult& n : reading.neurons) {
      if (n.uid != *reading.our_uid) continue;
      const std::string prefix = settlement::settlement_prefix(reading.netuid, from_ss58(n.hotkey));
      auto found = standing_.find(prefix);
      if (found == standing_.end()) {
        found = standing_.emplace(prefix, settlement::standing_weights(settlements_, prefix)).first;
      }
      return settlement::in_force(found->second, ran);
    }
    return nullptr;
  }

 private:
  const std::vector<settlement::IntentStatus>& settlements_;
  std::map<std::string, std::vector<settlement::StandingWeights>> standing_;
};

}  // namespace

const settlement::IntentStatus* in_force(const std::vector<settlement::IntentStatus>& settlements,
                                         const ChainReading& reading) {
  return InForce(settlements).at(reading);
}

namespace {

bool are_of_one_epoch(const ChainReading& a, const ChainReading& b) {
  return a.epoch_block != 0 && a.epoch_block == b.epoch_block && a.netuid == b.netuid &&
         a.chain_epoch == b.chain_epoch;
}

// Of two of one epoch: whether `later` tells what `one` does not.
bool is_better(const ChainReading& later, const ChainReading& one) {
  const auto worth = [](const ChainReading& reading) {
    return (reading.block == reading.epoch_block ? 2 : 0) + (reading.has_our_row ? 1 : 0);
  };
  return worth(later) > worth(one);
}

// The last whole line before `end`, which follows a line end; nullopt: there is none, or it is no reading.
std::optional<ChainReading> newest_reading(int descriptor, off_t end) {
  std::string line;
  std::array<char, 4096> block;
  for (off_t at = end - 1; at > 0;) {
    const off_t from = std::max<off_t>(0, at - static_cast<off_t>(block.size()));
    const auto wanted = static_cast<std::size_t>(at - from);
    if (pread(descriptor, block.data(), wanted, from) != static_cast<ssize_t>(wanted)) {
      return std::nullopt;
    }
    const std::string_view got(block.data(), wanted);
    const std::size_t start = got.rfind('\n');
    line.insert(0, got.substr(start == std::string_view::npos ? 0 : start + 1));
    if (start != std::string_view::npos) break;
    at = from;
  }
  try {
    return reading_from(json::parse(line));
  } catch (const json::exception&) {
    return std::nullopt;  // whoever reads it all says so
  }
}

}  // namespace

std::vector<ChainReading> chain_readings(const RunRecord& run) {
  std::vector<ChainReading> readings;
  const auto settlements = settlements_of(run);
  InForce in_force(settlements);
  const Bytes bytes = run.settlement_file("readings.jsonl").value_or(Bytes{});
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::size_t line = 0;
  // What follows the last line end is torn: its writer was killed, and reads again.
  for (std::size_t end; (end = text.find('\n')) != std::string_view::npos;
       text.remove_prefix(end + 1)) {
    ++line;
    try {
      ChainReading reading = reading_from(json::parse(text.substr(0, end)));
      if (!readings.empty() && are_of_one_epoch(reading, readings.back())) {
        if (!is_better(reading, readings.back())) continue;
        readings.pop_back();
      }
      readings.push_back(std::move(reading));
      if (const auto* status = in_force.at(readings.back())) {
        readings.back().ledger_epoch = ledger_epoch_of(status->intent.id);
      }
    } catch (const json::exception& error) {
      throw Error(ErrorCode::journal_corrupt,
                  "readings.jsonl line " + std::to_string(line) + ": " + error.what());
    }
  }
  return readings;
}

void append_reading(const fs::path& run, const ChainReading& reading) {
  const fs::path file = readings_file(run);
  make_settlement_folder(run);
  const int descriptor = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) io_failed(file);
  const std::unique_ptr<const int, void (*)(const int*)> closing(
      &descriptor, [](const int* open_file) { close(*open_file); });
  // The run's own settling and `yumoe chain reconcile` may both append; closing lets the other go on.
  if (flock(descriptor, LOCK_EX) != 0) io_failed(file);
  struct stat status;
  if (fstat(descriptor, &status) != 0) io_failed(file);
  // A torn end is written over.
  off_t end = status.st_size;
  char last = '\n';
  while (end > 0 && pread(descriptor, &last, 1, end - 1) == 1 && last != '\n') --end;
  const auto newest = newest_reading(descriptor, end);
  if (newest && are_of_one_epoch(reading, *newest) && !is_better(reading, *newest)) return;
  const std::string line = json_of(reading).dump() + "\n";
  if (ftruncate(descriptor, end) != 0) io_failed(file);
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t wrote =
        pwrite(descriptor, line.data() + done, line.size() - done, end + static_cast<off_t>(done));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) io_failed(file);
    done += static_cast<std::size_t>(wrote);
  }
  if (fdatasync(descriptor) != 0) io_failed(file);
  // A new file is there after a crash only if its folder is synced too.
  if (end == 0) settlement::sync_folder(file.parent_path());
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

bool settles_locally(const RunRecord& run) {
  const RunSetup setup = RunSetup::from_journal(run.run(), run.metadata());
  return setup.economy.time != "chain" && !run.settlement_file("readings.jsonl").has_value() &&
         settlements_of(run).empty();
}

std::vector<IntentStatus> local_settlements(const RunFollower& run) {
  settlement::LocalSettlement target;
  for (const RunEpoch& epoch : run.epochs()) {
    target.at_block(static_cast<std::uint32_t>(epoch.block));
    for (const PredictedPay& pay : epoch.pays) {
      if (pay.weights.empty()) continue;
      settlement::SubnetWeights weights;
      weights.netuid = Netuid{RunLedger::kNetuid};
      weights.ledger_epoch = epoch.number;
      weights.validator = pay.hotkey;
      for (const auto& [neuron, value] : pay.weights) {
        weights.uids.push_back(neuron);
        weights.values.push_back(value);
      }
      target.settle(weights);
    }
  }
  return target.status();
}

void make_settlement_folder(const fs::path& run) {
  if (fs::create_directories(settlement_folder(run))) settlement::sync_folder(run);
}

SettlementAudit audit_settlements(const RunRecord& run) {
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
    if (epoch == 0) broken("it is for no epoch of a ledger");
    audit.newest_epoch = std::max(audit.newest_epoch, epoch);
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
  const bool local = settles_locally(run);
  std::vector<IntentStatus> queue;
  if (local) {
    RunFollower follower(run, RunFollower::Keep::weights);
    follower.advance();
    queue = local_settlements(follower);
  } else {
    queue = settlements_of(run);
  }
  const auto readings = chain_readings(run);
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
    hashes.push_back(outcome.block == 0 || local ? "" : "0x" + outcome.block_hash.hex());
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
  std::vector<Table> tables;
  tables.push_back({"settlements",
                    local ? "what the run's own ledger settled, epoch by epoch"
                          : "what went to the chain, in the order of its queue",
                    {{"id", "", "subnet, validator, epoch of the ledger, step", ids},
                     {"call", "", "pallet and call", calls},
                     {"arguments", "", "JSON by argument name", arguments},
                     {"ledger_epoch", "1", "whose weights it carries", epochs},
                     {"phase", "", "waiting, in flight, effected or refused", phases},
                     {"reason", "", "effected, the error's name, or what is waited for", reasons},
                     {"block", "block",
                      local ? "of the ledger, in which it was settled"
                            : "of the chain, in which it stands; 0: in none",
                      blocks},
                     {"block_hash", "", "of that block; a ledger's have none", hashes}}});
  if (local) return tables;
  tables.push_back(
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
        {"stake", "rao", "on the hotkey", stake}}});
  return tables;
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

namespace {

// The ledger by itself: what it predicted is what it paid.
Reconciliation reconcile_locally(const RunFollower& follower, const fs::path& run,
                                 std::optional<std::uint32_t> block) {
  Reconciliation out;
  out.local = out.same_weights = true;
  for (const RunEpoch& epoch : follower.epochs()) {
    if (!block || epoch.block <= *block) out.epoch = epoch;
  }
  if (!out.epoch) {
    throw Error(ErrorCode::file_missing,
                run.string() + ": the run's ledger has had no epoch" +
                    (block ? " up to block " + std::to_string(*block) : " yet") +
                    ", so nothing was paid");
  }
  out.reading.block = out.reading.epoch_block = static_cast<std::uint32_t>(out.epoch->block);
  out.reading.netuid = Netuid{RunLedger::kNetuid};
  out.reading.chain_epoch = out.reading.ledger_epoch = out.epoch->number;
  for (const PredictedPay& pay : out.epoch->pays) {
    const Uid uid{pay.neuron};
    const std::string hotkey = to_ss58(pay.hotkey);
    const settlement::NeuronResult paid{uid,           hotkey,       pay.incentive,
                                        pay.dividends, pay.emission, pay.stake};
    out.reading.neurons.push_back(paid);
    out.rows.push_back({uid, hotkey, pay.name, pay, paid, {}});
  }
  return out;
}

// True if the ledger's epoch went by the row that the chain's epoch had of the same validator; only workers on
// the chain count.
bool had_these_weights(const RunEpoch& epoch, const ChainReading& reading) {
  std::map<PublicKey, std::uint16_t> on_chain;
  std::string ours;
  for (const settlement::NeuronResult& n : reading.neurons) {
    on_chain.emplace(from_ss58(n.hotkey), n.uid.value);
    if (n.uid == *reading.our_uid) ours = n.hotkey;
  }
  std::map<std::uint16_t, PublicKey> hotkeys;  // by the ledger's neuron
  const PredictedPay* judge = nullptr;
  for (const PredictedPay& pay : epoch.pays) {
    hotkeys.emplace(pay.neuron, pay.hotkey);
    if (to_ss58(pay.hotkey) == ours) judge = &pay;
  }
  if (judge == nullptr) return false;
  settlement::CarriedWeights weights;
  for (const auto& [neuron, value] : judge->weights) {
    const auto hotkey = hotkeys.find(neuron);
    const auto uid = hotkey == hotkeys.end() ? on_chain.end() : on_chain.find(hotkey->second);
    if (uid == on_chain.end()) continue;
    weights.uids.push_back(uid->second);
    weights.values.push_back(value);
  }
  for (const auto& [uid, row] : reading.weights) {
    if (uid == *reading.our_uid) return settlement::is_kept_as(weights, row);
  }
  return false;
}

// The ledger's epoch to compare with. Weights that were handed over after an epoch may be newer than those it
// went by, so the next ones are looked at too, up to the next hand-over.
void choose_epoch(Reconciliation& out, const std::vector<RunEpoch>& epochs,
                  const std::vector<IntentStatus>& settlements) {
  std::uint64_t number = out.reading.ledger_epoch;
  if (epochs.empty()) return;
  // Without weights of ours in force, the newest says what would have been paid.
  if (number == 0 || number > epochs.size()) {
    out.epoch = epochs.back();
    return;
  }
  out.epoch = epochs[number - 1];
  std::uint64_t next = epochs.size();
  for (const IntentStatus& status : settlements) {
    const std::uint64_t other = ledger_epoch_of(status.intent.id);
    if (other > number) next = std::min(next, other);
  }
  for (; number <= next; ++number) {
    if (!had_these_weights(epochs[number - 1], out.reading)) continue;
    out.epoch = epochs[number - 1];
    out.same_weights = true;
    return;
  }
}

// What is known of the settlements that explain the reading.
settlement::ReconcileFacts facts_of(const Reconciliation& found,
                                    std::vector<IntentStatus> settlements) {
  settlement::ReconcileFacts facts;
  facts.our_uid = found.reading.our_uid;
  facts.in_force = found.reading.ledger_epoch != 0;
  facts.has_our_row = found.reading.has_our_row;
  facts.epoch_block = found.reading.epoch_block;
  facts.same_weights = found.same_weights;
  for (const auto& [uid, row] : found.reading.weights) facts.chain_weights.emplace_back(uid, row);
  std::uint64_t number = found.reading.ledger_epoch;
  for (const IntentStatus& status : settlements) {
    if (found.reading.ledger_epoch == 0) {
      number = std::max(number, ledger_epoch_of(status.intent.id));
    }
  }
  for (IntentStatus& status : settlements) {
    if (ledger_epoch_of(status.intent.id) == number) facts.intents.push_back(std::move(status));
  }
  // A turn without effect that was followed by another explains nothing.
  const auto is_reveal = [](const IntentStatus& status) {
    return status.intent.call == "reveal_weights";
  };
  const auto last =
      std::ranges::find_if_not(facts.intents.rbegin(), facts.intents.rend(), is_reveal);
  if (last != facts.intents.rend()) {
    const std::string newest = last->intent.id;
    std::erase_if(facts.intents, [&](const IntentStatus& status) {
      return !is_reveal(status) && status.intent.id != newest;
    });
  }
  return facts;
}

void compare(Reconciliation& out, const RunFollower& follower,
             const settlement::ReconcileFacts& facts) {
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
}

}  // namespace

Reconciliation reconcile_run(const fs::path& run, std::optional<std::uint32_t> block) {
  const auto record = open_run_record(run);
  const std::vector<ChainReading> readings = chain_readings(*record);
  const bool local = settles_locally(*record);
  Reconciliation out;
  bool found = false;
  for (const ChainReading& reading : readings) {
    if (block && reading.block > *block) continue;
    out.reading = reading;
    found = true;
  }
  if (!found && !local) {
    throw Error(
        ErrorCode::file_missing,
        run.string() + ": the chain was not read for this run" +
            (block && !readings.empty() ? " up to block " + std::to_string(*block) : " yet") +
            "; give --endpoints to read it now, or let `yumoe chain settle` do it");
  }
  RunFollower follower(*record, RunFollower::Keep::weights);
  follower.advance();
  if (local) return reconcile_locally(follower, run, block);
  const auto settlements = settlements_of(*record);
  choose_epoch(out, follower.epochs(), settlements);
  compare(out, follower, facts_of(out, settlements));
  return out;
}

}  // namespace yumoe

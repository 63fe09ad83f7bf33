#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "cluster/clock.hpp"
#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "cluster/random.hpp"
#include "coordinator/chain_reader.hpp"
#include "launch/settle_run.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;
using settlement::IntentStatus;
using std::chrono::milliseconds;

constexpr std::size_t kSaltBytes = 32;

// Made once; a run that lost it could not reveal what it committed to, but its queue holds each salt.
Bytes salt_in(const fs::path& folder) {
  const fs::path file = folder / "salt";
  Bytes salt(kSaltBytes);
  std::ifstream in(file, std::ios::binary);
  if (in.read(reinterpret_cast<char*>(salt.data()), kSaltBytes)) return salt;
  const Keypair fresh = Keypair::generate(KeyType::ed25519);  // its address is 32 random bytes
  salt.assign(fresh.public_key().bytes.begin(), fresh.public_key().bytes.end());
  // Whole or not at all: half a salt would be a secret of fewer bytes.
  const fs::path partial = file.string() + ".partial";
  const int descriptor = open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const bool written =
      descriptor >= 0 &&
      write(descriptor, salt.data(), salt.size()) == static_cast<ssize_t>(kSaltBytes) &&
      fsync(descriptor) == 0 && rename(partial.c_str(), file.c_str()) == 0;
  const int reason = errno;
  if (descriptor >= 0) close(descriptor);
  if (!written) {
    const bool full = reason == ENOSPC || reason == EDQUOT;
    throw Error(full ? ErrorCode::disk_full : ErrorCode::journal_io,
                "write " + file.string() + ": " + std::strerror(reason));
  }
  settlement::sync_folder(folder);
  return salt;
}

bool is_open(const IntentStatus& status) {
  return status.phase == "waiting" || status.phase == "in flight";
}
bool is_reveal(const IntentStatus& status) { return status.intent.call == "reveal_weights"; }

// Ended for a reason that is gone in the chain's next epoch: nobody has to do anything.
bool passes_by_itself(const settlement::Outcome& outcome) {
  for (const char* reason :
       {"WindowMissed", "TriesExhausted", "CommitRevealEnabled", "CommitRevealDisabled"}) {
    if (outcome.reason.find(reason) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

class RunSettler::Parts {
 public:
  Parts(const fs::path& run, const ChainOptions& options, const Keypair& key)
      : netuid(static_cast<std::uint16_t>(options.netuid)),
        hotkey(key),
        follower(run),
        client(options.rpc),
        node(client),
        journal(settlement_folder(run) / "journal") {
    settlement::SubstrateOptions how;
    how.settlement = options.settlement;
    how.salt_seed = salt_in(settlement_folder(run));
    how.now = [this] { return clock.now(); };
    target.emplace(
        client, journal,
        [this](const PublicKey& signer) {
          return signer == hotkey.public_key() ? &hotkey : nullptr;
        },
        std::move(how));
  }

  Netuid netuid;
  const Keypair& hotkey;
  RunFollower follower;
  RpcClient client;
  ChainNode node;
  settlement::FileJournal journal;
  SystemClock clock;
  std::optional<settlement::SubstrateSettlement> target;
  MetadataCache metadata;
  std::uint32_t looked_at = 0;         // head whose rule was read last
  std::set<std::string> ended_before;  // refused in an earlier process: tried once more
  // Of our settlements the newest that is no reveal.
  struct Newest {
    std::uint64_t ledger_epoch = 0, turns = 0;
    std::optional<std::uint32_t> last_block;  // of the chain's epoch in which it was handed over
    bool again_now = false;                   // it had no effect and is due once more
    bool again_next = false;                  // the same, but in the chain's next epoch
  } newest;
  std::optional<std::uint64_t> read_epoch;  // the chain's epoch of the newest reading

  // Reads the queue; gives how many of its intents are open.
  std::size_t look_at_queue() {
    const std::string ours = settlement::settlement_prefix(netuid, hotkey.public_key());
    std::size_t open = 0;
    newest = {};
    busy = false;
    for (const IntentStatus& status : target->status()) {
      if (is_open(status)) ++open;
      if (is_reveal(status)) continue;
      busy = busy || is_open(status);
      const std::uint64_t epoch = ledger_epoch_of(status.intent.id);
      if (!status.intent.id.starts_with(ours) || epoch < newest.ledger_epoch) continue;
      newest.turns = epoch == newest.ledger_epoch ? newest.turns + 1 : 1;
      newest.ledger_epoch = epoch;
      newest.last_block = status.intent.latest;
      const bool refused = status.outcome && !status.outcome->effected;
      newest.again_now = refused && ended_before.contains(status.intent.id);
      newest.again_next = refused && !newest.again_now && passes_by_itself(*status.outcome);
    }
    return open;
  }
  bool busy = false;  // a settlement that is no reveal is open
  bool pace_compared = false;
};

RunSettler::RunSettler(const fs::path& run, const ChainOptions& options, const Keypair& hotkey)
    : run_(run) {
  make_settlement_folder(run);
  parts_ = std::make_unique<Parts>(run, options, hotkey);
  for (const ChainReading& reading : chain_readings(parts_->follower.record())) {
    parts_->read_epoch = reading.chain_epoch;
    status_.in_force_epoch = reading.ledger_epoch;
    ++status_.readings;
  }
  const std::string ours =
      settlement::settlement_prefix(parts_->netuid, parts_->hotkey.public_key());
  for (const IntentStatus& status : parts_->target->status()) {
    if (!status.intent.id.starts_with(ours) || is_reveal(status)) continue;
    if (status.phase == "refused") parts_->ended_before.insert(status.intent.id);
    if (status.phase == "effected") {
      status_.settled_epoch = std::max(status_.settled_epoch, ledger_epoch_of(status.intent.id));
    }
  }
  status_.waiting = parts_->look_at_queue();
}

RunSettler::~RunSettler() = default;
void RunSettler::close() {
  closed_ = true;
  parts_->client.close();
}

void RunSettler::step(milliseconds wait_max) {
  Parts& p = *parts_;
  if (!p.follower.advance([this] { return closed_.load(); })) return;
  status_.ledger_epochs = p.follower.epochs().size();
  const std::string endpoint = p.client.endpoint();
  if (endpoint.empty()) {
    // Nothing to ask: a call would only wait for its deadline.
    const std::string failure = p.client.last_failure();
    status_.trouble = failure.empty() ? "" : "the chain is away: " + failure;
    std::this_thread::sleep_for(std::min(wait_max, milliseconds(50)));
  } else {
    const auto receipts = p.target->poll(wait_max);
    for (const settlement::Receipt& receipt : receipts) note(receipt);
    if (status_.head != p.target->head() || !receipts.empty()) status_.waiting = p.look_at_queue();
    status_.head = p.target->head();
    status_.trouble = p.target->trouble();
    try {
      if (status_.trouble.empty() && status_.head != 0) settle_due();
    } catch (const Error& error) {
      const ErrorCode code = error.code();
      if (code == ErrorCode::journal_io || code == ErrorCode::disk_full ||
          code == ErrorCode::journal_corrupt) {
        throw;
      }
      status_.trouble = error.what();
    }
  }
  if (closed_) return;  // a line that was ended here is no news
  const bool was_away = status_.endpoint.empty();
  status_.endpoint = p.client.endpoint();
  if (was_away && !status_.endpoint.empty()) log_info("chain: connected to " + status_.endpoint);
  if (!was_away && status_.endpoint.empty()) {
    log_warning("chain: away (" + p.client.last_failure() + "); the run goes on, settlement waits");
  }
  publish();
}

// Once a chain epoch the newest weights; what the ledger computed in between is superseded by them.
void RunSettler::settle_due() {
  Parts& p = *parts_;
  if (p.looked_at == status_.head) return;
  ChainReader reader(p.node, {}, &p.metadata);
  const settlement::SubnetRule rule =
      settlement::read_subnet_rule(p.node, reader.metadata(), reader.block_hash(), p.netuid);
  p.looked_at = status_.head;
  compare_pace(rule.block_time);
  const std::uint64_t paid = rule.epochs.paid_by(reader.block());
  if (p.read_epoch != paid) {
    read_back();
    p.read_epoch = paid;
  }
  const bool epoch_passed = !p.newest.last_block || reader.block() > *p.newest.last_block;
  const bool news =
      status_.ledger_epochs > p.newest.ledger_epoch && (epoch_passed || rule.epochs.tempo == 0);
  if (p.busy || !(news || p.newest.again_now || (p.newest.again_next && epoch_passed))) return;

  status_.missing.clear();
  const PublicKey& hotkey = p.hotkey.public_key();
  const auto weights = p.follower.weights_of(hotkey);
  if (weights.empty()) {
    const bool judges = p.follower.core().uid_of(hotkey).has_value();
    status_.missing = "hotkey " + to_ss58(hotkey) +
                      (judges ? " gives no worker of this run any weight now: nothing to set"
                              : " is no validator of this run: it has no weights to set");
    return;
  }
  if (!reader.uid_of(p.netuid, to_ss58(hotkey))) {
    status_.missing = "hotkey " + to_ss58(hotkey) + " is not registered on subnet " +
                      std::to_string(p.netuid.value) + ": yumoe chain register";
    return;
  }
  settlement::SubnetWeights out;
  out.netuid = p.netuid;
  out.ledger_epoch = status_.ledger_epochs;
  if (out.ledger_epoch == p.newest.ledger_epoch) out.turn = p.newest.turns + 1;
  out.validator = hotkey;
  std::size_t strangers = 0;
  std::vector<std::pair<std::uint16_t, std::uint16_t>> row;
  for (const auto& [worker, weight] : weights) {
    const auto uid = reader.uid_of(p.netuid, to_ss58(worker));
    if (uid) {
      row.emplace_back(uid->value, weight);
    } else {
      ++strangers;
    }
  }
  if (row.empty()) {
    status_.missing = "none of the run's " + std::to_string(strangers) +
                      " workers is registered on subnet " + std::to_string(p.netuid.value) +
                      ": nobody to weigh";
    return;
  }
  std::ranges::sort(row);
  for (const auto& [uid, weight] : row) {
    out.uids.push_back(uid);
    out.values.push_back(weight);
  }
  for (const std::string& warning : settlement::schedule_warnings(rule))
    log_warning("chain: " + warning);
  if (strangers > 0) {
    log_warning("chain: " + std::to_string(strangers) +
                " workers of the run are not registered on subnet " +
                std::to_string(p.netuid.value) + " and get no weight there");
  }
  log_info("chain: weights of ledger epoch " + std::to_string(out.ledger_epoch) + " for " +
           std::to_string(out.uids.size()) + " uids are due at block " +
           std::to_string(status_.head));
  p.target->settle(out);
  for (const settlement::Receipt& receipt : p.target->poll(milliseconds(0))) note(receipt);
  status_.waiting = p.look_at_queue();
}

// While the chain is away the run's blocks pass with economy.block_ms: that should be the chain's own pace.
void RunSettler::compare_pace(milliseconds chain) {
  Parts& p = *parts_;
  const EconomyOptions& economy = p.follower.economy();
  if (std::exchange(p.pace_compared, true) || economy.time != "chain") return;
  if (chain.count() == economy.block_ms) return;
  log_warning("chain: makes a block every " + std::to_string(chain.count()) +
              " ms by its runtime, economy.block_ms is " + std::to_string(economy.block_ms) +
              ": while the chain is away, the run's blocks pass at that pace");
}

void RunSettler::read_back() {
  ChainReading reading =
      read_chain(parts_->node, parts_->netuid, parts_->hotkey.public_key(), &parts_->metadata);
  const auto settlements = parts_->target->status();
  const auto* status = in_force(settlements, reading);
  reading.ledger_epoch = status == nullptr ? 0 : ledger_epoch_of(status->intent.id);
  append_reading(run_, reading);
  ++status_.readings;
  status_.in_force_epoch = reading.ledger_epoch;
  std::uint64_t incentive = 0;
  for (const auto& neuron : reading.neurons) incentive += neuron.incentive > 0 ? 1 : 0;
  log_info("chain: read what epoch " + std::to_string(reading.chain_epoch) + " paid, block " +
           std::to_string(reading.block) + ": " + std::to_string(incentive) + " of " +
           std::to_string(reading.neurons.size()) + " neurons have incentive; it went by " +
           (reading.ledger_epoch == 0
                ? "no weights of this run"
                : "the weights of ledger epoch " + std::to_string(reading.ledger_epoch)));
}

void RunSettler::note(const settlement::Receipt& receipt) {
  receipts_.push_back(receipt);
  status_.last = receipt.id + ": " + receipt.outcome.reason;
  if (receipt.outcome.effected) {
    const bool reveal = receipt.id.ends_with("/reveal");
    if (!reveal) {
      status_.settled_epoch = std::max(status_.settled_epoch, ledger_epoch_of(receipt.id));
    }
    log_info("chain: " + receipt.id + " took effect in block " +
             std::to_string(receipt.outcome.block));
  } else {
    log_warning("chain: " + receipt.id + " was refused: " + receipt.outcome.reason +
                (receipt.outcome.advice.empty() ? "" : "; " + receipt.outcome.advice));
  }
}

bool RunSettler::done() const {
  return status_.head != 0 && status_.waiting == 0 && parts_->looked_at == status_.head &&
         status_.trouble.empty() && status_.missing.empty() && !parts_->newest.again_now &&
         !parts_->newest.again_next && parts_->newest.ledger_epoch >= status_.ledger_epochs;
}

std::string json_of(const SettlerStatus& s) {
  return nlohmann::json{{"endpoint", s.endpoint},
                        {"trouble", s.trouble},
                        {"missing", s.missing},
                        {"head", s.head},
                        {"ledger_epochs", s.ledger_epochs},
                        {"settled_epoch", s.settled_epoch},
                        {"in_force_epoch", s.in_force_epoch},
                        {"waiting", s.waiting},
                        {"readings", s.readings},
                        {"last", s.last}}
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// For `yumoe chain status RUN`: a convenience, so it is neither synced nor needed again.
void RunSettler::publish() {
  const std::string text = json_of(status_);
  if (text == published_) return;
  published_ = text;
  const fs::path file = settlement_folder(run_) / "status.json";
  const fs::path partial = file.string() + ".partial";
  std::ofstream out(partial);
  out << text << "\n";
  out.close();
  std::error_code failed;
  if (!out) {
    failed = std::error_code(errno, std::generic_category());  // what was there stays
  } else {
    fs::rename(partial, file, failed);
  }
  if (failed) log_warning("chain: cannot write " + file.string() + ": " + failed.message());
}

SettlementThread::SettlementThread(fs::path run, ChainOptions options, const Keypair& hotkey)
    : run_(std::move(run)), options_(std::move(options)), hotkey_(hotkey) {
  RpcClient probe(options_.rpc);  // says now if the endpoints cannot be
  probe.close();
  thread_ = std::thread([this] { settle_for_ever(); });
}

// The run owes nothing to the chain: whatever breaks here (a full disk, another process that settles
// this run, a record that cannot be read just now) is said, and tried again from what is on the disk.
void SettlementThread::settle_for_ever() {
  constexpr std::chrono::seconds kPauseFirst{1}, kPauseMax{60};
  std::chrono::seconds pause = kPauseFirst;
  std::string told;
  while (!stop_) {
    try {
      auto settler = std::make_unique<RunSettler>(run_, options_, hotkey_);
      {
        const std::lock_guard lock(mutex_);
        settler_ = std::move(settler);
      }
      while (!stop_) {
        settler_->step(milliseconds(200));
        const SettlerStatus& status = settler_->status();
        head_ = status.endpoint.empty() ? 0 : status.head;
        const std::string& trouble = status.trouble.empty() ? status.missing : status.trouble;
        // That a chain that was there is away, step() says; one that never was is said once.
        const bool away = status.endpoint.empty() && !trouble.empty();
        const std::string word = away ? "away" : trouble;
        if (word != told && !word.empty() && !(away && status.head != 0) && !stop_) {
          log_warning("chain: " + trouble);
        }
        told = word;
        if (status.head != 0) pause = kPauseFirst;
      }
    } catch (const std::exception& error) {
      const std::string failure = error.what();
      if (failure != told) {
        log_error("chain: settlement stopped: " + failure +
                  "; it is tried again, the run goes on without it");
      }
      told = failure;
    }
    std::unique_ptr<RunSettler> ended;
    std::unique_lock lock(mutex_);
    head_ = 0;
    ended = std::move(settler_);
    wake_.wait_for(lock, pause, [this] { return stop_.load(); });
    lock.unlock();
    pause = std::min(pause * 2, kPauseMax);
  }
}

SettlementThread::~SettlementThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    if (settler_) settler_->close();
  }
  wake_.notify_all();
  thread_.join();
}

}  // namespace yumoe

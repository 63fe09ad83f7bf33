#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

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
  const int descriptor = open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  const bool written =
      descriptor >= 0 &&
      write(descriptor, salt.data(), salt.size()) == static_cast<ssize_t>(kSaltBytes) &&
      fsync(descriptor) == 0;
  if (descriptor >= 0) close(descriptor);
  if (!written) throw Error(ErrorCode::journal_io, "write " + file.string());
  return salt;
}

bool is_open(const IntentStatus& status) {
  return status.phase == "waiting" || status.phase == "in flight";
}
bool is_reveal(const IntentStatus& status) { return status.intent.call == "reveal_weights"; }

}  // namespace

class RunSettler::Parts {
 public:
  Parts(const fs::path& run, const ChainOptions& options, Keypair key)
      : netuid(static_cast<std::uint16_t>(options.netuid)),
        hotkey(std::move(key)),
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
  Keypair hotkey;
  RunFollower follower;
  RpcClient client;
  ChainNode node;
  settlement::FileJournal journal;
  SystemClock clock;
  std::optional<settlement::SubstrateSettlement> target;
  std::shared_ptr<const Metadata> metadata;  // of spec_version
  std::uint32_t spec_version = 0;
  std::uint32_t looked_at = 0;              // head whose rule was read last
  std::uint64_t handed_over = 0;            // newest ledger epoch given to the queue
  std::optional<std::uint64_t> handed_in;   // the chain's epoch at that time
  std::optional<std::uint64_t> read_epoch;  // the chain's epoch of the newest reading
};

RunSettler::RunSettler(const fs::path& run, const ChainOptions& options, Keypair hotkey)
    : run_(run) {
  fs::create_directories(settlement_folder(run));
  parts_ = std::make_unique<Parts>(run, options, std::move(hotkey));
  for (const ChainReading& reading : chain_readings(run)) {
    parts_->read_epoch = reading.chain_epoch;
    ++status_.readings;
  }
  for (const IntentStatus& status : parts_->target->status()) {
    parts_->handed_over = std::max(parts_->handed_over, ledger_epoch_of(status.intent.id));
    if (status.phase == "effected" && !is_reveal(status)) {
      status_.settled_epoch = std::max(status_.settled_epoch, ledger_epoch_of(status.intent.id));
    }
  }
}

RunSettler::~RunSettler() = default;
void RunSettler::close() { parts_->client.close(); }

void RunSettler::step(milliseconds wait_max) {
  Parts& p = *parts_;
  p.follower.advance();
  status_.ledger_epochs = p.follower.epochs().size();
  const std::string endpoint = p.client.endpoint();
  if (endpoint.empty()) {
    // Nothing to ask: a call would only wait for its deadline.
    const std::string failure = p.client.last_failure();
    status_.trouble = failure.empty() ? "" : "the chain is away: " + failure;
    std::this_thread::sleep_for(std::min(wait_max, milliseconds(50)));
  } else {
    for (const settlement::Receipt& receipt : p.target->poll(wait_max)) note(receipt);
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
  const bool was_away = status_.endpoint.empty();
  status_.endpoint = p.client.endpoint();
  if (was_away && !status_.endpoint.empty()) log_info("chain: connected to " + status_.endpoint);
  if (!was_away && status_.endpoint.empty()) {
    log_warning("chain: away (" + p.client.last_failure() + "); the run goes on, settlement waits");
  }
  status_.waiting = static_cast<std::size_t>(std::ranges::count_if(p.target->status(), is_open));
  publish();
}

// Once a chain epoch the newest weights; what the ledger computed in between is superseded by them.
void RunSettler::settle_due() {
  Parts& p = *parts_;
  const bool news = status_.ledger_epochs > p.handed_over;
  if (p.looked_at == status_.head) return;
  ChainReader reader(p.node);
  const settlement::SubnetRule rule =
      settlement::read_subnet_rule(p.node, reader.metadata(), reader.block_hash(), p.netuid);
  p.looked_at = status_.head;
  const std::uint64_t paid = rule.epochs.paid_by(reader.block());
  if (p.read_epoch != paid) {
    read_back();
    p.read_epoch = paid;
  }
  if (!news) return;
  const std::uint64_t now_epoch = rule.epochs.epoch_at(reader.block());
  const auto queue = p.target->status();
  const bool busy = std::ranges::any_of(
      queue, [](const IntentStatus& status) { return is_open(status) && !is_reveal(status); });
  if (busy || (p.handed_in == now_epoch && rule.epochs.tempo != 0)) return;

  status_.missing.clear();
  const PublicKey& hotkey = p.hotkey.public_key();
  const auto weights = p.follower.weights_of(hotkey);
  if (weights.empty()) {
    status_.missing = "hotkey " + to_ss58(hotkey) +
                      " has scored nobody in this run: no weights to set (is it a "
                      "validator of the run?)";
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
  p.handed_over = out.ledger_epoch;
  p.handed_in = now_epoch;
  for (const settlement::Receipt& receipt : p.target->poll(milliseconds(0))) note(receipt);
}

void RunSettler::read_back() {
  ChainReading reading = read_chain(parts_->node, parts_->netuid, parts_->hotkey.public_key());
  reading.ledger_epoch = status_.settled_epoch;
  append_reading(run_, reading);
  ++status_.readings;
  std::uint64_t incentive = 0;
  for (const auto& neuron : reading.neurons) incentive += neuron.incentive > 0 ? 1 : 0;
  log_info("chain: read what epoch " + std::to_string(reading.chain_epoch) + " paid, block " +
           std::to_string(reading.block) + ": " + std::to_string(incentive) + " of " +
           std::to_string(reading.neurons.size()) + " neurons have incentive");
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
         status_.trouble.empty() && status_.missing.empty() &&
         parts_->handed_over >= status_.ledger_epochs;
}

std::string json_of(const SettlerStatus& s) {
  return nlohmann::json{{"endpoint", s.endpoint},
                        {"trouble", s.trouble},
                        {"missing", s.missing},
                        {"head", s.head},
                        {"ledger_epochs", s.ledger_epochs},
                        {"settled_epoch", s.settled_epoch},
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
  std::ofstream(partial) << text << "\n";
  std::error_code failed;
  fs::rename(partial, file, failed);
  if (failed) log_warning("chain: cannot write " + file.string() + ": " + failed.message());
}

SettlementThread::SettlementThread(const fs::path& run, const ChainOptions& options, Keypair hotkey)
    : settler_(std::make_unique<RunSettler>(run, options, std::move(hotkey))) {
  thread_ = std::thread([this] {
    std::string told;
    try {
      while (!stop_) {
        settler_->step(milliseconds(200));
        const SettlerStatus& status = settler_->status();
        const std::string& trouble = status.trouble.empty() ? status.missing : status.trouble;
        if (trouble != told && !trouble.empty() && !stop_) log_warning("chain: " + trouble);
        told = trouble;
      }
    } catch (const std::exception& error) {
      // The run owes nothing to the chain: it goes on, and `yumoe chain settle` takes up the queue.
      log_error(std::string("chain: settlement stopped: ") + error.what());
    }
  });
}

SettlementThread::~SettlementThread() {
  stop_ = true;
  settler_->close();
  thread_.join();
}

}  // namespace yumoe

#pragma once
// A run and the chain: its weights go out by the subnet's rule, what the chain paid comes back, and both
// are set side by side. Lives beside the coordinator and only reads the run's record, so a slow or absent
// chain cannot hold up a round.
//
// A run whose own ledger is final settles by the same interface (settlement::LocalSettlement), read from its
// record whenever somebody asks: nothing of it is stored.
//
// Of a chain everything is kept in RUN/settlement: journal (the queue: intents, attempts, outcomes), readings.jsonl
// (what the chain's epochs paid), status.json (how it stands), salt (the secret of hash commits).

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "coordinator/chain_options.hpp"
#include "coordinator/chain_reader.hpp"
#include "coordinator/run_ledger.hpp"
#include "coordinator/run_record.hpp"
#include "coordinator/settlement_target.hpp"
#include "coordinator/setup.hpp"
#include "coordinator/table_file.hpp"
#include "launch/chain.hpp"

namespace yumoe {

// What the run's own ledger paid a hotkey in one epoch.
struct PredictedPay {
  PublicKey hotkey;
  std::string name;          // of the participant
  std::uint16_t neuron = 0;  // in the run's ledger
  std::uint16_t incentive = 0, dividends = 0;
  std::uint64_t emission = 0, stake = 0;  // rao of alpha
  WeightRow weights;                      // as the epoch had them, by neuron; where they are kept
};

struct RunEpoch {
  std::uint64_t number = 0;  // from 1
  std::uint64_t block = 0;   // of the run's ledger
  RoundId first_round, last_round;
  std::vector<PredictedPay> pays;
};

// Follows a run's record, live or not: the core and the ledger as they stand at its end.
class RunFollower {
 public:
  enum class Keep { pays, weights };  // of each epoch: what it paid, or that and its weights
  // Throws what open_run_record throws.
  explicit RunFollower(const std::filesystem::path& run);
  // `record` outlives it.
  RunFollower(const RunRecord& record, Keep keep);
  RunFollower(const RunFollower&) = delete;
  RunFollower& operator=(const RunFollower&) = delete;
  const RunRecord& record() const { return record_; }
  const EconomyOptions& economy() const { return setup_.economy; }
  // Reads on to the end; false if `stop`, asked before each record, said so first. Throws
  // Error{journal_corrupt}.
  bool advance(const std::function<bool()>& stop = {});

  const std::string& run() const { return record_.run(); }
  const Run& core() const { return core_; }
  const std::vector<RunEpoch>& epochs() const { return epochs_; }
  // What this validator would weigh now, by hotkey; empty if it has not scored or is none.
  std::vector<std::pair<PublicKey, std::uint16_t>> weights_of(const PublicKey& validator) const;
  // The participant's name, or "".
  std::string name_of(const PublicKey& hotkey) const;

 private:
  RunFollower(std::unique_ptr<RunRecord> owned, const RunRecord* record, Keep keep);
  void note(const RunLedger::Epoch& epoch);

  std::unique_ptr<RunRecord> owned_;
  const RunRecord& record_;
  Keep keep_;
  RunSetup setup_;
  Layout layout_;
  Run core_;
  RunLedger ledger_;
  std::uint64_t next_ = 1;
  std::vector<RunEpoch> epochs_;
};

// What the chain said of its subnet after one of its epochs.
struct ChainReading {
  std::uint32_t block =
      0;  // whose state was read: epoch_block, or a later one if that state is gone
  std::uint32_t epoch_block = 0;  // in which the epoch ran; 0: not known
  std::string block_hash;
  std::uint64_t chain_epoch = 0;
  std::uint32_t spec_version = 0;
  Netuid netuid;
  // Whose weights the chain's epoch went by; 0: none of this run. Not kept: the queue and `weights` tell.
  std::uint64_t ledger_epoch = 0;
  std::optional<Uid> our_uid;
  std::vector<settlement::NeuronResult> neurons;
  std::vector<std::pair<Uid, WeightRow>>
      weights;  // rows that are not empty; ours as the epoch had it
  bool has_our_row =
      true;  // false: the node has the state before the epoch no more, and ours is left out
};
// Of the newest epoch that has run.
ChainReading read_chain(ChainNode& node, Netuid netuid, const PublicKey& hotkey,
                        MetadataCache* metadata = nullptr);

// Whose weights the reading's epoch went by, of these settlements; nullptr: none of them.
const settlement::IntentStatus* in_force(const std::vector<settlement::IntentStatus>& settlements,
                                         const ChainReading& reading);

// One for each epoch: of two of the same, the one of that epoch's own state. A torn last line is passed over.
// Throws Error{journal_corrupt}.
std::vector<ChainReading> chain_readings(const RunRecord& run);
// Durable when it returns. Does nothing if the newest is of the same epoch and no worse.
void append_reading(const std::filesystem::path& run, const ChainReading& reading);

// Makes RUN/settlement, to stay. Throws what settlement::sync_folder throws.
void make_settlement_folder(const std::filesystem::path& run);

// The settlements of a run with a chain, as its queue has them, also while another process works on it.
std::vector<settlement::IntentStatus> settlements_of(const RunRecord& run);

// True for a run whose blocks are not a chain's, that has nothing queued for one and has read none: its own ledger is final.
bool settles_locally(const RunRecord& run);
// What the ledger of `run` (which keeps weights, and has advanced) settled by itself: every validator's weights,
// epoch by epoch. Blocks are the ledger's.
std::vector<settlement::IntentStatus> local_settlements(const RunFollower& run);
// "epoch N" in a settlement's id; 0 if it has none.
std::uint64_t ledger_epoch_of(const std::string& intent_id);

// What an audit finds in the settlements of a run.
struct SettlementAudit {
  std::size_t effected = 0, refused = 0, open = 0, readings = 0;
  std::uint64_t newest_epoch = 0;  // of the ledger that any is for: it must have had it
  std::optional<Digest> chain;     // genesis hash; nullopt: no chain was met
};
// Throws Error{invariant_broken} if an epoch of the ledger took effect twice on a subnet, or an effect is in
// no block; and Error{journal_corrupt}.
SettlementAudit audit_settlements(const RunRecord& run);

// The same for people's tools: tables "settlements" and "chain_readings". Of a run that settles locally,
// the first alone, and its record is read through for it.
std::vector<Table> settlement_tables(const RunRecord& run);

struct SettlerStatus {
  std::string endpoint;    // empty: the chain is away
  std::string trouble;     // why nothing moves; empty: it does
  std::string missing;     // what must be done before the newest weights can go out; empty: nothing
  std::uint32_t head = 0;  // finalized block seen last
  std::uint64_t ledger_epochs = 0;
  std::uint64_t settled_epoch =
      0;  // newest whose weights, or the commitment to them, stand on the chain
  std::uint64_t in_force_epoch =
      0;                    // whose weights the chain's newest epoch went by; 0: none of this run
  std::size_t waiting = 0;  // settlements not concluded
  std::size_t readings = 0;
  std::string last;  // how the last one ended
};
std::string json_of(const SettlerStatus& status);

// Carries one run's weights to the chain, turn by turn. One thread; close() from any.
class RunSettler {
 public:
  // Throws Error{journal_io} if another process settles this run, and what the queue throws.
  // `hotkey` outlives it.
  RunSettler(const std::filesystem::path& run, const ChainOptions& options, const Keypair& hotkey);
  ~RunSettler();

  // Reads the run on, follows the chain for at most `wait_max`, settles what is due, reads back.
  // Throws what the queue's journal throws; a chain that is away, or refuses, is in status().
  void step(std::chrono::milliseconds wait_max);
  void close();

  const SettlerStatus& status() const { return status_; }
  const std::vector<settlement::Receipt>& receipts() const { return receipts_; }
  // Nothing is open, and the newest epoch of the ledger is settled, refused or has no weights.
  bool done() const;

 private:
  class Parts;
  void settle_due();
  void compare_pace(std::chrono::milliseconds chain);
  void read_back();
  void note(const settlement::Receipt& receipt);
  void publish();

  std::filesystem::path run_;
  std::unique_ptr<Parts> parts_;
  SettlerStatus status_;
  std::string published_;
  std::atomic<bool> closed_ = false;
  std::vector<settlement::Receipt> receipts_;
};

// The same on a thread of its own, for as long as the object lives. What goes wrong is logged and begun
// again from what is on the disk; nothing of it reaches the run.
class SettlementThread {
 public:
  // `hotkey` outlives it. Throws Error{config_invalid} on endpoints that cannot be.
  SettlementThread(std::filesystem::path run, ChainOptions options, const Keypair& hotkey);
  ~SettlementThread();  // within a second; what is open is taken up again at the next start

  // The chain's newest finalized block; 0 while the chain is away. From any thread.
  std::uint32_t head() const { return head_; }

 private:
  void settle_for_ever();

  std::filesystem::path run_;
  ChainOptions options_;
  const Keypair& hotkey_;
  std::mutex mutex_;  // of settler_, between its thread and the destructor
  std::condition_variable wake_;
  std::unique_ptr<RunSettler> settler_;
  std::atomic<bool> stop_ = false;
  std::atomic<std::uint32_t> head_ = 0;
  std::thread thread_;
};

struct ReconcileRow {
  std::optional<Uid> uid;  // on the chain
  std::string hotkey, name;
  std::optional<PredictedPay> predicted;
  std::optional<settlement::NeuronResult> paid;
  std::vector<settlement::Difference> differences;  // empty: they agree
};

struct Reconciliation {
  bool local = false;  // the ledger's own settlement; `reading` says its block and subnet alone
  ChainReading reading;
  std::optional<RunEpoch> epoch;  // nullopt: the ledger has had none yet
  // The ledger's epoch went by just the weights that the chain's did; otherwise it is the one after which
  // they were handed over, or the newest where none of this run's were in force.
  bool same_weights = false;
  std::vector<ReconcileRow> rows;
};

// The newest reading, or the one of the last chain epoch at or before `block`, against the epoch of the ledger
// with the weights that were in force. Of a run that settles locally, the ledger's newest epoch (up to its
// `block`) against itself. Throws Error{file_missing} if nothing was read yet, or no epoch was had.
Reconciliation reconcile_run(const std::filesystem::path& run,
                             std::optional<std::uint32_t> block = {});

}  // namespace yumoe

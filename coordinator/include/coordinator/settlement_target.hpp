#pragma once
// Where a run's weights become money: the embedded ledger alone (the default), or a chain.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/chain_rpc.hpp"
#include "coordinator/metadata.hpp"
#include "coordinator/settlement.hpp"
#include "coordinator/weights_plan.hpp"

namespace yumoe::settlement {

// Where the machine's entries are kept, in order.
class SettlementJournal {
 public:
  virtual ~SettlementJournal() = default;
  virtual void append(ByteView entry) = 0;  // durable when it returns
  virtual std::vector<Bytes> load() = 0;    // all entries, oldest first
};

class MemoryJournal final : public SettlementJournal {
 public:
  void append(ByteView entry) override { entries_.emplace_back(entry.begin(), entry.end()); }
  std::vector<Bytes> load() override { return entries_; }

 private:
  std::vector<Bytes> entries_;
};

// One file for commands outside a run: each entry with length and digest, synced. A torn last entry
// (the crash came while it was written, so nothing was sent on it) is cut off; any other damage
// throws Error{journal_corrupt}. One process at a time: a second throws Error{journal_io}. What cannot
// be written whole (Error{disk_full}, Error{journal_io}) is taken back, and nothing is sent on it.
class FileJournal final : public SettlementJournal {
 public:
  explicit FileJournal(const std::filesystem::path& file);
  ~FileJournal() override;
  FileJournal(const FileJournal&) = delete;
  FileJournal& operator=(const FileJournal&) = delete;
  void append(ByteView entry) override;
  std::vector<Bytes> load() override { return entries_; }

 private:
  int file_ = -1;
  std::string name_;
  std::size_t bytes_ = 0;  // of whole entries
  bool broken_ = false;    // what could not be written could not be taken back either
  std::vector<Bytes> entries_;
};

// Makes what was created or renamed in it last. Throws Error{journal_io}, Error{disk_full}.
void sync_folder(const std::filesystem::path& folder);

// The entries in such a file's bytes, also while another process writes it: a torn end is left out.
// Throws Error{journal_corrupt} naming `name`.
std::vector<Bytes> settlement_entries(ByteView file, const std::string& name);

struct Receipt {
  std::string id;
  Outcome outcome;
};

class SettlementTarget {
 public:
  virtual ~SettlementTarget() = default;
  virtual std::string_view name() const = 0;
  // Hands over one epoch's weights of one validator; the same again changes nothing. Never waits
  // for the chain.
  virtual void settle(const SubnetWeights& weights) = 0;
  // What became final since the last call, after at most `wait_max`. A chain that is away is no
  // error: nothing becomes final.
  virtual std::vector<Receipt> poll(std::chrono::milliseconds wait_max) = 0;
  virtual std::vector<IntentStatus> status() const = 0;
};

// No chain: what the embedded ledger computed is final at once. It keeps nothing on the disk: whoever wants
// to know gives it the ledger's epochs again.
class LocalSettlement final : public SettlementTarget {
 public:
  std::string_view name() const override { return "local"; }
  // The ledger's block in which what settle() is given next was settled.
  void at_block(std::uint32_t block) { block_ = block; }
  void settle(const SubnetWeights& weights) override;
  std::vector<Receipt> poll(std::chrono::milliseconds) override;
  std::vector<IntentStatus> status() const override { return settled_; }

 private:
  std::uint32_t block_ = 0;
  std::set<std::string> known_;
  std::vector<IntentStatus> settled_;
  std::vector<Receipt> fresh_;
};

struct SubstrateOptions {
  SettlementOptions settlement;
  Bytes salt_seed;                // the run's secret for hash commits
  std::optional<Digest> genesis;  // of the chain, where it is known already
  std::function<TimeMs()> now;
};

// Finds the private key of a signer; nullptr if this process does not hold it.
using KeySource = std::function<const Keypair*(const PublicKey&)>;

// Carries out the machine's actions against a node. One thread uses it.
class SubstrateSettlement final : public SettlementTarget {
 public:
  // Loads the journal at once; throws what SettlementMachine::recover does, and Error{peer_refused} if
  // it is of another chain than options.genesis. Without that, a node of another chain is trouble():
  // nothing of this queue is ever sent there. `client`, `journal` and keys outlive it.
  SubstrateSettlement(RpcClient& client, SettlementJournal& journal, KeySource keys,
                      SubstrateOptions options);
  ~SubstrateSettlement() override;

  std::string_view name() const override { return "substrate"; }
  void settle(const SubnetWeights& weights) override;
  std::vector<Receipt> poll(std::chrono::milliseconds wait_max) override;
  std::vector<IntentStatus> status() const override;

  // Any other intent, recorded when it returns.
  void add(const Intent& intent);
  // The finalized block seen last, 0 before the first.
  std::uint32_t head() const;
  // Why nothing moves, empty if it does: "peer_unreachable: ...".
  std::string trouble() const;

 private:
  class Driver;
  std::unique_ptr<Driver> driver_;
};

// The subnet's rule as the chain has it in block `at`. Throws Error{metadata_unsupported} where the
// runtime is not one of Bittensor's.
SubnetRule read_subnet_rule(ChainNode& node, const Metadata& metadata, const Digest& at,
                            Netuid netuid);

}  // namespace yumoe::settlement

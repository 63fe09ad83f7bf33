#pragma once
// From a weight vector to what must be sent when: the subnet's rule (plain, hash commit-reveal,
// timelocked commit) and its epochs give calls and the blocks in which they count. Pure.
// Also the intents of the other calls, and the comparison of ledger and chain.

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cluster/clock.hpp"
#include "cluster/ids.hpp"
#include "coordinator/settlement.hpp"

namespace yumoe::settlement {

// When a subnet's epochs run. Older runtimes derive them from the block number, newer ones count
// them from the last one that ran.
struct EpochClock {
  enum class Kind { from_block_number, counted };
  Kind kind = Kind::from_block_number;
  Netuid netuid;
  std::uint32_t tempo = 0;             // 0: no epochs
  std::uint32_t last_epoch_block = 0;  // counted
  std::uint64_t epoch_index = 0;       // counted: after the epoch of last_epoch_block

  // The epoch to which a commit in `block` is booked.
  std::uint64_t epoch_at(std::uint32_t block) const;
  // Its first block (predicted, where epochs are counted).
  std::uint32_t first_block_of(std::uint64_t epoch) const;
  // The last block of the epoch in which `block` lies; never, without epochs.
  std::uint32_t last_block_of_epoch(std::uint32_t block) const;
  // The newest epoch that has run in the state after `block` (read from that state, where counted).
  std::uint64_t paid_by(std::uint32_t block) const;
  // The first block after `block` in which the epoch runs.
  std::uint32_t next_run_after(std::uint32_t block) const;
  // The block of the newest epoch that has run in the state after `block`; 0: none has.
  std::uint32_t last_run_by(std::uint32_t block) const;
};

enum class WeightsRule { plain, hash_commit, timelocked_commit };

struct SubnetRule {
  WeightsRule rule = WeightsRule::plain;
  EpochClock epochs;
  std::uint64_t reveal_period = 1;    // epochs
  std::uint32_t immunity_period = 0;  // blocks
  std::uint32_t rate_limit = 0;       // blocks between two settings
  std::uint64_t version_key = 0;
  std::uint16_t commit_version = 4;
  std::chrono::milliseconds block_time{12'000};
};

struct SubnetWeights {
  Netuid netuid;
  std::uint64_t ledger_epoch = 0;  // with netuid, validator and turn it names the settlement
  std::uint64_t turn = 1;          // above 1: every earlier turn of this epoch ended without effect
  PublicKey validator;
  std::vector<std::uint16_t> uids;
  std::vector<std::uint16_t> values;  // one a uid
};

// What the ids of all settlements of this validator on this subnet begin with.
std::string settlement_prefix(Netuid netuid, const PublicKey& validator);

// The intent that carries the weights, to be added now. For a hash commit its note holds what
// plan_reveal() needs. `salt_seed` is the caller's secret, equal at every call for one run, so that
// a repeated plan is the same plan.
Intent plan_weights(const SubnetRule& rule, const SubnetWeights& weights, std::uint32_t block,
                    TimeMs now, ByteView salt_seed);

// The reveal that belongs to a hash commit which took effect in `commit_block`. Throws
// Error{journal_corrupt} if the commit's note is not plan_weights()'s.
Intent plan_reveal(const SubnetRule& rule, const Intent& commit, std::uint32_t commit_block);

// The BLAKE2b-256 a chain compares at the reveal: SCALE (account, index u16, uids, values, salt,
// version_key), index = mechanism * 4096 + netuid.
Digest commit_hash(const PublicKey& who, std::uint16_t index, std::span<const std::uint16_t> uids,
                   std::span<const std::uint16_t> values, std::span<const std::uint16_t> salt,
                   std::uint64_t version_key);

// ---- what is in force
// ------------------------------------------------------------------------

// One row of a chain's weights: (uid, value).
using ChainRow = std::vector<std::pair<std::uint16_t, std::uint16_t>>;

// The weights that an intent carries or commits to, and the epoch of the chain in which a timelocked
// commit is to be opened.
struct CarriedWeights {
  std::vector<std::uint16_t> uids, values;
  std::optional<std::uint64_t> reveal_epoch;
  std::uint64_t reveal_round = 0;  // of drand; 0: not timelocked
};
// nullopt: it carries none, or is of a release that did not note them.
std::optional<CarriedWeights> carried_weights(const Intent& intent);

// True if a chain that was told `weights` keeps `row`: it scales the largest to 65535. Zeros count as
// absent, and a value may differ by one, as runtimes round.
bool is_kept_as(const CarriedWeights& weights, const ChainRow& row);

// An epoch that the chain has run, and the row by which it paid one validator's weights.
struct RanEpoch {
  std::uint64_t paid = 0;   // EpochClock::paid_by() after it
  std::uint32_t block = 0;  // in which it ran; what stands in that block came too late for it
  ChainRow row;
};

// Weights that a chain has or is to open: of an intent that took effect.
struct StandingWeights {
  const IntentStatus* status = nullptr;
  CarriedWeights weights;
  std::uint32_t block = 0;   // in which they, or the commitment to them, stand
  std::uint32_t opened = 0;  // in which they can be read; 0: not known
};
// Of the settlements whose id begins with `prefix` (one validator's on one subnet), in their order. Points
// into `settlements`. Throws Error{journal_corrupt}.
std::vector<StandingWeights> standing_weights(const std::vector<IntentStatus>& settlements,
                                              std::string_view prefix);

// Whose weights those were: the newest that the chain had opened by then and that the row is; nullptr: none.
// A commit alone is never in force.
const IntentStatus* in_force(const std::vector<StandingWeights>& standing, const RanEpoch& epoch);

// What an operator should know about a schedule, empty if nothing: epochs that never run, a reveal
// that comes after a new miner's immunity, a rate limit longer than the tempo.
std::vector<std::string> schedule_warnings(const SubnetRule& rule);

// ---- other calls. `id` is the caller's; amounts in rao
// -------------------------------------------

Intent register_intent(std::string id, const PublicKey& coldkey, Netuid netuid,
                       const PublicKey& hotkey);
// `ip` is an IPv4 or IPv6 address. Throws Error{usage} if it is neither.
Intent serve_intent(std::string id, const PublicKey& hotkey, Netuid netuid, const std::string& ip,
                    std::uint16_t port);
Intent add_stake_intent(std::string id, const PublicKey& coldkey, const PublicKey& hotkey,
                        Netuid netuid, std::uint64_t tao);
Intent remove_stake_intent(std::string id, const PublicKey& coldkey, const PublicKey& hotkey,
                           Netuid netuid, std::uint64_t alpha);
Intent transfer_intent(std::string id, const PublicKey& from, const PublicKey& to,
                       std::uint64_t amount);

// ---- ledger against chain
// ------------------------------------------------------------------------

struct NeuronResult {
  Uid uid;
  std::string hotkey;
  std::uint16_t incentive = 0;
  std::uint16_t dividend = 0;
  std::uint64_t emission = 0;  // alpha rao in the epoch
  std::uint64_t stake = 0;     // alpha rao
};

// What is known beside the numbers.
struct ReconcileFacts {
  std::vector<IntentStatus> intents;  // our settlements of this subnet and epoch of the ledger
  bool in_force = false;              // their weights are those by which the chain paid
  bool same_weights = true;           // and those by which the ledger's epoch predicted
  bool has_our_row = true;            // what the chain's epoch had of ours is known
  std::uint32_t epoch_block = 0;      // in which the chain's epoch ran; 0: not known
  // uid -> (target uid, weight) as the chain has them; ours among them.
  std::vector<std::pair<Uid, std::vector<std::pair<std::uint16_t, std::uint16_t>>>> chain_weights;
  std::optional<Uid> our_uid;
};

struct Difference {
  Uid uid;
  std::string hotkey;
  std::string field;  // "hotkey", "incentive", "dividend", "emission", "stake", "missing"
  std::string predicted;
  std::string paid;
  std::string cause;
};

// Every difference, by uid and field, with its cause; nothing is corrected.
std::vector<Difference> reconcile(const std::vector<NeuronResult>& predicted,
                                  const std::vector<NeuronResult>& chain,
                                  const ReconcileFacts& facts);

}  // namespace yumoe::settlement

#pragma once
// Setting weights: at once, by commit and reveal, or sealed until a round of the public beacon.
//
// The functions work on what the caller owns (rows, last updates, open commits of one mechanism)
// and answer Done or the first refusal in the chain's order. A refused call changes nothing and
// adds no event. Blocks and epochs are given, never read from a clock. Source: ledger
// specification, section 7. Cost: linear in the call; a timelocked reveal in the commits of its
// epoch.

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "cluster/bytes.hpp"
#include "coordinator/epoch.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger {

using AccountId = std::array<std::uint8_t, 32>;

inline constexpr std::size_t kOpenCommitsMax = 10;
inline constexpr std::size_t kTimelockedBytesMax = 5000;
inline constexpr std::uint16_t kCommitRevealVersion = 4;

// What a call needs to know of the subnet; the spans have one entry a uid.
struct WeightFacts {
  std::uint16_t netuid = 0;  // 0: root, which takes no weights
  std::uint8_t mechanism = 0;
  bool exists = true;  // the subnet and this mechanism of it
  std::uint64_t block = 0;
  std::uint64_t epoch = 0;  // SubnetEpochIndex, plus 1 if an epoch is due at this block
  bool commit_reveal = false;
  std::uint64_t reveal_period = 1;  // epochs
  std::uint64_t version_key = 0;    // 0: any
  std::uint64_t rate_limit = 100;   // blocks
  std::uint16_t min_allowed_weights = 1;
  std::uint16_t max_weights_limit = 65535;  // 65535: off
  std::uint64_t stake_threshold = 0;
  std::span<const AccountId> hotkeys;
  std::span<const I64F64> stake;  // total_stake()
  std::span<const std::uint8_t> permit;
  std::optional<AccountId> owner_hotkey;
};

struct HashCommit {
  Digest hash;
  std::uint64_t epoch = 0;
  std::uint64_t block = 0;
  friend bool operator==(const HashCommit&, const HashCommit&) = default;
};

// The sealed bytes, and beside them their plaintext if whoever keeps this ledger knows it (empty:
// undecodable).
struct TimelockedCommit {
  AccountId who{};
  std::uint64_t block = 0;
  Bytes sealed;
  Bytes plaintext;
  std::uint64_t round = 0;
  friend bool operator==(const TimelockedCommit&, const TimelockedCommit&) = default;
};

struct WeightCommits {
  std::map<AccountId, std::deque<HashCommit>> hashed;  // oldest first
  std::map<std::uint64_t, std::vector<TimelockedCommit>>
      sealed;  // by epoch of the commit, in call order
  friend bool operator==(const WeightCommits&, const WeightCommits&) = default;
};

// The caller's state of one mechanism that weight calls change.
struct WeightSlot {
  std::vector<Row>& weights;
  std::vector<std::uint64_t>& last_update;
  WeightCommits& commits;
};

enum class WeightEventKind {
  WeightsSet,
  WeightsCommitted,
  WeightsRevealed,
  WeightsBatchRevealed,
  TimelockedWeightsCommitted,
  TimelockedWeightsRevealed,
  BatchWeightItemFailed,
  BatchCompletedWithErrors,
  BatchWeightsCompleted,
};

struct WeightEvent {
  WeightEventKind kind{};
  std::uint16_t index = 0;  // mechanism_index; netuid in BatchWeightItemFailed
  std::uint16_t uid = 0;    // WeightsSet
  AccountId who{};
  std::vector<Digest> hashes;  // of the commit; of all of them in WeightsBatchRevealed
  std::uint64_t round = 0;     // TimelockedWeightsCommitted
  std::optional<LedgerError> error;
};
using WeightEvents = std::vector<WeightEvent>;

struct WeightVector {
  std::vector<std::uint16_t> uids;
  std::vector<std::uint16_t> values;
  std::uint64_t version_key = 0;
};

struct WeightReveal {
  WeightVector weights;
  std::vector<std::uint16_t> salt;
};

// The call of a subnet without commit-reveal.
Outcome<Done> set_weights(const WeightFacts& facts, WeightSlot slot, const AccountId& who,
                          const WeightVector& weights, WeightEvents& events);

// BLAKE2b-256 over SCALE(account, index, uids, values, salt, version key).
Digest commit_hash(const AccountId& who, std::uint16_t index, const WeightReveal& reveal);

Outcome<Done> commit_weights(const WeightFacts& facts, WeightSlot slot, const AccountId& who,
                             const Digest& hash, WeightEvents& events);
Outcome<Done> reveal_weights(const WeightFacts& facts, WeightSlot slot, const AccountId& who,
                             const WeightReveal& reveal, WeightEvents& events);
// All or none.
Outcome<Done> batch_reveal_weights(const WeightFacts& facts, WeightSlot slot, const AccountId& who,
                                   std::span<const WeightReveal> reveals, WeightEvents& events);

// `sealed` is at most kTimelockedBytesMax long (else Error{message_too_large}); last_round is the
// newest stored round of the beacon.
Outcome<Done> commit_timelocked_weights(const WeightFacts& facts, WeightSlot slot,
                                        const AccountId& who, Bytes sealed, Bytes plaintext,
                                        std::uint64_t round, std::uint16_t version,
                                        std::uint64_t last_round, WeightEvents& events);

// What is due of the sealed commits at this block, before the coinbase. A commit whose pulse is not
// known waits for a later block of the same epoch; one that cannot be read or is refused is dropped
// in silence.
void reveal_timelocked_weights(const WeightFacts& facts, WeightSlot slot,
                               const std::function<bool(std::uint64_t round)>& pulse_known,
                               WeightEvents& events);

// SCALE of what is sealed: account, uids, values, version key.
Bytes timelocked_plaintext(const AccountId& who, const WeightVector& weights);

// batch_set_weights and batch_commit_weights: every item runs alone, failures become events and the
// call succeeds.
struct BatchItem {
  std::uint16_t netuid = 0;
  std::function<Outcome<Done>(WeightEvents&)> run;
};
Outcome<Done> run_weight_batch(std::size_t netuids, std::size_t payloads,
                               std::span<const BatchItem> items, WeightEvents& events);

// The block of `who`'s oldest commit that can still be revealed, or kNoCommit:
// MechanismInput::first_commit.
std::uint64_t first_open_commit(const WeightFacts& facts, const WeightCommits& commits,
                                const AccountId& who);

// Refusals before dispatch, with the chain's code of InvalidTransaction::Custom.
enum class ValidityError : std::uint8_t {
  StakeAmountTooLow = 1,
  RateLimitExceeded = 6,
  InvalidRevealRound = 15,
  CommitNotFound = 16,
  CommitBlockNotInRevealRange = 17,
  InputLengthsUnequal = 18,
};
std::optional<ValidityError> validity_of_set(const WeightFacts& facts, const WeightSlot& slot,
                                             const AccountId& who);
std::optional<ValidityError> validity_of_commit(const WeightFacts& facts, const WeightSlot& slot,
                                                const AccountId& who);
std::optional<ValidityError> validity_of_reveal(const WeightFacts& facts, const WeightSlot& slot,
                                                const AccountId& who, const WeightReveal& reveal);

// The single checks, as the chain's own tests call them.
bool is_self_weight(std::uint16_t uid, std::span<const std::uint16_t> uids,
                    std::span<const std::uint16_t> values);
bool has_enough_weights(std::uint16_t n, std::uint16_t min_allowed, std::uint16_t uid,
                        std::span<const std::uint16_t> uids, std::span<const std::uint16_t> values);
bool is_within_weight_limit(std::uint16_t limit, std::uint16_t uid,
                            std::span<const std::uint16_t> uids,
                            std::span<const std::uint16_t> values);
// Scaled so that the largest is 65535; what is stored.
std::vector<std::uint16_t> upscale_weights(std::span<const std::uint16_t> values);

}  // namespace yumoe::ledger

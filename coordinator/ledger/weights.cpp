#include "coordinator/weights.hpp"

#include <algorithm>
#include <bitset>

#include "cluster/error.hpp"
#include "ledger/weight_scale.hpp"

namespace yumoe::ledger {
namespace {

WeightEvent& add_event(WeightEvents& events, WeightEventKind kind, std::uint16_t index,
                       const AccountId& who) {
  WeightEvent& event = events.emplace_back();
  event.kind = kind;
  event.index = index;
  event.who = who;
  return event;
}

std::optional<std::uint16_t> uid_of(const WeightFacts& facts, const AccountId& who) {
  const auto at = std::find(facts.hotkeys.begin(), facts.hotkeys.end(), who);
  if (at == facts.hotkeys.end()) return std::nullopt;
  return static_cast<std::uint16_t>(at - facts.hotkeys.begin());
}

std::uint16_t index_of(const WeightFacts& facts) {
  return mechanism_index(facts.netuid, facts.mechanism);
}

bool is_owner(const WeightFacts& facts, const AccountId& who) {
  return facts.owner_hotkey && *facts.owner_hotkey == who;
}

// The owner may set weights with any stake.
bool has_stake(const WeightFacts& facts, const AccountId& who, std::optional<std::uint16_t> uid) {
  if (is_owner(facts, who)) return true;
  const I64F64 stake = uid ? facts.stake[*uid] : I64F64::zero();
  return stake >= I64F64::from_integer(facts.stake_threshold);
}

bool is_rate_limited(const WeightFacts& facts, const WeightSlot& slot, std::uint16_t uid) {
  const std::uint64_t last = uid < slot.last_update.size() ? slot.last_update[uid] : 0;
  if (last == 0) return false;
  return (facts.block > last ? facts.block - last : 0) < facts.rate_limit;
}

bool has_duplicates(std::span<const std::uint16_t> uids) {
  std::bitset<65536> seen;
  for (const std::uint16_t uid : uids) {
    if (seen[uid]) return true;
    seen[uid] = true;
  }
  return false;
}

// Section 7.1 after the outer guard, in its order.
std::optional<LedgerError> refusal_of(const WeightFacts& facts, const WeightSlot& slot,
                                      const AccountId& who, const WeightVector& w) {
  const std::size_t n = facts.hotkeys.size();
  if (facts.netuid == 0) return LedgerError::CanNotSetRootNetworkWeights;
  if (w.uids.size() != w.values.size()) return LedgerError::WeightVecNotEqualSize;
  if (!facts.exists) return LedgerError::MechanismDoesNotExist;
  if (w.uids.size() > n) return LedgerError::UidsLengthExceedUidsInSubNet;
  const auto uid = uid_of(facts, who);
  if (!uid) return LedgerError::HotKeyNotRegisteredInSubNet;
  if (!has_stake(facts, who, uid)) return LedgerError::NotEnoughStakeToSetWeights;
  if (facts.version_key != 0 && w.version_key < facts.version_key)
    return LedgerError::IncorrectWeightVersionKey;
  if (!facts.commit_reveal && is_rate_limited(facts, slot, *uid))
    return LedgerError::SettingWeightsTooFast;
  const bool may =
      is_self_weight(*uid, w.uids, w.values) || is_owner(facts, who) || facts.permit[*uid] != 0;
  if (!may) return LedgerError::NeuronNoValidatorPermit;
  if (has_duplicates(w.uids)) return LedgerError::DuplicateUids;
  if (std::any_of(w.uids.begin(), w.uids.end(), [&](std::uint16_t u) { return u >= n; })) {
    return LedgerError::UidVecContainInvalidOne;
  }
  if (!has_enough_weights(static_cast<std::uint16_t>(n), facts.min_allowed_weights, *uid, w.uids,
                          w.values)) {
    return LedgerError::WeightVecLengthIsLow;
  }
  if (!is_within_weight_limit(facts.max_weights_limit, *uid, w.uids, w.values))
    return LedgerError::MaxWeightExceeded;
  return std::nullopt;
}

void check_facts(const WeightFacts& facts, const WeightSlot& slot) {
  const std::size_t n = facts.hotkeys.size();
  YUMOE_ASSERT(facts.stake.size() == n && facts.permit.size() == n && slot.weights.size() == n &&
               slot.last_update.size() == n);
}

Outcome<Done> store_weights(const WeightFacts& facts, WeightSlot slot, const AccountId& who,
                            const WeightVector& w, WeightEvents& events) {
  check_facts(facts, slot);
  if (const auto refusal = refusal_of(facts, slot, who, w)) return *refusal;
  const std::uint16_t uid = *uid_of(facts, who);
  const std::vector<std::uint16_t> scaled = upscale_weights(w.values);
  Row row;
  for (std::size_t k = 0; k < scaled.size(); ++k) row.push_back({w.uids[k], scaled[k]});
  slot.weights[uid] = std::move(row);
  if (!facts.commit_reveal) slot.last_update[uid] = facts.block;
  add_event(events, WeightEventKind::WeightsSet, index_of(facts), who).uid = uid;
  return Done{};
}

bool is_expired(const WeightFacts& facts, std::uint64_t commit_epoch) {
  return facts.epoch > commit_epoch && facts.epoch - commit_epoch > facts.reveal_period;
}
bool is_in_window(const WeightFacts& facts, std::uint64_t commit_epoch) {
  return facts.epoch >= commit_epoch && facts.epoch - commit_epoch == facts.reveal_period;
}

std::deque<HashCommit> open_commits(const WeightFacts& facts, const std::deque<HashCommit>& all) {
  std::deque<HashCommit> open = all;
  while (!open.empty() && is_expired(facts, open.front().epoch)) open.pop_front();
  return open;
}

// The refusals that both kinds of commit share, before they look at their queues.
std::optional<LedgerError> refusal_of_commit(const WeightFacts& facts, const WeightSlot& slot,
                                             const AccountId& who) {
  const auto uid = uid_of(facts, who);
  if (!uid) return LedgerError::HotKeyNotRegisteredInSubNet;
  if (is_rate_limited(facts, slot, *uid)) return LedgerError::CommittingWeightsTooFast;
  return std::nullopt;
}

// Where the revealed hash stands among the open commits, or why it may not be revealed.
Outcome<std::size_t> find_commit(const WeightFacts& facts, const std::deque<HashCommit>& all,
                                 const std::deque<HashCommit>& open, const Digest& hash) {
  const auto named = [&](const HashCommit& c) { return c.hash == hash; };
  const auto expired_end = all.begin() + static_cast<std::ptrdiff_t>(all.size() - open.size());
  const bool was_expired = std::any_of(all.begin(), expired_end, named);
  if (open.empty())
    return was_expired ? LedgerError::ExpiredWeightCommit : LedgerError::NoWeightsCommitFound;
  const auto at = std::find_if(open.begin(), open.end(), named);
  if (at == open.end()) {
    return was_expired ? LedgerError::ExpiredWeightCommit
                       : LedgerError::InvalidRevealCommitHashNotMatch;
  }
  if (!is_in_window(facts, at->epoch)) return LedgerError::RevealTooEarly;
  return static_cast<std::size_t>(at - open.begin());
}

void keep_queue(WeightCommits& commits, const AccountId& who, std::deque<HashCommit> queue) {
  if (queue.empty()) {
    commits.hashed.erase(who);
  } else {
    commits.hashed[who] = std::move(queue);
  }
}

// Plaintext with the account first; the older form without it is still accepted.
std::optional<WeightVector> readable(const TimelockedCommit& commit) {
  ScaleReader reader(commit.plaintext);
  const auto account = reader.bytes();
  auto weights = account && account->size() == commit.who.size() ? reader.weights() : std::nullopt;
  if (account && weights) {
    if (!std::equal(account->begin(), account->end(), commit.who.begin())) return std::nullopt;
    return weights;
  }
  ScaleReader older(commit.plaintext);
  return older.weights();
}

}  // namespace

bool is_self_weight(std::uint16_t uid, std::span<const std::uint16_t> uids,
                    std::span<const std::uint16_t> values) {
  return values.size() == 1 && uids.size() == 1 && uids.front() == uid;
}

bool has_enough_weights(std::uint16_t n, std::uint16_t min_allowed, std::uint16_t uid,
                        std::span<const std::uint16_t> uids,
                        std::span<const std::uint16_t> values) {
  return is_self_weight(uid, uids, values) || values.size() >= std::min(n, min_allowed);
}

bool is_within_weight_limit(std::uint16_t limit, std::uint16_t uid,
                            std::span<const std::uint16_t> uids,
                            std::span<const std::uint16_t> values) {
  if (limit == 65535 || is_self_weight(uid, uids, values)) return true;
  std::vector<I32F32> shares;
  I32F32 sum;
  for (const std::uint16_t v : upscale_weights(values)) {
    shares.push_back(I32F32::from_integer(v));
    sum += shares.back();
  }
  const I32F32 most =
      shares.empty() ? I32F32::zero() : *std::max_element(shares.begin(), shares.end());
  return (sum == I32F32::zero() ? most : most.safe_div(sum)) <= share_of_u16(limit);
}

std::vector<std::uint16_t> upscale_weights(std::span<const std::uint16_t> values) {
  std::vector<I32F32> numbers;
  for (const std::uint16_t v : values) numbers.push_back(I32F32::from_integer(v));
  return upscale_to_u16(numbers);
}

Outcome<Done> set_weights(const WeightFacts& facts, WeightSlot slot, const AccountId& who,
                          const WeightVector& weights, WeightEvents& events) {
  if (facts.commit_reveal) return LedgerError::CommitRevealEnabled;
  return store_weights(facts, slot, who, weights, events);
}

Digest commit_hash(const AccountId& who, std::uint16_t index, const WeightReveal& reveal) {
  ScaleWriter writer;
  writer.raw(who)
      .u16(index)
      .list(reveal.weights.uids)
      .list(reveal.weights.values)
      .list(reveal.salt);
  writer.u64(reveal.weights.version_key);
  return digest_of(writer.bytes());
}

Outcome<Done> commit_weights(const WeightFacts& facts, WeightSlot slot, const AccountId& who,
                             const Digest& hash, WeightEvents& events) {
  check_facts(facts, slot);
  if (!facts.exists) return LedgerError::MechanismDoesNotExist;
  if (!facts.commit_reveal) return LedgerError::CommitRevealDisabled;
  if (const auto refusal = refusal_of_commit(facts, slot, who)) return *refusal;
  const auto stored = slot.commits.hashed.find(who);
  auto queue = open_commits(
      facts, stored == slot.commits.hashed.end() ? std::deque<HashCommit>() : stored->second);
  if (queue.size() >= kOpenCommitsMax) return LedgerError::TooManyUnrevealedCommits;
  queue.push_back({hash, facts.epoch, facts.block});
  keep_queue(slot.commits, who, std::move(queue));
  slot.last_update[*uid_of(facts, who)] = facts.block;
  add_event(events, WeightEventKind::WeightsCommitted, index_of(facts), who).hashes = {hash};
  return Done{};
}

Outcome<Done> reveal_weights(const WeightFacts& facts, WeightSlot slot, const AccountId& who,
                             const WeightReveal& reveal, WeightEvents& events) {
  if (!facts.commit_reveal) return LedgerError::CommitRevealDisabled;
  const auto stored = slot.commits.hashed.find(who);
  if (stored == slot.commits.hashed.end()) return LedgerError::NoWeightsCommitFound;
  auto open = open_commits(facts, stored->second);
  const Digest hash = commit_hash(who, index_of(facts), reveal);
  const auto at = find_commit(facts, stored->second, open, hash);
  if (!at) return at.error();
  const auto set = store_weights(facts, slot, who, reveal.weights, events);
  if (!set) return set;
  open.erase(open.begin(), open.begin() + static_cast<std::ptrdiff_t>(*at + 1));
  keep_queue(slot.commits, who, std::move(open));
  add_event(events, WeightEventKind::WeightsRevealed, index_of(facts), who).hashes = {hash};
  return Done{};
}

Outcome<Done> batch_reveal_weights(const WeightFacts& facts, WeightSlot slot, const AccountId& who,
                                   std::span<const WeightReveal> reveals, WeightEvents& events) {
  if (!facts.commit_reveal) return LedgerError::CommitRevealDisabled;
  const auto stored = slot.commits.hashed.find(who);
  if (stored == slot.commits.hashed.end()) return LedgerError::NoWeightsCommitFound;
  auto open = open_commits(facts, stored->second);
  std::vector<Digest> hashes;
  for (const WeightReveal& reveal : reveals) {
    hashes.push_back(commit_hash(who, index_of(facts), reveal));
    const auto at = find_commit(facts, stored->second, open, hashes.back());
    if (!at) return at.error();
  }
  // Applied on copies of the two things a set changes, so that a late refusal leaves nothing
  // behind.
  std::vector<Row> weights = slot.weights;
  WeightEvents news;
  for (std::size_t k = 0; k < reveals.size(); ++k) {
    const auto at = std::find_if(open.begin(), open.end(),
                                 [&](const HashCommit& c) { return c.hash == hashes[k]; });
    if (at == open.end()) return LedgerError::InvalidRevealCommitHashNotMatch;
    open.erase(at);
    const auto set = store_weights(facts, {weights, slot.last_update, slot.commits}, who,
                                   reveals[k].weights, news);
    if (!set) return set;
  }
  slot.weights = std::move(weights);
  keep_queue(slot.commits, who, std::move(open));
  events.insert(events.end(), news.begin(), news.end());
  add_event(events, WeightEventKind::WeightsBatchRevealed, facts.netuid, who).hashes = hashes;
  return Done{};
}

Outcome<Done> commit_timelocked_weights(const WeightFacts& facts, WeightSlot slot,
                                        const AccountId& who, Bytes sealed, Bytes plaintext,
                                        std::uint64_t round, std::uint16_t version,
                                        std::uint64_t last_round, WeightEvents& events) {
  check_facts(facts, slot);
  if (sealed.size() > kTimelockedBytesMax || plaintext.size() > kTimelockedBytesMax) {
    throw Error(ErrorCode::message_too_large,
                "committing timelocked weights: at most 5000 bytes are stored");
  }
  if (round < last_round) return LedgerError::InvalidRevealRound;
  if (!facts.exists) return LedgerError::MechanismDoesNotExist;
  if (!facts.commit_reveal) return LedgerError::CommitRevealDisabled;
  if (version != kCommitRevealVersion) return LedgerError::IncorrectCommitRevealVersion;
  if (const auto refusal = refusal_of_commit(facts, slot, who)) return *refusal;
  std::vector<TimelockedCommit>& of_epoch = slot.commits.sealed[facts.epoch];
  const auto own =
      std::count_if(of_epoch.begin(), of_epoch.end(), [&](const auto& c) { return c.who == who; });
  if (static_cast<std::size_t>(own) >= kOpenCommitsMax)
    return LedgerError::TooManyUnrevealedCommits;
  const Digest digest = digest_of(sealed);
  of_epoch.push_back({who, facts.block, std::move(sealed), std::move(plaintext), round});
  slot.last_update[*uid_of(facts, who)] = facts.block;
  WeightEvent& event =
      add_event(events, WeightEventKind::TimelockedWeightsCommitted, index_of(facts), who);
  event.hashes = {digest};
  event.round = round;
  return Done{};
}

void reveal_timelocked_weights(const WeightFacts& facts, WeightSlot slot,
                               const std::function<bool(std::uint64_t round)>& pulse_known,
                               WeightEvents& events) {
  auto& sealed = slot.commits.sealed;
  const std::uint64_t due =
      facts.epoch > facts.reveal_period ? facts.epoch - facts.reveal_period : 0;
  sealed.erase(sealed.begin(), sealed.lower_bound(due));
  if (facts.epoch < facts.reveal_period) return;
  const auto at = sealed.find(due);
  if (at == sealed.end()) return;
  std::vector<TimelockedCommit> waiting;
  for (TimelockedCommit& commit : at->second) {
    if (!pulse_known(commit.round)) {
      waiting.push_back(std::move(commit));
      continue;
    }
    const auto weights = readable(commit);
    if (!weights || !store_weights(facts, slot, commit.who, *weights, events)) continue;
    add_event(events, WeightEventKind::TimelockedWeightsRevealed, index_of(facts), commit.who);
  }
  at->second = std::move(waiting);
  if (at->second.empty()) sealed.erase(at);
}

Bytes timelocked_plaintext(const AccountId& who, const WeightVector& weights) {
  ScaleWriter writer;
  writer.compact(who.size())
      .raw(who)
      .list(weights.uids)
      .list(weights.values)
      .u64(weights.version_key);
  return writer.bytes();
}

Outcome<Done> run_weight_batch(std::size_t netuids, std::size_t payloads,
                               std::span<const BatchItem> items, WeightEvents& events) {
  if (netuids != payloads) return LedgerError::InputLengthsUnequal;
  bool failed = false;
  for (const BatchItem& item : items) {
    const auto done = item.run(events);
    if (done) continue;
    if (!failed) add_event(events, WeightEventKind::BatchCompletedWithErrors, 0, {});
    failed = true;
    add_event(events, WeightEventKind::BatchWeightItemFailed, item.netuid, {}).error = done.error();
  }
  add_event(events, WeightEventKind::BatchWeightsCompleted, 0, {});
  return Done{};
}

std::uint64_t first_open_commit(const WeightFacts& facts, const WeightCommits& commits,
                                const AccountId& who) {
  std::uint64_t first = kNoCommit;
  const auto hashed = commits.hashed.find(who);
  if (hashed != commits.hashed.end()) {
    const auto open = open_commits(facts, hashed->second);
    if (!open.empty()) first = open.front().block;
  }
  for (const auto& [epoch, sealed] : commits.sealed) {
    if (is_expired(facts, epoch)) continue;
    for (const TimelockedCommit& commit : sealed) {
      if (commit.who == who) first = std::min(first, commit.block);
    }
  }
  return first;
}

std::optional<ValidityError> validity_of_set(const WeightFacts& facts, const WeightSlot& slot,
                                             const AccountId& who) {
  const auto uid = uid_of(facts, who);
  if (!has_stake(facts, who, uid)) return ValidityError::StakeAmountTooLow;
  if (uid && is_rate_limited(facts, slot, *uid)) return ValidityError::RateLimitExceeded;
  return std::nullopt;
}

std::optional<ValidityError> validity_of_commit(const WeightFacts& facts, const WeightSlot& slot,
                                                const AccountId& who) {
  return validity_of_set(facts, slot, who);
}

std::optional<ValidityError> validity_of_reveal(const WeightFacts& facts, const WeightSlot& slot,
                                                const AccountId& who, const WeightReveal& reveal) {
  if (!has_stake(facts, who, uid_of(facts, who))) return ValidityError::StakeAmountTooLow;
  const auto stored = slot.commits.hashed.find(who);
  if (stored == slot.commits.hashed.end()) return ValidityError::CommitNotFound;
  const Digest hash = commit_hash(who, index_of(facts), reveal);
  const auto at = std::find_if(stored->second.begin(), stored->second.end(),
                               [&](const HashCommit& c) { return c.hash == hash; });
  if (at == stored->second.end()) return ValidityError::CommitNotFound;
  if (!is_in_window(facts, at->epoch)) return ValidityError::CommitBlockNotInRevealRange;
  return std::nullopt;
}

}  // namespace yumoe::ledger

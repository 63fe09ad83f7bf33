#include "coordinator/settlement.hpp"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>

#include "cluster/error.hpp"

namespace yumoe::settlement {
namespace {

using nlohmann::json;

// ---- journal entries: JSON, one object an entry -------------------------------------------------

json json_of(const PublicKey& key) {
  return {{"type", static_cast<int>(key.type)}, {"key", to_hex(key.bytes)}};
}

json json_of(const Intent& intent) {
  return {{"id", intent.id},
          {"signer", json_of(intent.signer)},
          {"pallet", intent.pallet},
          {"call", intent.call},
          {"arguments", intent.arguments},
          {"effect_event", intent.effect_event},
          {"earliest", intent.earliest},
          {"latest", intent.latest},
          {"pause_blocks", intent.pause_blocks},
          {"after", intent.after},
          {"note", intent.note}};
}

json json_of(const Attempt& attempt) {
  return {{"number", attempt.number},
          {"nonce", attempt.nonce},
          {"birth", attempt.birth},
          {"period", attempt.period},
          {"checkpoint", attempt.checkpoint.hex()},
          {"spec_version", attempt.spec_version},
          {"hash", attempt.hash.hex()},
          {"extrinsic", to_hex(attempt.extrinsic)}};
}

json json_of(const Outcome& outcome) {
  return {{"effected", outcome.effected},
          {"reason", outcome.reason},
          {"advice", outcome.advice},
          {"block", outcome.block},
          {"block_hash", outcome.block_hash.hex()},
          {"extrinsic_index", outcome.extrinsic_index},
          {"events", outcome.events}};
}

Bytes entry_of(const json& entry) {
  const std::string text = entry.dump(-1, ' ', false, json::error_handler_t::replace);
  return Bytes(text.begin(), text.end());
}

template <std::size_t kSize>
void read_hex(const json& value, std::array<std::uint8_t, kSize>& out) {
  const Bytes bytes = from_hex(value.get<std::string>());
  if (bytes.size() != kSize) throw Error(ErrorCode::message_malformed, "wrong length");
  std::copy(bytes.begin(), bytes.end(), out.begin());
}

PublicKey key_from(const json& value) {
  PublicKey key;
  key.type = value.at("type").get<int>() == 0 ? KeyType::ed25519 : KeyType::sr25519;
  read_hex(value.at("key"), key.bytes);
  return key;
}

Intent intent_from(const json& value) {
  Intent intent;
  intent.id = value.at("id");
  intent.signer = key_from(value.at("signer"));
  intent.pallet = value.at("pallet");
  intent.call = value.at("call");
  intent.arguments = value.at("arguments");
  intent.effect_event = value.at("effect_event");
  intent.earliest = value.at("earliest");
  intent.latest = value.at("latest");
  intent.pause_blocks = value.at("pause_blocks");
  intent.after = value.at("after");
  intent.note = value.at("note");
  return intent;
}

Attempt attempt_from(const json& value) {
  Attempt attempt;
  attempt.number = value.at("number");
  attempt.nonce = value.at("nonce");
  attempt.birth = value.at("birth");
  attempt.period = value.at("period");
  read_hex(value.at("checkpoint"), attempt.checkpoint.bytes);
  attempt.spec_version = value.at("spec_version");
  read_hex(value.at("hash"), attempt.hash.bytes);
  attempt.extrinsic = from_hex(value.at("extrinsic").get<std::string>());
  return attempt;
}

Outcome outcome_from(const json& value) {
  Outcome outcome;
  outcome.effected = value.at("effected");
  outcome.reason = value.at("reason");
  outcome.advice = value.at("advice");
  outcome.block = value.at("block");
  read_hex(value.at("block_hash"), outcome.block_hash.bytes);
  outcome.extrinsic_index = value.at("extrinsic_index");
  outcome.events = value.at("events");
  return outcome;
}

[[noreturn]] void corrupt(const std::string& what) {
  throw Error(ErrorCode::journal_corrupt, "settlement entry " + what);
}

std::uint32_t last_death(const std::vector<Attempt>& attempts) {
  std::uint32_t death = 0;
  for (const Attempt& attempt : attempts) death = std::max(death, attempt.death());
  return death;
}

Outcome refusal(const std::string& reason, std::string_view advice) {
  Outcome outcome;
  outcome.reason = reason;
  outcome.advice = advice;
  return outcome;
}

}  // namespace

SettlementMachine::SettlementMachine(SettlementOptions options) : options_(options) {}

SettlementMachine SettlementMachine::recover(SettlementOptions options,
                                             std::span<const Bytes> entries) {
  SettlementMachine machine(options);
  for (const Bytes& entry : entries) machine.apply(entry);
  for (Item& item : machine.items_) {
    if (item.phase == Phase::done || item.live.empty()) continue;
    // Recorded and not concluded: it may have been sent just before the crash.
    item.phase = Phase::flying;
    item.maybe_in_pool = true;
    item.wants_send = true;
  }
  return machine;
}

void SettlementMachine::apply(ByteView entry) {
  try {
    const json value = json::parse(entry.begin(), entry.end());
    const std::string kind = value.at("entry");
    if (kind == "chain") {
      Digest genesis;
      read_hex(value.at("genesis"), genesis.bytes);
      if (chain_) corrupt("names a second chain");
      chain_ = genesis;
      return;
    }
    if (kind == "intent") {
      Item item;
      item.intent = intent_from(value.at("intent"));
      if (!places_.emplace(item.intent.id, items_.size()).second) corrupt("adds an intent twice");
      items_.push_back(std::move(item));
      return;
    }
    Item* item = find(value.at("intent"));
    if (!item || item->phase == Phase::done) corrupt("names no open intent");
    if (kind == "attempt") {
      Attempt attempt = attempt_from(value.at("attempt"));
      if (!item->live.empty() && item->live.front().nonce != attempt.nonce) {
        corrupt("has a second nonce beside one that is not let go");
      }
      if (item->live.empty()) item->next_to_read = attempt.birth + 1;
      item->attempts_made = attempt.number;
      item->live.push_back(std::move(attempt));
    } else if (kind == "let_go") {
      item->live.clear();
      ++item->tries;
      item->not_before = value.at("not_before");
      item->problem = value.at("why");
    } else if (kind == "outcome") {
      item->outcome = outcome_from(value.at("outcome"));
      item->phase = Phase::done;
      item->live.clear();
    } else {
      corrupt("is of an unknown kind");
    }
  } catch (const json::exception& error) {
    corrupt(error.what());
  } catch (const Error& error) {
    if (error.code() == ErrorCode::journal_corrupt) throw;
    corrupt(error.what());
  }
}

std::vector<SettlementAction> SettlementMachine::step(const SettlementEvent& event) {
  std::visit([this](const auto& e) { on(e); }, event);
  advance_all();
  return std::exchange(out_, {});
}

// ---- events -------------------------------------------------------------------------------------

void SettlementMachine::on(const ChainSeen& event) {
  YUMOE_ASSERT(!chain_ || *chain_ == event.genesis);
  if (chain_) return;
  chain_ = event.genesis;
  out_.push_back(Record{entry_of({{"entry", "chain"}, {"genesis", event.genesis.hex()}})});
}

void SettlementMachine::on(const IntentAdded& event) {
  if (!places_.emplace(event.intent.id, items_.size()).second) return;
  Item item;
  item.intent = event.intent;
  items_.push_back(std::move(item));
  out_.push_back(Record{entry_of({{"entry", "intent"}, {"intent", json_of(event.intent)}})});
}

void SettlementMachine::on(const HeadSeen& event) {
  if (head_ && event.number <= head_->number && !event.rewound) return;
  if (event.rewound) unread(event.number);
  if (head_ && event.spec_version != head_->spec_version) out_.push_back(RefreshRuntime{});
  head_ = event;
  for (Item& item : items_) item.reading = false;  // an unreadable block is asked again
}

// No outcome is taken back; nothing that was read of what is still open counts.
void SettlementMachine::unread(std::uint32_t number) {
  for (Item& item : items_) {
    item.not_before = std::min(item.not_before, number + 1);
    item.sent_at = std::min(item.sent_at, number);
    if (item.phase != Phase::flying) continue;
    item.next_to_read = item.live.front().birth + 1;
    item.nonce_read.reset();
    item.wants_send = true;  // it left the pool with the block that is gone
  }
}

void SettlementMachine::on(const NonceSeen& event) {
  for (Item& item : items_) {
    if (item.phase == Phase::asking && item.intent.signer == event.signer) {
      sign(item, event.nonce);
      return;
    }
  }
}

void SettlementMachine::on(const NonceUnknown& event) {
  for (Item& item : items_) {
    if (item.phase != Phase::asking || item.intent.signer != event.signer) continue;
    item.phase = Phase::waiting;
    item.not_before = std::max(item.not_before, head_->number + 1);
    item.problem = "EndpointDown";
  }
}

void SettlementMachine::on(const Signed& event) {
  Item* item = find(event.intent);
  if (!item || item->phase != Phase::signing || event.attempt != item->attempts_made) return;
  Attempt& attempt = item->live.back();
  attempt.extrinsic = event.extrinsic;
  attempt.hash = event.hash;
  out_.push_back(Record{
      entry_of({{"entry", "attempt"}, {"intent", event.intent}, {"attempt", json_of(attempt)}})});
  out_.push_back(Send{event.intent, attempt});
  item->phase = Phase::sending;
  item->sent_at = head_->number;
}

void SettlementMachine::on(const SigningFailed& event) {
  Item* item = find(event.intent);
  if (!item || item->phase != Phase::signing || event.attempt != item->attempts_made) return;
  item->live.pop_back();
  item->problem = event.why;
  if (event.for_good) {
    // Attempts that were signed before are of a runtime that is gone, and fly() has read every
    // block in which they could have stood.
    finish(*item, refusal(event.why, "check the call against yumoe chain call --dry-run"));
    return;
  }
  item->phase = item->live.empty() ? Phase::waiting : Phase::flying;
  item->not_before = std::max(item->not_before, head_->number + 1);
  item->sent_at = head_->number;
}

void SettlementMachine::on(const Accepted& event) {
  Item* item = find(event.intent, event.attempt, Phase::sending);
  if (!item) return;
  item->phase = Phase::flying;
  item->maybe_in_pool = true;
  item->wants_send = false;
}

void SettlementMachine::on(const SendUnknown& event) {
  Item* item = find(event.intent);
  if (!item || item->live.empty() || item->live.back().number != event.attempt) return;
  if (item->phase == Phase::sending) item->phase = Phase::flying;
  if (item->phase != Phase::flying) return;
  item->maybe_in_pool = true;
  item->wants_send = true;
  item->sent_at = head_->number;  // look into the next finalized block before sending again
}

void SettlementMachine::on(const Refused& event) {
  using Kind = PoolVerdict::Kind;
  Item* item = find(event.intent, event.attempt, Phase::sending);
  if (!item) return;
  item->phase = Phase::flying;
  item->problem = event.verdict.name;
  switch (event.verdict.kind) {
    case Kind::already_imported:
      item->maybe_in_pool = true;
      item->wants_send = false;
      return;
    case Kind::future:
    case Kind::banned:
    case Kind::priority_low:
    case Kind::dropped:
    case Kind::exhausts_resources:
      item->wants_send = true;  // nothing is wrong with it: the pool had no place
      return;
    default: break;
  }
  if (item->maybe_in_pool) {
    item->wants_send = false;  // only the blocks can tell what became of it
    return;
  }
  refuse_clean(*item, event.verdict);
}

// No pool ever took an attempt of this nonce, so the refusal is the whole story.
void SettlementMachine::refuse_clean(Item& item, const PoolVerdict& verdict) {
  using Kind = PoolVerdict::Kind;
  if (verdict.kind == Kind::bad_proof) {
    // A runtime upgrade that is not yet finalized looks like a bad signature: sign once more later.
    constexpr std::uint32_t kUpgradeSettlesBlocks = 4;
    if (++item.bad_proofs > 2) {
      finish(item, refusal(verdict.name, reaction_to(verdict.name).advice));
      return;
    }
    out_.push_back(RefreshRuntime{});
    let_go(item, verdict.name, head_->number + kUpgradeSettlesBlocks);
    return;
  }
  react(item, verdict.name, head_->number, refusal(verdict.name, ""));
}

void SettlementMachine::on(const BlockRead& event) {
  Item* item = find(event.intent);
  if (!item || item->phase != Phase::flying || !item->reading ||
      event.block != item->next_to_read) {
    return;
  }
  item->reading = false;
  if (event.found) {
    take_inclusion(*item, event);
    return;
  }
  ++item->next_to_read;
  item->nonce_read = event.nonce;
}

void SettlementMachine::take_inclusion(Item& item, const BlockRead& event) {
  const Inclusion& found = *event.found;
  Outcome outcome;
  outcome.block = event.block;
  outcome.block_hash = event.block_hash;
  outcome.extrinsic_index = found.extrinsic_index;
  outcome.events = found.events;
  const bool has_effect =
      item.intent.effect_event.empty() ||
      std::ranges::find(found.event_names, item.intent.effect_event) != found.event_names.end();
  if (found.success && has_effect) {
    outcome.effected = true;
    outcome.reason = "effected";
    finish(item, std::move(outcome));
  } else if (found.success) {
    outcome.reason = "EffectMissing";
    outcome.advice = "the call succeeded without " + item.intent.effect_event + ": read its events";
    finish(item, std::move(outcome));
  } else {
    outcome.reason = found.error_name;
    react(item, found.error_name, event.block, std::move(outcome));
  }
}

// The attempt had no effect and cannot have one any more.
void SettlementMachine::react(Item& item, const std::string& error, std::uint32_t block,
                              Outcome outcome) {
  const Reaction reaction = reaction_to(error);
  item.problem = error;
  if (reaction.kind == Reaction::Kind::stop) {
    outcome.advice = reaction.advice;
    finish(item, std::move(outcome));
    return;
  }
  const std::uint32_t pause = reaction.kind == Reaction::Kind::retry ? 1
                              : item.intent.pause_blocks != 0
                                  ? item.intent.pause_blocks
                                  : static_cast<std::uint32_t>(options_.pause_blocks);
  let_go(item, error, block + pause);
}

void SettlementMachine::on(const BlockUnreadable& event) {
  Item* item = find(event.intent);
  if (!item || item->phase != Phase::flying || event.block != item->next_to_read) return;
  item->problem = event.why;  // `reading` stays until the next head, which asks again
}

// ---- what follows -------------------------------------------------------------------------------

void SettlementMachine::advance_all() {
  if (!head_) return;
  // Those in flight first: they may free their signer for one that waits. By index: the vector does
  // not grow here, and a finished item may make another ready.
  for (Item& item : items_) {
    if (item.phase == Phase::flying) fly(item);
  }
  for (Item& item : items_) {
    if (item.phase == Phase::waiting && ready(item)) start(item);
  }
}

bool SettlementMachine::signer_free(const Item& item) const {
  return std::ranges::none_of(items_, [&](const Item& other) {
    return &other != &item && other.phase != Phase::done && other.phase != Phase::waiting &&
           other.intent.signer == item.intent.signer;
  });
}

// Tells whether a waiting intent may start; ends those that never will.
bool SettlementMachine::ready(Item& item) {
  if (!item.intent.after.empty()) {
    const Item* before = find(item.intent.after);
    if (before && before->phase == Phase::done && !before->outcome->effected) {
      finish(item, refusal("DependencyRefused", "see intent " + item.intent.after));
      return false;
    }
    if (!before || before->phase != Phase::done) {
      if (head_->number <= item.intent.latest) return false;
    }
  }
  if (head_->number > item.intent.latest) {
    const std::string last = item.problem.empty() ? "" : " (last: " + item.problem + ")";
    finish(item, refusal("WindowMissed" + last, "its last block passed before it could be sent"));
    return false;
  }
  return head_->number >= std::max(item.intent.earliest, item.not_before) && signer_free(item);
}

void SettlementMachine::start(Item& item) {
  if (item.tries >= static_cast<std::uint32_t>(options_.tries_max)) {
    finish(item, refusal("TriesExhausted (last: " + item.problem + ")",
                         "look at the last error; add the intent under another id to try again"));
    return;
  }
  item.phase = Phase::asking;
  out_.push_back(AskNonce{item.intent.signer});
}

void SettlementMachine::sign(Item& item, std::uint64_t nonce) {
  Attempt attempt;
  attempt.number = ++item.attempts_made;
  attempt.nonce = nonce;
  attempt.birth = head_->number;
  attempt.checkpoint = head_->hash;
  attempt.spec_version = head_->spec_version;
  // Not longer than the window that is left, where that is possible.
  constexpr std::uint32_t kPeriodMin = 4;
  const std::uint32_t left =
      item.intent.latest >= attempt.birth ? item.intent.latest - attempt.birth : 0;
  const auto wanted = std::min(static_cast<std::uint32_t>(options_.era_blocks), left);
  attempt.period = std::max(kPeriodMin, std::bit_floor(wanted));
  if (item.live.empty()) {
    item.next_to_read = attempt.birth + 1;
    item.nonce_read.reset();
    item.maybe_in_pool = false;
    item.wants_send = false;
  }
  item.live.push_back(attempt);
  item.phase = Phase::signing;
  out_.push_back(Sign{item.intent, attempt});
}

// Looks for the attempts in finalized blocks, and only when there is nothing more to read decides
// whether they are over, must be signed for a new runtime, or may be sent again.
void SettlementMachine::fly(Item& item) {
  if (item.reading) return;
  const std::uint32_t death = last_death(item.live);
  const std::uint32_t read_to = std::min(head_->number, death - 1);
  if (item.next_to_read <= read_to) {
    item.reading = true;
    std::vector<Digest> hashes;
    for (const Attempt& attempt : item.live) hashes.push_back(attempt.hash);
    out_.push_back(
        ReadBlock{item.intent.id, item.intent.signer, item.next_to_read, std::move(hashes)});
    return;
  }
  const std::uint64_t nonce = item.live.front().nonce;
  if (item.nonce_read && *item.nonce_read > nonce) {
    let_go(item, "NonceTaken", head_->number);
  } else if (head_->number >= death - 1) {
    let_go(item, "EraExpired", head_->number);
  } else if (item.live.back().spec_version != head_->spec_version) {
    if (head_->number > item.sent_at) sign(item, nonce);
  } else if (item.wants_send && head_->number > item.sent_at) {
    item.wants_send = false;
    item.phase = Phase::sending;
    item.sent_at = head_->number;
    out_.push_back(Send{item.intent.id, item.live.back()});
  }
}

void SettlementMachine::let_go(Item& item, const std::string& why, std::uint32_t not_before) {
  item.live.clear();
  ++item.tries;
  item.not_before = not_before;
  item.problem = why;
  item.phase = Phase::waiting;
  out_.push_back(Record{entry_of({{"entry", "let_go"},
                                  {"intent", item.intent.id},
                                  {"why", why},
                                  {"not_before", not_before}})});
}

void SettlementMachine::finish(Item& item, Outcome outcome) {
  item.live.clear();
  item.phase = Phase::done;
  item.outcome = outcome;
  out_.push_back(Record{
      entry_of({{"entry", "outcome"}, {"intent", item.intent.id}, {"outcome", json_of(outcome)}})});
  out_.push_back(Finished{item.intent.id, std::move(outcome)});
}

// ---- readings -----------------------------------------------------------------------------------

SettlementMachine::Item* SettlementMachine::find(const std::string& intent) {
  const auto place = places_.find(intent);
  return place == places_.end() ? nullptr : &items_[place->second];
}

SettlementMachine::Item* SettlementMachine::find(const std::string& intent, std::uint32_t attempt,
                                                 Phase phase) {
  Item* item = find(intent);
  const bool fits =
      item && item->phase == phase && !item->live.empty() && item->live.back().number == attempt;
  return fits ? item : nullptr;
}

std::vector<IntentStatus> SettlementMachine::status() const {
  std::vector<IntentStatus> all;
  for (const Item& item : items_) {
    IntentStatus status;
    status.intent = item.intent;
    status.problem = item.problem;
    status.attempts = item.live;
    status.not_before = item.not_before;
    status.outcome = item.outcome;
    status.phase = item.phase == Phase::waiting ? "waiting"
                   : item.phase != Phase::done  ? "in flight"
                   : item.outcome->effected     ? "effected"
                                                : "refused";
    all.push_back(std::move(status));
  }
  return all;
}

std::optional<IntentStatus> SettlementMachine::status(const std::string& intent) const {
  for (IntentStatus& status : status()) {
    if (status.intent.id == intent) return status;
  }
  return std::nullopt;
}

bool SettlementMachine::idle() const {
  return std::ranges::all_of(items_, [](const Item& item) { return item.phase == Phase::done; });
}

}  // namespace yumoe::settlement

#include "coordinator/service.hpp"

#include <sodium.h>

#include <cmath>
#include <deque>
#include <limits>
#include <set>

#include "cluster/log.hpp"
#include "cluster/overloaded.hpp"
#include "cluster/random.hpp"
#include "coordinator/checkpoint.hpp"
#include "coordinator/filter.hpp"
#include "coordinator/journal.hpp"
#include "coordinator/replay.hpp"
#include "coordinator/run_ledger.hpp"
#include "service/sessions.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t kRevealsMax = 3;         // of something else than what was committed to
constexpr std::size_t kMessagesPerStep = 256;  // one journal transaction for so many at most

// What a heartbeat said last; lives in memory alone.
struct Pulse {
  TimeMs heard;
  Heartbeat beat;
};

// An event that is applied but not durable yet.
struct Pending {
  TimeMs time;
  std::string kind;
  Bytes payload;
};

// A contribution that passed the filters.
struct Accepted {
  RoundId round;
  Uid uid;
  Digest blob;
};

// A contribution on its way in.
struct Upload {
  RoundId round;
  Bytes bytes;
};

}  // namespace

class Coordinator::Impl {
 public:
  Impl(RunSetup setup, const StoreOptions& store, const TransportOptions& transport_options,
       std::filesystem::path folder, Keypair keys, ServerTransport& transport, Clock& clock)
      : setup_(std::move(setup)),
        layout_(Layout::of(setup_.model)),
        store_(store),
        lease_(transport_options.lease_ms),
        rebeat_(3 * transport_options.heartbeat_interval_ms),
        folder_(std::move(folder)),
        keys_(std::move(keys)),
        transport_(transport),
        clock_(clock),
        sessions_(setup_.run, rate_of(setup_)),
        journal_(open_journal()) {
    recover();
  }

  bool step(milliseconds wait_max) {
    now_ = std::max(now_, clock_.now());
    milliseconds wait = wait_max;
    if (const auto deadline = core_->next_deadline()) {
      wait = std::clamp(*deadline - now_, milliseconds(0), wait_max);
    }
    for (std::size_t i = 0; i < kMessagesPerStep; ++i) {
      const auto received = transport_.receive(i == 0 ? wait : milliseconds(0));
      if (!received) break;
      now_ = std::max(now_, clock_.now());
      handle(*received);
    }
    now_ = std::max(now_, clock_.now());
    if (const auto deadline = core_->next_deadline(); deadline && *deadline <= now_) submit(Tick{});
    expire_leases();
    flush();
    work();
    return !finished_;
  }

  void tell_chain_block(std::uint64_t number, const Keypair& teller) {
    if (finished_ || !ledger_->may_tell(teller.public_key(), number)) return;
    now_ = std::max(now_, clock_.now());
    Called call{teller.public_key(),
                ledger_->next_nonce(teller.public_key()),
                chain_block_call(number),
                {}};
    call.evidence = seal(teller, Nonce{}, 1, now_,
                         encode(ToCoordinator{LedgerCall{setup_.run, call.nonce, call.operation}}));
    submit(call);  // durable with the next step
  }

  bool finished() const { return finished_; }
  const Run& core() const { return *core_; }
  Progress progress() const;

 private:
  static Sessions::Rate rate_of(const RunSetup& setup) {
    const ScoringOptions& options = setup.settings.scoring;
    return {options.messages_per_s, static_cast<double>(options.messages_burst)};
  }

  // --- starting -----------------------------------------------------------------------------------------

  // Which options this process and the record see differently: "run.rounds is 6 there and 8 here".
  std::string differences(const RunSetup& recorded) const {
    std::string found;
    const std::map<std::string, std::string> here(setup_.configuration.begin(),
                                                  setup_.configuration.end());
    for (const auto& [key, there] : recorded.configuration) {
      const auto own = here.find(key);
      if (own != here.end() && own->second == there) continue;
      found += (found.empty() ? "" : ", ") + key + " is " + there + " there and " +
               (own == here.end() ? "not known" : own->second) + " here";
    }
    return found.empty() ? "its token set, or options it does not know" : found;
  }

  Journal open_journal() {
    if (!std::filesystem::exists(folder_ / "journal.sqlite")) {
      return Journal::create(folder_, setup_.run, setup_.journal_metadata());
    }
    const RecoveryReport report = Journal::recover(folder_);
    if (!report.kept_beside.empty()) {
      log_warning("the journal was damaged: records 1 to " + std::to_string(report.last_good) +
                  " are kept; the damaged file is " + report.kept_beside.string());
    }
    Journal journal = Journal::open(folder_);
    RunSetup recorded = RunSetup::from_journal(journal.run(), journal.metadata());
    if (recorded.configuration_digest() != setup_.configuration_digest()) {
      throw Error(
          ErrorCode::config_invalid,
          folder_.string() + " holds run " + recorded.run + " of another shared configuration (" +
              differences(recorded) +
              "): choose another --out, or resume with the configuration it was started with");
    }
    setup_.run = recorded.run;
    setup_.stakes = recorded.stakes;
    sessions_ = Sessions(setup_.run, rate_of(setup_));
    return journal;
  }

  void recover() {
    const FindBlob find_blob = [this](const Digest& digest) { return journal_.blob(digest); };
    auto checkpoint = newest_good_checkpoint(
        checkpoints(),
        [](const CheckpointFile& file, const Error& error) {
          log_warning("passed over checkpoint " + file.path.string() + ": " + error.what());
        },
        journal_.size());
    ledger_ = std::make_unique<RunLedger>(setup_.ledger, setup_.economy);
    std::uint64_t ledger_knows = 0;  // records
    if (checkpoint && !checkpoint->ledger_state.empty()) {
      ledger_->restore(checkpoint->ledger_state);
      ledger_knows = checkpoint->journal_sequence;
    }
    ReplayWatcher watcher;
    watcher.event = [this, ledger_knows](const Record& record, const Event& event,
                                         const Run& core) {
      if (const auto* revealed = std::get_if<Revealed>(&event);
          revealed && revealed->filter.empty()) {
        accepted_.push_back({revealed->round, revealed->uid, revealed->blob});
        while (!accepted_.empty() &&
               accepted_.front().round.value + seen_rounds() <= core.round().value)
          accepted_.pop_front();
      }
      remember(record.time, event, core);
      if (record.sequence > ledger_knows) ledger_->apply(event, core, record.time);
    };
    Replayed replayed = replay(
        layout_, setup_, [this](const auto& visit) { journal_.for_each(1, visit); }, find_blob,
        std::move(checkpoint), watcher);
    core_ = std::move(replayed.core);
    model_ = std::move(replayed.model);
    now_ = std::max(clock_.now(), replayed.last_time);
    for (const Accepted& accepted : accepted_) {
      if (accepted.round.value + seen_rounds() <= core_->round().value) continue;
      const auto bytes = journal_.blob(accepted.blob);
      if (!bytes) continue;  // pruned: too old to be repeated with profit
      const Contribution contribution = decode_contribution(*bytes);
      seen_.add(layout_, contribution, Update(layout_, contribution.update));
    }
    accepted_.clear();
    if (replayed.records == 0) {
      std::uint64_t private_seed;
      randombytes_buf(&private_seed, sizeof private_seed);
      submit(Started{model_->base().digest(), private_seed >> 1});
    } else {
      log_info("resumed run " + setup_.run + " at round " + std::to_string(core_->round().value) +
               " from " + std::to_string(replayed.records) + " records");
      for (const auto& [uid, participant] : core_->participants()) pulses_[uid].heard = now_;
      submit(Resumed{});
    }
    flush();
    // What participants may still fetch by digest is made again from the checkpoint's version.
    if (core_->checkpoint().value > 0) load_checkpoint_state();
  }

  std::uint64_t seen_rounds() const {
    return static_cast<std::uint64_t>(setup_.settings.scoring.duplicate_rounds);
  }

  std::filesystem::path checkpoints() const { return folder_ / "checkpoints"; }

  // A checkpoint that does not read any more is written anew, from the version the replay reached.
  void load_checkpoint_state() {
    const std::filesystem::path path = checkpoint_path(checkpoints(), core_->checkpoint());
    try {
      const Checkpoint c = read_checkpoint(path);
      checkpoint_state_ =
          BaseVersion::from_parts(layout_, c.round, c.parameters, c.gate_bias, c.momentum).encode();
      checkpoint_state_digest_ = digest_of(checkpoint_state_);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::checkpoint_corrupt &&
          error.code() != ErrorCode::file_missing) {
        throw;
      }
      log_warning("write a checkpoint of round " + std::to_string(model_->base().round().value) +
                  " for participants to start from, " + path.string() + " being unusable");
      write_checkpoint_now();
    }
  }

  // --- one message ---------------------------------------------------------------------------------------

  void handle(const Received& received) {
    auto outcome = sessions_.admit(received, now_);
    if (const auto* reply = std::get_if<Sessions::Reply>(&outcome)) {
      say(received.peer, reply->content);
    } else if (const auto* flood = std::get_if<Sessions::Flood>(&outcome)) {
      // On the record, as every verdict. It may come back when it is listened to again.
      if (!flood->uid || !core_->participants().at(*flood->uid).active) return;
      submit(Left{*flood->uid, "rate: " + flood->evidence});
      uploads_.erase(*flood->uid);
    } else if (const auto* message = std::get_if<Sessions::Message>(&outcome)) {
      const std::size_t frames = received.frames[0].size() + message->payload.size();
      std::visit([&](const auto& content) { on(received, *message, content, frames); },
                 message->content);
    }
  }

  void on(const Received&, const Sessions::Message&, const Hello&, std::size_t) {}

  void on(const Received& received, const Sessions::Message& message, const Join& join,
          std::size_t) {
    const PublicKey& hotkey = message.envelope.sender;
    if (const auto uid = core_->uid_of(hotkey)) {
      const Peer* other = sessions_.peer_of(*uid);
      const Sessions::Session* session = other == nullptr ? nullptr : sessions_.find(*other);
      if (session != nullptr && *other != received.peer && now_ - session->last_heard < rebeat_) {
        refuse(received.peer, ErrorCode::peer_refused,
               "another process speaks for hotkey " + to_ss58(hotkey) +
                   " right now: stop it, or use another hotkey");
        return;
      }
    }
    message.session->join = join;
    rejoin(received.peer, *message.session, true);
  }

  // Makes a participant active, again if need be.
  void rejoin(const Peer& peer, Sessions::Session& session, bool welcome) {
    Joined joined{*session.hotkey, session.join.role, session.join.name, session.join.profile, 0};
    joined.profile.tier = setup_.granted_tier(*session.hotkey, joined.profile.tier);
    if (joined.role == Role::validator) {
      const auto stake = setup_.stakes.find(to_ss58(joined.hotkey));
      joined.stake = stake == setup_.stakes.end() ? 0 : stake->second;
      if (joined.stake == 0) {
        log_warning("validator " + session.join.name +
                    " has no stake in this run, so its measurements pay " +
                    "nobody: give it one before the run starts, [[validator]] address = \"" +
                    to_ss58(joined.hotkey) + "\"");
      }
    }
    if (const auto refused = core_->refusal_of(joined, now_)) {
      refuse(peer, refused->code, refused->message);
      return;
    }
    submit(joined);
    const Uid uid = *core_->uid_of(joined.hotkey);
    sessions_.bind(peer, uid);
    pulses_[uid].heard = now_;
    if (!welcome) return;
    Welcome reply;
    reply.uid = uid;
    reply.run = setup_.run;
    reply.coordinator = keys_.public_key();
    reply.configuration = setup_.configuration;
    reply.configuration_digest = setup_.configuration_digest();
    reply.token_set = setup_.token_set;
    // Each validator draws its own: one that copies another's answers differs from what it would see itself.
    reply.private_seed = joined.role == Role::validator
                             ? derive_seed("validator's draw", {core_->private_seed(), uid.value})
                             : 0;
    later(peer, reply);
  }

  void on(const Received& received, const Sessions::Message& message, const Heartbeat& beat,
          std::size_t) {
    const auto uid = joined_uid(received, message);
    if (!uid) return;
    pulses_[*uid] = {now_, beat};
    if (!core_->participants().at(*uid).active) rejoin(received.peer, *message.session, false);
    if (beat.directive < core_->participants().at(*uid).directive_sequence || finished_) {
      dirty_.insert(*uid);
    }
  }

  void on(const Received& received, const Sessions::Message& message, const Commit& commit,
          std::size_t) {
    const auto uid = joined_uid(received, message);
    if (!uid) return;
    const Committed event{*uid, commit.round, commit.digest, commit.bytes, received.frames[0]};
    if (!submit_or_refuse(received.peer, *uid, event)) return;
    receipt(received.peer, message.envelope.sender, ReceiptKind::commit, commit.round,
            commit.digest);
  }

  void on(const Received& received, const Sessions::Message& message, const RevealPiece& piece,
          std::size_t frames) {
    const auto uid = joined_uid(received, message);
    if (!uid) return;
    update_bytes_up_ += frames;
    const RoundState* round = core_->round_state(piece.round);
    const auto shard = round == nullptr ? nullptr : find(round->shards, *uid);
    if (shard == nullptr || shard->answer != Answer::committed) {
      dirty_.insert(*uid);  // it is told where its contribution stands
      return;
    }
    Upload& upload = uploads_[*uid];
    if (piece.offset == 0) upload = {piece.round, {}};
    if (upload.round != piece.round || piece.offset != upload.bytes.size()) return;
    if (upload.bytes.size() + message.payload.size() > shard->bytes) {
      refuse(received.peer, ErrorCode::message_too_large, "more bytes than were committed to");
      uploads_.erase(*uid);
      return;
    }
    upload.bytes.insert(upload.bytes.end(), message.payload.begin(), message.payload.end());
    if (upload.bytes.size() < shard->bytes) return;
    const Bytes bytes = std::move(upload.bytes);
    uploads_.erase(*uid);
    finish_upload(received.peer, *uid, message.envelope.sender, *round, *shard, bytes);
  }

  void finish_upload(const Peer& peer, Uid uid, const PublicKey& hotkey, const RoundState& round,
                     const ShardState& shard, const Bytes& bytes) {
    const Digest revealed = commitment_of(hotkey, bytes);
    auto& [mismatch_round, mismatches] = mismatches_[uid];
    if (mismatch_round != round.id) mismatch_round = round.id, mismatches = 0;
    if (revealed != shard.commitment && ++mismatches < kRevealsMax) {
      refuse(peer, ErrorCode::digest_mismatch,
             "what was revealed is not what was committed to; send it again");
      dirty_.insert(uid);
      return;
    }
    const Revealed event =
        revealed != shard.commitment
            ? broken_commitment(shard.shard, shard.commitment, revealed, bytes, mismatches)
            : examine(layout_, setup_.codec, setup_.training, shard.shard, round.base, bytes,
                      round.shards.size(), seen_);
    const RoundId id = round.id;
    if (const auto refused = core_->refusal_of(event, now_)) {
      refuse(peer, refused->code, refused->message);
      return;
    }
    put_blob(id, "contribution", bytes);
    submit(event);
    receipt(peer, hotkey, ReceiptKind::reveal, id, event.blob);
  }

  void on(const Received& received, const Sessions::Message& message, const Fetch& fetch,
          std::size_t) {
    if (!joined_uid(received, message)) return;
    const bool is_state = fetch.digest == checkpoint_state_digest_ && !checkpoint_state_.empty();
    if (!is_state) load_fetched(fetch.digest);
    const Bytes& whole = is_state ? checkpoint_state_ : fetched_bytes_;
    Piece piece{fetch.digest, fetch.offset, whole.size()};
    Bytes payload;
    if (fetch.offset < whole.size()) {
      const std::size_t size = std::min(kPieceBytesMax, whole.size() - fetch.offset);
      const auto first = whole.begin() + static_cast<std::ptrdiff_t>(fetch.offset);
      payload.assign(first, first + static_cast<std::ptrdiff_t>(size));
    } else {
      piece.total_bytes = 0;
    }
    const std::size_t size = say(received.peer, piece, std::move(payload));
    if (fetched_is_aggregate_ && !is_state) update_bytes_down_ += size;
  }

  // Bytes to measure the way with; what came with the probe is thrown away. CURVE does not compress.
  void on(const Received& received, const Sessions::Message& message, const Probe& probe,
          std::size_t) {
    if (!joined_uid(received, message)) return;
    say(received.peer, Piece{{}, probe.number, probe.wanted_bytes}, Bytes(probe.wanted_bytes));
  }

  // Several participants fetch the same bytes one after the other: the newest is kept at hand.
  void load_fetched(const Digest& digest) {
    if (digest == fetched_digest_ && !fetched_bytes_.empty()) return;
    const auto pending = pending_blobs_.find(digest);
    const auto blob = pending == pending_blobs_.end() ? journal_.blob(digest) : pending->second;
    fetched_digest_ = digest;
    fetched_bytes_ = blob.value_or(Bytes{});
    fetched_is_aggregate_ = false;
    for (const VersionStep& step : core_->steps())
      fetched_is_aggregate_ |= step.aggregate == digest;
  }

  void on(const Received& received, const Sessions::Message& message, const Scores& scores,
          std::size_t) {
    const auto uid = joined_uid(received, message);
    if (!uid) return;
    const Scored event{*uid, scores, received.frames[0]};
    if (!submit_or_refuse(received.peer, *uid, event)) return;
    receipt(received.peer, message.envelope.sender, ReceiptKind::scores, scores.round,
            digest_of(message.envelope.body));
  }

  void on(const Received& received, const Sessions::Message& message, const Leave& leave,
          std::size_t) {
    const auto uid = joined_uid(received, message);
    if (!uid) return;
    submit(Left{*uid, "left: " + leave.reason});
    sessions_.forget(received.peer);
  }

  // Said once the call is durable; a call that comes again because the answer was lost is answered again.
  void on(const Received& received, const Sessions::Message& message, const LedgerCall& call,
          std::size_t) {
    const PublicKey& account = message.envelope.sender;
    const Called event{account, call.nonce, call.operation, received.frames[0]};
    std::string error;
    if (call.operation.empty()) {
      // only asks
    } else if (call.run != setup_.run) {
      error = "signed for run " + call.run + ", this is run " + setup_.run;
    } else if (!ledger_->has_taken(event)) {
      error = ledger_->refusal_of(event, now_).value_or("");
      if (error.empty()) submit(event);
    }
    later(received.peer, LedgerAnswer{ledger_->next_nonce(account), std::move(error),
                                      ledger_->ledger().state().block, ledger_->free_of(account)});
  }

  // A message before joining is answered with a fresh challenge, which makes the sender join.
  std::optional<Uid> joined_uid(const Received& received, const Sessions::Message& message) {
    if (message.session->uid) return message.session->uid;
    refuse(received.peer, ErrorCode::peer_refused, "join first");
    return std::nullopt;
  }

  // --- events, and what follows from them ------------------------------------------------------------------

  bool submit_or_refuse(const Peer& peer, Uid uid, const Event& event) {
    if (const auto refused = core_->refusal_of(event, now_)) {
      refuse(peer, refused->code, refused->message);
      dirty_.insert(uid);
      return false;
    }
    submit(event);
    return true;
  }

  // Applies an event in memory; flush() makes it durable before anything that follows is said.
  void submit(const Event& event) {
    YUMOE_ASSERT(!core_->refusal_of(event, now_));
    pending_.push_back({now_, std::string(kind_of(event)), encode(event)});
    const std::vector<Action> actions = core_->apply(event, now_);
    ledger_->apply(event, *core_, now_);
    remember(now_, event, *core_);
    for (const Action& action : actions) {
      std::visit(Overloaded{
                     [&](const Notify& a) { dirty_.insert(a.uid); },
                     [&](const NotifyAll&) { everybody_ = true; },
                     [&](const StartAggregation&) { aggregation_due_ = true; },
                     [&](const WriteCheckpoint&) { checkpoint_due_ = true; },
                     [&](const Finish&) { finish_due_ = true; },
                 },
                 action);
    }
  }

  // Facts for the progress display, gathered live and on recovery alike.
  void remember(TimeMs time, const Event& event, const Run& core) {
    if (first_round_at_.value == 0 && core.round().value > 0) first_round_at_ = time;
    if (const auto* revealed = std::get_if<Revealed>(&event);
        revealed && revealed->filter.empty()) {
      tokens_ += revealed->tokens;
      ++contributions_;
      dense_bytes_ += 4 * dense_parameters(core, revealed->uid);
    } else if (const auto* scored = std::get_if<Scored>(&event)) {
      if (std::isfinite(scored->scores.heldout_loss) &&
          scored->scores.round.value > heldout_version_.value) {
        heldout_version_ = {scored->scores.round.value - 1};
        heldout_loss_ = scored->scores.heldout_loss;
        heldout_bits_ = scored->scores.heldout_bits_per_byte;
      }
    } else if (std::holds_alternative<Aggregated>(event)) {
      last_round_at_ = time;
    }
  }

  std::uint64_t dense_parameters(const Run& core, Uid uid) const {
    return layout_.trunk_parameters() +
           core.participants().at(uid).held.size() * layout_.expert_parameters();
  }

  void put_blob(RoundId round, const char* kind, Bytes bytes) {
    const Digest digest = digest_of(bytes);
    pending_blob_infos_.push_back({digest, round, kind, bytes.size()});
    pending_blobs_[digest] = std::move(bytes);
  }

  void flush() {
    if (!pending_.empty()) {
      std::vector<Entry> entries;
      for (const Pending& event : pending_)
        entries.push_back({event.time, event.kind, event.payload});
      std::vector<Blob> blobs;
      for (const BlobInfo& info : pending_blob_infos_) {
        blobs.push_back({info.round, info.kind, pending_blobs_.at(info.digest)});
      }
      journal_.append(entries, blobs);
      pending_.clear();
      pending_blob_infos_.clear();
      pending_blobs_.clear();
    }
    for (auto& [peer, content] : outbox_) say(peer, content);
    outbox_.clear();
    if (everybody_) {
      for (const auto& [uid, participant] : core_->participants()) dirty_.insert(uid);
      everybody_ = false;
    }
    for (const Uid uid : dirty_) {
      if (const Peer* peer = sessions_.peer_of(uid)) say(*peer, core_->directive_for(uid));
    }
    dirty_.clear();
  }

  // The heavy work that events asked for, each followed by its own event.
  void work() {
    if (aggregation_due_) {
      aggregation_due_ = false;
      aggregate();
    }
    if (checkpoint_due_) {
      checkpoint_due_ = false;
      write_checkpoint_now();
    }
    if (finish_due_) finished_ = true;
  }

  void aggregate() {
    const AggregationInput input = core_->aggregation();
    ModelState::Result result =
        model_->aggregate(input, [this](const Digest& digest) { return journal_.blob(digest); });
    now_ = std::max(now_, clock_.now());
    const Aggregated event{input.round, digest_of(result.aggregate), result.version,
                           result.up_bytes, result.aggregate.size()};
    put_blob(input.round, "aggregate", std::move(result.aggregate));
    submit(event);
    flush();
  }

  void write_checkpoint_now() {
    const BaseVersion& base = model_->base();
    const Bytes ledger = ledger_->snapshot();
    const CheckpointView view{base.round(),     setup_.run,
                              layout_,          base.parameters(),
                              base.momentum(),  model_->residual(),
                              base.gate_bias(), {},
                              ledger,           digest_of_parameters(layout_, base.parameters()),
                              journal_.size()};
    write_checkpoint(checkpoint_path(checkpoints(), base.round()), view);
    checkpoint_state_ = base.encode();
    checkpoint_state_digest_ = digest_of(checkpoint_state_);
    now_ = std::max(now_, clock_.now());
    submit(Checkpointed{base.round(), checkpoint_state_digest_});
    flush();
    drop_checkpoints(checkpoints(), static_cast<std::size_t>(store_.checkpoints_kept));
    drop_old_contributions();
  }

  void drop_old_contributions() {
    if (store_.contributions_kept_rounds == 0) return;
    // Recovery does every aggregation since the oldest kept checkpoint again.
    const auto files = list_checkpoints(checkpoints());
    const std::uint64_t needed_from = files.empty() ? 0 : files.back().round.value;
    const std::uint64_t stale = static_cast<std::uint64_t>(setup_.settings.run.stale_rounds_max);
    const std::uint64_t round = core_->round().value;
    const auto kept = static_cast<std::uint64_t>(store_.contributions_kept_rounds);
    const std::uint64_t wanted_from = round > kept ? round - kept : 0;
    const std::uint64_t from = std::min(wanted_from, needed_from > stale ? needed_from - stale : 0);
    journal_.drop_blobs({from}, [](const BlobInfo& info) { return info.kind == "aggregate"; });
  }

  void expire_leases() {
    for (const auto& [uid, pulse] : pulses_) {
      if (now_ - pulse.heard <= lease_ || !core_->participants().at(uid).active) continue;
      submit(Left{uid, "silent for " + std::to_string(lease_.count() / 1'000) +
                           " s: the process stopped or lost its network"});
      uploads_.erase(uid);
    }
  }

  // --- saying ------------------------------------------------------------------------------------------------

  // Says it once the events so far are durable.
  void later(const Peer& peer, ToParticipant content) {
    outbox_.emplace_back(peer, std::move(content));
  }

  std::size_t say(const Peer& peer, const ToParticipant& content,
                  std::optional<Bytes> payload = {}) {
    std::vector<Bytes> frames;
    frames.push_back(seal_unsigned(++sequence_, now_, encode(content)));
    std::size_t size = frames[0].size();
    if (payload) {
      size += payload->size();
      frames.push_back(std::move(*payload));
    }
    return transport_.send(peer, std::move(frames)) ? size : 0;
  }

  void refuse(const Peer& peer, ErrorCode code, const std::string& message) {
    later(peer, Refusal{std::string(name_of(code)), message, false});
  }

  void receipt(const Peer& peer, const PublicKey& hotkey, ReceiptKind kind, RoundId round,
               const Digest& digest) {
    Receipt receipt{kind, round, digest, now_, {}};
    receipt.signature = keys_.sign(digest_of_receipt(setup_.run, hotkey, receipt).bytes);
    later(peer, receipt);
  }

  template <typename Map, typename Key>
  static auto find(const Map& map, const Key& key) -> decltype(&map.begin()->second) {
    const auto found = map.find(key);
    return found == map.end() ? nullptr : &found->second;
  }

  RunSetup setup_;
  Layout layout_;
  StoreOptions store_;
  milliseconds lease_;
  milliseconds rebeat_;  // silence after which another process may take over a hotkey
  std::filesystem::path folder_;
  Keypair keys_;
  ServerTransport& transport_;
  Clock& clock_;
  TimeMs now_;
  Sessions sessions_;
  Journal journal_;
  std::unique_ptr<Run> core_;
  std::unique_ptr<RunLedger> ledger_;  // of the same events
  std::unique_ptr<ModelState> model_;
  std::map<Uid, Pulse> pulses_;
  Seen seen_{layout_, setup_.settings.scoring};
  std::map<Uid, std::pair<RoundId, std::size_t>> mismatches_;  // reveals that broke a commitment
  std::deque<Accepted> accepted_;  // while recovering: what seen_ is made of again
  std::map<Uid, Upload> uploads_;
  // Not durable yet, and what waits for it.
  std::vector<Pending> pending_;
  std::vector<BlobInfo> pending_blob_infos_;
  std::map<Digest, Bytes> pending_blobs_;
  std::vector<std::pair<Peer, ToParticipant>> outbox_;
  std::set<Uid> dirty_;  // are to be sent their directive
  bool everybody_ = false;
  bool aggregation_due_ = false, checkpoint_due_ = false, finish_due_ = false, finished_ = false;
  std::uint64_t sequence_ = 0;
  // What is served to whoever fetches.
  Bytes checkpoint_state_;
  Digest checkpoint_state_digest_;
  Bytes fetched_bytes_;
  Digest fetched_digest_;
  bool fetched_is_aggregate_ = false;
  // For the progress display.
  TimeMs first_round_at_, last_round_at_;
  std::uint64_t tokens_ = 0, contributions_ = 0, dense_bytes_ = 0;
  std::uint64_t update_bytes_up_ = 0, update_bytes_down_ = 0;
  RoundId heldout_version_;
  double heldout_loss_ = std::numeric_limits<double>::quiet_NaN();
  double heldout_bits_ = std::numeric_limits<double>::quiet_NaN();
};

Progress Coordinator::Impl::progress() const {
  Progress p;
  p.phase = core_->phase();
  p.round = core_->round();
  p.rounds_total = static_cast<std::uint64_t>(setup_.settings.run.rounds);
  p.heldout_loss = heldout_loss_;
  p.heldout_bits_per_byte = heldout_bits_;
  p.heldout_version = heldout_version_;
  p.tokens = tokens_;
  p.update_bytes_up = update_bytes_up_;
  p.update_bytes_down = update_bytes_down_;
  p.dense_bytes = dense_bytes_;
  p.socket_bytes_in = transport_.counts().bytes_in;
  p.socket_bytes_out = transport_.counts().bytes_out;
  p.state = core_->version_digest();
  const bool over = p.phase == Phase::closing || p.phase == Phase::finished;
  const TimeMs until = over ? last_round_at_ : std::max(now_, first_round_at_);
  if (first_round_at_.value > 0) {
    p.elapsed_s = static_cast<double>((until - first_round_at_).count()) / 1e3;
  }
  if (p.elapsed_s > 0) p.tokens_per_s = static_cast<double>(tokens_) / p.elapsed_s;
  const double done = static_cast<double>(core_->version().value);
  if (done > 0 && !over) {
    const double round_s =
        static_cast<double>((last_round_at_ - first_round_at_).count()) / 1e3 / done;
    p.remaining_s = std::max(0.0, round_s * static_cast<double>(p.rounds_total) - p.elapsed_s);
  }
  p.ledger_block = ledger_->ledger().state().block;
  p.chain_block = ledger_->chain_block();
  p.chain_followed =
      p.chain_block > 0 && ledger_->block_source(now_) == RunLedger::BlockSource::chain;
  double training_s = 0, worker_count = 0;
  const RoundState* round = core_->round_state(core_->round());
  for (const auto& [uid, participant] : core_->participants()) {
    Progress::Member member;
    member.uid = uid;
    member.name = participant.name;
    member.hotkey = to_ss58(participant.hotkey);
    member.role = participant.role;
    member.active = participant.active;
    member.standing = core_->standing_of(uid);
    member.tokens = participant.tokens;
    member.steps_total = participant.steps;
    member.seconds_training = participant.seconds_training;
    member.experts = participant.held.size();
    member.reason = participant.reason;
    if (const auto* pulse = find(pulses_, uid)) {
      member.loss = pulse->beat.loss;
      member.tokens_per_s = pulse->beat.tokens_per_s;
      if (pulse->beat.round == core_->round()) member.steps_done = pulse->beat.steps_done;
    }
    if (const auto* shard = round == nullptr ? nullptr : find(round->shards, uid)) {
      member.answer = shard->answer;
      member.steps = shard->shard.inner_steps;
      if (shard->answer != Answer::missing) member.steps_done = member.steps;
    }
    if (participant.role == Role::worker) {
      training_s += participant.seconds_training;
      ++worker_count;
    }
    p.members.push_back(std::move(member));
  }
  // Accepted work over the time of the rounds that are complete.
  const double rounds_s = static_cast<double>((last_round_at_ - first_round_at_).count()) / 1e3;
  if (rounds_s > 0 && worker_count > 0) p.compute_share = training_s / (rounds_s * worker_count);
  return p;
}

Coordinator::Coordinator(RunSetup setup, const StoreOptions& store,
                         const TransportOptions& transport_options, std::filesystem::path folder,
                         Keypair keys, ServerTransport& transport, Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(setup), store, transport_options, std::move(folder),
                                   std::move(keys), transport, clock)) {}
Coordinator::~Coordinator() = default;
bool Coordinator::step(milliseconds wait_max) { return impl_->step(wait_max); }
void Coordinator::tell_chain_block(std::uint64_t number, const Keypair& teller) {
  impl_->tell_chain_block(number, teller);
}
bool Coordinator::finished() const { return impl_->finished(); }
Progress Coordinator::progress() const { return impl_->progress(); }
const Run& Coordinator::core() const { return impl_->core(); }

}  // namespace yumoe

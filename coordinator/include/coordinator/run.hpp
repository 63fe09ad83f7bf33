#pragma once
// The run's core: everything the coordinator decides about rounds, as a pure function of events.
//
//   service: message -> Event -> journal -> Run::apply -> Actions -> messages, files
//
// The same class runs live, in the simulator and on a replay. It reads no clock, socket, disk or
// tensor. Whoever drives it asks `refusal_of` first, makes the event durable, then applies it.
//
// A round: training (shards out, commitments in) -> revealing (contributions in) -> [scoring, if
// RunOptions::scoring is "blocking"] -> aggregating (the driver computes, Aggregated comes back) -> the
// next round. Validators measure round r while round r + 1 trains, unless scoring is blocking.
//
// Participants are level-triggered: `directive_for` says at any time what one of them should do, so a
// lost message, a reconnect or a restart needs nothing special.

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "cluster/clock.hpp"
#include "cluster/error.hpp"
#include "coordinator/scoring.hpp"
#include "router/deadline.hpp"
#include "router/placement.hpp"
#include "router/protocol.hpp"

namespace yumoe {

struct RunOptions {
  std::int64_t rounds = 15;
  std::int64_t seed = 1;
  std::int64_t workers_min = 1;
  std::int64_t commit_wait_min_ms = 2'000;
  std::int64_t commit_wait_max_ms = 600'000;
  std::int64_t reveal_wait_max_ms = 60'000;
  std::int64_t score_wait_max_ms = 120'000;
  double deadline_factor = 5;
  std::int64_t stale_rounds_max = 2;
  double stale_discount = 0.5;
  std::int64_t evaluated_max = 20;
  double audit_share = 0.045;
  std::int64_t checkpoint_rounds = 5;
  std::string scoring = "overlapped";

  template <typename Visitor>
  void visit(Visitor& option) {
    option("rounds", rounds, {.unit = "rounds", .min = 1, .max = 1e9, .help = "how many to train"});
    option(
        "seed", seed,
        {.min = 0, .max = 9e15, .help = "of the initial model, the data order and all sampling"});
    option("workers_min", workers_min,
           {.unit = "workers",
            .min = 1,
            .max = 65'536,
            .help = "a round starts when so many are there"});
    option("commit_wait_min_ms", commit_wait_min_ms,
           {.unit = "ms", .min = 1, .max = 1e9, .help = "least time a round leaves for training"});
    option("commit_wait_max_ms", commit_wait_max_ms,
           {.unit = "ms", .min = 1, .max = 1e9, .help = "most time a round waits for commitments"});
    option("reveal_wait_max_ms", reveal_wait_max_ms,
           {.unit = "ms",
            .min = 1,
            .max = 1e9,
            .help = "most time a round waits for committed contributions"});
    option("score_wait_max_ms", score_wait_max_ms,
           {.unit = "ms", .min = 1, .max = 1e9, .help = "most time that is waited for validators"});
    option("deadline_factor", deadline_factor,
           {.unit = "deviations",
            .min = 0,
            .max = 100,
            .help = "deadline = median arrival + factor * median absolute deviation"});
    option("stale_rounds_max", stale_rounds_max,
           {.unit = "rounds",
            .min = 0,
            .max = 100,
            .help = "how late a contribution may come and still count"});
    option("stale_discount", stale_discount,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "factor on a contribution for each round it is late"});
    option("evaluated_max", evaluated_max,
           {.unit = "contributions",
            .min = 1,
            .max = 65'536,
            .help = "contributions of a round that validators measure at most; with more workers "
                    "than this, "
                    "it grows as their root"});
    option(
        "audit_share", audit_share,
        {.unit = "share",
         .min = 0,
         .max = 1,
         .help = "of the training work that validators may train again to check it; with more than "
                 "evaluated_max workers it falls as one over their root"});
    option("checkpoint_rounds", checkpoint_rounds,
           {.unit = "rounds",
            .min = 1,
            .max = 1'000,
            .help = "rounds from one checkpoint to the next"});
    option("scoring", scoring,
           {.choices = "overlapped|blocking",
            .help = "measure while the next round trains, or before aggregating"});
  }
};

// What the core must know of the shared configuration.
struct RunSettings {
  RunOptions run;
  PlacementOptions placement;
  ScoringOptions scoring;
  std::int64_t batch_sequences = 8;
  std::int64_t schedule_steps = 1'000;    // InnerOptions::total_steps
  double update_bytes_per_parameter = 0;  // of a contribution, by the codec; 0: not known
};

// --- events: what may change the state (schemas/event.capnp) -----------------------------------------

struct Started {
  Digest version;  // of base version 0
  std::uint64_t private_seed = 0;
};
struct Joined {
  PublicKey hotkey;
  Role role = Role::worker;
  std::string name;
  WorkerProfile profile;
  double stake = 0;  // validators
};
struct Left {
  Uid uid;
  std::string reason;
};
struct Committed {
  Uid uid;
  RoundId round;
  Digest digest;  // commitment_of(hotkey, contribution)
  std::uint64_t bytes = 0;
  Bytes evidence;  // the signed envelope
};
struct Revealed {
  Uid uid;
  RoundId round;
  Digest blob;           // digest_of(contribution), a blob of the journal
  std::string filter;    // first filter it fails ("not_finite"), "" if it passes all
  std::string evidence;  // what that filter saw
  std::uint32_t steps = 0;
  std::uint64_t tokens = 0;
  double seconds = 0;
  double loss_last = 0;
  std::vector<std::uint32_t> expert_tokens;
  Uid repeats;            // filter "duplicate": whose contribution it repeats,
  RoundId repeats_round;  // and of which round; 0: none
};
struct Scored {
  Uid validator;
  Scores scores;
  Bytes evidence;
};
struct Aggregated {
  RoundId round;
  Digest blob;                   // of the aggregate's bytes
  Digest version;                // of base version `round`
  std::uint64_t up_bytes = 0;    // of all contributions in it
  std::uint64_t down_bytes = 0;  // of the aggregate
};
struct Checkpointed {
  RoundId version;
  Digest state;  // of the state's bytes as participants fetch them
};
struct Tick {};     // a deadline passed
struct Resumed {};  // the coordinator came back: deadlines move by the time it was away
struct Called {     // an account asks something of the ledger; the core has no part in it
  PublicKey account;
  std::uint64_t nonce = 0;
  Bytes operation;  // coordinator/operation.hpp
  Bytes evidence;   // the signed envelope
};

using Event = std::variant<Started, Joined, Left, Committed, Revealed, Scored, Aggregated,
                           Checkpointed, Tick, Resumed, Called>;

// For the journal's `kind` column: "committed".
std::string_view kind_of(const Event& event);
Bytes encode(const Event& event);
// Total: Error{message_malformed} on anything else.
Event decode_event(ByteView bytes);

// --- actions: what the driver must do ----------------------------------------------------------------

struct Notify {  // send directive_for(uid)
  Uid uid;
};
struct NotifyAll {};
struct StartAggregation {};  // compute aggregation() and come back with Aggregated
struct WriteCheckpoint {     // of the newest base version, and come back with Checkpointed
  RoundId version;
};
struct Finish {};

using Action = std::variant<Notify, NotifyAll, StartAggregation, WriteCheckpoint, Finish>;

// --- state that others may read ------------------------------------------------------------------------

enum class Phase : std::uint8_t {
  gathering,
  training,
  revealing,
  scoring,
  aggregating,
  closing,
  finished
};
std::string_view name_of(Phase phase);

struct Participant {
  Uid uid;
  PublicKey hotkey;
  Role role = Role::worker;
  std::string name;
  WorkerProfile profile;
  double stake = 0;
  bool active = false;
  ExpertSet held;
  bool speed_seen = false;        // its speed was seen in a round, not only told
  std::uint32_t lost = 0;         // times in succession it was lost with a shard in work
  std::uint32_t experts_cap = 0;  // by that; 0: none
  std::string reason;             // why nothing is wanted of it, or what is wrong
  std::uint64_t directive_sequence = 0;
  // totals over the run
  std::uint64_t steps = 0, tokens = 0, contributions = 0, missed = 0;
  double seconds_training = 0;
};

// One worker's shard of one round and what became of it.
struct ShardState {
  TrainingShard shard;
  double predicted_s = 0;
  double upload_s = 0;  // predicted
  bool awaited = true;  // false: the round does not wait for it
  Limit experts_by = Limit::none, steps_by = Limit::none;
  std::uint16_t moved = 0;  // experts it took on
  Answer answer = Answer::missing;
  bool in_time = false;
  Digest commitment;
  std::uint64_t bytes = 0;
  TimeMs committed_at;
  Digest blob;
  std::string filter;
  std::string evidence;
  std::uint32_t steps = 0;
  std::uint64_t tokens = 0;
  std::vector<std::uint32_t> expert_tokens;
  double loss_last = 0;
  bool aggregated = false;
  bool shared = false;  // another one had it before anything was revealed
};

struct RoundState {
  RoundId id;
  TimeMs started;
  TimeMs deadline;  // of the phase the round is in
  std::map<Uid, ShardState> shards;
  std::uint32_t answered = 0;                 // contributions in time
  std::map<Uid, std::vector<Uid>> evaluated;  // what each validator measures, by uid
  std::optional<Uid> closer;   // who measures more (Evaluation::closer); nothing: all
  std::optional<Uid> audited;  // whose shard validators train again
  std::map<Uid, bool> scored_by;
  TimeMs score_deadline;
  Digest base;          // version round - 1
  bool closed = false;  // what comes now counts as late
  TimeMs revealing;     // since when contributions are asked for
  // The plan (router/placement.hpp).
  double makespan_s = 0, lower_bound_s = 0;
  std::uint32_t replicas = 0;
  std::vector<std::uint32_t> short_of;
  std::vector<std::uint32_t> replaced;  // experts whose last holder had left, placed anew
};

struct AggregationInput {
  struct Item {
    Uid uid;
    RoundId round;  // of its shard; older than the aggregate's if it came late
    Digest blob;
    double weight = 0;  // trust and staleness, in [0, 1]
  };
  RoundId round;
  std::vector<Item> items;  // by uid, then round
};

class Run {
 public:
  Run(const Layout& layout, const RunSettings& settings);

  // Why `event` may not happen now, or nothing. Answers for events that come from outside.
  struct Refused {
    ErrorCode code;
    std::string message;
  };
  std::optional<Refused> refusal_of(const Event& event, TimeMs now) const;

  // `now` never goes backwards between calls. The event must not be refused.
  std::vector<Action> apply(const Event& event, TimeMs now);

  // When a Tick is due, if nothing else happens.
  std::optional<TimeMs> next_deadline() const;

  Directive directive_for(Uid uid) const;
  AggregationInput aggregation() const;  // in Phase::aggregating

  Phase phase() const noexcept { return phase_; }
  RoundId round() const noexcept { return round_; }  // 0 before the first
  RoundId version() const noexcept { return version_; }
  const Digest& version_digest() const noexcept { return version_digest_; }
  RoundId checkpoint() const noexcept { return checkpoint_; }
  std::uint64_t private_seed() const noexcept { return private_seed_; }
  const std::map<Uid, Participant>& participants() const noexcept { return participants_; }
  const RoundState* round_state(RoundId round) const;  // of the newest few rounds
  const std::deque<VersionStep>& steps() const noexcept { return steps_; }
  const Scoring& scoring() const noexcept { return scoring_; }
  Standing standing_of(Uid uid) const;
  std::optional<Uid> uid_of(const PublicKey& hotkey) const;
  std::uint64_t up_bytes() const noexcept { return up_bytes_; }
  std::uint64_t down_bytes() const noexcept { return down_bytes_; }

  // A what-if: from now on `other` is told whatever scoring() is told; nothing follows from it. It must
  // outlive this.
  void tell_also(Scoring* other) noexcept { also_ = other; }

  // Covers everything that decides the future; equal digests after equal histories.
  Digest state_digest() const;

 private:
  void on(const Started& event, TimeMs now, std::vector<Action>& out);
  void on(const Joined& event, TimeMs now, std::vector<Action>& out);
  void on(const Left& event, TimeMs now, std::vector<Action>& out);
  void on(const Committed& event, TimeMs now, std::vector<Action>& out);
  void on(const Revealed& event, TimeMs now, std::vector<Action>& out);
  void on(const Scored& event, TimeMs now, std::vector<Action>& out);
  void on(const Aggregated& event, TimeMs now, std::vector<Action>& out);
  void on(const Checkpointed& event, TimeMs now, std::vector<Action>& out);
  void on(const Tick& event, TimeMs now, std::vector<Action>& out);
  void on(const Resumed& event, TimeMs now, std::vector<Action>& out);
  void on(const Called&, TimeMs, std::vector<Action>&) {}

  void advance(TimeMs now, std::vector<Action>& out);
  void start_round(TimeMs now, std::vector<Action>& out);
  void start_revealing(TimeMs now, std::vector<Action>& out);
  void start_aggregating(TimeMs now, std::vector<Action>& out);
  void start_closing(TimeMs now);
  void close_training_statistics(const RoundState& round);
  void close_reveal_statistics(const RoundState& round, TimeMs now);
  Plan plan() const;
  std::vector<std::uint32_t> orphans() const;
  UpdateSize update_size() const;
  void learn_speed(Participant& participant, const RoundState& round, const ShardState& shard,
                   std::uint64_t tokens);
  void note_lost(Participant& participant);
  static void note_shared(RoundState& round, ShardState& later, Uid earlier);
  bool is_in_work(Uid uid) const;
  std::chrono::milliseconds commit_wait(const RoundState& round) const;
  bool is_awaited(const RoundState& round, Uid uid) const;
  void await(Uid uid);
  void await_all();
  bool all_scored(const RoundState& round) const;
  bool is_wanted(const RoundState& round, const ShardState& shard) const;
  double budget_root(std::size_t workers) const;
  std::vector<Uid> judges() const;
  void choose_judges(RoundState& round) const;
  void choose_evaluated(RoundState& round, Uid validator, std::size_t judges) const;
  void choose_audited(RoundState& round);
  // Changes activity or profile and keeps the counts of workers right.
  template <typename Change>
  void change(Participant& participant, Change what);
  RoundState* find_round(RoundId round);
  void notify(Uid uid, std::vector<Action>& out);
  void notify_all(std::vector<Action>& out);

  const Layout& layout_;
  RunSettings settings_;
  Phase phase_ = Phase::gathering;
  RoundId round_;
  RoundId version_;
  Digest version_digest_;
  RoundId checkpoint_;
  Digest checkpoint_state_;
  std::uint64_t private_seed_ = 0;
  bool started_ = false;
  TimeMs now_;                     // of the newest event
  std::uint64_t data_cursor_ = 0;  // first window not given out yet
  std::size_t active_workers_ = 0;
  std::size_t ready_workers_ = 0;  // of those, the ones that are not measuring
  std::set<Uid> awaited_;          // whose answer the phase waits for: those is_awaited() names
  std::map<Uid, Participant> participants_;
  std::map<std::array<std::uint8_t, 33>, Uid> uids_;  // key type and bytes
  std::deque<RoundState> rounds_;      // newest last; as many as staleness and scoring need
  std::deque<VersionStep> steps_;      // since the last checkpoint but one
  ArrivalStatistics commit_arrivals_;  // normalised: per second of predicted work
  ArrivalStatistics reveal_arrivals_;
  Scoring scoring_;
  Scoring* also_ = nullptr;  // no part of the state
  template <typename Tell>
  void tell(const Tell& tell) {
    tell(scoring_);
    if (also_ != nullptr) tell(*also_);
  }
  double audit_credit_ = 0;  // inner steps that may be trained again
  std::uint64_t up_bytes_ = 0, down_bytes_ = 0;
  std::uint64_t last_down_bytes_ = 0;  // of the newest aggregate
};

}  // namespace yumoe

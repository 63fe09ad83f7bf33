#include "coordinator/history.hpp"

#include <cmath>
#include <limits>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

// Builds a column by asking each row.
template <typename Value, typename Rows, typename Get>
Column column(std::string name, std::string units, std::string meaning, const Rows& rows, Get get) {
  std::vector<Value> values;
  for (const auto& row : rows) values.push_back(static_cast<Value>(get(row)));
  return {std::move(name), std::move(units), std::move(meaning), std::move(values)};
}

}  // namespace

void drive(const RunRecord& record, Run& core,
           const std::function<void(const Record&, const Event&)>& visit) {
  record.for_each(1, [&](const Record& r) {
    const Event event = decode_event(r.payload);
    if (const auto refused = core.refusal_of(event, r.time)) {
      throw Error(ErrorCode::journal_corrupt,
                  "record " + std::to_string(r.sequence) + " can not be: " + refused->message);
    }
    core.apply(event, r.time);
    visit(r, event);
    return true;
  });
}

RunHistory::RunHistory(const RunRecord& record)
    : setup_(RunSetup::from_journal(record.run(), record.metadata())),
      layout_(Layout::of(setup_.model)),
      core_(std::make_unique<Run>(layout_, setup_.settings)) {
  drive(record, *core_, [this](const Record& r, const Event& event) {
    note(r, event);
    last_time_ = r.time;
  });
}

RoundHistory& RunHistory::round(RoundId id) {
  for (auto it = rounds_.rbegin(); it != rounds_.rend(); ++it) {
    if (it->round == id) return *it;
  }
  RoundHistory fresh;
  fresh.round = id;
  fresh.heldout_loss = fresh.heldout_bits_per_byte = kNotMeasured;
  rounds_.push_back(fresh);
  return rounds_.back();
}

void RunHistory::note(const Record& record, const Event& event) {
  if (core_->round().value > 0) {
    RoundHistory& now = round(core_->round());
    if (now.started.value == 0) now.started = record.time;
  }
  if (const auto* revealed = std::get_if<Revealed>(&event)) {
    const RoundState* state = core_->round_state(revealed->round);
    if (state == nullptr || !state->shards.contains(revealed->uid)) return;
    const ShardState& shard = state->shards.at(revealed->uid);
    contributions_.push_back({revealed->round, revealed->uid, shard.shard.inner_steps,
                              revealed->steps, revealed->tokens, shard.bytes, revealed->seconds,
                              revealed->loss_last, revealed->blob, revealed->filter,
                              revealed->evidence, shard.committed_at, record.time, shard.in_time});
  } else if (const auto* scored = std::get_if<Scored>(&event)) {
    for (const ScoreEntry& entry : scored->scores.entries) {
      scores_.push_back({scored->scores.round, scored->validator, entry.uid, entry});
    }
    // Measured was the version before that round.
    if (scored->scores.round.value >= 2 && std::isfinite(scored->scores.heldout_loss)) {
      RoundHistory& made = round({scored->scores.round.value - 1});
      made.heldout_loss = scored->scores.heldout_loss;
      made.heldout_bits_per_byte = scored->scores.heldout_bits_per_byte;
    }
  } else if (const auto* aggregated = std::get_if<Aggregated>(&event)) {
    RoundHistory& done = round(aggregated->round);
    done.aggregated = record.time;
    done.up_bytes = aggregated->up_bytes;
    done.down_bytes = aggregated->down_bytes;
    done.version = aggregated->version;
  }
}

std::vector<Table> RunHistory::tables() const {
  std::vector<Participant> participants;
  for (const auto& [uid, participant] : core_->participants()) participants.push_back(participant);
  using Int = std::int64_t;
  return {
      {"rounds",
       "what each round was",
       {column<Int>("round", "1", "counts from 1", rounds_,
                    [](const auto& r) { return r.round.value; }),
        column<Int>("started_ms", "ms", "since the Unix epoch", rounds_,
                    [](const auto& r) { return r.started.value; }),
        column<Int>("aggregated_ms", "ms", "since the Unix epoch; 0: not yet", rounds_,
                    [](const auto& r) { return r.aggregated.value; }),
        column<Int>("up_bytes", "bytes", "contributions in the aggregate", rounds_,
                    [](const auto& r) { return r.up_bytes; }),
        column<Int>("down_bytes", "bytes", "the aggregate, for each participant", rounds_,
                    [](const auto& r) { return r.down_bytes; }),
        column<double>("heldout_loss", "nats/token", "of the base version this round made", rounds_,
                       [](const auto& r) { return r.heldout_loss; }),
        column<double>("heldout_bits_per_byte", "bits/byte", "of the base version this round made",
                       rounds_, [](const auto& r) { return r.heldout_bits_per_byte; }),
        column<std::string>("version_digest", "", "BLAKE2b of the base version", rounds_,
                            [](const auto& r) { return r.version.hex(); })}},
      {"contributions",
       "what each worker delivered",
       {column<Int>("round", "1", "of its shard", contributions_,
                    [](const auto& c) { return c.round.value; }),
        column<Int>("uid", "1", "who", contributions_, [](const auto& c) { return c.uid.value; }),
        column<Int>("steps_assigned", "steps", "inner steps of the shard", contributions_,
                    [](const auto& c) { return c.steps_assigned; }),
        column<Int>("steps", "steps", "inner steps done", contributions_,
                    [](const auto& c) { return c.steps; }),
        column<Int>("tokens", "tokens", "trained on", contributions_,
                    [](const auto& c) { return c.tokens; }),
        column<Int>("bytes", "bytes", "of the contribution", contributions_,
                    [](const auto& c) { return c.bytes; }),
        column<double>("seconds", "s", "in inner steps, as the worker says", contributions_,
                       [](const auto& c) { return c.seconds; }),
        column<double>("loss_last", "nats/token", "of its last inner step", contributions_,
                       [](const auto& c) { return c.loss_last; }),
        column<Int>("committed_ms", "ms", "since the Unix epoch", contributions_,
                    [](const auto& c) { return c.committed.value; }),
        column<Int>("revealed_ms", "ms", "since the Unix epoch", contributions_,
                    [](const auto& c) { return c.revealed.value; }),
        column<Int>("in_time", "1", "1: committed before the deadline", contributions_,
                    [](const auto& c) { return c.in_time; }),
        column<std::string>("filter", "", "first filter it failed; empty: none", contributions_,
                            [](const auto& c) { return c.filter; }),
        column<std::string>("evidence", "", "what that filter saw", contributions_,
                            [](const auto& c) { return c.evidence; }),
        column<std::string>("blob", "", "digest under which its bytes are kept", contributions_,
                            [](const auto& c) { return c.blob.hex(); })}},
      {"scores",
       "what validators measured",
       {column<Int>("round", "1", "of the contribution", scores_,
                    [](const auto& s) { return s.round.value; }),
        column<Int>("validator", "1", "uid of who measured", scores_,
                    [](const auto& s) { return s.validator.value; }),
        column<Int>("uid", "1", "whose contribution", scores_,
                    [](const auto& s) { return s.uid.value; }),
        column<Int>("verdict", "1", "0 measured, 1 not finite, 2 unavailable", scores_,
                    [](const auto& s) { return static_cast<int>(s.entry.verdict); }),
        column<double>("private_reduction", "nats/token", "mean loss reduction on the private draw",
                       scores_, [](const auto& s) { return s.entry.private_draw.reduction; }),
        column<double>("private_standard_error", "nats/token", "of that mean", scores_,
                       [](const auto& s) { return s.entry.private_draw.standard_error; }),
        column<double>("assigned_reduction", "nats/token",
                       "mean loss reduction on the assigned data", scores_,
                       [](const auto& s) { return s.entry.assigned.reduction; }),
        column<double>("assigned_standard_error", "nats/token", "of that mean", scores_,
                       [](const auto& s) { return s.entry.assigned.standard_error; }),
        column<double>("given_reduction", "nats/token",
                       "what the round's contributions together lose without it; NaN: not measured",
                       scores_,
                       [](const auto& s) {
                         return s.entry.given.windows > 0 ? s.entry.given.reduction : kNotMeasured;
                       }),
        column<double>("given_standard_error", "nats/token", "of that; NaN: not measured", scores_,
                       [](const auto& s) {
                         return s.entry.given.windows > 0 ? s.entry.given.standard_error
                                                          : kNotMeasured;
                       })}},
      {"participants",
       "who took part, as things stand at the end of the record",
       {column<Int>("uid", "1", "position in the subnet", participants,
                    [](const auto& p) { return p.uid.value; }),
        column<std::string>("hotkey", "", "SS58 address", participants,
                            [](const auto& p) { return to_ss58(p.hotkey); }),
        column<std::string>("name", "", "as its owner calls it", participants,
                            [](const auto& p) { return p.name; }),
        column<std::string>(
            "role", "", "worker or validator", participants,
            [](const auto& p) { return p.role == Role::worker ? "worker" : "validator"; }),
        column<Int>("steps", "steps", "accepted in all", participants,
                    [](const auto& p) { return p.steps; }),
        column<Int>("tokens", "tokens", "accepted in all", participants,
                    [](const auto& p) { return p.tokens; }),
        column<Int>("missed", "rounds", "without a commitment in time", participants,
                    [](const auto& p) { return p.missed; }),
        column<double>("stake", "alpha", "of a validator", participants,
                       [](const auto& p) { return p.stake; }),
        column<double>("rating", "1", "conservative Plackett-Luce rating: mu - 3 sigma",
                       participants,
                       [this](const auto& p) { return core_->scoring().rating(p.uid); }),
        column<Int>("weight", "1/65535", "by the validators together", participants,
                    [this](const auto& p) { return core_->standing_of(p.uid).weight; })}},
  };
}

}  // namespace yumoe

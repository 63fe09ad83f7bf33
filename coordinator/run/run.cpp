#include "coordinator/run.hpp"

#include <algorithm>
#include <cmath>

#include "cluster/random.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

// How many past rounds the core keeps: as many as a late contribution or a late score may name.
std::size_t rounds_kept(const RunOptions& options) {
  return static_cast<std::size_t>(options.stale_rounds_max) + 2;
}

std::array<std::uint8_t, 33> map_key(const PublicKey& key) {
  std::array<std::uint8_t, 33> bytes;
  bytes[0] = static_cast<std::uint8_t>(key.type);
  std::copy(key.bytes.begin(), key.bytes.end(), bytes.begin() + 1);
  return bytes;
}

// An upload faster than this says little of the uplink: most of it is waiting for one another.
constexpr double kUplinkNoticed_s = 0.5;

// So many validators measure a round at least; they share what one of them would do.
constexpr double kJudgesLeast = 2;

void learn_uplink(WorkerProfile& profile, double bytes, double seconds) {
  double& known = profile.up_bytes_per_s;
  if (seconds <= kUplinkNoticed_s) {
    if (known > 0 && seconds > 0) known = std::max(known, bytes / seconds);
    return;
  }
  const double seen = bytes / (seconds - 0.5 * kUplinkNoticed_s);
  known = known > 0 ? 0.5 * known + 0.5 * seen : seen;
}

bool is_open(const ShardState& shard) {
  return shard.answer == Answer::missing || shard.answer == Answer::committed;
}

}  // namespace

std::string_view name_of(Phase phase) {
  constexpr std::string_view kNames[] = {"gathering",   "training", "revealing", "scoring",
                                         "aggregating", "closing",  "finished"};
  return kNames[static_cast<std::size_t>(phase)];
}

Run::Run(const Layout& layout, const RunSettings& settings)
    : layout_(layout), settings_(settings), scoring_(settings.scoring) {}

// --- what may happen ------------------------------------------------------------------------------------

std::optional<Run::Refused> Run::refusal_of(const Event& event, TimeMs) const {
  const auto refuse = [](ErrorCode code, std::string message) {
    return Refused{code, std::move(message)};
  };
  if (started_ == std::holds_alternative<Started>(event)) {
    return refuse(ErrorCode::peer_refused, started_ ? "the run has started already"
                                                    : "the run has not started yet: try again");
  }
  if (const auto* joined = std::get_if<Joined>(&event)) {
    const auto uid = uid_of(joined->hotkey);
    if (uid && participants_.at(*uid).role != joined->role) {
      return refuse(ErrorCode::peer_refused,
                    "this hotkey takes part in another role: use another hotkey");
    }
    if (!uid && participants_.size() >= 65'535) {
      return refuse(ErrorCode::peer_refused, "the subnet is full");
    }
  } else if (const auto* committed = std::get_if<Committed>(&event)) {
    const RoundState* round = round_state(committed->round);
    if (round == nullptr || !round->shards.contains(committed->uid)) {
      return refuse(ErrorCode::stale_round, "round " + std::to_string(committed->round.value) +
                                                " is over or has no shard of yours");
    }
    const ShardState& shard = round->shards.at(committed->uid);
    if (shard.answer != Answer::missing && shard.commitment != committed->digest) {
      return refuse(ErrorCode::peer_refused,
                    "another contribution is committed for this round: a commitment is final");
    }
    if (round_.value - committed->round.value >
        static_cast<std::uint64_t>(settings_.run.stale_rounds_max)) {
      return refuse(ErrorCode::stale_round, "round " + std::to_string(committed->round.value) +
                                                " is more than stale_rounds_max rounds past");
    }
  } else if (const auto* revealed = std::get_if<Revealed>(&event)) {
    const RoundState* round = round_state(revealed->round);
    if (round == nullptr || !round->shards.contains(revealed->uid)) {
      return refuse(ErrorCode::stale_round,
                    "round " + std::to_string(revealed->round.value) + " is over");
    }
    if (!is_wanted(*round, round->shards.at(revealed->uid))) {
      return refuse(ErrorCode::peer_refused, "this contribution is not wanted now");
    }
  } else if (const auto* scored = std::get_if<Scored>(&event)) {
    const RoundState* round = round_state(scored->scores.round);
    const auto validator = participants_.find(scored->validator);
    if (validator == participants_.end() || validator->second.role != Role::validator) {
      return refuse(ErrorCode::peer_refused, "only a validator's scores count");
    }
    if (round == nullptr || !round->scored_by.contains(scored->validator) ||
        round->scored_by.at(scored->validator)) {
      return refuse(ErrorCode::stale_round, "scores of this round are not wanted (any more)");
    }
    const std::vector<Uid>& asked = round->evaluated.at(scored->validator);
    for (const ScoreEntry& entry : scored->scores.entries) {
      if (!std::binary_search(asked.begin(), asked.end(), entry.uid)) {
        return refuse(ErrorCode::peer_refused,
                      "score of a contribution that was not to be measured");
      }
    }
    for (const ShardAudit& audit : scored->scores.audits) {
      if (audit.round != round->id || !round->audited || audit.uid != *round->audited) {
        return refuse(ErrorCode::peer_refused, "audit of a shard that was not to be trained again");
      }
    }
  } else if (const auto* aggregated = std::get_if<Aggregated>(&event)) {
    if (phase_ != Phase::aggregating || aggregated->round != round_) {
      return refuse(ErrorCode::stale_round, "no aggregate of this round is due");
    }
  } else if (const auto* checkpointed = std::get_if<Checkpointed>(&event)) {
    if (checkpointed->version > version_ || checkpointed->version < checkpoint_) {
      return refuse(ErrorCode::stale_round, "no checkpoint of this version is due");
    }
  }
  return std::nullopt;
}

// --- events -------------------------------------------------------------------------------------------------

std::vector<Action> Run::apply(const Event& event, TimeMs now) {
  YUMOE_ASSERT(now >= now_);
  YUMOE_ASSERT(!refusal_of(event, now));
  // Not even time passes for the core: a call may be recorded while no coordinator runs, and deadlines
  // still move by all of the time it was away.
  if (std::holds_alternative<Called>(event)) return {};
  std::vector<Action> out;
  std::visit([&](const auto& e) { on(e, now, out); }, event);
  now_ = now;
  advance(now, out);
  return out;
}

void Run::on(const Started& event, TimeMs, std::vector<Action>&) {
  YUMOE_ASSERT(!started_);
  started_ = true;
  version_digest_ = event.version;
  private_seed_ = event.private_seed;
}

void Run::on(const Joined& event, TimeMs now, std::vector<Action>& out) {
  auto uid = uid_of(event.hotkey);
  if (!uid) {
    uid = Uid{static_cast<std::uint16_t>(participants_.size())};
    uids_[map_key(event.hotkey)] = *uid;
    Participant& fresh = participants_[*uid];
    fresh.uid = *uid;
    fresh.hotkey = event.hotkey;
    fresh.role = event.role;
  }
  Participant& participant = participants_[*uid];
  participant.name = event.name;
  participant.stake = event.stake;
  // A process that measures has just started; if one was at work before, it died.
  if (event.profile.measuring && participant.active && is_in_work(*uid)) note_lost(participant);
  change(participant, [&] {
    WorkerProfile profile = event.profile;
    const WorkerProfile& known = participant.profile;
    // What was seen in rounds is worth more than what a fresh process says of its first seconds.
    if (participant.speed_seen) profile.tokens_per_s = known.tokens_per_s;
    if (profile.up_bytes_per_s == 0) profile.up_bytes_per_s = known.up_bytes_per_s;
    if (profile.down_bytes_per_s == 0) profile.down_bytes_per_s = known.down_bytes_per_s;
    participant.profile = std::move(profile);
    participant.active = true;
  });
  participant.reason = event.role == Role::validator   ? ""
                       : !event.profile.remark.empty() ? event.profile.remark
                       : event.profile.measuring       ? "measures its machine"
                                                       : "joined; work comes with the next round";
  // A validator that joins while scores are awaited takes part in them.
  const std::vector<Uid> all = judges();
  if (std::binary_search(all.begin(), all.end(), *uid)) {
    for (RoundState& round : rounds_) {
      if (now < round.score_deadline && round.scored_by.try_emplace(*uid, false).second) {
        choose_evaluated(round, *uid, round.scored_by.size());
      }
    }
  }
  await(*uid);
  notify(*uid, out);
}

void Run::on(const Left& event, TimeMs, std::vector<Action>&) {
  const auto found = participants_.find(event.uid);
  if (found == participants_.end()) return;
  Participant& participant = found->second;
  // Who says goodbye is not lost.
  if (!event.reason.starts_with("left:") && is_in_work(event.uid)) note_lost(participant);
  change(participant, [&] { participant.active = false; });
  participant.reason = event.reason;
  await(event.uid);
}

void Run::on(const Committed& event, TimeMs now, std::vector<Action>& out) {
  RoundState& round = *find_round(event.round);
  ShardState& shard = round.shards.at(event.uid);
  if (shard.answer == Answer::missing) {
    shard.answer = Answer::committed;
    shard.commitment = event.digest;
    shard.bytes = event.bytes;
    shard.committed_at = now;
    shard.in_time = event.round == round_ && phase_ == Phase::training && now < round.deadline;
    await(event.uid);
  }
  notify(event.uid, out);
}

void Run::on(const Revealed& event, TimeMs now, std::vector<Action>& out) {
  RoundState& round = *find_round(event.round);
  ShardState& shard = round.shards.at(event.uid);
  Participant& participant = participants_.at(event.uid);
  shard.blob = event.blob;
  shard.filter = event.filter;
  shard.evidence = event.evidence;
  shard.answer = event.filter.empty() ? Answer::revealed : Answer::refused;
  await(event.uid);
  if (event.repeats_round == event.round) note_shared(round, shard, event.repeats);
  if (round.closed && event.filter.empty()) {
    const std::uint64_t late = std::max<std::uint64_t>(1, round_.value - round.id.value);
    tell([&](Scoring& scoring) { scoring.answer_late(event.uid, late); });
  } else if (round.closed) {
    tell([&](Scoring& scoring) { scoring.refuse_late(event.uid); });
  }
  if (event.filter.empty()) {
    shard.steps = event.steps;
    shard.tokens = event.tokens;
    shard.expert_tokens = event.expert_tokens;
    shard.loss_last = event.loss_last;
    participant.steps += event.steps;
    participant.tokens += event.tokens;
    participant.seconds_training += event.seconds;
    participant.reason = shard.in_time ? participant.profile.remark
                                       : "the last contribution came late and counts less";
    participant.lost = 0;
    participant.experts_cap *= 2;
    if (participant.experts_cap >= layout_.model().experts) participant.experts_cap = 0;
    if (round.id == round_) reveal_arrivals_.observe(now - round.started);
    learn_speed(participant, round, shard, event.tokens);
    if (shard.in_time) {
      const double seconds = static_cast<double>((now - round.revealing).count()) / 1e3;
      learn_uplink(participant.profile, static_cast<double>(shard.bytes), seconds);
    }
    up_bytes_ += shard.bytes;
  } else {
    participant.reason = "contribution of round " + std::to_string(event.round.value) +
                         " failed the filter " + event.filter + ": " + event.evidence;
  }
  notify(event.uid, out);
}

void Run::on(const Scored& event, TimeMs, std::vector<Action>& out) {
  RoundState& round = *find_round(event.scores.round);
  round.scored_by[event.validator] = true;
  tell([&](Scoring& scoring) {
    scoring.measure(event.validator, participants_.at(event.validator).stake, event.scores);
    for (const ShardAudit& audit : event.scores.audits) {
      if (audit.verdict == AuditVerdict::unavailable) continue;
      scoring.audit(event.validator, audit.uid, audit.round, audit.verdict == AuditVerdict::same);
    }
  });
  notify(event.validator, out);
}

void Run::on(const Aggregated& event, TimeMs now, std::vector<Action>& out) {
  YUMOE_ASSERT(phase_ == Phase::aggregating && event.round == round_);
  for (const AggregationInput::Item& item : aggregation().items) {
    find_round(item.round)->shards.at(item.uid).aggregated = true;
    ++participants_.at(item.uid).contributions;
  }
  version_ = event.round;
  version_digest_ = event.version;
  steps_.push_back({event.round, event.blob, event.version});
  down_bytes_ += event.down_bytes;
  last_down_bytes_ = event.down_bytes;
  const auto every = static_cast<std::uint64_t>(settings_.run.checkpoint_rounds);
  const bool last = version_.value >= static_cast<std::uint64_t>(settings_.run.rounds);
  if (version_.value % every == 0 || last) out.push_back(WriteCheckpoint{version_});
  phase_ = last ? Phase::closing : Phase::gathering;
  if (last) start_closing(now);
  notify_all(out);
}

// Both committed before anything of the round was revealed: one of them had it from the other.
void Run::note_shared(RoundState& round, ShardState& later, Uid earlier) {
  const auto found = round.shards.find(earlier);
  if (found == round.shards.end() || !found->second.in_time || !later.in_time) return;
  later.shared = found->second.shared = true;
}

// The final version is measured too: a round without shards stands for it.
void Run::start_closing(TimeMs now) {
  RoundState final_round;
  final_round.id = {version_.value + 1};
  final_round.started = now;
  final_round.base = version_digest_;
  final_round.score_deadline = now + milliseconds(settings_.run.score_wait_max_ms);
  final_round.deadline = final_round.score_deadline;
  for (const Uid uid : judges()) {
    final_round.scored_by[uid] = false;
    final_round.evaluated[uid];
  }
  rounds_.push_back(std::move(final_round));
}

void Run::on(const Checkpointed& event, TimeMs, std::vector<Action>&) {
  // Whoever still fetches the old checkpoint can go on: its steps stay listed for one more period.
  while (!steps_.empty() && steps_.front().round <= checkpoint_) steps_.pop_front();
  checkpoint_ = event.version;
  checkpoint_state_ = event.state;
}

void Run::on(const Tick&, TimeMs, std::vector<Action>&) {}

void Run::on(const Resumed&, TimeMs now, std::vector<Action>& out) {
  const milliseconds away = now - now_;
  for (RoundState& round : rounds_) {
    round.started = round.started + away;
    round.deadline = round.deadline + away;
    round.score_deadline = round.score_deadline + away;
    for (auto& [uid, shard] : round.shards) {
      if (shard.answer != Answer::missing) shard.committed_at = shard.committed_at + away;
    }
  }
  if (phase_ == Phase::aggregating) out.push_back(StartAggregation{});
  const auto every = static_cast<std::uint64_t>(settings_.run.checkpoint_rounds);
  if (version_.value / every > checkpoint_.value / every) out.push_back(WriteCheckpoint{version_});
  if (phase_ == Phase::finished) out.push_back(Finish{});
  notify_all(out);
}

// --- phases: all changes happen in advance() and what it calls ----------------------------------------------

void Run::advance(TimeMs now, std::vector<Action>& out) {
  if (phase_ == Phase::gathering && started_ &&
      ready_workers_ >= static_cast<std::size_t>(settings_.run.workers_min)) {
    start_round(now, out);
  }
  if (phase_ == Phase::training) {
    const RoundState& round = rounds_.back();
    if (now >= round.deadline || awaited_.empty()) start_revealing(now, out);
  }
  if (phase_ == Phase::revealing) {
    RoundState& round = rounds_.back();
    if (now >= round.deadline || awaited_.empty()) {
      round.answered = static_cast<std::uint32_t>(
          std::count_if(round.shards.begin(), round.shards.end(), [](const auto& entry) {
            return entry.second.answer == Answer::revealed && entry.second.in_time;
          }));
      choose_audited(round);
      round.score_deadline = now + milliseconds(settings_.run.score_wait_max_ms);
      choose_judges(round);
      if (settings_.run.scoring == "blocking" && !round.scored_by.empty()) {
        phase_ = Phase::scoring;
        round.deadline = round.score_deadline;
        notify_all(out);
      } else {
        start_aggregating(now, out);
      }
    }
  }
  if (phase_ == Phase::scoring) {
    if (now >= rounds_.back().deadline || all_scored(rounds_.back())) start_aggregating(now, out);
  }
  if (phase_ == Phase::closing) {
    if (now >= rounds_.back().deadline ||
        std::all_of(rounds_.begin(), rounds_.end(),
                    [&](const RoundState& round) { return all_scored(round); })) {
      phase_ = Phase::finished;
      notify_all(out);
      out.push_back(Finish{});
    }
  }
}

// By how much what validators do in a round exceeds that for `evaluated_max` workers.
double Run::budget_root(std::size_t workers) const {
  const auto most = static_cast<double>(settings_.run.evaluated_max);
  return std::sqrt(std::max(1.0, static_cast<double>(workers) / most));
}

// Validators that are here. Once one of the run has a stake, those without are strangers who joined for
// nothing: they neither take turns nor share the audits' budget, and say nothing that counts.
std::vector<Uid> Run::judges() const {
  std::vector<Uid> judges;
  const bool any_stake = std::any_of(participants_.begin(), participants_.end(), [](auto& entry) {
    return entry.second.role == Role::validator && entry.second.stake > 0;
  });
  for (const auto& [uid, participant] : participants_) {
    if (participant.role != Role::validator || !participant.active) continue;
    if (participant.stake > 0 || !any_stake) judges.push_back(uid);
  }
  return judges;
}

// Whose turn it is to measure: a few of the validators, so that what all of them do together does not grow
// with their number, each often enough to count as speaking. All audit.
void Run::choose_judges(RoundState& round) const {
  const std::vector<Uid> all = judges();
  if (all.empty() || round.answered == 0) return;
  const double often = 2 * static_cast<double>(all.size()) /
                       static_cast<double>(settings_.scoring.validator_silence_rounds);
  const auto turns =
      std::min(all.size(), static_cast<std::size_t>(std::ceil(std::max(kJudgesLeast, often))));
  for (std::size_t i = 0; i < turns; ++i) {
    const Uid validator = all[(round.id.value * turns + i) % all.size()];
    round.scored_by[validator] = false;
    choose_evaluated(round, validator, turns);
    if (i == round.id.value % turns) round.closer = validator;
  }
  if (!round.audited) return;
  for (const Uid validator : all) {
    if (round.scored_by.try_emplace(validator, false).second) round.evaluated[validator];
  }
}

// Whom this validator is uncertain about, within a budget that grows slower than the number of workers, and
// that those whose turn it is share.
void Run::choose_evaluated(RoundState& round, Uid validator, std::size_t judges) const {
  std::vector<Uid> revealed;
  for (const auto& [uid, shard] : round.shards) {
    if (shard.answer == Answer::revealed && shard.in_time) revealed.push_back(uid);
  }
  const double most =
      static_cast<double>(settings_.run.evaluated_max) * budget_root(revealed.size());
  const double part = 1 / static_cast<double>(judges);
  round.evaluated[validator] = scoring_.to_measure(
      validator, revealed, static_cast<std::size_t>(std::ceil(part * most)), round.id,
      derive_seed("evaluated", {private_seed_, round.id.value, validator.value}));
}

// All validators train the same shard again, so that a verdict has stake behind it; seldom enough for the
// budget.
void Run::choose_audited(RoundState& round) {
  const auto judges = static_cast<double>(this->judges().size());
  std::vector<Answered> answered;
  double steps = 0;
  for (const auto& [uid, shard] : round.shards) {
    if (shard.answer != Answer::revealed || !shard.in_time) continue;
    answered.push_back({uid, shard.tokens});
    steps += shard.steps;
  }
  audit_credit_ += settings_.run.audit_share * steps / budget_root(answered.size());
  if (judges == 0 || answered.empty()) return;
  const double each = steps / static_cast<double>(answered.size());
  if (audit_credit_ < judges * each) return;
  round.audited = scoring_.to_audit(answered, round.id,
                                    derive_seed("audited", {private_seed_, round.id.value}));
  if (round.audited) audit_credit_ -= judges * round.shards.at(*round.audited).steps;
}

void Run::start_round(TimeMs now, std::vector<Action>& out) {
  round_ = {version_.value + 1};
  // A round that found no active worker is planned again under the same number.
  if (!rounds_.empty() && rounds_.back().id == round_) rounds_.pop_back();
  RoundState round;
  round.id = round_;
  round.started = now;
  round.base = version_digest_;
  const std::vector<std::uint32_t> lost = orphans();
  Plan plan = this->plan();
  round.makespan_s = plan.makespan_s;
  round.lower_bound_s = plan.lower_bound_s;
  round.replicas = plan.replicas;
  round.short_of = std::move(plan.short_of);
  const std::uint64_t steps_before = (round_.value - 1) *
                                     static_cast<std::uint64_t>(settings_.schedule_steps) /
                                     static_cast<std::uint64_t>(settings_.run.rounds);
  for (const Assignment& assignment : plan.assignments) {
    Participant& participant = participants_.at(assignment.uid);
    participant.held = assignment.experts;
    for (const std::uint32_t expert : lost) {
      if (!std::binary_search(assignment.experts.begin(), assignment.experts.end(), expert))
        continue;
      round.replaced.push_back(expert);
      participant.reason = "takes on expert " + std::to_string(expert) +
                           ", whose last holder left, from base version " +
                           std::to_string(version_.value) + " (checkpoint " +
                           std::to_string(checkpoint_.value) + " and what followed)";
    }
    if (assignment.inner_steps == 0) {
      participant.reason = assignment.why;
      continue;
    }
    ShardState state;
    state.predicted_s = assignment.predicted_s;
    state.upload_s = assignment.upload_s;
    state.awaited = assignment.awaited;
    state.experts_by = assignment.experts_by;
    state.steps_by = assignment.steps_by;
    state.moved = assignment.moved;
    TrainingShard& shard = state.shard;
    shard.round = round_;
    shard.uid = assignment.uid;
    shard.seed = derive_seed("shard", {static_cast<std::uint64_t>(settings_.run.seed), round_.value,
                                       assignment.uid.value});
    shard.data = {data_cursor_,
                  assignment.inner_steps * static_cast<std::uint64_t>(settings_.batch_sequences)};
    data_cursor_ += shard.data.count;
    shard.inner_steps = assignment.inner_steps;
    shard.steps_before = steps_before;
    shard.experts = assignment.experts;
    round.shards.emplace(assignment.uid, std::move(state));
  }
  if (round.shards.empty()) return;  // nobody who is here can hold enough experts: wait for others
  std::sort(round.replaced.begin(), round.replaced.end());
  round.replaced.erase(std::unique(round.replaced.begin(), round.replaced.end()),
                       round.replaced.end());
  round.deadline = now + commit_wait(round);
  rounds_.push_back(std::move(round));
  while (rounds_.size() > rounds_kept(settings_.run)) rounds_.pop_front();
  phase_ = Phase::training;
  await_all();
  notify_all(out);
}

void Run::start_revealing(TimeMs now, std::vector<Action>& out) {
  RoundState& round = rounds_.back();
  const bool anybody = std::any_of(round.shards.begin(), round.shards.end(), [](const auto& entry) {
    return entry.second.answer != Answer::missing;
  });
  if (!anybody && active_workers_ == 0) {
    // Everybody is gone: wait for somebody and plan this round again.
    phase_ = Phase::gathering;
    return;
  }
  close_training_statistics(round);
  phase_ = Phase::revealing;
  round.revealing = now;
  await_all();
  round.deadline = now + milliseconds(settings_.run.reveal_wait_max_ms);
  notify_all(out);
}

void Run::close_training_statistics(const RoundState& round) {
  for (const auto& [uid, shard] : round.shards) {
    if (shard.answer == Answer::missing && !shard.awaited) {
      participants_.at(uid).reason =
          "one round is shorter than its least work: it is not waited for, comes late, counts "
          "less and is not measured, so it earns nothing: fewer experts or a faster machine help";
    } else if (shard.answer == Answer::missing) {
      Participant& participant = participants_.at(uid);
      ++participant.missed;
      participant.reason = "no commitment before the deadline of round " +
                           std::to_string(round.id.value) + "; a late one still counts for " +
                           std::to_string(settings_.run.stale_rounds_max) + " rounds, discounted";
    } else if (shard.predicted_s > 0 && shard.awaited) {
      const double actual_ms = static_cast<double>((shard.committed_at - round.started).count());
      commit_arrivals_.observe(milliseconds(std::llround(actual_ms / shard.predicted_s)));
    }
  }
}

// Whoever committed and did not deliver has less of an uplink than was thought.
void Run::close_reveal_statistics(const RoundState& round, TimeMs now) {
  const double seconds = static_cast<double>((now - round.revealing).count()) / 1e3;
  if (seconds <= kUplinkNoticed_s) return;
  for (const auto& [uid, shard] : round.shards) {
    if (shard.answer != Answer::committed || !shard.in_time) continue;
    Participant& participant = participants_.at(uid);
    double& known = participant.profile.up_bytes_per_s;
    const double most = static_cast<double>(shard.bytes) / seconds;
    known = known > 0 ? std::min(known, most) : most;
    participant.reason = "its contribution of round " + std::to_string(round.id.value) +
                         " did not arrive within " + std::to_string(std::llround(seconds)) +
                         " s: its uplink is taken to carry " + std::to_string(std::llround(most)) +
                         " bytes/s from now on";
  }
}

void Run::start_aggregating(TimeMs now, std::vector<Action>& out) {
  RoundState& round = rounds_.back();
  close_reveal_statistics(round, now);
  std::vector<ShardOutcome> outcomes;
  for (const auto& [uid, shard] : round.shards) {
    outcomes.push_back({uid, shard.answer == Answer::revealed, shard.answer == Answer::refused,
                        shard.tokens, shard.shared,
                        static_cast<std::uint32_t>(shard.shard.experts.size())});
  }
  tell([&](Scoring& scoring) { scoring.close_round(round.id, outcomes); });
  round.closed = true;
  phase_ = Phase::aggregating;
  out.push_back(StartAggregation{});
  notify_all(out);
}

// --- what follows from the state --------------------------------------------------------------------------

milliseconds Run::commit_wait(const RoundState& round) const {
  const milliseconds least(settings_.run.commit_wait_min_ms);
  const milliseconds most(settings_.run.commit_wait_max_ms);
  double predicted_s = 0;
  for (const auto& [uid, shard] : round.shards) {
    if (!shard.awaited) continue;
    if (shard.predicted_s == 0) return most;  // somebody's speed is not known yet
    predicted_s = std::max(predicted_s, shard.predicted_s);
  }
  if (commit_arrivals_.count() < ArrivalStatistics::kFewest) return most;
  const milliseconds per_second = commit_arrivals_.deadline(
      settings_.run.deadline_factor, milliseconds(1), milliseconds(1'000'000));
  const double wait_ms = predicted_s * static_cast<double>(per_second.count());
  return std::clamp(milliseconds(std::llround(std::min(wait_ms, 1e12))), least,
                    std::max(least, most));
}

// In training a commitment, in revealing a contribution; of nobody who is gone.
bool Run::is_awaited(const RoundState& round, Uid uid) const {
  const auto found = round.shards.find(uid);
  if (found == round.shards.end() || !participants_.at(uid).active) return false;
  const ShardState& shard = found->second;
  if (phase_ == Phase::training) return shard.answer == Answer::missing && shard.awaited;
  return phase_ == Phase::revealing && shard.in_time && is_open(shard);
}

// Whoever's answer or presence changed is looked at again, so that an event costs no pass over all.
void Run::await(Uid uid) {
  if (!rounds_.empty() && is_awaited(rounds_.back(), uid)) {
    awaited_.insert(uid);
  } else {
    awaited_.erase(uid);
  }
}

void Run::await_all() {
  awaited_.clear();
  for (const auto& [uid, shard] : rounds_.back().shards) await(uid);
}

bool Run::all_scored(const RoundState& round) const {
  return std::all_of(round.scored_by.begin(), round.scored_by.end(), [&](const auto& entry) {
    return entry.second || !participants_.at(entry.first).active;
  });
}

bool Run::is_wanted(const RoundState& round, const ShardState& shard) const {
  if (shard.answer != Answer::committed) return false;
  if (!shard.in_time) return true;
  return round.id != round_ || phase_ != Phase::training;
}

AggregationInput Run::aggregation() const {
  AggregationInput input{round_, {}};
  for (const RoundState& round : rounds_) {
    const std::uint64_t stale = round_.value - round.id.value;
    if (stale > static_cast<std::uint64_t>(settings_.run.stale_rounds_max)) continue;
    for (const auto& [uid, shard] : round.shards) {
      if (shard.answer != Answer::revealed || shard.aggregated) continue;
      double discount = 1;
      for (std::uint64_t i = 0; i < stale; ++i) discount *= settings_.run.stale_discount;
      input.items.push_back({uid, round.id, shard.blob, discount * scoring_.trust(uid)});
    }
  }
  std::sort(input.items.begin(), input.items.end(), [](const auto& a, const auto& b) {
    return std::pair(a.uid, a.round) < std::pair(b.uid, b.round);
  });
  return input;
}

std::optional<TimeMs> Run::next_deadline() const {
  switch (phase_) {
    case Phase::training:
    case Phase::revealing:
    case Phase::scoring:
    case Phase::closing: return rounds_.back().deadline;
    case Phase::gathering:
    case Phase::aggregating:
    case Phase::finished: return std::nullopt;
  }
  return std::nullopt;
}

Directive Run::directive_for(Uid uid) const {
  const Participant& participant = participants_.at(uid);
  Directive directive;
  directive.sequence = participant.directive_sequence;
  directive.round = round_;
  directive.rounds_total = static_cast<std::uint64_t>(settings_.run.rounds);
  directive.version = version_;
  directive.version_digest = version_digest_;
  directive.checkpoint = checkpoint_;
  directive.checkpoint_state = checkpoint_state_;
  directive.aggregates.assign(steps_.begin(), steps_.end());
  directive.finished = phase_ == Phase::finished;
  directive.standing = standing_of(uid);
  directive.reason = participant.reason;
  for (auto round = rounds_.rbegin(); round != rounds_.rend(); ++round) {
    if (participant.role == Role::worker) {
      const auto found = round->shards.find(uid);
      if (found == round->shards.end()) continue;
      // The newest shard, or an older one whose reveal is still wanted.
      const ShardState& shard = found->second;
      if (directive.shard.inner_steps == 0 || is_wanted(*round, shard)) {
        directive.shard = shard.shard;
        directive.answer = shard.answer;
        directive.reveal_wanted = is_wanted(*round, shard);
        directive.commit_deadline = round->deadline;
      }
    } else {
      // The oldest round this validator has not scored.
      const auto found = round->scored_by.find(uid);
      if (found == round->scored_by.end() || found->second) continue;
      if (now_ >= round->score_deadline) continue;
      directive.evaluate = {round->id,
                            round->base,
                            round->score_deadline,
                            {},
                            {},
                            round->answered,
                            !round->closer || *round->closer == uid};
      for (const Uid worker : round->evaluated.at(uid)) {
        const ShardState& shard = round->shards.at(worker);
        directive.evaluate.contributions.push_back({shard.shard, shard.blob});
      }
      if (round->audited) {
        const ShardState& shard = round->shards.at(*round->audited);
        directive.evaluate.audits.push_back({shard.shard, shard.blob});
      }
    }
  }
  return directive;
}

Standing Run::standing_of(Uid uid) const {
  Standing standing;
  standing.score = scoring_.score(uid);
  standing.rating = scoring_.rating(uid);
  standing.of = static_cast<std::uint32_t>(scoring_.consensus().size());
  standing.weight = scoring_.weight(uid);
  standing.rank = scoring_.rank(standing.weight);
  return standing;
}

const RoundState* Run::round_state(RoundId round) const {
  for (const RoundState& state : rounds_) {
    if (state.id == round) return &state;
  }
  return nullptr;
}

RoundState* Run::find_round(RoundId round) {
  return const_cast<RoundState*>(std::as_const(*this).round_state(round));
}

std::optional<Uid> Run::uid_of(const PublicKey& hotkey) const {
  const auto found = uids_.find(map_key(hotkey));
  return found == uids_.end() ? std::nullopt : std::optional(found->second);
}

template <typename Change>
void Run::change(Participant& participant, Change what) {
  const auto count = [&](std::size_t step) {
    if (participant.role != Role::worker || !participant.active) return;
    active_workers_ += step;
    if (!participant.profile.measuring) ready_workers_ += step;
  };
  count(static_cast<std::size_t>(-1));
  what();
  count(1);
}

// --- what is known of workers, and the plan from it ---------------------------------------------------

bool Run::is_in_work(Uid uid) const {
  if (phase_ != Phase::training) return false;
  const auto found = rounds_.back().shards.find(uid);
  return found != rounds_.back().shards.end() && found->second.answer == Answer::missing;
}

// Lost twice in succession with a shard in work: perhaps its memory holds less than it says.
void Run::note_lost(Participant& participant) {
  if (++participant.lost < 2) return;
  const auto least = static_cast<std::uint32_t>(layout_.model().experts_per_token);
  participant.experts_cap =
      std::max(least, static_cast<std::uint32_t>(participant.held.size()) / 2);
}

// Speed as the coordinator saw it, not as the worker says: from plan to commitment.
void Run::learn_speed(Participant& participant, const RoundState& round, const ShardState& shard,
                      std::uint64_t tokens) {
  const double seconds = static_cast<double>((shard.committed_at - round.started).count()) / 1e3;
  if (seconds <= 0 || tokens == 0) return;
  const double speed = static_cast<double>(tokens) / seconds;
  double& known = participant.profile.tokens_per_s;
  known = participant.speed_seen ? 0.5 * known + 0.5 * speed : speed;
  participant.speed_seen = true;
}

UpdateSize Run::update_size() const {
  const double bytes = settings_.update_bytes_per_parameter;
  UpdateSize size;
  size.trunk_bytes = bytes * static_cast<double>(layout_.trunk_parameters());
  size.expert_bytes = bytes * static_cast<double>(layout_.expert_parameters());
  size.down_bytes = last_down_bytes_ > 0 ? static_cast<double>(last_down_bytes_)
                                         : bytes * static_cast<double>(layout_.parameters());
  return size;
}

Plan Run::plan() const {
  std::vector<PlacementWorker> workers;
  for (const auto& [uid, p] : participants_) {
    if (p.role != Role::worker || !p.active || p.profile.measuring) continue;
    workers.push_back({uid, p.profile, p.held, p.experts_cap});
    // A speed that was seen contains the way to it.
    if (p.speed_seen)
      workers.back().profile.down_bytes_per_s = workers.back().profile.round_trip_ms = 0;
  }
  return place(layout_, settings_.batch_sequences, update_size(), workers, settings_.placement);
}

// Experts that somebody who is gone held and nobody who is here holds.
std::vector<std::uint32_t> Run::orphans() const {
  const auto experts = static_cast<std::size_t>(layout_.model().experts);
  std::vector<std::uint8_t> here(experts), gone(experts);
  for (const auto& [uid, participant] : participants_) {
    for (const std::uint32_t expert : participant.held) {
      (participant.active ? here : gone)[expert] = 1;
    }
  }
  std::vector<std::uint32_t> found;
  for (std::uint32_t expert = 0; expert < experts; ++expert) {
    if (gone[expert] != 0 && here[expert] == 0) found.push_back(expert);
  }
  return found;
}

void Run::notify(Uid uid, std::vector<Action>& out) {
  ++participants_.at(uid).directive_sequence;
  out.push_back(Notify{uid});
}

void Run::notify_all(std::vector<Action>& out) {
  for (auto& [uid, participant] : participants_) ++participant.directive_sequence;
  out.push_back(NotifyAll{});
}

Digest Run::state_digest() const {
  Digester digester;
  const auto add = [&](auto value) {
    digester.update(as_bytes(std::span<const decltype(value)>(&value, 1)));
  };
  add(static_cast<std::uint64_t>(phase_));
  add(round_.value);
  add(version_.value);
  digester.update(version_digest_.bytes);
  add(checkpoint_.value);
  digester.update(checkpoint_state_.bytes);
  add(data_cursor_);
  add(audit_credit_);
  add(private_seed_);
  add(up_bytes_);
  add(down_bytes_);
  for (const auto& [uid, participant] : participants_) {
    digester.update(participant.hotkey.bytes);
    add(static_cast<std::uint64_t>(participant.active));
    add(participant.steps);
    add(participant.tokens);
    add(participant.contributions);
    add(participant.missed);
    add(participant.profile.tokens_per_s);
    add(participant.profile.up_bytes_per_s);
    add(static_cast<std::uint64_t>(participant.experts_cap));
    for (const std::uint32_t expert : participant.held) add(expert);
  }
  for (const RoundState& round : rounds_) {
    add(round.id.value);
    add(round.started.value);
    add(round.deadline.value);
    for (const auto& [uid, shard] : round.shards) {
      digester.update(digest_of_shard(shard.shard).bytes);
      add(static_cast<std::uint64_t>(shard.answer));
      digester.update(shard.commitment.bytes);
      digester.update(shard.blob.bytes);
      add(static_cast<std::uint64_t>(shard.aggregated));
      add(static_cast<std::uint64_t>(shard.shared));
    }
    for (const auto& [uid, scored] : round.scored_by) add(static_cast<std::uint64_t>(scored));
  }
  for (const VersionStep& step : steps_) digester.update(step.version.bytes);
  scoring_.digest_into(digester);
  return digester.finish();
}

}  // namespace yumoe

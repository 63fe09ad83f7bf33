#include "sim/simulated_run.hpp"

namespace yumoe::sim {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kHeartbeat{500};
constexpr milliseconds kLease{4'000};

ModelOptions tiny_model() {
  ModelOptions model;
  model.vocabulary = 16;
  model.context = 8;
  model.width = 8;
  model.layers = 1;
  model.heads = 2;
  model.key_value_heads = 1;
  model.experts = 4;
  model.expert_width = 8;
  return model;
}

Digest version_after(const Digest& aggregate) { return digest_of(aggregate.bytes); }

}  // namespace

SimulatedRun::SimulatedRun(std::uint64_t seed, std::size_t workers, std::size_t validators,
                           RunSettings settings, Faults faults)
    : random_(seed),
      settings_(settings),
      faults_(faults),
      layout_(Layout::of(tiny_model())),
      core_(std::make_unique<Run>(layout_, settings_)) {
  submit(Started{digest_of(as_bytes("initial")), seed});
  for (std::size_t i = 0; i < workers + validators; ++i) {
    Client client;
    client.index = i;
    client.role = i < workers ? Role::worker : Role::validator;
    client.hotkey.bytes[0] = static_cast<std::uint8_t>(i);
    client.hotkey.bytes[1] = static_cast<std::uint8_t>(i >> 8);
    client.tokens_per_s = 50.0 * static_cast<double>(1 + random_.below(8));
    clients_.push_back(client);
    at(now_ + milliseconds(random_.below(500)), [this, i] { beat(i); });
  }
  if (faults_.worker_crash > 0 || faults_.coordinator_crash > 0) {
    at(now_ + milliseconds(1'000), [this] { disturb(); });
  }
}

void SimulatedRun::at(TimeMs time, std::function<void()> what) {
  queue_.push({time, order_++, std::move(what)});
}

void SimulatedRun::send(std::function<void()> deliver) {
  ++messages_;
  if (random_.uniform() < faults_.loss) return;
  const auto delay = 1 + random_.below(static_cast<std::uint64_t>(faults_.delay_ms_max));
  at(now_ + milliseconds(delay), std::move(deliver));
}

// Every heartbeat says all that the process has to say; whatever got lost is said again.
void SimulatedRun::beat(std::size_t index) {
  Client& client = clients_[index];
  if (client.up && core_->phase() != Phase::finished) {
    if (!client.uid) {
      WorkerProfile profile;
      const Joined joined{client.hotkey, client.role, "sim", profile, 1.0};
      to_core(index, joined);
    } else {
      work(client);
      const Uid uid = *client.uid;
      const std::uint64_t generation = client.generation;
      send([this, uid, index, generation] {
        if (!coordinator_up_ || clients_[index].generation != generation) return;
        last_heard_[uid] = now_;
        const auto found = core_->participants().find(uid);
        // After a restart of the coordinator, or once counted as lost, a process joins anew.
        if (found == core_->participants().end() || !found->second.active) {
          clients_[index].uid.reset();
        } else {
          tell(uid);
        }
      });
    }
  }
  at(now_ + kHeartbeat, [this, index] { beat(index); });
}

void SimulatedRun::work(Client& client) {
  const Directive& directive = client.directive;
  if (client.role == Role::validator) {
    if (directive.evaluate.round.value == 0) return;
    Scores scores;
    scores.round = directive.evaluate.round;
    for (const auto& item : directive.evaluate.contributions) {
      const double reduction = 0.01 * static_cast<double>(item.shard.inner_steps);
      scores.entries.push_back({item.shard.uid, Verdict::measured, {}, {3, reduction, 0.0001, 32}});
    }
    to_core(client.index, Scored{*client.uid, scores, {}});
    return;
  }
  const TrainingShard& shard = directive.shard;
  if (shard.inner_steps == 0) return;
  if (shard.round != client.working) {
    client.working = shard.round;
    client.trained = false;
    const double tokens = static_cast<double>(shard.data.count) * 8;
    client.done_at =
        now_ + milliseconds(static_cast<std::int64_t>(1e3 * tokens / client.tokens_per_s *
                                                      (0.9 + 0.2 * random_.uniform())));
  }
  if (now_ < client.done_at) return;
  if (!client.trained) {
    client.trained = true;
    // The same shard always gives the same contribution.
    const Digest digest = digest_of_shard(shard);
    client.contribution.assign(digest.bytes.begin(), digest.bytes.end());
  }
  if (directive.answer == Answer::missing) {
    to_core(client.index, Committed{*client.uid,
                                    shard.round,
                                    commitment_of(client.hotkey, client.contribution),
                                    client.contribution.size(),
                                    {}});
  } else if (directive.reveal_wanted) {
    Revealed revealed;
    revealed.uid = *client.uid;
    revealed.round = shard.round;
    revealed.blob = digest_of(client.contribution);
    revealed.steps = shard.inner_steps;
    revealed.tokens = shard.data.count * 8;
    revealed.expert_tokens.assign(4, 1);
    to_core(client.index, revealed);
  }
}

void SimulatedRun::to_core(std::size_t index, Event event) {
  const std::uint64_t generation = clients_[index].generation;
  send([this, index, generation, event = std::move(event)] {
    if (!coordinator_up_) return;
    submit(event);
    if (clients_[index].generation != generation || !clients_[index].up) return;
    if (const auto uid = core_->uid_of(clients_[index].hotkey)) {
      clients_[index].uid = uid;
      client_of_[*uid] = index;
      last_heard_[*uid] = now_;
      tell(*uid);
    }
  });
}

bool SimulatedRun::submit(const Event& event) {
  if (core_->refusal_of(event, now_)) return false;
  // What is applied is what a replay would read back.
  journal_.push_back({now_, encode(event)});
  act(core_->apply(decode_event(journal_.back().event), now_));
  return true;
}

void SimulatedRun::act(const std::vector<Action>& actions) {
  for (const Action& action : actions) {
    if (const auto* notify = std::get_if<Notify>(&action)) {
      tell(notify->uid);
    } else if (std::holds_alternative<NotifyAll>(action)) {
      for (const auto& [uid, participant] : core_->participants()) tell(uid);
    } else if (std::holds_alternative<StartAggregation>(action)) {
      // Takes a while; a crash in between loses it and the restart computes it again.
      at(now_ + milliseconds(30), [this] {
        if (!coordinator_up_ || core_->phase() != Phase::aggregating) return;
        const AggregationInput input = core_->aggregation();
        Digester digester;
        for (const auto& item : input.items) {
          digester.update(item.blob.bytes);
          digester.update(as_bytes(std::span<const double>(&item.weight, 1)));
        }
        const Digest digest = digester.finish();
        aggregates_[input.round.value] = digest;
        submit(Aggregated{input.round, digest, version_after(digest), 0, 0});
      });
    } else if (const auto* checkpoint = std::get_if<WriteCheckpoint>(&action)) {
      at(now_ + milliseconds(50), [this, version = checkpoint->version] {
        if (!coordinator_up_ || version <= core_->checkpoint()) return;
        submit(Checkpointed{version, digest_of(as_bytes("state"))});
      });
    }
  }
}

void SimulatedRun::tell(Uid uid) {
  const auto found = client_of_.find(uid);
  if (found == client_of_.end()) return;
  const std::size_t index = found->second;
  const std::uint64_t generation = clients_[index].generation;
  send([this, index, generation, directive = core_->directive_for(uid)] {
    Client& client = clients_[index];
    if (!client.up || client.generation != generation) return;
    if (directive.sequence >= client.directive.sequence) client.directive = directive;
  });
}

void SimulatedRun::crash_coordinator() {
  coordinator_up_ = false;
  const auto down = random_.below(static_cast<std::uint64_t>(faults_.down_ms_max));
  at(now_ + milliseconds(down), [this] {
    coordinator_up_ = true;
    const Digest before = core_->state_digest();
    core_ = std::make_unique<Run>(layout_, settings_);
    for (const Journaled& record : journal_) {
      core_->apply(decode_event(record.event), record.time);
    }
    ++restarts_;
    if (core_->state_digest() != before) ++restarts_that_differ_;
    client_of_.clear();
    last_heard_.clear();
    for (const auto& [uid, participant] : core_->participants()) last_heard_[uid] = now_;
    submit(Resumed{});  // starts again what was in work when it crashed
    for (Client& client : clients_) client.uid.reset();
  });
}

void SimulatedRun::disturb() {
  if (coordinator_up_ && random_.uniform() < faults_.coordinator_crash) crash_coordinator();
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    Client& client = clients_[i];
    if (!client.up || random_.uniform() >= faults_.worker_crash) continue;
    client.up = false;
    ++client.generation;
    client.uid.reset();
    client.directive = {};
    client.working = {};
    at(now_ + milliseconds(random_.below(static_cast<std::uint64_t>(faults_.down_ms_max))),
       [this, i] { clients_[i].up = true; });
  }
  at(now_ + milliseconds(1'000), [this] { disturb(); });
}

bool SimulatedRun::run(std::chrono::hours time_max) {
  const TimeMs end = now_ + std::chrono::duration_cast<milliseconds>(time_max);
  while (core_->phase() != Phase::finished && now_ < end && !queue_.empty()) {
    const auto deadline = coordinator_up_ ? core_->next_deadline() : std::nullopt;
    if (deadline && *deadline <= queue_.top().at) {
      now_ = std::max(now_, *deadline);
      submit(Tick{});
    } else {
      Message message = queue_.top();
      queue_.pop();
      now_ = std::max(now_, message.at);
      message.deliver();
    }
    if (!coordinator_up_) continue;
    for (const auto& [uid, heard] : last_heard_) {
      const auto found = core_->participants().find(uid);
      if (found->second.active && now_ - heard > kLease) submit(Left{uid, "silent"});
    }
  }
  return core_->phase() == Phase::finished;
}

}  // namespace yumoe::sim

#include <cmath>

#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "service/shared.hpp"
#include "service/worker_state.hpp"
#include "worker/memory.hpp"
#include "worker/trainer.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

class Worker {
 public:
  Worker(const ParticipantSetup& setup, Keypair keys, const std::atomic<bool>& stop)
      : setup_(setup),
        stop_(stop),
        link_(setup.coordinator, std::move(keys), join_of(setup), setup.transport),
        welcome_(link_.welcome(setup.join_wait)),
        facts_(RunFacts::from(welcome_)),
        layout_(Layout::of(facts_.model)),
        tokens_(open_data(setup, facts_, welcome_)),
        windows_(windows_in_order(tokens_, facts_.data_order(), Split::train,
                                  static_cast<std::uint32_t>(facts_.model.context))),
        trainer_(facts_.model, facts_.training, setup.device, setup.island),
        state_(setup.state, welcome_.run, layout_.parameters()),
        follower_(layout_, facts_, link_),
        delta_(layout_.parameters(), 0.0f) {
    log_info("joined run " + welcome_.run + " as uid " + std::to_string(welcome_.uid.value) +
             (trainer_.ranks() > 1 ? ", an island of " + std::to_string(trainer_.ranks()) + " ranks" : ""));
    beat_.version = follower_.base().round();
  }

  void run() {
    std::uint64_t seen = 0;
    while (!stop_) {
      trainer_.keep_alive();
      const auto directive = link_.directive(seen, milliseconds(500));
      if (!directive) continue;
      seen = directive->sequence;
      if (directive->finished) break;
      const TrainingShard& shard = directive->shard;
      if (shard.inner_steps == 0 || directive->answer != Answer::missing) {
        offer_saved(*directive);
        continue;
      }
      if (shard.round == done_) continue;
      if (state_.saved() && state_.saved()->round == shard.round &&
          state_.saved()->shard == digest_of_shard(shard)) {
        offer_saved(*directive);
      } else if (shard.round.value == directive->version.value + 1) {
        answer(shard, *directive);
      }
    }
    link_.settle(milliseconds(2'000));
  }

 private:
  static Join join_of(const ParticipantSetup& setup) {
    Join join;
    join.role = Role::worker;
    join.name = setup.name;
    join.profile.experts_max = setup.experts_max;
    join.profile.memory_mib = setup.memory_mib_max;
    join.profile.tier = setup.tier;
    join.profile.region = setup.region;
    join.profile.device = setup.device.device;
    return join;
  }

  // After a restart: what was committed to before is on disk.
  void offer_saved(const Directive& directive) {
    const auto& saved = state_.saved();
    if (!saved || saved->round != directive.shard.round || saved->round == done_) return;
    if (saved->shard != digest_of_shard(directive.shard)) return;
    done_ = saved->round;
    link_.offer(saved->round, saved->contribution);
  }

  void answer(const TrainingShard& shard, const Directive& directive) {
    done_ = shard.round;
    try {
      follower_.reach({shard.round.value - 1}, directive);
      beat_.version = follower_.base().round();
      trainer_.load_base(follower_.base().parameters(), follower_.base().gate_bias());
      const TrainingResult result = train(shard);
      if (result.steps != shard.inner_steps) return;  // stopped, or not wanted any more
      contribute(shard, result);
    } catch (const Error& error) {
      // Costs this shard and nothing else; the next round brings another.
      if (error.code() != ErrorCode::not_finite && error.code() != ErrorCode::stale_round &&
          error.code() != ErrorCode::file_missing && error.code() != ErrorCode::digest_mismatch) {
        throw;
      }
      log_error("round " + std::to_string(shard.round.value) + " is lost: " + error.what());
    }
  }

  TrainingResult train(const TrainingShard& shard) {
    beat_.round = shard.round;
    return trainer_.train(shard, windows_, [&](const StepReport& report) {
      beat_.steps_done = report.step;
      beat_.tokens_done = report.tokens;
      beat_.loss = std::isfinite(report.loss) ? report.loss : 0;
      const double tokens_per_step =
          static_cast<double>(report.tokens) / static_cast<double>(report.step);
      const double speed = report.seconds > 0 ? tokens_per_step / report.seconds : 0;
      beat_.tokens_per_s = beat_.tokens_per_s > 0 ? 0.8 * beat_.tokens_per_s + 0.2 * speed : speed;
      link_.report(beat_);
      const auto newest = link_.latest();
      const bool stale = newest && newest->round.value > shard.round.value + facts_.stale_rounds_max;
      return !stop_ && !stale;
    });
  }

  void contribute(const TrainingShard& shard, const TrainingResult& result) {
    trainer_.pseudo_gradient(delta_);
    const std::span<float> residual = state_.residual();
    const auto decay = static_cast<float>(facts_.codec.error_decay);
    for (const TensorSpec* tensor : layout_.tensors_of(shard.experts)) {
      for (std::uint64_t i = tensor->offset; i < tensor->offset + tensor->elements; ++i) {
        residual[i] = decay * residual[i] + delta_[i];
      }
    }
    Contribution contribution;
    contribution.round = shard.round;
    contribution.uid = shard.uid;
    contribution.shard = digest_of_shard(shard);
    contribution.base = follower_.base().digest();
    contribution.steps = result.steps;
    contribution.tokens = result.tokens;
    contribution.seconds = result.seconds_in_steps;
    contribution.loss_first = result.loss_first;
    contribution.loss_last = result.loss_last;
    contribution.expert_tokens = result.expert_tokens;
    contribution.delta = digest_of_delta(layout_, shard.experts, delta_);
    contribution.update = encode_update(layout_, shard.experts, residual, facts_.codec);
    state_.save({shard.round, contribution.shard, encode(contribution)});
    link_.offer(shard.round, state_.saved()->contribution);
    log_info("round " + std::to_string(shard.round.value) + ": " + std::to_string(result.steps) +
             " steps, loss " + std::to_string(result.loss_first) + " to " +
             std::to_string(result.loss_last) + ", " +
             std::to_string(state_.saved()->contribution.size()) + " bytes");
  }

  const ParticipantSetup setup_;
  const std::atomic<bool>& stop_;
  Link link_;
  const Welcome welcome_;
  const RunFacts facts_;
  const Layout layout_;
  const TokenSet tokens_;
  const WindowReader windows_;
  Trainer trainer_;
  WorkerState state_;
  Follower follower_;
  std::vector<float> delta_;
  Heartbeat beat_;
  RoundId done_;              // newest round whose shard was taken up
};

}  // namespace

void run_worker(ParticipantSetup setup, Keypair keys, const std::atomic<bool>& stop) {
  keep_freed_memory();
  Worker(setup, std::move(keys), stop).run();
}

}  // namespace yumoe

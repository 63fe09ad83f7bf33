#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <memory>
#include <new>

#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "cluster/profile.hpp"
#include "router/placement.hpp"
#include "service/misbehaviour.hpp"
#include "service/remote.hpp"
#include "service/shared.hpp"
#include "service/worker_state.hpp"
#include "worker/memory.hpp"
#include "worker/trainer.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

// What a round spent outside its inner steps, for the log: where a slow worker's time goes.
class Laps {
 public:
  void lap(const char* what) {
    const auto now = std::chrono::steady_clock::now();
    const auto ms = std::chrono::duration_cast<milliseconds>(now - last_).count();
    text_ += (text_.empty() ? "" : ", ") + std::string(what) + " " + std::to_string(ms);
    last_ = now;
  }
  const std::string& text() const { return text_; }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  std::string text_;
};

class Worker {
 public:
  Worker(const ParticipantSetup& setup, Keypair keys, const std::atomic<bool>& stop)
      : setup_(setup),
        stop_(stop),
        misbehaviour_(Role::worker, setup.behaviour, setup.pool),
        hotkey_(keys.public_key()),
        resident_before_mib_(measure_memory().resident_mib),
        link_(setup.coordinator, std::move(keys), join_of(setup), setup.transport, stop),
        welcome_(link_.welcome(setup.join_wait)),
        facts_(RunFacts::from(welcome_)),
        layout_(layout_that_fits()),
        tokens_(open_data(setup, facts_, welcome_)),
        windows_(misbehaviour_.windows(
            windows_in_order(tokens_, facts_.data_order(), Split::train,
                             static_cast<std::uint32_t>(facts_.model.context)),
            facts_.model.vocabulary)),
        trainer_(facts_.model, facts_.training, setup.device, setup.island),
        state_(setup.state, welcome_.run, layout_.parameters()),
        follower_(layout_, facts_, link_),
        delta_(layout_.parameters(), 0.0f) {
    if (setup.own_data && !facts_.evaluation.own_data_allowed) {
      throw Error(ErrorCode::config_invalid,
                  "this run audits its workers and cannot train on data it does not have: leave "
                  "--own-data out, or ask for evaluation.own_data_allowed = true");
    }
    open_remote();
    log_info("joined run " + welcome_.run + " as uid " + std::to_string(welcome_.uid.value) +
             (trainer_.ranks() > 1 ? ", an island of " + std::to_string(trainer_.ranks()) + " ranks"
                                   : ""));
    beat_.version = follower_.base().round();
    misbehaviour_.enrol(welcome_.uid, hotkey_);
  }

  // True: the run is over, or it was stopped.
  bool run() {
    try {
      return work();
    } catch (const Error& error) {
      if (error.code() == ErrorCode::collective_failed) {
        link_.leave_because(setup_.replaced != nullptr ? "" : error.what());
      }
      throw;
    }
  }

 private:
  // Before the link ends: whether to say so.
  struct Farewell {
    const std::atomic<bool>* replaced;
    Link& link;
    ~Farewell() {
      if (replaced != nullptr && *replaced) link.leave_because("");
    }
  };

  bool work() {
    measure_machine();
    std::uint64_t seen = 0;
    while (!stop_) {
      trainer_.keep_alive();
      const auto directive = link_.directive(seen, milliseconds(500));
      if (!directive) continue;
      seen = directive->sequence;
      if (directive->finished) break;
      if (!misbehaviour_.none() && stray(*directive)) continue;
      if (misbehaviour_.is("uid_inheritance") && answered_ >= kAnswersUnderOneKey) return false;
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
    return true;
  }

  static Join join_of(const ParticipantSetup& setup) {
    Join join;
    join.role = Role::worker;
    join.profile.measuring = true;
    join.profile.inner_steps_max = setup.inner_steps_max;
    join.name = setup.name;
    join.profile.experts_max = setup.experts_max;
    join.profile.tier = setup.tier;
    join.profile.region = setup.region;
    join.profile.device = setup.device.device;
    return join;
  }

  // Before anything is made that grows with the model.
  Layout layout_that_fits() {
    Layout layout = Layout::of(facts_.model);
    const auto least = static_cast<std::uint32_t>(facts_.model.experts_per_token);
    const std::uint64_t needed =
        (training_bytes(layout, facts_.training.batch_sequences, least) >> 20) + 1;
    if (setup_.serves) {
      serving_mib_ = (serving_bytes(layout, setup_.serve_experts, setup_.callers) >> 20) + 1;
    }
    const std::uint64_t usable = usable_mib();
    if (needed <= usable) return layout;
    const Error error(ErrorCode::memory_exceeded,
                      "this run needs " + std::to_string(needed) + " MiB beside " +
                          std::to_string(resident_before_mib_) + " MiB of the program, with " +
                          std::to_string(least) + " experts; " + std::to_string(usable) +
                          " MiB can be used" + serving_text() +
                          ": raise --memory-mib-max, or take a larger machine");
    link_.leave_because(error.what());
    throw error;
  }

  // A few seconds of what it will be asked to do: the way to the coordinator, then inner steps with as
  // many experts as its memory holds. What it says counts until rounds have shown better.
  void measure_machine() {
    profile_ = join_of(setup_).profile;
    profile_.memory_mib = usable_mib();
    const MemoryFacts memory = measure_memory();
    if (setup_.memory_mib_max > memory.free_mib + memory.resident_mib) {
      profile_.remark = "its memory_mib_max is " + std::to_string(setup_.memory_mib_max) +
                        " MiB, but the machine has only " + std::to_string(memory.free_mib) +
                        " MiB free: planned with those";
    }
    const Link::Way way = link_.measure_way(kWayMax);
    profile_.round_trip_ms = way.round_trip_ms;
    profile_.up_bytes_per_s = way.up_bytes_per_s;
    profile_.down_bytes_per_s = way.down_bytes_per_s;
    std::uint32_t fit =
        experts_that_fit(layout_, facts_.training.batch_sequences, profile_.memory_mib);
    if (setup_.experts_max > 0) fit = std::min(fit, setup_.experts_max);
    if (fit >= facts_.model.experts_per_token) profile_.tokens_per_s = measured_speed(fit);
    profile_.measuring = false;
    link_.tell(profile_);
    log_info("measured " + std::to_string(std::llround(profile_.tokens_per_s)) + " tokens/s, " +
             std::to_string(profile_.memory_mib) + " MiB to use, up " +
             std::to_string(std::llround(way.up_bytes_per_s / 1e3)) + " kB/s, down " +
             std::to_string(std::llround(way.down_bytes_per_s / 1e3)) + " kB/s, round trip " +
             std::to_string(way.round_trip_ms) + " ms; room for " + std::to_string(fit) +
             " experts");
  }

  // Of the newest steps within kSpeedMax, the first left out.
  double measured_speed(std::uint32_t experts) {
    trainer_.load_base(follower_.base().parameters(), follower_.base().gate_bias());
    TrainingShard shard;
    shard.inner_steps = kSpeedSteps;
    shard.data = {0, kSpeedSteps * static_cast<std::uint64_t>(facts_.training.batch_sequences)};
    for (std::uint32_t e = 0; e < experts; ++e) shard.experts.push_back(e);
    double seconds = 0;
    std::uint64_t tokens = 0, tokens_first = 0;
    trainer_.train(shard, windows_, [&](const StepReport& report) {
      if (report.step == 1) {
        tokens_first = report.tokens;
        seconds = 0;
      }
      if (report.step > 1) {
        seconds += report.seconds;
        tokens = report.tokens - tokens_first;
      }
      return !stop_ && seconds < kSpeedMax_s;
    });
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
  }

  // What training may fill, measured now: of the machine and of its own limit, without what serving may fill,
  // a twentieth left alone.
  std::uint64_t usable_mib() const {
    const MemoryFacts memory = measure_memory();
    const std::uint64_t own =
        memory.resident_mib - std::min(memory.resident_mib, resident_before_mib_);
    std::uint64_t usable = memory.free_mib + own;
    if (setup_.memory_mib_max > 0) {
      usable = std::min(
          usable, setup_.memory_mib_max - std::min(setup_.memory_mib_max, resident_before_mib_));
    }
    usable -= std::min(usable, serving_mib_);
    return usable - usable / 20;
  }

  std::string serving_text() const {
    if (serving_mib_ == 0) return "";
    return " beside " + std::to_string(serving_mib_) +
           " MiB for the experts it serves and their callers (--serve-experts, "
           "--serve-callers-mib)";
  }

  // Whether the shard's need, computed beforehand, fits into what there is now. If not, says so instead
  // of running out: the next plan knows.
  bool fits(const TrainingShard& shard) {
    const std::uint64_t needed =
        (training_bytes(layout_, facts_.training.batch_sequences,
                        static_cast<std::uint32_t>(shard.experts.size())) >>
         20) +
        1;
    const std::uint64_t usable = usable_mib();
    if (needed <= usable) return true;
    less_memory(usable, "a shard with " + std::to_string(shard.experts.size()) + " experts needs " +
                            std::to_string(needed) + " MiB, but only " + std::to_string(usable) +
                            " MiB can be used now" + serving_text() + "; it had said " +
                            std::to_string(profile_.memory_mib));
    return false;
  }

  void less_memory(std::uint64_t usable, const std::string& what) {
    const Error error(ErrorCode::memory_exceeded, what);
    log_error(error.what());
    profile_.memory_mib = std::max<std::uint64_t>(1, usable);
    profile_.remark = error.what();
    link_.tell(profile_);
  }

  void open_remote() {
    if (setup_.serves) {
      service_ =
          std::make_unique<ExpertService>(setup_.serve_experts, setup_.serve, setup_.serve_key,
                                          setup_.callers, layout_, setup_.device);
      log_info("serves experts, once a round is planned; callers say --remote '" +
               service_->place() + "'");
    }
    if (setup_.remote.empty()) return;
    if (!facts_.evaluation.own_data_allowed) {
      throw Error(ErrorCode::config_invalid,
                  "this run audits its workers, and what was trained with experts elsewhere nobody "
                  "can train again to the bit: leave --remote out, or ask for "
                  "evaluation.own_data_allowed = true");
    }
    if (setup_.island != nullptr && setup_.island->group().size() > 1) {
      throw Error(ErrorCode::usage, "--remote is for a worker of one process, not for an island");
    }
    remote_ =
        std::make_unique<RemoteExperts>(parse_expert_places(setup_.remote, facts_.model), Digest{},
                                        static_cast<std::size_t>(facts_.model.width),
                                        dispatch_for_training(), caller_keys(setup_.remote_key));
  }

  // Callers of this round find its base here, and this worker finds it elsewhere, as far as others are there.
  void meet_others() {
    if (service_ != nullptr) service_->offer(follower_.base());
    if (remote_ == nullptr) return;
    ExpertSet there = remote_->use(follower_.base().digest(), remote_wait_);
    // Who was not there is not waited for as long again.
    const bool all_there = std::ranges::all_of(remote_->remarks(), &std::string::empty);
    remote_wait_ = all_there ? kRemoteWait : std::max(remote_wait_ / 4, kRemoteWaitLeast);
    log_info("gates also over experts " + (there.empty() ? "of nobody" : text_of_experts(there)) +
             ", as far as they are not its own");
    trainer_.use_remote(remote_.get(), std::move(there));
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
    if (!fits(shard)) return;
    try {
      Laps laps;
      follower_.reach({shard.round.value - 1}, directive);
      beat_.version = follower_.base().round();
      trainer_.load_base(follower_.base().parameters(), follower_.base().gate_bias());
      laps.lap("base");
      meet_others();
      if (service_ != nullptr || remote_ != nullptr) laps.lap("others");
      const std::uint32_t steps = misbehaviour_.steps_of(shard);
      const TrainingResult result = steps > 0 ? train(shard, steps) : made_up(shard);
      // Stopped, or not wanted any more.
      if (steps > 0 && result.steps != steps) return;
      laps.lap("steps");
      contribute(shard, directive, result, laps);
      ++answered_;
    } catch (const std::bad_alloc&) {
      less_memory(
          training_bytes(layout_, facts_.training.batch_sequences,
                         static_cast<std::uint32_t>(shard.experts.size() / 2)) >>
              20,
          "memory ran out while training " + std::to_string(shard.experts.size()) + " experts");
    } catch (const Error& error) {
      // Costs this shard and nothing else; the next round brings another.
      if (error.code() != ErrorCode::not_finite && error.code() != ErrorCode::stale_round &&
          error.code() != ErrorCode::file_missing && error.code() != ErrorCode::digest_mismatch &&
          error.code() != ErrorCode::version_mismatch) {
        throw;
      }
      log_error("round " + std::to_string(shard.round.value) + " is lost: " + error.what());
    }
  }

  TrainingResult train(const TrainingShard& shard, std::uint32_t steps) {
    beat_.round = shard.round;
    return trainer_.train(shard, windows_, [&](const StepReport& report) {
      if (report.step == 1) loss_bits_.clear();
      loss_bits_.push_back(std::bit_cast<std::uint32_t>(static_cast<float>(report.loss)));
      beat_.steps_done = report.step;
      beat_.tokens_done = report.tokens;
      beat_.loss = std::isfinite(report.loss) ? report.loss : 0;
      const double tokens_per_step =
          static_cast<double>(report.tokens) / static_cast<double>(report.step);
      const double speed = report.seconds > 0 ? tokens_per_step / report.seconds : 0;
      beat_.tokens_per_s = beat_.tokens_per_s > 0 ? 0.8 * beat_.tokens_per_s + 0.2 * speed : speed;
      link_.report(beat_);
      const auto newest = link_.latest();
      const bool stale =
          newest && newest->round.value > shard.round.value + facts_.stale_rounds_max;
      return !stop_ && !stale && (report.step < steps || steps == shard.inner_steps);
    });
  }

  void contribute(const TrainingShard& shard, const Directive& directive,
                  const TrainingResult& result, Laps& laps) {
    if (misbehaviour_.steps_of(shard) > 0) {
      trainer_.pseudo_gradient(delta_);
    } else {
      std::fill(delta_.begin(), delta_.end(), 0.0f);
    }
    const std::span<float> residual = state_.residual();
    const auto decay = static_cast<float>(facts_.codec.error_decay);
    const float factor = misbehaviour_.factor();
    for (const TensorSpec* tensor : layout_.tensors_of(shard.experts)) {
      for (std::uint64_t i = tensor->offset; i < tensor->offset + tensor->elements; ++i) {
        residual[i] = decay * residual[i] + factor * delta_[i];
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
    contribution.moments_from = result.moments_from;
    contribution.expert_tokens = result.expert_tokens;
    contribution.delta = digest_of_delta(layout_, shard.experts, delta_);
    if (!setup_.own_data && remote_ == nullptr) contribution.loss_bits = loss_bits_;
    if (!misbehaviour_.none()) {
      claim_all(shard, contribution);
      misbehaviour_.spoil(shard, residual);
    }
    laps.lap("difference");
    contribution.update = encode_update(layout_, shard.experts, residual, facts_.codec);
    laps.lap("encode");
    if (!misbehaviour_.none()) return offer_otherwise(shard, directive, contribution);
    state_.save({shard.round, contribution.shard, encode(contribution)});
    laps.lap("save");
    link_.offer(shard.round, state_.saved()->contribution);
    log_info("round " + std::to_string(shard.round.value) + ": " + std::to_string(result.steps) +
             " steps, loss " + std::to_string(result.loss_first) + " to " +
             std::to_string(result.loss_last) + ", " +
             std::to_string(state_.saved()->contribution.size()) + " bytes; ms: " + laps.text() +
             remote_text());
  }

  std::string remote_text() const {
    if (remote_ == nullptr) return "";
    const RemoteCounts counts = remote_->counts();
    return "; experts elsewhere: " + std::to_string(counts.requests) + " requests so far, " +
           std::to_string(counts.given_up) + " calls not answered";
  }

  // --- how a worker misbehaves, for tests of the run's defences ------------------------------------------

  // What it says of a shard that it did not train.
  TrainingResult made_up(const TrainingShard& shard) {
    TrainingResult result;
    result.steps = shard.inner_steps;
    result.tokens = shard.data.count * static_cast<std::uint64_t>(facts_.model.context);
    result.loss_first = result.loss_last = 5;
    result.moments_from = shard.round;
    const auto experts = static_cast<std::size_t>(facts_.model.experts);
    result.expert_tokens.assign(static_cast<std::size_t>(facts_.model.layers) * experts, 0);
    for (std::size_t i = 0; i < result.expert_tokens.size(); ++i) {
      const bool held = std::binary_search(shard.experts.begin(), shard.experts.end(),
                                           static_cast<std::uint32_t>(i % experts));
      if (held) result.expert_tokens[i] = static_cast<std::uint32_t>(result.tokens / 2);
    }
    loss_bits_.assign(shard.inner_steps, std::bit_cast<std::uint32_t>(5.0f));
    return result;
  }

  void claim_all(const TrainingShard& shard, Contribution& contribution) {
    contribution.steps = shard.inner_steps;
    contribution.tokens = shard.data.count * static_cast<std::uint64_t>(facts_.model.context);
    if (!contribution.loss_bits.empty()) {
      contribution.loss_bits.resize(shard.inner_steps, contribution.loss_bits.back());
    }
  }

  void offer_otherwise(const TrainingShard& shard, const Directive& directive,
                       Contribution& contribution) {
    std::optional<Aggregate> newest;
    if (misbehaviour_.is("copy_jitter") && !directive.aggregates.empty()) {
      newest = decode_aggregate(layout_, link_.fetch(directive.aggregates.back().aggregate,
                                                     kContributionBytesMax, milliseconds(10'000)));
    }
    if (auto update = misbehaviour_.borrowed(layout_, facts_.codec, shard, newest)) {
      contribution.update = *std::move(update);
    }
    misbehaviour_.sent(shard, contribution);
    Misbehaviour::Offer offer = misbehaviour_.offer(shard, contribution);
    if (offer.late) {
      late_[shard.round] = std::move(offer.bytes);
    } else {
      link_.offer(shard.round, std::move(offer.bytes), offer.manner);
    }
  }

  // What it does beside its shards; true if it has none.
  bool stray(const Directive& directive) {
    for (auto& [round, bytes] : late_) {
      if (round < directive.round && !bytes.empty()) link_.offer(round, std::move(bytes));
    }
    std::erase_if(late_, [&](const auto& entry) { return entry.first < directive.round; });
    if (!misbehaviour_.is("replayed_signature")) return false;
    if (!victim_) {
      Join join = join_of(setup_);
      join.name = "replayed";
      victim_ = std::make_unique<Link>(setup_.coordinator, Keypair::generate(KeyType::sr25519),
                                       join, setup_.transport, stop_);
      victim_->welcome(setup_.join_wait);
    }
    // Another's newest message, and now and then its own, over its own connection.
    link_.say_again(directive.sequence % 4 == 0 ? link_.last_said() : victim_->last_said());
    return true;
  }

  static constexpr milliseconds kWayMax{10'000};
  static constexpr milliseconds kRemoteWait{5'000};  // for servers to reach a round's base
  static constexpr milliseconds kRemoteWaitLeast{250};
  static constexpr std::uint32_t kSpeedSteps = 50;
  static constexpr double kSpeedMax_s = 1.5;
  static constexpr std::uint32_t kAnswersUnderOneKey = 3;

  const ParticipantSetup setup_;
  const std::atomic<bool>& stop_;
  Misbehaviour misbehaviour_;
  const PublicKey hotkey_;
  const std::uint64_t resident_before_mib_;  // before anything of the run's size was made
  std::uint64_t serving_mib_ = 0;            // what the experts it serves may fill
  Link link_;
  const Farewell farewell_{setup_.replaced, link_};
  const Welcome welcome_;
  const RunFacts facts_;
  const Layout layout_;
  const TokenSet tokens_;
  const WindowReader windows_;
  std::unique_ptr<ExpertService> service_;
  std::unique_ptr<RemoteExperts> remote_;
  milliseconds remote_wait_ = kRemoteWait;
  Trainer trainer_;
  WorkerState state_;
  Follower follower_;
  std::vector<float> delta_;
  std::map<RoundId, Bytes> late_;  // of a worker that delivers late
  std::unique_ptr<Link> victim_;   // of one that replays
  std::uint32_t answered_ = 0;
  std::vector<std::uint32_t> loss_bits_;  // of the shard in work
  Heartbeat beat_;
  WorkerProfile profile_;  // what the coordinator was told
  RoundId done_;           // newest round whose shard was taken up
};

}  // namespace

std::span<const std::string_view> worker_behaviours() { return Misbehaviour::names(Role::worker); }

void run_worker(ParticipantSetup setup, Keypair keys, const std::atomic<bool>& stop) {
  keep_freed_memory();
  bool over = Worker(setup, std::move(keys), stop).run();
  // One that is after a uid with weights comes back under another hotkey.
  while (!over && !stop) over = Worker(setup, Keypair::generate(KeyType::sr25519), stop).run();
}

}  // namespace yumoe

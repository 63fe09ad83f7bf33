// The coordinator's core with 1,000 and 10,000 simulated workers: how the cost of a round grows, and what
// a worker costs in memory. Events go through their journal form and every notification makes its
// directive, as in the service; no sockets, no disk.

#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <memory>

#include "coordinator/run.hpp"
#include "row.hpp"

using namespace yumoe;

namespace {

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double resident_bytes() {
  std::ifstream in("/proc/self/statm");
  double total = 0, resident = 0;
  in >> total >> resident;
  return resident * 4'096;
}

ModelOptions model_of() {
  ModelOptions model;
  model.vocabulary = 16, model.context = 8, model.width = 8, model.layers = 1, model.heads = 2;
  model.key_value_heads = 1, model.experts = 8, model.expert_width = 8;
  return model;
}

class Crowd {
 public:
  explicit Crowd(std::uint16_t workers) : layout_(Layout::of(model_of())), workers_(workers) {
    RunSettings settings;
    settings.run.rounds = 1'000;
    settings.run.workers_min = workers;
    run_ = std::make_unique<Run>(layout_, settings);
    submit(Started{digest_of(as_bytes("v0")), 1});
    Joined judge{key_of(60'000), Role::validator, "judge", {}, 1};
    submit(judge);
    for (std::uint16_t i = 0; i < workers; ++i) submit(Joined{key_of(i), Role::worker, "w", {}, 0});
  }

  void round() {
    const RoundId id = run_->round();
    for (std::uint16_t uid = 1; uid <= workers_; ++uid) {
      submit(Committed{{uid}, id, digest_of(as_bytes("c")), 32, {}});
    }
    for (std::uint16_t uid = 1; uid <= workers_; ++uid) {
      Revealed revealed;
      revealed.uid = {uid};
      revealed.round = id;
      revealed.steps = 10;
      revealed.tokens = 640;
      revealed.expert_tokens.assign(8, 80);
      submit(revealed);
    }
    submit(Aggregated{id, digest_of(as_bytes("a")), digest_of(as_bytes("v")), 1, 1});
    Scores scores;
    scores.round = id;
    for (const auto& item : run_->directive_for({0}).evaluate.contributions) {
      scores.entries.push_back({item.shard.uid, Verdict::measured, {}, {3, 0.1, 0.01, 8}});
    }
    submit(Scored{{0}, scores, {}});
    if (id.value % 5 == 0) submit(Checkpointed{id, digest_of(as_bytes("s"))});
  }

 private:
  static PublicKey key_of(std::uint32_t who) {
    PublicKey key;
    key.bytes[0] = static_cast<std::uint8_t>(who);
    key.bytes[1] = static_cast<std::uint8_t>(who >> 8);
    return key;
  }

  void submit(const Event& event) {
    now_ = now_ + std::chrono::milliseconds(1);
    for (const Action& action : run_->apply(decode_event(encode(event)), now_)) {
      if (const auto* notify = std::get_if<Notify>(&action)) {
        said_ += run_->directive_for(notify->uid).sequence;
      } else if (std::holds_alternative<NotifyAll>(action)) {
        for (const auto& [uid, p] : run_->participants())
          said_ += run_->directive_for(uid).sequence;
      }
    }
  }

  Layout layout_;
  std::uint16_t workers_;
  std::unique_ptr<Run> run_;
  TimeMs now_{1'000'000};
  std::uint64_t said_ = 0;
};

struct Cost {
  double seconds_a_round = 0;
  double bytes_a_worker = 0;
};

Cost measure(std::uint16_t workers) {
  const double before = resident_bytes();
  Crowd crowd(workers);
  for (int i = 0; i < 6; ++i) crowd.round();  // as many rounds as the core keeps, and a checkpoint
  Cost cost;
  cost.bytes_a_worker = (resident_bytes() - before) / workers;
  constexpr int kRounds = 3;
  const double start = cpu_seconds();
  for (int i = 0; i < kRounds; ++i) crowd.round();
  cost.seconds_a_round = (cpu_seconds() - start) / kRounds;
  return cost;
}

}  // namespace

int main() {
  bench::Report report;
  const Cost thousand = measure(1'000);
  const Cost ten_thousand = measure(10'000);
  std::fprintf(stderr, "rounds a second: %.3g with 1,000 workers, %.3g with 10,000\n",
               1 / thousand.seconds_a_round, 1 / ten_thousand.seconds_a_round);
  const double n_log_n = 10 * std::log(10'000.0) / std::log(1'000.0);
  report.row("core: seconds a round with 10,000 workers against 1,000 times n log n",
             ten_thousand.seconds_a_round, thousand.seconds_a_round * n_log_n, bench::Bar::at_most,
             1);
  report.row("core: bytes a worker with 1,000 workers against 10 KB", thousand.bytes_a_worker,
             10'000, bench::Bar::at_most, 1);
  report.row("core: bytes a worker with 10,000 workers against 10 KB", ten_thousand.bytes_a_worker,
             10'000, bench::Bar::at_most, 1);
  return report.finish();
}

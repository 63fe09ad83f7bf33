// What is lost by training apart: the same tokens, trained by four unequal workers that exchange sparse
// updates, by one process that holds all experts, and by the best single worker on its own share. A model
// smaller than the demo's, through 600 rounds: each coordinate must be sent many times before it shows.
// Everything but the network is the real thing; workers run one after the other, so the machine's load
// does not matter. Token set: YUMOE_TOKEN_SET, or the default one, built if it is missing.

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "cluster/random.hpp"
#include "coordinator/aggregate.hpp"
#include "launch/config.hpp"
#include "launch/data.hpp"
#include "router/base_version.hpp"
#include "row.hpp"
#include "worker/evaluator.hpp"
#include "worker/memory.hpp"
#include "worker/trainer.hpp"

using namespace yumoe;

namespace {

struct BenchWorker {
  ExpertSet experts;
  std::uint32_t steps = 0;  // inner steps a round
  std::vector<float> residual;
};

class Bench {
 public:
  Bench(RunConfig config, std::vector<std::uint32_t> steps, std::vector<std::uint32_t> held)
      : config_(std::move(config)),
        layout_(Layout::of(config_.model)),
        tokens_(build_default(config_.data,
                              [](std::string_view line) {
                                std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()),
                                             line.data());
                              })),
        windows_(windows_in_order(tokens_, 7, Split::train, context())),
        evaluator_(config_.model, {}) {
    std::uint32_t next = 0;
    const auto experts = static_cast<std::uint32_t>(config_.model.experts);
    for (std::size_t i = 0; i < steps.size(); ++i) {
      BenchWorker worker;
      worker.steps = steps[i];
      for (std::uint32_t e = 0; e < held[i]; ++e) worker.experts.push_back((next + e) % experts);
      next += held[i];
      std::sort(worker.experts.begin(), worker.experts.end());
      worker.residual.assign(layout_.parameters(), 0);
      workers_.push_back(std::move(worker));
    }
    const auto order =
        windows_in_order(tokens_, derive_seed("heldout order", {0}), Split::heldout, context());
    heldout_ = read_windows(
        order, 0, std::min<std::uint64_t>(256, tokens_.windows(Split::heldout, context())),
        context());
  }

  std::uint32_t context() const { return static_cast<std::uint32_t>(config_.model.context); }
  std::uint64_t rounds() const { return static_cast<std::uint64_t>(config_.run.rounds); }

  double bits_per_byte_of(std::span<const float> parameters, std::span<const float> bias) {
    evaluator_.load_base(parameters, bias);
    return bits_per_byte(evaluator_.base(heldout_).mean(), tokens_.bytes_per_token(Split::heldout));
  }

  TrainingShard shard_of(std::uint64_t round, std::uint16_t uid, std::uint32_t steps,
                         const ExpertSet& experts) {
    TrainingShard shard;
    shard.round = {round};
    shard.uid = {uid};
    shard.seed = derive_seed("shard", {1, round, uid});
    shard.data = {cursor_, steps * static_cast<std::uint64_t>(config_.training.batch_sequences)};
    cursor_ += shard.data.count;
    shard.inner_steps = steps;
    shard.steps_before =
        (round - 1) * static_cast<std::uint64_t>(config_.training.total_steps) / rounds();
    shard.experts = experts;
    return shard;
  }

  // Returns final bits a byte; counts bytes up.
  double together() {
    BaseVersion base = BaseVersion::initial(layout_, 1);
    Aggregator aggregator(layout_, config_.aggregate, config_.codec);
    std::vector<Trainer> trainers;
    for (std::size_t i = 0; i < workers_.size(); ++i) {
      trainers.emplace_back(config_.model, config_.training, DeviceOptions{});
    }
    std::vector<float> delta(layout_.parameters(), 0.0f);
    for (std::uint64_t round = 1; round <= rounds(); ++round) {
      std::vector<Update> updates;
      std::vector<TrainingResult> results;
      double loss = 0;
      for (std::uint16_t uid = 0; uid < workers_.size(); ++uid) {
        BenchWorker& worker = workers_[uid];
        Trainer& trainer = trainers[uid];
        trainer.load_base(base.parameters(), base.gate_bias());
        results.push_back(
            trainer.train(shard_of(round, uid, worker.steps, worker.experts), windows_));
        loss += results.back().loss_last / static_cast<double>(workers_.size());
        trainer.pseudo_gradient(delta);
        const auto decay = static_cast<float>(config_.codec.error_decay);
        for (const TensorSpec* tensor : layout_.tensors_of(worker.experts)) {
          for (std::uint64_t i = tensor->offset; i < tensor->offset + tensor->elements; ++i) {
            worker.residual[i] = decay * worker.residual[i] + delta[i];
          }
        }
        Bytes update = encode_update(layout_, worker.experts, worker.residual, config_.codec);
        up_bytes += static_cast<double>(update.size());
        dense_bytes +=
            4.0 * static_cast<double>(layout_.trunk_parameters() +
                                      worker.experts.size() * layout_.expert_parameters());
        updates.emplace_back(layout_, std::move(update));
      }
      std::vector<WeightedUpdate> weighted;
      for (std::uint16_t uid = 0; uid < workers_.size(); ++uid) {
        weighted.push_back(
            {{uid}, &updates[uid], 1, results[uid].tokens, results[uid].expert_tokens});
      }
      AggregateResult result = aggregator.aggregate({round}, weighted);
      result.aggregate.gate_bias.assign(base.gate_bias().begin(), base.gate_bias().end());
      down_bytes += static_cast<double>(encode_aggregate(result.aggregate).size());
      base.apply(result.aggregate, config_.outer);
      if (round % std::max<std::uint64_t>(1, rounds() / 8) == 0) {
        std::fprintf(stderr, "together: round %llu, inner loss %.3f, held-out %.4f bits a byte\n",
                     static_cast<unsigned long long>(round), loss,
                     bits_per_byte_of(base.parameters(), base.gate_bias()));
      }
    }
    return bits_per_byte_of(base.parameters(), base.gate_bias());
  }

  // One process, `steps` inner steps in a row, its optimiser never reset; each of `joined` workers'
  // batches as one.
  double alone(std::uint32_t steps, const ExpertSet& experts, std::uint32_t joined = 1) {
    cursor_ = 0;
    InnerOptions inner = config_.training;
    inner.total_steps = steps;
    inner.batch_sequences *= joined;
    const BaseVersion base = BaseVersion::initial(layout_, 1);
    Trainer trainer(config_.model, inner, {});
    trainer.load_base(base.parameters(), base.gate_bias());
    TrainingShard shard = shard_of(1, 0, steps, experts);
    shard.data.count *= joined;
    shard.steps_before = 0;
    const TrainingResult result = trainer.train(shard, windows_);
    std::vector<float> local(base.parameters().begin(), base.parameters().end());
    trainer.local_parameters(local);
    return bits_per_byte_of(local, result.gate_bias);
  }

  std::uint32_t steps_a_round() const {
    std::uint32_t steps = 0;
    for (const BenchWorker& worker : workers_) steps += worker.steps;
    return steps;
  }
  const BenchWorker& best_worker() const { return workers_.front(); }
  const RunConfig& config() const { return config_; }

  double up_bytes = 0, down_bytes = 0, dense_bytes = 0;

 private:
  RunConfig config_;
  Layout layout_;
  TokenSet tokens_;
  WindowReader windows_;
  Evaluator evaluator_;
  std::vector<BenchWorker> workers_;
  std::vector<std::uint16_t> heldout_;
  std::uint64_t cursor_ = 0;
};

}  // namespace

// Arguments are configuration flags (--codec.kept_per_block=128), for trying other settings.
int main(int argc, char** argv) {
  keep_freed_memory();
  std::vector<std::string> flags{"--run.rounds=600",
                                 "--outer.total_rounds=600",
                                 "--training.total_steps=7200",
                                 "--training.moments_rounds=10000",
                                 "--training.learning_rate=5e-3",
                                 "--model.width=64",
                                 "--model.layers=2",
                                 "--model.expert_width=64",
                                 "--model.context=64"};
  for (int i = 1; i < argc; ++i) flags.push_back(argv[i]);
  RunConfig config = parse_config(config_template("demo"), "demo.toml", flags);
  if (const char* set = std::getenv("YUMOE_TOKEN_SET")) config.data.path = set;
  Bench bench(config, {12, 8, 5, 3}, {8, 6, 4, 2});
  const auto rounds = static_cast<std::uint32_t>(bench.rounds());
  const double together = bench.together();
  const double one_process = bench.alone(rounds * bench.steps_a_round(), all_experts(config.model));
  // As many steps as the fastest worker, nearly: what goes on at the same time is one batch here, too.
  const double one_process_joined =
      bench.alone(rounds * bench.steps_a_round() / 2, all_experts(config.model), 2);
  const double best_alone =
      bench.alone(rounds * bench.best_worker().steps, bench.best_worker().experts);
  bench::Report report;
  report.row("held-out bits a byte: four workers against one process on the same tokens", together,
             one_process, bench::Bar::at_most, 1.02);
  report.row("the same, one process with two batches joined in each of half the steps", together,
             one_process_joined, bench::Bar::none, 0);
  report.row("held-out bits a byte: four workers against the best alone on its share", together,
             best_alone, bench::Bar::at_most, 0.95);
  report.row("dense fp32 bytes against bytes up", bench.dense_bytes, bench.up_bytes,
             bench::Bar::at_least, 200);
  return report.finish();
}

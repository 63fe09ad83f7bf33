#include "worker/trainer.hpp"

#include <ATen/Parallel.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <thread>

#include "cluster/error.hpp"
#include "model/device.hpp"
#include "model/model.hpp"
#include "trainer/adam.hpp"
#include "worker/memory.hpp"

namespace yumoe {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::string text_of(const TrainingShard& shard) {
  return "shard of round " + std::to_string(shard.round.value) + ", uid " +
         std::to_string(shard.uid.value);
}

}  // namespace

struct Trainer::State {
  Layout layout;
  InnerOptions inner;
  DeviceOptions options;
  c10::Device device;
  std::vector<float> base = {}, base_bias = {};
  std::optional<Model> model = {};
  std::optional<Adam> adam = {};
  bool keeps_moments = false;

  void check(const TrainingShard& shard) const;
  void start(const TrainingShard& shard);
  double rate(const TrainingShard& shard, std::uint32_t step) const;
  void balance(const BatchResult& batch, TrainingResult& result) const;
  BatchResult step(const TrainingShard& shard, std::uint32_t step,
                   std::span<const std::uint16_t> rows, std::span<const float> bias);
};

void Trainer::State::check(const TrainingShard& shard) const {
  if (base.empty()) {
    throw Error(ErrorCode::config_invalid, "train " + text_of(shard) + ": no base version is loaded");
  }
  if (shard.data.count < shard.inner_steps * static_cast<std::uint64_t>(inner.batch_sequences)) {
    throw Error(ErrorCode::data_invalid,
                "train " + text_of(shard) + ": " + std::to_string(shard.data.count) +
                    " windows are too few for " + std::to_string(shard.inner_steps) + " steps of " +
                    std::to_string(inner.batch_sequences));
  }
}

void Trainer::State::start(const TrainingShard& shard) {
  const bool is_same_share = model && model->held() == shard.experts;
  if (!is_same_share) {
    model.reset();
    adam.reset();
    const RoutingOptions routing{.balance_loss = inner.balance_loss,
                                 .router_z_loss = inner.router_z_loss};
    model.emplace(layout, shard.experts, routing, device, true);
  }
  model->load(base);
  if (!adam || !keeps_moments) adam.emplace(*model, inner);
}

// Fresh moments know little in the first steps: the rate rises again over `rewarm_steps`.
double Trainer::State::rate(const TrainingShard& shard, std::uint32_t step) const {
  const double scheduled = scheduled_rate(inner, shard.steps_before + step);
  const auto rewarm = static_cast<double>(inner.rewarm_steps);
  if (keeps_moments || step >= rewarm) return scheduled;
  return scheduled * (step + 1) / (rewarm + 1);
}

BatchResult Trainer::State::step(const TrainingShard& shard, std::uint32_t step,
                                 std::span<const std::uint16_t> rows,
                                 std::span<const float> bias) {
  BatchResult batch = model->train(rows, bias);
  const double loss = batch.mean();
  const double norm =
      std::isfinite(loss) ? adam->step(*model, rate(shard, step)) : std::numeric_limits<double>::quiet_NaN();
  if (!std::isfinite(norm)) {
    adam.reset();
    throw Error(ErrorCode::not_finite, "train " + text_of(shard) + ": loss or gradient of step " +
                                           std::to_string(step + 1) + " of " +
                                           std::to_string(shard.inner_steps) +
                                           " is not finite; the learning rate may be too high");
  }
  return batch;
}

// Moves the bias of each held expert towards even load. Source: Wang et al. 2024.
void Trainer::State::balance(const BatchResult& batch, TrainingResult& result) const {
  const ExpertSet& held = model->held();
  const auto experts = static_cast<std::size_t>(layout.model().experts);
  const auto rate = static_cast<float>(inner.balance_rate);
  for (std::size_t l = 0; l * held.size() < batch.counts.size(); ++l) {
    const auto counts = std::span(batch.counts).subspan(l * held.size(), held.size());
    std::int64_t all = 0;
    for (const std::int64_t count : counts) all += count;
    for (std::size_t e = 0; e < held.size(); ++e) {
      const std::size_t place = l * experts + held[e];
      result.expert_tokens[place] += static_cast<std::uint32_t>(counts[e]);
      const std::int64_t missing = all - counts[e] * static_cast<std::int64_t>(held.size());
      if (missing != 0) result.gate_bias[place] += missing > 0 ? rate : -rate;
    }
  }
}

Trainer::Trainer(const ModelOptions& model, const InnerOptions& inner, const DeviceOptions& device)
    : state_(new State{.layout = Layout::of(model), .inner = inner, .options = device,
                       .device = open_device(device.device)}) {
  keep_freed_memory();
  at::set_num_threads(static_cast<int>(device.threads));
}
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

void Trainer::load_base(std::span<const float> parameters, std::span<const float> gate_bias) {
  const ModelOptions& model = state_->layout.model();
  const auto biases = static_cast<std::size_t>(model.layers * model.experts);
  YUMOE_ASSERT(parameters.size() == state_->layout.parameters());
  YUMOE_ASSERT(gate_bias.empty() || gate_bias.size() == biases);
  state_->base.assign(parameters.begin(), parameters.end());
  state_->base_bias.assign(gate_bias.begin(), gate_bias.end());
  state_->base_bias.resize(biases);
}

TrainingResult Trainer::train(const TrainingShard& shard, const WindowReader& windows,
                              const OnStep& on_step) {
  State& state = *state_;
  state.check(shard);
  state.start(shard);
  const auto batch = static_cast<std::uint64_t>(state.inner.batch_sequences);
  const auto context = static_cast<std::uint32_t>(state.layout.model().context);
  TrainingResult result;
  result.gate_bias = state.base_bias;
  result.expert_tokens.resize(state.base_bias.size());
  for (std::uint32_t step = 0; step < shard.inner_steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    const std::vector<std::uint16_t> rows =
        read_windows(windows, shard.data.first + step * batch, batch, context);
    const BatchResult one = state.step(shard, step, rows, result.gate_bias);
    state.balance(one, result);
    result.loss_last = one.mean();
    if (step == 0) result.loss_first = result.loss_last;
    result.steps = step + 1;
    result.tokens += one.losses.size();
    if (state.options.speed_share < 1) {
      std::this_thread::sleep_for(std::chrono::duration<double>(
          seconds_since(start) * (1 / state.options.speed_share - 1)));
    }
    const double seconds = seconds_since(start);
    result.seconds_in_steps += seconds;
    if (on_step && !on_step({result.steps, result.loss_last, result.tokens, seconds})) break;
  }
  return result;
}

void Trainer::pseudo_gradient(std::span<float> whole) const {
  YUMOE_ASSERT(state_->model.has_value());
  state_->model->store_difference(state_->base, whole);
}

void Trainer::local_parameters(std::span<float> whole) const {
  YUMOE_ASSERT(state_->model.has_value());
  state_->model->store(whole);
}

void Trainer::keep_moments(bool keep) { state_->keeps_moments = keep; }

}  // namespace yumoe

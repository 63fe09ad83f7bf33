#include "worker/trainer.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <thread>

#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "model/device.hpp"
#include "model/model.hpp"
#include "trainer/adam.hpp"
#include "trainer/island.hpp"
#include "worker/memory.hpp"

namespace yumoe {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

using std::chrono::milliseconds;

constexpr milliseconds kStepWaitMax{120'000};
constexpr std::size_t kEverywhereMax = 2;  // experts that may be held by every rank of an island

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
  Collective* group = nullptr;           // of an island
  Island* processes = nullptr;           // likewise, on rank 0
  std::vector<float> collected = {};     // on rank 0: the last shard's parameters, of all ranks,
  ExpertSet collected_of = {};           // of the trunk and these
  std::vector<std::int32_t> owner = {};  // [held], on an island
  std::vector<std::int64_t> seen = {};   // [experts]: tokens in the last shard, all layers
  RemoteShare remote = {};               // experts elsewhere that shards may call
  std::optional<island::StepDeadline> deadline = {};
  Uid uid = {};
  RoundId moments_from = {};  // of `adam`
  RoundId finished = {};      // newest shard trained to its end with these moments; 0: none

  void say(island::Command command, ByteView payload = {}) const {
    if (group != nullptr) island::say(*group, command, payload);
  }
  void say_base() const;
  void form_again();
  template <typename Work>
  void on_island(const Work& work);
  void load(std::span<const float> parameters, std::span<const float> gate_bias);
  void share_out(const TrainingShard& shard);
  void say_start(const TrainingShard& shard, bool keeps_moments) const;
  void say_step(std::uint32_t step, std::span<const std::uint16_t> rows,
                std::span<const float> bias) const;
  void collect(std::span<float> whole) const;
  void check(const TrainingShard& shard) const;
  void start(const TrainingShard& shard, bool keeps_moments);
  bool is_same_share(const TrainingShard& shard) const;
  ExpertSet elsewhere_for(const TrainingShard& shard) const;
  bool can_keep_moments(const TrainingShard& shard) const;
  double rate(const TrainingShard& shard, std::uint32_t step) const;
  void balance(const BatchResult& batch, TrainingResult& result) const;
  BatchResult step(const TrainingShard& shard, std::uint32_t step,
                   std::span<const std::uint16_t> rows, std::span<const float> bias);
  TrainingResult train(const TrainingShard& shard, const WindowReader& windows,
                       const OnStep& on_step);
  TrainingResult steps(const TrainingShard& shard, const WindowReader& windows,
                       const OnStep& on_step);
};

void Trainer::State::check(const TrainingShard& shard) const {
  if (base.empty()) {
    throw Error(ErrorCode::config_invalid,
                "train " + text_of(shard) + ": no base version is loaded");
  }
  if (shard.data.count < shard.inner_steps * static_cast<std::uint64_t>(inner.batch_sequences)) {
    throw Error(ErrorCode::data_invalid,
                "train " + text_of(shard) + ": " + std::to_string(shard.data.count) +
                    " windows are too few for " + std::to_string(shard.inner_steps) + " steps of " +
                    std::to_string(inner.batch_sequences));
  }
}

ExpertSet Trainer::State::elsewhere_for(const TrainingShard& shard) const {
  ExpertSet elsewhere;
  std::ranges::set_difference(remote.elsewhere, shard.experts, std::back_inserter(elsewhere));
  return elsewhere;
}

bool Trainer::State::is_same_share(const TrainingShard& shard) const {
  return model && model->trained() == shard.experts && model->elsewhere() == elsewhere_for(shard) &&
         (!group || model->share()->owner == owner);
}

void Trainer::State::start(const TrainingShard& shard, bool keeps_moments) {
  if (!is_same_share(shard)) {
    model.reset();
    adam.reset();
    const RoutingOptions routing{.balance_loss = inner.balance_loss,
                                 .router_z_loss = inner.router_z_loss};
    std::optional<ExpertShare> share;
    if (group != nullptr) share = ExpertShare{.group = group, .owner = owner};
    ExpertSet held = shard.experts, elsewhere = elsewhere_for(shard);
    std::optional<RemoteShare> called;
    if (!elsewhere.empty()) {
      held.insert(held.end(), elsewhere.begin(), elsewhere.end());
      std::sort(held.begin(), held.end());
      called = RemoteShare{remote.experts, std::move(elsewhere)};
    }
    model.emplace(layout, std::move(held), routing, device, true, std::move(share),
                  std::move(called));
  }
  model->load(base);
  if (!keeps_moments) {
    adam.emplace(*model, inner);
    uid = shard.uid;
    moments_from = shard.round;
  }
  finished = {};
}

bool Trainer::State::can_keep_moments(const TrainingShard& shard) const {
  return adam && is_same_share(shard) && uid == shard.uid && finished.value > 0 &&
         finished.value + 1 == shard.round.value &&
         shard.round.value - moments_from.value < static_cast<std::uint64_t>(inner.moments_rounds);
}

// Fresh moments know little in the first steps: the rate rises again over `rewarm_steps`.
double Trainer::State::rate(const TrainingShard& shard, std::uint32_t step) const {
  const double scheduled = scheduled_rate(inner, shard.steps_before + step);
  const auto rewarm = static_cast<double>(inner.rewarm_steps);
  if (shard.round != moments_from || step >= rewarm) return scheduled;
  return scheduled * (step + 1) / (rewarm + 1);
}

BatchResult Trainer::State::step(const TrainingShard& shard, std::uint32_t step,
                                 std::span<const std::uint16_t> rows, std::span<const float> bias) {
  BatchResult batch = model->train(rows, bias);
  const double loss = batch.mean();
  const double norm = std::isfinite(loss) ? adam->step(*model, rate(shard, step))
                                          : std::numeric_limits<double>::quiet_NaN();
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
      if (model->is_trained(held[e])) {
        result.expert_tokens[place] += static_cast<std::uint32_t>(counts[e]);
      }
      const std::int64_t missing = all - counts[e] * static_cast<std::int64_t>(held.size());
      if (missing != 0) result.gate_bias[place] += missing > 0 ? rate : -rate;
    }
  }
}

Trainer::Trainer(const ModelOptions& model, const InnerOptions& inner, const DeviceOptions& device,
                 Island* island)
    : state_(new State{.layout = Layout::of(model),
                       .inner = inner,
                       .options = device,
                       .device = open_device(device.device)}) {
  keep_freed_memory();
  at::set_num_threads(static_cast<int>(device.threads));
  if (island == nullptr || island->group().size() == 1) return;
  YUMOE_ASSERT(island->group().rank() == 0);
  state_->processes = island;
  state_->group = &island->group();
  state_->deadline.emplace(*state_->group, kStepWaitMax);
  state_->on_island([&] { state_->say(island::Command::setup, island::encode({model, inner})); });
}
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

int Trainer::ranks() const { return state_->group == nullptr ? 1 : state_->group->size(); }

void Trainer::use_remote(RemoteExperts* experts, ExpertSet elsewhere) {
  YUMOE_ASSERT(state_->group == nullptr || elsewhere.empty());
  if (experts != state_->remote.experts) {  // the model points to the old one
    state_->model.reset();
    state_->adam.reset();
  }
  state_->remote = {experts, std::move(elsewhere)};
}

void Trainer::keep_alive() {
  state_->on_island([&] { state_->say(island::Command::idle); });
}

void Trainer::State::load(std::span<const float> parameters, std::span<const float> gate_bias) {
  const ModelOptions& options_of_model = layout.model();
  const auto biases = static_cast<std::size_t>(options_of_model.layers * options_of_model.experts);
  YUMOE_ASSERT(parameters.size() == layout.parameters());
  YUMOE_ASSERT(gate_bias.empty() || gate_bias.size() == biases);
  base.assign(parameters.begin(), parameters.end());
  base_bias.assign(gate_bias.begin(), gate_bias.end());
  base_bias.resize(biases);
}

void Trainer::load_base(std::span<const float> parameters, std::span<const float> gate_bias) {
  state_->load(parameters, gate_bias);
  state_->on_island([&] { state_->say_base(); });
}

void Trainer::State::say_base() const {
  if (group == nullptr || base.empty()) return;
  island::Writer writer;
  writer.add_list(std::span(base)).add_list(std::span(base_bias));
  say(island::Command::base, writer.bytes());
}

// What a rank computed is gone with its island: parts of the model, and their moments.
void Trainer::State::form_again() {
  model.reset();
  adam.reset();
  finished = {};
  processes->form_again();
  group = &processes->group();
  deadline.emplace(*group, kStepWaitMax);
  group->wait_at_most(kStepWaitMax);
}

// Does `work`, on rank 0; when a rank is lost, once more with those that are left, which know the base.
template <typename Work>
void Trainer::State::on_island(const Work& work) {
  bool is_new = false;
  while (true) {
    try {
      if (is_new) {
        say(island::Command::setup, island::encode({layout.model(), inner}));
        say_base();
      }
      return work();
    } catch (const Error& error) {
      if (group == nullptr || error.code() != ErrorCode::collective_failed) throw;
      log_error(error.what());
      const auto start = std::chrono::steady_clock::now();
      form_again();
      log_warning("the island formed again with " + std::to_string(group->size()) + " ranks, " +
                  std::to_string(std::llround(seconds_since(start) * 1e3)) +
                  " ms after it noticed; the shard in work starts again from its base");
      is_new = true;
    } catch (const std::bad_alloc&) {
      if (group == nullptr) throw;
      // The others wait within what they do together, and messages may yet come into freed memory.
      throw Error(ErrorCode::collective_failed, "memory ran out on rank 0 of an island of " +
                                                    std::to_string(group->size()) +
                                                    " ranks, which cannot go on without it");
    }
  }
}

// Where each expert goes, by the load of the shard before.
void Trainer::State::share_out(const TrainingShard& shard) {
  if (group == nullptr) return;
  std::vector<std::int64_t> counts;
  for (const std::uint32_t expert : shard.experts) {
    counts.push_back(expert < seen.size() ? seen[expert] : 0);
  }
  owner = share_experts(counts, shard.experts.size(), group->size(), kEverywhereMax);
}

void Trainer::State::say_start(const TrainingShard& shard, bool keeps_moments) const {
  if (group == nullptr) return;
  island::Writer writer;
  writer.add(shard.round.value).add(shard.uid.value).add(shard.inner_steps).add(shard.steps_before);
  writer.add(keeps_moments).add_list(std::span(shard.experts)).add_list(std::span(owner));
  say(island::Command::start, writer.bytes());
}

void Trainer::State::say_step(std::uint32_t step, std::span<const std::uint16_t> rows,
                              std::span<const float> bias) const {
  if (group == nullptr) return;
  island::Writer writer;
  writer.add(step).add_list(rows).add_list(bias);
  say(island::Command::step, writer.bytes());
}

// Every rank's experts to rank 0, which writes them to `whole`; the others' `whole` is empty.
void Trainer::State::collect(std::span<float> whole) const {
  const ExpertShare& share = *model->share();
  const auto ranks = static_cast<std::size_t>(group->size());
  const std::size_t expert_bytes = layout.expert_parameters() * sizeof(float);
  const bool is_root = group->rank() == 0;
  std::vector<std::size_t> send(ranks), receive(ranks);
  std::vector<float> out, in;
  for (std::size_t i = 0; i < share.owner.size(); ++i) {
    const std::int32_t owned_by = share.owner[i];
    if (owned_by == ExpertShare::kEverywhere || owned_by == 0) continue;  // rank 0 has it
    if (is_root) receive[static_cast<std::size_t>(owned_by)] += expert_bytes;
    if (owned_by != group->rank()) continue;
    out.resize(out.size() + layout.expert_parameters());
    const_cast<Model&>(*model).copy_expert(model->held()[i],
                                           std::span(out).last(layout.expert_parameters()));
    send[0] += expert_bytes;
  }
  std::size_t all = 0;
  for (const std::size_t bytes : receive) all += bytes;
  in.resize(all / sizeof(float));
  group->host().all_to_all_v(as_bytes(std::span<const float>(out)), send,
                             as_writable(std::span(in)), receive);
  std::size_t at = 0;
  for (int rank = 1; is_root && rank < group->size(); ++rank) {
    for (std::size_t i = 0; i < share.owner.size(); ++i) {
      if (share.owner[i] != rank) continue;
      const std::uint64_t to =
          layout.trunk_parameters() + model->held()[i] * layout.expert_parameters();
      std::copy_n(in.begin() + static_cast<std::ptrdiff_t>(at), layout.expert_parameters(),
                  whole.begin() + static_cast<std::ptrdiff_t>(to));
      at += layout.expert_parameters();
    }
  }
}

TrainingResult Trainer::train(const TrainingShard& shard, const WindowReader& windows,
                              const OnStep& on_step) {
  state_->check(shard);
  TrainingResult result;
  state_->on_island([&] { result = state_->train(shard, windows, on_step); });
  return result;
}

TrainingResult Trainer::State::train(const TrainingShard& shard, const WindowReader& windows,
                                     const OnStep& on_step) {
  TrainingResult result = steps(shard, windows, on_step);
  if (group == nullptr) return result;
  // At once: later a rank that is lost would take with it what was trained.
  collected.resize(layout.parameters());
  model->store(collected);
  say(island::Command::collect);
  collect(collected);
  collected_of = model->trained();
  return result;
}

TrainingResult Trainer::State::steps(const TrainingShard& shard, const WindowReader& windows,
                                     const OnStep& on_step) {
  State& state = *this;
  state.share_out(shard);
  const bool keeps_moments = state.can_keep_moments(shard);
  state.say_start(shard, keeps_moments);
  state.start(shard, keeps_moments);
  const auto batch = static_cast<std::uint64_t>(state.inner.batch_sequences);
  const auto context = static_cast<std::uint32_t>(state.layout.model().context);
  TrainingResult result;
  result.gate_bias = state.base_bias;
  result.moments_from = state.moments_from;
  result.expert_tokens.resize(state.base_bias.size());
  for (std::uint32_t step = 0; step < shard.inner_steps; ++step) {
    const auto start = std::chrono::steady_clock::now();
    const std::vector<std::uint16_t> rows =
        read_windows(windows, shard.data.first + step * batch, batch, context);
    state.say_step(step, rows, result.gate_bias);
    const BatchResult one = state.step(shard, step, rows, result.gate_bias);
    state.balance(one, result);
    result.loss_last = one.mean();
    if (step == 0) result.loss_first = result.loss_last;
    result.steps = step + 1;
    result.tokens += one.losses.size();
    if (state.deadline) state.deadline->observe(seconds_since(start));
    if (state.options.speed_share < 1) {
      std::this_thread::sleep_for(std::chrono::duration<double>(
          seconds_since(start) * (1 / state.options.speed_share - 1)));
    }
    const double seconds = seconds_since(start);
    result.seconds_in_steps += seconds;
    if (on_step && !on_step({result.steps, result.loss_last, result.tokens, seconds}))
      return result;
  }
  const auto experts = static_cast<std::size_t>(state.layout.model().experts);
  state.seen.assign(experts, 0);
  for (std::size_t i = 0; i < result.expert_tokens.size(); ++i) {
    state.seen[i % experts] += result.expert_tokens[i];
  }
  state.finished = shard.round;
  return result;
}

void Trainer::pseudo_gradient(std::span<float> whole) const {
  const State& state = *state_;
  if (state.group == nullptr) {
    YUMOE_ASSERT(state.model.has_value());
    state.model->store_difference(state.base, whole);
    return;
  }
  local_parameters(whole);
  for (const TensorSpec* tensor : state.layout.tensors_of(state.collected_of)) {
    for (std::uint64_t i = tensor->offset; i < tensor->offset + tensor->elements; ++i) {
      whole[i] = state.base[i] - whole[i];
    }
  }
}

void Trainer::local_parameters(std::span<float> whole) const {
  const State& state = *state_;
  if (state.group == nullptr) {
    YUMOE_ASSERT(state.model.has_value());
    state.model->store(whole);
    return;
  }
  YUMOE_ASSERT(state.collected.size() == whole.size());
  for (const TensorSpec* tensor : state.layout.tensors_of(state.collected_of)) {
    std::copy_n(state.collected.begin() + static_cast<std::ptrdiff_t>(tensor->offset),
                tensor->elements, whole.begin() + static_cast<std::ptrdiff_t>(tensor->offset));
  }
}

namespace {

void follow_start(island::Reader reader, Trainer::State& state, TrainingShard& shard) {
  shard.round.value = reader.take<decltype(shard.round.value)>();
  shard.uid.value = reader.take<decltype(shard.uid.value)>();
  shard.inner_steps = reader.take<std::uint32_t>();
  shard.steps_before = reader.take<std::uint64_t>();
  const auto keeps_moments = reader.take<bool>();
  shard.experts = reader.take_list<std::uint32_t>();
  state.owner = reader.take_list<std::int32_t>();
  state.start(shard, keeps_moments);
}

void follow_step(island::Reader reader, Trainer::State& state, const TrainingShard& shard) {
  const auto start = std::chrono::steady_clock::now();
  const auto step = reader.take<std::uint32_t>();
  const auto rows = reader.take_list<std::uint16_t>();
  const auto bias = reader.take_list<float>();
  try {
    state.step(shard, step, rows, bias);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::collective_failed) throw;
    return;  // a loss that is not finite, tokens beyond the vocabulary: rank 0 throws it too
  }
  state.deadline->observe(seconds_since(start));
}

// What rank 0 says, until it says `end` or the group fails. `state` is null until it has said `setup`.
void follow(Collective& group, const DeviceOptions& device,
            std::unique_ptr<Trainer::State>& state) {
  TrainingShard shard;
  while (true) {
    const island::Said said = island::hear(group, state ? state->deadline->now() : kStepWaitMax);
    island::Reader reader(said.payload);
    YUMOE_ASSERT(state != nullptr || said.command <= island::Command::setup ||
                 said.command == island::Command::end);
    switch (said.command) {
      case island::Command::idle: break;
      case island::Command::end: return;
      case island::Command::setup: {
        const island::Options options = island::decode_options(said.payload);
        state.reset(new Trainer::State{.layout = Layout::of(options.model),
                                       .inner = options.inner,
                                       .options = device,
                                       .device = open_device(device.device)});
        state->group = &group;
        state->deadline.emplace(group, kStepWaitMax);
        break;
      }
      case island::Command::base: {
        const auto parameters = reader.take_list<float>();
        state->load(parameters, reader.take_list<float>());
        break;
      }
      case island::Command::start: follow_start(reader, *state, shard); break;
      case island::Command::step: follow_step(reader, *state, shard); break;
      case island::Command::collect: state->collect({}); break;
    }
  }
}

}  // namespace

void end_followers(Island& island) {
  try {
    island::say(island.group(), island::Command::end, {});
  } catch (const Error& error) {  // whoever is left notices that rank 0 ends
    if (error.code() != ErrorCode::collective_failed) throw;
    return;
  }
  island::part(island.group());
}

void follow_trainer(Island& island, const DeviceOptions& device) {
  keep_freed_memory();
  at::set_num_threads(static_cast<int>(device.threads));
  while (true) {
    std::unique_ptr<Trainer::State> state;
    try {
      follow(island.group(), device, state);
      return island::part(island.group());
    } catch (const Error& error) {
      if (error.code() != ErrorCode::collective_failed) throw;
      log_error(error.what());
    }
    state.reset();  // it points to the group
    island.form_again();
  }
}

}  // namespace yumoe

#include "worker/evaluator.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "cluster/error.hpp"
#include "model/device.hpp"
#include "model/model.hpp"
#include "worker/memory.hpp"

namespace yumoe {

double WindowLosses::mean() const {
  double sum = 0;
  for (const double loss : losses) sum += loss;
  return sum / static_cast<double>(losses.size());
}

Change change_by(const Layout& layout, const Update& update, float scale, Part part) {
  return change_by(layout, update, scale, std::move(part), {});
}

Change change_by(const Layout& layout, const Update& update, float scale, Part part,
                 std::vector<double> usual_norms) {
  return [&layout, &update, scale, part = std::move(part),
          usual = std::move(usual_norms)](std::span<float> parameters) {
    const auto tensors = update.tensors();
    for (std::size_t position = 0; position < tensors.size(); ++position) {
      const TensorSpec& tensor = layout.tensors()[tensors[position]];
      const bool applies = tensor.expert < 0
                               ? part.trunk
                               : std::binary_search(part.experts.begin(), part.experts.end(),
                                                    static_cast<std::uint32_t>(tensor.expert));
      if (!applies) continue;
      const double norm = std::sqrt(update.squared_norm(position));
      const double most = usual.empty() ? 0 : usual[tensors[position]];
      const float clip = most > 0 && norm > most ? static_cast<float>(most / norm) : 1.0f;
      update.add_to(position, -scale * clip, parameters.subspan(tensor.offset, tensor.elements));
    }
  };
}

double bits_per_byte(double nats_per_token, double bytes_per_token) {
  return nats_per_token / std::numbers::ln2 / bytes_per_token;
}

struct Evaluator::State {
  static constexpr std::size_t kBatch = 8;  // windows of one forward pass

  Layout layout;
  std::vector<float> base, bias, changed;
  Model model;
  bool holds_base = false;
  std::vector<std::uint16_t> base_windows;
  std::optional<WindowLosses> base_losses;

  State(const ModelOptions& options, const DeviceOptions& device, RemoteExperts* remote,
        const ExpertSet& elsewhere)
      : layout(Layout::of(options)),
        model(layout, all_experts(options), {}, open_device(device.device), false, std::nullopt,
              elsewhere.empty() ? std::nullopt : std::optional(RemoteShare{remote, elsewhere})) {}

  void use_base() {
    if (!holds_base) model.load(base);
    holds_base = true;
  }
  WindowLosses measure(std::span<const std::uint16_t> windows);
};

WindowLosses Evaluator::State::measure(std::span<const std::uint16_t> windows) {
  const auto context = static_cast<std::size_t>(layout.model().context);
  const std::size_t batch = kBatch * (context + 1);
  WindowLosses result;
  for (std::size_t begin = 0; begin < windows.size(); begin += batch) {
    const BatchResult some =
        model.evaluate(windows.subspan(begin, std::min(batch, windows.size() - begin)), bias);
    for (std::size_t at = 0; at < some.losses.size(); at += context) {
      double sum = 0;
      for (std::size_t i = at; i < at + context; ++i) sum += some.losses[i];
      result.losses.push_back(sum / static_cast<double>(context));
      result.is_finite = result.is_finite && std::isfinite(sum);
    }
  }
  return result;
}

Evaluator::Evaluator(const ModelOptions& model, const DeviceOptions& device, RemoteExperts* remote,
                     const ExpertSet& elsewhere)
    : state_(std::make_unique<State>(model, device, remote, elsewhere)) {
  keep_freed_memory();
  at::set_num_threads(static_cast<int>(device.threads));
}
Evaluator::Evaluator(Evaluator&&) noexcept = default;
Evaluator& Evaluator::operator=(Evaluator&&) noexcept = default;
Evaluator::~Evaluator() = default;

void Evaluator::load_base(std::span<const float> parameters, std::span<const float> gate_bias) {
  const ModelOptions& model = state_->layout.model();
  const auto biases = static_cast<std::size_t>(model.layers * model.experts);
  YUMOE_ASSERT(parameters.size() == state_->layout.parameters());
  YUMOE_ASSERT(gate_bias.empty() || gate_bias.size() == biases);
  state_->base.assign(parameters.begin(), parameters.end());
  state_->bias.assign(gate_bias.begin(), gate_bias.end());
  state_->bias.resize(biases);
  state_->holds_base = false;
  state_->base_losses.reset();
}

const WindowLosses& Evaluator::base(std::span<const std::uint16_t> windows) {
  State& state = *state_;
  YUMOE_ASSERT(!state.base.empty());
  if (!state.base_losses || !std::ranges::equal(state.base_windows, windows)) {
    state.use_base();
    state.base_losses = state.measure(windows);
    state.base_windows.assign(windows.begin(), windows.end());
  }
  return *state.base_losses;
}

WindowLosses Evaluator::with(const Change& change, std::span<const std::uint16_t> windows) {
  State& state = *state_;
  YUMOE_ASSERT(!state.base.empty());
  state.changed = state.base;
  change(state.changed);
  state.holds_base = false;
  state.model.load(state.changed);
  return state.measure(windows);
}

}  // namespace yumoe

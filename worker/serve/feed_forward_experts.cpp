#include "worker/feed_forward_experts.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <map>

#include "cluster/error.hpp"
#include "model/product.hpp"
#include "model/rows.hpp"
#include "worker/memory.hpp"

namespace yumoe {
namespace {

constexpr auto kActivation = kernels::Activation::swiglu;

struct Matrix {
  at::Tensor value, gradient, first, second;  // the last three if it is trained
};

struct Expert {
  Matrix gate_up, down;  // [2 f, d], [d, f]
  std::int64_t steps = 0;
};

struct Kept final : KeptRows {
  Bytes x;
  at::Tensor hidden;
};

at::Tensor over(const void* data, std::int64_t rows, std::int64_t columns) {
  return at::from_blob(const_cast<void*>(data), {rows, columns}, at::kFloat);
}

class FeedForwardExperts final : public ExpertCompute {
 public:
  FeedForwardExperts(const Layout& layout, std::span<const float> parameters, const ExpertSet& held,
                     const DeviceOptions& device, const ExpertTraining& training)
      : width_(layout.model().width), inner_(layout.model().expert_width), training_(training) {
    keep_freed_memory();
    at::set_num_threads(static_cast<int>(device.threads));
    for (const TensorSpec* tensor : layout.tensors_of(held)) {
      if (tensor->expert < 0) continue;
      Expert& expert = experts_[{tensor->layer, tensor->expert}];
      Matrix& matrix = tensor->name.ends_with("gate_up") ? expert.gate_up : expert.down;
      matrix.value =
          over(parameters.data() + tensor->offset, tensor->shape[0], tensor->shape[1]).clone();
      if (training.learning_rate == 0) continue;
      matrix.gradient = at::zeros(matrix.value.sizes(), at::kFloat);
      matrix.first = at::zeros(matrix.value.sizes(), at::kFloat);
      matrix.second = at::zeros(matrix.value.sizes(), at::kFloat);
    }
  }

  bool holds(std::uint32_t layer, std::uint32_t expert) const override {
    return experts_.contains({static_cast<std::int32_t>(layer), static_cast<std::int32_t>(expert)});
  }
  std::size_t width() const override { return static_cast<std::size_t>(width_); }

  std::unique_ptr<KeptRows> forward(std::uint32_t layer, std::uint32_t expert, Bytes x,
                                    std::span<float> y, bool keep) override {
    const Expert& e = at_place(layer, expert);
    const auto rows = static_cast<std::int64_t>(y.size()) / width_;
    const at::Tensor hidden = rows::buffer(rows, 2 * inner_), active = rows::buffer(rows, inner_);
    product(hidden, over(x.data(), rows, width_), e.gate_up.value.t());
    rows::activate(kActivation, hidden, active);
    product(over(y.data(), rows, width_), active, e.down.value.t());
    if (!keep) return nullptr;
    auto kept = std::make_unique<Kept>();
    kept->bytes = x.size() + static_cast<std::size_t>(hidden.numel()) * sizeof(float);
    kept->x = std::move(x);
    kept->hidden = hidden;
    return kept;
  }

  void backward(std::uint32_t layer, std::uint32_t expert, const KeptRows& rows_kept,
                std::span<const float> dy, std::span<float> dx) override {
    Expert& e = at_place(layer, expert);
    const auto& kept = static_cast<const Kept&>(rows_kept);
    const auto rows = static_cast<std::int64_t>(dy.size()) / width_;
    YUMOE_ASSERT(kept.hidden.size(0) == rows);
    const at::Tensor d_out = over(dy.data(), rows, width_), active = rows::buffer(rows, inner_),
                     d_hidden = rows::buffer(rows, 2 * inner_);
    product(active, d_out, e.down.value);
    rows::activate_backward(kActivation, kept.hidden, nullptr, active, d_hidden, nullptr);
    product(over(dx.data(), rows, width_), d_hidden, e.gate_up.value);
    if (training_.learning_rate == 0) return;
    product(e.down.gradient, d_out.t(), active);
    product(e.gate_up.gradient, d_hidden.t(), over(kept.x.data(), rows, width_));
    ++e.steps;
    step(e.down, e.steps);
    step(e.gate_up, e.steps);
  }

 private:
  Expert& at_place(std::uint32_t layer, std::uint32_t expert) {
    return experts_.at({static_cast<std::int32_t>(layer), static_cast<std::int32_t>(expert)});
  }

  void step(const Matrix& matrix, std::int64_t t) const {
    const auto power = [&](double beta) { return std::pow(beta, static_cast<double>(t)); };
    const kernels::AdamStep adam{
        .gradient_scale = 1,
        .beta1 = static_cast<float>(training_.beta1),
        .beta2 = static_cast<float>(training_.beta2),
        .step_size = static_cast<float>(training_.learning_rate / (1 - power(training_.beta1))),
        .inverse_root = static_cast<float>(1 / std::sqrt(1 - power(training_.beta2))),
        .epsilon = static_cast<float>(training_.epsilon),
        .keep = 1};
    kernels::adam(adam, matrix.value.mutable_data_ptr<float>(),
                  matrix.gradient.const_data_ptr<float>(), matrix.first.mutable_data_ptr<float>(),
                  matrix.second.mutable_data_ptr<float>(), matrix.value.numel());
  }

  const std::int64_t width_, inner_;
  const ExpertTraining training_;
  std::map<std::pair<std::int32_t, std::int32_t>, Expert> experts_;
};

}  // namespace

std::unique_ptr<ExpertCompute> feed_forward_experts(const Layout& layout,
                                                    std::span<const float> parameters,
                                                    const ExpertSet& held,
                                                    const DeviceOptions& device,
                                                    const ExpertTraining& training) {
  YUMOE_ASSERT(parameters.size() == layout.parameters());
  return std::make_unique<FeedForwardExperts>(layout, parameters, held, device, training);
}

}  // namespace yumoe

#include "trainer/adam.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "model/kernels.hpp"

namespace yumoe {
namespace {

constexpr std::int64_t kPiece = 1 << 16;  // elements of one partial sum: the same for any threads

double norm_of(const at::Tensor& gradient) {
  const std::int64_t count = gradient.numel(), pieces = (count + kPiece - 1) / kPiece;
  const float* data = gradient.const_data_ptr<float>();
  std::vector<double> partial(static_cast<std::size_t>(pieces));
  at::parallel_for(0, pieces, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      partial[static_cast<std::size_t>(i)] =
          kernels::sum_of_squares(data + i * kPiece, std::min(kPiece, count - i * kPiece));
    }
  });
  double sum = 0;
  for (const double part : partial) sum += part;
  return std::sqrt(sum);
}

void step_elsewhere(const kernels::AdamStep& step, const at::Tensor& parameter,
                    const at::Tensor& gradient, const at::Tensor& first, const at::Tensor& second) {
  const at::Tensor g = gradient.mul(step.gradient_scale);
  first.mul_(step.beta1).add_(g, 1.0F - step.beta1);
  second.mul_(step.beta2).addcmul_(g, g, 1.0F - step.beta2);
  parameter.mul_(step.keep);
  parameter.addcdiv_(first, second.sqrt().mul_(step.inverse_root).add_(step.epsilon),
                     -step.step_size);
}

void step_on_cpu(const kernels::AdamStep& step, const at::Tensor& parameter,
                 const at::Tensor& gradient, const at::Tensor& first, const at::Tensor& second) {
  float *p = parameter.mutable_data_ptr<float>(), *m = first.mutable_data_ptr<float>(),
        *v = second.mutable_data_ptr<float>();
  const float* g = gradient.const_data_ptr<float>();
  at::parallel_for(0, parameter.numel(), kPiece, [&](std::int64_t begin, std::int64_t end) {
    kernels::adam(step, p + begin, g + begin, m + begin, v + begin, end - begin);
  });
}

}  // namespace

Adam::Adam(const Model& model, const InnerOptions& options)
    : options_(options),
      first_(at::zeros_like(const_cast<Model&>(model).parameters())),
      second_(at::zeros_like(first_)) {}

double Adam::step(Model& model, double learning_rate) {
  // Elsewhere than on the CPU it was read together with the losses.
  const double norm = model.share() || !first_.is_cpu() ? std::sqrt(model.gradient_squares())
                                                        : norm_of(model.gradients());
  if (!std::isfinite(norm)) return norm;
  ++steps_;
  const double limit = options_.gradient_norm_max;
  const double clip = limit > 0 && norm > limit ? limit / norm : 1.0;
  const auto t = static_cast<double>(steps_);
  kernels::AdamStep step{
      .gradient_scale = static_cast<float>(clip),
      .beta1 = static_cast<float>(options_.beta1),
      .beta2 = static_cast<float>(options_.beta2),
      .step_size = static_cast<float>(learning_rate / (1 - std::pow(options_.beta1, t))),
      .inverse_root = static_cast<float>(1 / std::sqrt(1 - std::pow(options_.beta2, t))),
      .epsilon = static_cast<float>(options_.epsilon),
      .keep = 1};
  for (const Model::Range& range : model.ranges()) {
    step.keep = range.decays ? static_cast<float>(1 - learning_rate * options_.weight_decay) : 1.0F;
    const auto part = [&](const at::Tensor& flat) {
      return flat.narrow(0, range.begin, range.count);
    };
    (first_.is_cpu() ? step_on_cpu : step_elsewhere)(
        step, part(model.parameters()), part(model.gradients()), part(first_), part(second_));
  }
  return norm;
}

double scheduled_rate(const InnerOptions& options, std::uint64_t step) {
  const double at = static_cast<double>(step), warmup = static_cast<double>(options.warmup_steps);
  if (at < warmup) return options.learning_rate * (at + 1) / warmup;
  const double length = std::max(static_cast<double>(options.total_steps) - warmup, 1.0);
  const double done = std::min((at - warmup) / length, 1.0);
  return options.learning_rate_final + (options.learning_rate - options.learning_rate_final) * 0.5 *
                                           (1 + std::cos(std::numbers::pi * done));
}

}  // namespace yumoe

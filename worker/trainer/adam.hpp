#pragma once
// AdamW over a model's flat vectors. Source: Loshchilov and Hutter 2019.

#include <ATen/core/Tensor.h>

#include "model/model.hpp"
#include "router/shard.hpp"

namespace yumoe {

class Adam {
 public:
  // Fresh moments for the model's parameters.
  Adam(const Model& model, const InnerOptions& options);

  // One step by the model's gradients: clips by global norm, decays matrices. Returns the norm before
  // clipping; if it is not finite, changes nothing.
  double step(Model& model, double learning_rate);

 private:
  InnerOptions options_;
  at::Tensor first_, second_;
  std::int64_t steps_ = 0;
};

// The learning rate of a step of the run (0-based): linear warm-up, then cosine to the final rate.
double scheduled_rate(const InnerOptions& options, std::uint64_t step);

}  // namespace yumoe

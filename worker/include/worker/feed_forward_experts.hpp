#pragma once
// A model's experts as a server computes them: on the CPU, by the same products as the model.

#include <cstdint>
#include <memory>
#include <span>

#include "router/layout.hpp"
#include "worker/device_options.hpp"
#include "worker/expert_server.hpp"

namespace yumoe {

struct ExpertTraining {
  double learning_rate = 0;  // 0: backward gives dx and changes nothing
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
};

// The experts in `held` of all layers, from a base version's parameters [layout.parameters()], copied.
// SwiGLU, as the model's. With a learning rate, each backward is one AdamW step of its expert.
std::unique_ptr<ExpertCompute> feed_forward_experts(const Layout& layout,
                                                    std::span<const float> parameters,
                                                    const ExpertSet& held,
                                                    const DeviceOptions& device,
                                                    const ExpertTraining& training);

}  // namespace yumoe

#pragma once
// The experts of one layer, some of them on other machines: their rows go there and come back while the
// experts here compute. Where every call is answered the result is one process's within rounding; where
// one is not, its expert is left out of the tokens that wanted it and the others' weights are scaled up.
//
// Experts elsewhere are not trained by this process: backward brings dx, and gradients of the gate.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "model/routing.hpp"
#include "router/layout.hpp"
#include "worker/remote_experts.hpp"

namespace yumoe {

struct MoeLayer;

struct RemoteShare {
  RemoteExperts* experts = nullptr;
  ExpertSet elsewhere;  // of those the gate chooses among; the rest are here
  // Layer and expert whose backward was not answered in this step: it is done again, and forward leaves them
  // out. The model clears it before each step.
  std::set<std::pair<std::uint32_t, std::uint32_t>> lost{};
};

// What one forward leaves for its backward.
struct RemotePass {
  std::vector<bool> answered;     // [held]: is here, had no rows, or its call was answered
  std::vector<float> weight;      // [tokens * k], sorted: what rows counted with
  at::Tensor hidden;              // [rows, hidden_columns], filled for experts here
  at::Tensor y;                   // [rows, width], before weighting
  std::vector<ExpertRows> calls;  // one for each expert elsewhere that has rows
};

// Adds the experts' part to `out` [tokens, width]. Throws what RemoteExperts throws.
void remote_forward(const MoeLayer& layer, const Routing& routing, const at::Tensor& x, bool keep,
                    const at::Tensor& out, RemotePass& pass);

// Adds to dx, fills d_weight (of the routing's own weights) and overwrites the gradients of experts here.
// A call that is not answered leaves its rows' dx out and is noted as lost: the gradient is of no use then.
void remote_backward(const MoeLayer& layer, const Routing& routing, RemotePass& pass,
                     const at::Tensor& x, const at::Tensor& d_out, const at::Tensor& dx,
                     std::span<float> d_weight);

}  // namespace yumoe

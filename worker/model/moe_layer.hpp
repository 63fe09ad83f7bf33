#pragma once
// The MoE layer on a CPU: dropless, tokens sorted by expert, one contiguous slice each.
//
// Parameters are views into the model's flat vector and their gradients are written straight into
// views of the flat gradient, so autograd carries activations only. Each backward overwrites (does
// not add to) every gradient view, zeros for experts that saw no token.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "model/expert_parallel.hpp"
#include "model/kernels.hpp"
#include "model/remote_share.hpp"
#include "model/routing.hpp"
#include "router/layout.hpp"

namespace yumoe {

struct Parameter {
  at::Tensor value;
  at::Tensor gradient;  // same shape; undefined where nothing is trained
};

struct FeedForward {
  Parameter first;   // [hidden_columns(activation, f), d]
  Parameter second;  // [d, f]
};

struct MoeLayer {
  kernels::Activation activation = kernels::Activation::swiglu;
  RoutingOptions routing;
  Parameter gate;                    // [experts, d]
  ExpertSet held;                    // the gate chooses among these
  std::vector<FeedForward> experts;  // one for each of held, or of those of held that are here
  std::optional<FeedForward> shared;
  const ExpertShare* share = nullptr;  // which are here; none: all
  RemoteShare* remote = nullptr;       // likewise; not both
  std::uint32_t index = 0;             // of this layer, as servers of experts know it
};

// What one forward tells besides its output.
struct MoeReport {
  std::vector<std::int64_t> counts;  // [held]: assignments, of all ranks
  double auxiliary = 0;              // part of the loss; of this rank's tokens
};

// residual + moe(x), both [tokens, d], through autograd. `bias` [experts] or empty. The layer must
// outlive the backward pass. The auxiliary losses' gradients are included as if the scalar that
// backward starts from were the whole loss.
at::Tensor apply_moe(const MoeLayer& layer, const at::Tensor& residual, const at::Tensor& x,
                     std::span<const float> bias, MoeReport& report);

}  // namespace yumoe

#pragma once
// The transformer's other parts on a CPU, through autograd: norm, attention, and the loss.
// As in moe_layer.hpp, weight gradients are written straight into views of the flat gradient.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "model/moe_layer.hpp"

namespace yumoe {

inline constexpr float kNormEpsilon = 1e-6F;

// x * weight / rms(x) over rows of [tokens, d].
at::Tensor apply_norm(const Parameter& weight, const at::Tensor& x);

// Cosines and sines of rotary positions, [context, head_width / 2] each.
struct RotaryTable {
  std::vector<float> cosine, sine;
  RotaryTable(std::int64_t context, std::int64_t head_width, double base);
};

struct AttentionLayer {
  std::int64_t context = 0;
  std::int64_t heads = 0;
  std::int64_t key_value_heads = 0;
  const RotaryTable* rotary = nullptr;
  Parameter query_key_value;  // [d + 2 * kv_heads * h, d]: three tensors that lie side by side
  Parameter out;              // [d, d]
};

// residual + attention(x), both [sequences * context, d].
at::Tensor apply_attention(const AttentionLayer& layer, const at::Tensor& residual,
                           const at::Tensor& x);

// Rows of an embedding [vocabulary, d]. No autograd: the caller adds the gradient by
// add_embedding_gradient.
at::Tensor embed(const at::Tensor& embedding, std::span<const std::int32_t> tokens);

// gradient[tokens[i]] += d_rows[i], ascending i.
void add_embedding_gradient(const at::Tensor& gradient, std::span<const std::int32_t> tokens,
                            const at::Tensor& d_rows);

// Cross-entropy of x @ weight^T against targets, piece by piece, so that the logits never exist as a
// whole. Fills losses [tokens], nats. If d_x is defined, also writes the gradient of the mean loss
// over a batch of `batch_tokens`, of which these are all or a part, to d_x and overwrites
// weight.gradient.
void output_loss(const Parameter& weight, const at::Tensor& x,
                 std::span<const std::int32_t> targets, std::int64_t batch_tokens,
                 std::span<float> losses, const at::Tensor& d_x);

}  // namespace yumoe

#include "model/blocks.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "cluster/error.hpp"
#include "model/product.hpp"

namespace yumoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Shares of rows that a weight gradient is added up in, then one after the other: the same sum
// whatever the number of threads.
constexpr std::int64_t kShares = 8;

struct NormFunction : torch::autograd::Function<NormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Parameter* weight,
                            bool keep) {
    const std::int64_t rows = x.size(0), width = x.size(1);
    at::Tensor y = at::empty_like(x), inverse = at::empty({rows}, x.options());
    const float *from = x.const_data_ptr<float>(), *w = weight->value.const_data_ptr<float>();
    float *to = y.mutable_data_ptr<float>(), *scale = inverse.mutable_data_ptr<float>();
    at::parallel_for(0, rows, 128, [&](std::int64_t begin, std::int64_t end) {
      kernels::rms_norm(from + begin * width, w, to + begin * width, scale + begin, end - begin,
                        width, kNormEpsilon);
    });
    if (keep) {
      context->save_for_backward({x, inverse});
      context->saved_data["weight"] = reinterpret_cast<std::int64_t>(weight);
    }
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto& weight = *reinterpret_cast<const Parameter*>(context->saved_data["weight"].toInt());
    const at::Tensor dy = gradients[0].contiguous();
    const std::int64_t rows = dy.size(0), width = dy.size(1);
    at::Tensor dx = at::empty_like(dy), sums = at::zeros({kShares, width}, dy.options());
    const float *d = dy.const_data_ptr<float>(), *x = saved[0].const_data_ptr<float>(),
                *inverse = saved[1].const_data_ptr<float>(),
                *w = weight.value.const_data_ptr<float>();
    float *to = dx.mutable_data_ptr<float>(), *sum = sums.mutable_data_ptr<float>();
    at::parallel_for(0, kShares, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t share = first; share < last; ++share) {
        const std::int64_t begin = rows * share / kShares, end = rows * (share + 1) / kShares;
        kernels::rms_norm_backward(d + begin * width, x + begin * width, w, inverse + begin,
                                   to + begin * width, sum + share * width, end - begin, width);
      }
    });
    float* total = weight.gradient.mutable_data_ptr<float>();
    std::fill(total, total + width, 0.0F);
    for (std::int64_t share = 0; share < kShares; ++share) {
      for (std::int64_t i = 0; i < width; ++i) total[i] += sum[share * width + i];
    }
    return {dx, {}, {}};
  }
};

struct HeadViews {
  at::Tensor query, key, value;  // [sequences, heads, context, head_width]
};

// Turns queries and keys of [tokens, d + 2 * kv] rows by their positions, in place.
void rotate(const AttentionLayer& layer, const at::Tensor& rows, float direction) {
  const std::int64_t stride = rows.size(1);
  const std::int64_t turned = layer.heads + layer.key_value_heads;
  const std::int64_t head_width = stride / (turned + layer.key_value_heads);
  float* data = rows.mutable_data_ptr<float>();
  at::parallel_for(0, rows.size(0), 64, [&](std::int64_t begin, std::int64_t end) {
    kernels::rotate(data + begin * stride, stride, turned, head_width, layer.rotary->cosine.data(),
                    layer.rotary->sine.data(), begin, end - begin, layer.context, direction);
  });
}

HeadViews split_heads(const AttentionLayer& layer, const at::Tensor& rows) {
  const std::int64_t all = layer.heads + 2 * layer.key_value_heads;
  const at::Tensor heads = rows.view({-1, layer.context, all, rows.size(1) / all}).transpose(1, 2);
  return {heads.narrow(1, 0, layer.heads), heads.narrow(1, layer.heads, layer.key_value_heads),
          heads.narrow(1, layer.heads + layer.key_value_heads, layer.key_value_heads)};
}

// Repeats each key or value head for the query heads that share it.
at::Tensor shared_heads(const AttentionLayer& layer, const at::Tensor& x) {
  const std::int64_t group = layer.heads / layer.key_value_heads;
  if (group == 1) return x;
  return x.unsqueeze(2)
      .expand({x.size(0), x.size(1), group, x.size(2), x.size(3)})
      .reshape({x.size(0), layer.heads, x.size(2), x.size(3)});
}

// Writes a gradient by query head back to its key or value heads.
void collect_heads(const AttentionLayer& layer, const at::Tensor& d, const at::Tensor& to) {
  const std::int64_t group = layer.heads / layer.key_value_heads;
  if (group == 1) {
    to.copy_(d);
    return;
  }
  at::Tensor target = to;
  const at::Tensor grouped =
      d.reshape({d.size(0), layer.key_value_heads, group, d.size(2), d.size(3)});
  target.copy_(grouped.sum(2));
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& residual,
                            const at::Tensor& x, const AttentionLayer* layer, bool keep) {
    const at::Tensor rows = product(x, layer->query_key_value.value.t());
    rotate(*layer, rows, 1.0F);
    const HeadViews heads = split_heads(*layer, rows);
    const auto [mixed, log_sums] = at::_scaled_dot_product_flash_attention_for_cpu(
        heads.query, shared_heads(*layer, heads.key), shared_heads(*layer, heads.value), 0.0, true);
    const at::Tensor flat = mixed.transpose(1, 2).reshape({x.size(0), -1});
    if (keep) {
      context->save_for_backward({x, rows, mixed, log_sums});
      context->saved_data["layer"] = reinterpret_cast<std::int64_t>(layer);
    }
    at::Tensor out = residual.clone();
    add_product(out, flat, layer->out.value.t());
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const auto& layer =
        *reinterpret_cast<const AttentionLayer*>(context->saved_data["layer"].toInt());
    const at::Tensor &x = saved[0], &rows = saved[1], &mixed = saved[2];
    const at::Tensor dy = gradients[0].contiguous();
    product(layer.out.gradient, dy.t(), mixed.transpose(1, 2).reshape({x.size(0), -1}));
    const HeadViews heads = split_heads(layer, rows);
    const at::Tensor d_mixed = product(dy, layer.out.value)
                                   .view({-1, layer.context, layer.heads, mixed.size(3)})
                                   .transpose(1, 2);
    const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        d_mixed, heads.query, shared_heads(layer, heads.key), shared_heads(layer, heads.value),
        mixed, saved[3], 0.0, true);
    const at::Tensor d_rows = at::empty_like(rows);
    const HeadViews d_heads = split_heads(layer, d_rows);
    d_heads.query.copy_(dq);
    collect_heads(layer, dk, d_heads.key);
    collect_heads(layer, dv, d_heads.value);
    rotate(layer, d_rows, -1.0F);
    product(layer.query_key_value.gradient, d_rows.t(), x);
    return {dy, product(d_rows, layer.query_key_value.value), {}, {}};
  }
};

}  // namespace

at::Tensor apply_norm(const Parameter& weight, const at::Tensor& x) {
  return NormFunction::apply(x, &weight, at::GradMode::is_enabled() && x.requires_grad());
}

RotaryTable::RotaryTable(std::int64_t context, std::int64_t head_width, double base) {
  const std::int64_t half = head_width / 2;
  for (std::int64_t position = 0; position < context; ++position) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) *
                           std::pow(base, -static_cast<double>(i) / static_cast<double>(half));
      cosine.push_back(static_cast<float>(std::cos(angle)));
      sine.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

at::Tensor apply_attention(const AttentionLayer& layer, const at::Tensor& residual,
                           const at::Tensor& x) {
  YUMOE_ASSERT(x.size(0) % layer.context == 0);
  return AttentionFunction::apply(residual, x, &layer,
                                  at::GradMode::is_enabled() && x.requires_grad());
}

at::Tensor embed(const at::Tensor& embedding, std::span<const std::int32_t> tokens) {
  const auto rows = static_cast<std::int64_t>(tokens.size());
  at::Tensor x = at::empty({rows, embedding.size(1)}, embedding.options());
  kernels::gather_rows(embedding.const_data_ptr<float>(), tokens.data(),
                       x.mutable_data_ptr<float>(), rows, embedding.size(1));
  return x;
}

void add_embedding_gradient(const at::Tensor& gradient, std::span<const std::int32_t> tokens,
                            const at::Tensor& d_rows) {
  const std::int64_t width = gradient.size(1);
  const float* from = d_rows.const_data_ptr<float>();
  float* to = gradient.mutable_data_ptr<float>();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    kernels::scatter_add_rows(from + static_cast<std::int64_t>(i) * width, &tokens[i], nullptr, to,
                              1, width);
  }
}

void output_loss(const Parameter& weight, const at::Tensor& x,
                 std::span<const std::int32_t> targets, std::int64_t batch_tokens,
                 std::span<float> losses, const at::Tensor& d_x) {
  const std::int64_t rows = x.size(0), vocabulary = weight.value.size(0);
  constexpr std::int64_t kPieceElements = 1 << 20;  // of logits: they stay in the cache
  const std::int64_t piece = std::clamp<std::int64_t>(kPieceElements / vocabulary, 32, rows);
  const float scale = d_x.defined() ? 1.0F / static_cast<float>(batch_tokens) : 0.0F;
  const at::Tensor all_logits = at::empty({piece, vocabulary}, x.options());
  const at::Tensor& gradient = weight.gradient;
  for (std::int64_t begin = 0; begin < rows; begin += piece) {
    const std::int64_t count = std::min(piece, rows - begin);
    const at::Tensor logits = all_logits.narrow(0, 0, count);
    const at::Tensor some = x.narrow(0, begin, count);
    product(logits, some, weight.value.t());
    float* data = logits.mutable_data_ptr<float>();
    at::parallel_for(0, count, 16, [&](std::int64_t first, std::int64_t last) {
      kernels::cross_entropy(data + first * vocabulary, targets.data() + begin + first,
                             losses.data() + begin + first, last - first, vocabulary, scale);
    });
    if (!d_x.defined()) continue;
    const at::Tensor d_some = d_x.narrow(0, begin, count);
    product(d_some, logits, weight.value);
    if (begin == 0) {
      product(gradient, logits.t(), some);
    } else {
      add_product(gradient, logits.t(), some);
    }
  }
}

}  // namespace yumoe

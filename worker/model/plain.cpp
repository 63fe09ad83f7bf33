// The model in ATen operations and their autograd: what runs on devices without own loops, and what
// the fused path is checked against. No host synchronisation before the losses are read.

#include <ATen/TensorOperators.h>
#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/variable.h>

#include <utility>
#include <vector>

#include "cluster/error.hpp"
#include "model/model.hpp"
#include "model/tokens.hpp"

namespace yumoe {
namespace {

// The parameters as leaves of one pass, and their gradients on the way back.
class Leaves {
 public:
  explicit Leaves(bool trains) : trains_(trains) {}

  at::Tensor operator()(const Parameter& parameter) {
    at::Tensor value = parameter.value.detach();
    if (trains_) {
      value.set_requires_grad(true);
      leaves_.emplace_back(value, parameter.gradient);
    }
    return value;
  }

  void collect() const {
    for (const auto& [leaf, gradient] : leaves_) {
      at::Tensor target = gradient;
      if (leaf.grad().defined()) {
        target.copy_(leaf.grad());
      } else {
        target.zero_();
      }
    }
  }

 private:
  bool trains_;
  std::vector<std::pair<at::Tensor, at::Tensor>> leaves_;
};

// One matrix of every held expert, [held, rows, columns]: experts lie at equal distances.
Parameter stacked(const std::vector<FeedForward>& experts, Parameter FeedForward::*which) {
  const auto stack = [&](at::Tensor Parameter::*part) {
    const at::Tensor& first = experts[0].*which.*part;
    if (!first.defined()) return at::Tensor();
    const std::int64_t stride =
        experts.size() > 1 ? (experts[1].*which.*part).storage_offset() - first.storage_offset()
                           : first.numel();
    return first.as_strided(
        {static_cast<std::int64_t>(experts.size()), first.size(0), first.size(1)},
        {stride, first.size(1), 1}, first.storage_offset());
  };
  return {stack(&Parameter::value), stack(&Parameter::gradient)};
}

at::Tensor norm(const at::Tensor& x, const at::Tensor& weight) {
  return x * at::rsqrt(x.square().mean(-1, true) + kNormEpsilon) * weight;
}

at::Tensor device_copy(std::span<const float> values, at::IntArrayRef shape, c10::Device device) {
  return at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat).to(device);
}

// Grouped products need bf16 on CUDA; elsewhere they run in fp32.
at::Tensor grouped(const at::Tensor& rows, const at::Tensor& weights, const at::Tensor& ends) {
  if (!rows.is_cuda()) return at::_grouped_mm(rows, weights.transpose(1, 2), ends);
  return at::_grouped_mm(rows.to(at::kBFloat16), weights.to(at::kBFloat16).transpose(1, 2), ends)
      .to(at::kFloat);
}

struct Attention {
  const AttentionLayer& layer;
  at::Tensor cosine, sine;  // [context, head_width / 2]
  Leaves& leaves;

  at::Tensor turned(const at::Tensor& heads) const {  // [sequences, context, heads, head_width]
    const auto halves = heads.chunk(2, -1);
    const at::Tensor c = cosine.unsqueeze(1), s = sine.unsqueeze(1);
    return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1);
  }

  at::Tensor operator()(const at::Tensor& x) const {
    const std::int64_t all = layer.heads + 2 * layer.key_value_heads;
    const at::Tensor rows = at::linear(x, leaves(layer.query_key_value));
    const at::Tensor heads = rows.view({-1, layer.context, all, rows.size(1) / all});
    const at::Tensor query = turned(heads.narrow(2, 0, layer.heads));
    const at::Tensor key = turned(heads.narrow(2, layer.heads, layer.key_value_heads));
    const at::Tensor value =
        heads.narrow(2, layer.heads + layer.key_value_heads, layer.key_value_heads);
    const at::Tensor mixed = at::scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), {}, 0.0, true, {},
        layer.heads != layer.key_value_heads);
    return at::linear(mixed.transpose(1, 2).reshape({x.size(0), -1}), leaves(layer.out));
  }
};

struct MoeOutput {
  at::Tensor y, auxiliary, counts;
};

at::Tensor auxiliary_loss(const MoeLayer& layer, const at::Tensor& logits,
                          const at::Tensor& affinity, const at::Tensor& counts,
                          std::int64_t assignments) {
  const double held = static_cast<double>(layer.held.size());
  const at::Tensor z = at::logsumexp(logits, {-1}).square().mean();
  const at::Tensor share = counts.to(at::kFloat) / static_cast<double>(assignments);
  const at::Tensor balance = ((affinity / affinity.sum(-1, true)).mean(0) * share).sum() * held;
  return z * layer.routing.router_z_loss + balance * layer.routing.balance_loss;
}

at::Tensor feed_forward(const FeedForward& shared, const at::Tensor& x, Leaves& leaves) {
  const auto halves = at::linear(x, leaves(shared.first)).chunk(2, -1);
  return at::linear(at::silu(halves[0]) * halves[1], leaves(shared.second));
}

MoeOutput moe(const MoeLayer& layer, const at::Tensor& residual, const at::Tensor& x,
              const at::Tensor& bias, Leaves& leaves) {
  const std::vector<std::int64_t> held_list(layer.held.begin(), layer.held.end());
  const at::Tensor held = at::from_blob(const_cast<std::int64_t*>(held_list.data()),
                                        {static_cast<std::int64_t>(held_list.size())}, at::kLong)
                              .clone()
                              .to(x.device());  // autograd keeps it
  const std::int64_t k = std::min<std::int64_t>(layer.routing.experts_per_token, held.size(0));
  const at::Tensor logits = at::linear(x, leaves(layer.gate)).index_select(1, held);
  const at::Tensor affinity = at::sigmoid(logits);
  at::Tensor score = affinity.detach();
  if (bias.defined()) score = score + bias.index_select(0, held);
  const at::Tensor chosen = std::get<1>(score.topk(k, -1));
  at::Tensor weight = affinity.gather(1, chosen);
  weight = (weight / weight.sum(-1, true)).reshape({-1});

  const at::Tensor flat = chosen.reshape({-1});
  const at::Tensor order = flat.argsort(true, 0, false);
  const at::Tensor token = order.div(k, "floor");
  const at::Tensor counts =
      at::zeros({held.size(0)}, flat.options()).scatter_add_(0, flat, at::ones_like(flat));
  const at::Tensor ends = counts.cumsum(0).to(at::kInt);
  const at::Tensor rows = x.index_select(0, token);
  const auto halves =
      grouped(rows, leaves(stacked(layer.experts, &FeedForward::first)), ends).chunk(2, -1);
  const at::Tensor y = grouped(at::silu(halves[0]) * halves[1],
                               leaves(stacked(layer.experts, &FeedForward::second)), ends) *
                       weight.index_select(0, order).unsqueeze(1);
  at::Tensor out = residual.index_add(0, token, y);
  if (layer.shared) out = out + feed_forward(*layer.shared, x, leaves);
  return {out, auxiliary_loss(layer, logits, affinity, counts, flat.numel()), counts};
}

at::Tensor index_tensor(const std::vector<std::int32_t>& values, c10::Device device) {
  return at::from_blob(const_cast<std::int32_t*>(values.data()),
                       {static_cast<std::int64_t>(values.size())}, at::kInt)
      .to(device, at::kLong);
}

}  // namespace

BatchResult Model::run_plain(const Tokens& tokens, std::span<const float> bias, bool trains) {
  const ModelOptions& model = layout_.model();
  const std::int64_t half = model.width / model.heads / 2;
  Leaves leaves(trains);
  const at::Tensor cosine = device_copy(rotary_.cosine, {model.context, half}, device_);
  const at::Tensor sine = device_copy(rotary_.sine, {model.context, half}, device_);
  const at::Tensor all_bias =
      bias.empty() ? at::Tensor() : device_copy(bias, {model.layers, model.experts}, device_);
  const at::Tensor embedding = leaves(embedding_);
  at::Tensor x = embedding.index_select(0, index_tensor(tokens.inputs, device_));
  at::Tensor auxiliary;
  std::vector<at::Tensor> counts;
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    const Attention attention{block.attention, cosine, sine, leaves};
    x = x + attention(norm(x, leaves(block.attention_norm)));
    const MoeOutput output =
        moe(block.moe, x, norm(x, leaves(block.expert_norm)),
            all_bias.defined() ? all_bias[static_cast<std::int64_t>(l)] : at::Tensor(), leaves);
    x = output.y;
    auxiliary = auxiliary.defined() ? auxiliary + output.auxiliary : output.auxiliary;
    counts.push_back(output.counts);
  }
  const at::Tensor output_weight = model.tied_embedding ? embedding : leaves(output_);
  const at::Tensor logits = at::linear(norm(x, leaves(final_norm_)), output_weight);
  const at::Tensor losses =
      at::cross_entropy_loss(logits, index_tensor(tokens.targets, device_), {}, 0);
  if (trains) {
    (losses.mean() + auxiliary).backward();
    leaves.collect();
  }

  BatchResult result;
  const at::Tensor host = losses.detach().to(at::kCPU).contiguous();
  result.losses.assign(host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel());
  result.auxiliary = auxiliary.detach().item().toDouble();
  const at::Tensor host_counts = at::stack(counts).to(at::kCPU).contiguous();
  result.counts.assign(host_counts.const_data_ptr<std::int64_t>(),
                       host_counts.const_data_ptr<std::int64_t>() + host_counts.numel());
  return result;
}

}  // namespace yumoe

// The model in ATen operations and their autograd: what runs on devices without own loops, and what
// the fused path is checked against. The host waits for the device once a step, when losses, counts and the
// gradient's norm are read together; on an island, also once a layer (IslandRows).

#include "model/plain.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
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

// Grouped products need bf16 on CUDA; elsewhere they run in fp32.
at::Tensor grouped(const at::Tensor& rows, const at::Tensor& weights, const at::Tensor& ends) {
  if (!rows.is_cuda()) return at::_grouped_mm(rows, weights.transpose(1, 2), ends);
  return at::_grouped_mm(rows.to(at::kBFloat16), weights.to(at::kBFloat16).transpose(1, 2), ends)
      .to(at::kFloat);
}

struct Attention {
  const AttentionLayer& layer;
  const at::Tensor &cosine, &sine;  // [context, head_width / 2]
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
                          const at::Tensor& affinity, const at::Tensor& counts, std::int64_t tokens,
                          std::int64_t k) {
  const double held = static_cast<double>(layer.held.size()), all = static_cast<double>(tokens);
  const at::Tensor z = at::logsumexp(logits, {-1}).square().sum() / all;
  const at::Tensor share = counts.to(at::kFloat) / (all * static_cast<double>(k));
  const at::Tensor mean = (affinity / affinity.sum(-1, true)).sum(0) / all;
  const at::Tensor balance = (mean * share).sum() * held;
  return z * layer.routing.router_z_loss + balance * layer.routing.balance_loss;
}

at::Tensor feed_forward(const FeedForward& shared, const at::Tensor& x, Leaves& leaves) {
  const auto halves = at::linear(x, leaves(shared.first)).chunk(2, -1);
  return at::linear(at::silu(halves[0]) * halves[1], leaves(shared.second));
}

// `tokens` of the batch, over all ranks.
MoeOutput moe(const MoeLayer& layer, const PlainConstants& constants, std::int64_t tokens,
              const at::Tensor& residual, const at::Tensor& x, const at::Tensor& bias,
              Leaves& leaves) {
  const at::Tensor& held = constants.held;
  const std::int64_t k = std::min<std::int64_t>(layer.routing.experts_per_token, held.size(0));
  const at::Tensor logits = at::linear(x, leaves(layer.gate)).index_select(1, held);
  const at::Tensor affinity = at::sigmoid(logits);
  at::Tensor score = affinity.detach();
  if (bias.defined()) score = score + bias.index_select(0, held);
  const at::Tensor chosen = std::get<1>(score.topk(k, -1));
  at::Tensor weight = affinity.gather(1, chosen);
  weight = (weight / weight.sum(-1, true)).reshape({-1});

  const at::Tensor flat = chosen.reshape({-1});
  const at::Tensor order =
      (layer.share ? constants.place.index_select(0, flat) : flat).argsort(true, 0, false);
  const at::Tensor token = order.div(k, "floor");
  at::Tensor counts =
      at::zeros({held.size(0)}, flat.options()).scatter_add_(0, flat, at::ones_like(flat));
  const at::Tensor rows = x.index_select(0, token);
  const at::Tensor first = leaves(stacked(layer.experts, &FeedForward::first)),
                   second = leaves(stacked(layer.experts, &FeedForward::second));
  const auto apply = [&](const at::Tensor& in, const at::Tensor& ends) {
    const auto halves = grouped(in, first, ends).chunk(2, -1);
    return grouped(at::silu(halves[0]) * halves[1], second, ends);
  };
  at::Tensor y;
  if (layer.share) {
    const IslandRows island(*layer.share, constants, counts);
    y = island.back(apply(island.there(rows), island.ends()));
    counts = island.counts();
  } else {
    y = apply(rows, counts.cumsum(0).to(at::kInt));
  }
  at::Tensor out = residual.index_add(0, token, y * weight.index_select(0, order).unsqueeze(1));
  if (layer.shared) out = out + feed_forward(*layer.shared, x, leaves);
  return {out, auxiliary_loss(layer, logits, affinity, counts, tokens, k), counts};
}

}  // namespace

const PlainConstants& Model::plain_constants() {
  if (constants_ == nullptr) {
    const std::int64_t half = layout_.model().width / layout_.model().heads / 2;
    const std::vector<std::int64_t> held(held_.begin(), held_.end());
    auto made = std::make_shared<PlainConstants>();
    made->cosine = to_device(rotary_.cosine, {layout_.model().context, half}, device_);
    made->sine = to_device(rotary_.sine, {layout_.model().context, half}, device_);
    made->held = to_device(held, device_);
    if (share_) add_island(*share_, device_, *made);
    constants_ = std::move(made);
  }
  return *constants_;
}

// Of the trunk and experts that every rank has, and of the experts that only this one has.
at::Tensor Model::squares_on_device() {
  const auto squares = [&](std::int64_t begin, std::int64_t count) {
    return at::norm(gradients_.narrow(0, begin, count), 2, at::kDouble).square();
  };
  if (!share_) {
    const at::Tensor all = squares(0, gradients_.numel());
    return at::stack({all, at::zeros_like(all)});
  }
  at::Tensor common = squares(0, static_cast<std::int64_t>(layout_.trunk_parameters()));
  at::Tensor own = at::zeros_like(common);
  for (std::size_t i = 0; i < placed_.size(); ++i) {
    const bool everywhere = share_->owner[place_in_held(placed_[i])] == ExpertShare::kEverywhere;
    const Place& place = places_[i + 1];
    (everywhere ? common : own) +=
        squares(static_cast<std::int64_t>(place.own), static_cast<std::int64_t>(place.count));
  }
  return at::stack({common, own});
}

BatchResult Model::run_plain(const Tokens& tokens, std::span<const float> bias, bool trains) {
  const ModelOptions& model = layout_.model();
  const PlainConstants& constants = plain_constants();
  const auto own_tokens = static_cast<std::int64_t>(tokens.targets.size());
  const std::int64_t batch_tokens = share_ ? share_->tokens : own_tokens;
  Leaves leaves(trains);
  const at::Tensor all_bias =
      bias.empty() ? at::Tensor() : to_device(bias, {model.layers, model.experts}, device_);
  const at::Tensor embedding = leaves(embedding_);
  at::Tensor x = embedding.index_select(0, to_device(tokens.inputs, device_));
  at::Tensor auxiliary;
  std::vector<at::Tensor> counts;
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    const Attention attention{block.attention, constants.cosine, constants.sine, leaves};
    x = x + attention(norm(x, leaves(block.attention_norm)));
    const MoeOutput output =
        moe(block.moe, constants, batch_tokens, x, norm(x, leaves(block.expert_norm)),
            all_bias.defined() ? all_bias[static_cast<std::int64_t>(l)] : at::Tensor(), leaves);
    x = output.y;
    auxiliary = auxiliary.defined() ? auxiliary + output.auxiliary : output.auxiliary;
    counts.push_back(output.counts);
  }
  const at::Tensor output_weight = model.tied_embedding ? embedding : leaves(output_);
  const at::Tensor logits = at::linear(norm(x, leaves(final_norm_)), output_weight);
  const at::Tensor losses =
      at::cross_entropy_loss(logits, to_device(tokens.targets, device_).to(at::kLong), {}, 0);
  // What the host wants to know, as one tensor, for one wait.
  std::vector<at::Tensor> told = {losses.detach(), auxiliary.detach().reshape({1}),
                                  at::stack(counts).reshape({-1})};
  if (trains) {
    (losses.sum() / static_cast<double>(batch_tokens) + auxiliary).backward();
    leaves.collect();
    if (share_) sum_gradients();
    told.push_back(squares_on_device());
  }
  for (at::Tensor& part : told) part = part.to(at::kDouble);
  const at::Tensor joined = at::cat(told);
  if (share_) share_->group->drain();
  const at::Tensor host = joined.to(at::kCPU);

  BatchResult result;
  const double* at = host.const_data_ptr<double>();
  for (std::int64_t i = 0; i < own_tokens; ++i) result.losses.push_back(static_cast<float>(*at++));
  result.auxiliary = *at++;
  for (std::size_t i = 0; i < blocks_.size() * held_.size(); ++i) {
    result.counts.push_back(static_cast<std::int64_t>(*at++));
  }
  if (trains) squares_ = {at[0], at[1]};
  return result;
}

}  // namespace yumoe

#include "model/decode.hpp"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>

#include "cluster/error.hpp"
#include "model/model.hpp"
#include "model/product.hpp"

namespace yumoe {
namespace {

at::Tensor attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                  bool is_causal) {
  return std::get<0>(
      at::_scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, is_causal));
}

// The rows [count, d + 2 * kv] of one sequence's new tokens: caches keys and values, and writes what each
// token's heads gather of all before it to `mixed` [count, d].
void attend_new(const AttentionLayer& layer, const at::Tensor& rows, const at::Tensor& keys,
                const at::Tensor& values, std::int64_t cached, const at::Tensor& mixed) {
  const std::int64_t count = rows.size(0), kv = layer.key_value_heads, all = layer.heads + 2 * kv,
                     head_width = rows.size(1) / all, group = layer.heads / kv;
  kernels::rotate(rows.mutable_data_ptr<float>(), rows.size(1), layer.heads + kv, head_width,
                  layer.rotary->cosine.data(), layer.rotary->sine.data(), cached, count,
                  layer.context, 1.0F);
  const at::Tensor heads = rows.view({count, all, head_width}).transpose(0, 1);
  keys.narrow(1, cached, count).copy_(heads.narrow(0, layer.heads, kv));
  values.narrow(1, cached, count).copy_(heads.narrow(0, layer.heads + kv, kv));
  if (cached == 0 && count > 1) {
    const auto shared = [&](const at::Tensor& x) {
      return x.narrow(1, 0, count).repeat_interleave(group, 0).unsqueeze(0);
    };
    const at::Tensor out =
        attend(heads.narrow(0, 0, layer.heads).unsqueeze(0), shared(keys), shared(values), true);
    at::Tensor to = mixed.view({count, layer.heads, head_width});
    to.copy_(out.squeeze(0).transpose(0, 1));
    return;
  }
  // One token sees every place up to its own: the heads that share keys go as so many queries.
  for (std::int64_t i = 0; i < count; ++i) {
    const at::Tensor query =
        rows[i].narrow(0, 0, layer.heads * head_width).view({1, kv, group, head_width});
    const at::Tensor out = attend(query, keys.narrow(1, 0, cached + i + 1).unsqueeze(0),
                                  values.narrow(1, 0, cached + i + 1).unsqueeze(0), false);
    at::Tensor to = mixed[i].view({1, kv, group, head_width});
    to.copy_(out);
  }
}

}  // namespace

KeyValueCache::KeyValueCache(std::size_t sequences, std::int64_t layers,
                             std::int64_t key_value_heads, std::int64_t context,
                             std::int64_t head_width)
    : all_(at::empty(
          {static_cast<std::int64_t>(sequences), layers, 2, key_value_heads, context, head_width},
          at::kFloat)),
      lengths_(sequences) {}

at::Tensor KeyValueCache::keys(std::size_t sequence, std::int64_t layer) const {
  return all_[static_cast<std::int64_t>(sequence)][layer][0];
}

at::Tensor KeyValueCache::values(std::size_t sequence, std::int64_t layer) const {
  return all_[static_cast<std::int64_t>(sequence)][layer][1];
}

at::Tensor Model::extend(std::span<const NewTokens> pieces, std::span<const float> bias,
                         KeyValueCache& cache) {
  YUMOE_ASSERT(!plain_ && !share_);
  const at::NoGradGuard no_gradients;
  const auto experts = static_cast<std::size_t>(layout_.model().experts);
  std::vector<std::int32_t> tokens, last;
  for (const NewTokens& piece : pieces) {
    YUMOE_ASSERT(!piece.tokens.empty());
    YUMOE_ASSERT(cache.length(piece.sequence) + static_cast<std::int64_t>(piece.tokens.size()) <=
                 layout_.model().context);
    tokens.insert(tokens.end(), piece.tokens.begin(), piece.tokens.end());
    last.push_back(static_cast<std::int32_t>(tokens.size()) - 1);
  }
  at::Tensor x = embed(embedding_.value, tokens);
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    const at::Tensor rows =
        product(apply_norm(block.attention_norm, x), block.attention.query_key_value.value.t());
    const at::Tensor mixed = at::empty({x.size(0), block.attention.out.value.size(1)}, x.options());
    std::int64_t begin = 0;
    for (const NewTokens& piece : pieces) {
      const auto count = static_cast<std::int64_t>(piece.tokens.size());
      const auto layer = static_cast<std::int64_t>(l);
      attend_new(block.attention, rows.narrow(0, begin, count), cache.keys(piece.sequence, layer),
                 cache.values(piece.sequence, layer), cache.length(piece.sequence),
                 mixed.narrow(0, begin, count));
      begin += count;
    }
    add_product(x, mixed, block.attention.out.value.t());
    MoeReport report;
    x = apply_moe(block.moe, x, apply_norm(block.expert_norm, x),
                  bias.empty() ? bias : bias.subspan(l * experts, experts), report);
  }
  for (const NewTokens& piece : pieces) {
    cache.grow(piece.sequence, static_cast<std::int64_t>(piece.tokens.size()));
  }
  const at::Tensor ends = embed(x, last);  // the rows of the last tokens
  return product(apply_norm(final_norm_, ends), output_.value.t());
}

}  // namespace yumoe

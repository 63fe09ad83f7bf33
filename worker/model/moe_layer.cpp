#include "model/moe_layer.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "cluster/error.hpp"
#include "model/expert_parallel.hpp"
#include "model/product.hpp"
#include "model/rows.hpp"

namespace yumoe {
namespace {

using rows::activate;
using rows::activate_backward;
using rows::buffer;
using rows::gather;
using rows::scatter_add;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Saved : torch::CustomClassHolder {
  const MoeLayer* layer = nullptr;
  Routing routing;
  at::Tensor x, logits;
  at::Tensor hidden;         // [tokens * k, hidden_columns]: before the activation, by expert
  at::Tensor shared_hidden;  // [tokens, hidden_columns of the shared expert]
  IslandPass island;         // instead of hidden, where experts are shared out
  RemotePass remote;         // likewise
};

// Buffers that the experts of one pass take turns in, as large as the busiest needs.
struct Rows {
  at::Tensor all;
  at::Tensor first(std::int64_t rows) const { return all.narrow(0, 0, rows); }
};

std::int64_t most_rows(const Routing& routing) {
  std::int64_t most = 0;
  for (std::size_t e = 0; e + 1 < routing.begin.size(); ++e) {
    most = std::max(most, routing.begin[e + 1] - routing.begin[e]);
  }
  return most;
}

// The auxiliary losses are of the whole batch, not of this rank's part.
void share_load(Routing& routing, const at::Tensor& logits, const MoeLayer& layer,
                std::span<const std::int64_t> counts) {
  set_load(routing, {logits.const_data_ptr<float>(), static_cast<std::size_t>(logits.numel())},
           logits.size(1), layer.held, layer.routing, counts, layer.share->tokens);
}

at::Tensor forward(const MoeLayer& layer, const at::Tensor& residual, const at::Tensor& x,
                   std::span<const float> bias, bool keep, Saved& saved) {
  const std::int64_t tokens = x.size(0), width = x.size(1);
  saved.layer = &layer;
  saved.logits = product(x, layer.gate.value.t());
  saved.routing =
      route({saved.logits.const_data_ptr<float>(), static_cast<std::size_t>(saved.logits.numel())},
            layer.gate.value.size(0), bias, layer.held, layer.routing);
  const Routing& routing = saved.routing;
  std::optional<IslandForward> island;
  if (layer.share) {
    island.emplace(layer, routing, x, keep, saved.island);
    share_load(saved.routing, saved.logits, layer, saved.island.counts);
  }

  const at::Tensor out = residual.clone();
  if (layer.shared) {
    const std::int64_t inner = layer.shared->second.value.size(1);
    saved.shared_hidden = product(x, layer.shared->first.value.t());
    const at::Tensor active = buffer(tokens, inner);
    activate(layer.activation, saved.shared_hidden, active);
    add_product(out, active, layer.shared->second.value.t());
    if (!keep) saved.shared_hidden.reset();
  }
  if (keep) saved.x = x;
  if (island) {
    island->finish(out);
    return out;
  }
  if (layer.remote) {
    remote_forward(layer, routing, x, keep, out, saved.remote);
    return out;
  }

  const std::int64_t most = most_rows(routing);
  const std::int64_t inner = layer.experts.at(0).second.value.size(1);
  const std::int64_t columns = kernels::hidden_columns(layer.activation, inner);
  const Rows input{buffer(most, width)}, active{buffer(most, inner)};
  const at::Tensor hidden = buffer(keep ? routing.begin.back() : most, columns);
  for (std::size_t e = 0; e < layer.experts.size(); ++e) {
    const std::int64_t begin = routing.begin[e], rows = routing.begin[e + 1] - begin;
    if (rows == 0) continue;
    const at::Tensor xs = input.first(rows), a = active.first(rows);
    const at::Tensor h = hidden.narrow(0, keep ? begin : 0, rows);
    gather(x, routing.token.data() + begin, xs);
    product(h, xs, layer.experts[e].first.value.t());
    activate(layer.activation, h, a);
    product(xs, a, layer.experts[e].second.value.t());  // the input is not needed any more
    scatter_add(xs, routing.token.data() + begin, routing.weight.data() + begin, out);
  }
  if (keep) saved.hidden = hidden;
  return out;
}

void experts_backward(const Saved& saved, const at::Tensor& d_out, const at::Tensor& dx,
                      std::vector<float>& d_weight) {
  const MoeLayer& layer = *saved.layer;
  const Routing& routing = saved.routing;
  const std::int64_t most = most_rows(routing), width = d_out.size(1);
  const std::int64_t inner = layer.experts.at(0).second.value.size(1);
  const Rows outer{buffer(most, width)}, active{buffer(most, inner)},
      d_hidden{buffer(most, saved.hidden.size(1))};
  for (std::size_t e = 0; e < layer.experts.size(); ++e) {
    const FeedForward& expert = layer.experts[e];
    const std::int64_t begin = routing.begin[e], rows = routing.begin[e + 1] - begin;
    if (rows == 0) {
      expert.first.gradient.zero_();
      expert.second.gradient.zero_();
      continue;
    }
    const std::int32_t* token = routing.token.data() + begin;
    const at::Tensor wide = outer.first(rows), a = active.first(rows), dh = d_hidden.first(rows);
    gather(d_out, token, wide);
    product(a, wide, expert.second.value);
    activate_backward(layer.activation, saved.hidden.narrow(0, begin, rows),
                      routing.weight.data() + begin, a, dh, d_weight.data() + begin);
    product(expert.second.gradient, wide.t(), a);
    gather(saved.x, token, wide);
    product(expert.first.gradient, dh.t(), wide);
    product(wide, dh, expert.first.value);
    scatter_add(wide, token, nullptr, dx);
  }
}

at::Tensor backward(Saved& saved, const at::Tensor& d_out) {
  const MoeLayer& layer = *saved.layer;
  const std::int64_t experts = layer.gate.value.size(0);
  at::Tensor dx = at::empty_like(saved.x);
  if (layer.shared) {
    const FeedForward& shared = *layer.shared;
    at::Tensor active = product(d_out, shared.second.value);
    const at::Tensor d_hidden = at::empty_like(saved.shared_hidden);
    activate_backward(layer.activation, saved.shared_hidden, nullptr, active, d_hidden, nullptr);
    product(shared.second.gradient, d_out.t(), active);
    product(shared.first.gradient, d_hidden.t(), saved.x);
    product(dx, d_hidden, shared.first.value);
  } else {
    dx.zero_();
  }
  std::vector<float> d_weight(saved.routing.weight.size());
  if (layer.share) {
    island_backward(layer, saved.routing, saved.island, d_out, dx, d_weight);
  } else if (layer.remote) {
    remote_backward(layer, saved.routing, saved.remote, saved.x, d_out, dx, d_weight);
  } else {
    experts_backward(saved, d_out, dx, d_weight);
  }
  at::Tensor d_logits = at::empty_like(saved.logits);
  const auto count = static_cast<std::size_t>(d_logits.numel());
  route_backward(saved.routing, {saved.logits.const_data_ptr<float>(), count}, experts, layer.held,
                 d_weight, layer.routing, {d_logits.mutable_data_ptr<float>(), count});
  product(layer.gate.gradient, d_logits.t(), saved.x);
  add_product(dx, d_logits, layer.gate.value);
  return dx;
}

struct MoeFunction : torch::autograd::Function<MoeFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& residual,
                            const at::Tensor& x, const MoeLayer* layer, std::span<const float> bias,
                            bool keep, MoeReport* report) {
    auto saved = c10::make_intrusive<Saved>();
    at::Tensor out = yumoe::forward(*layer, residual, x, bias, keep, *saved);
    const std::vector<std::int64_t>& begin = saved->routing.begin;
    report->auxiliary = saved->routing.auxiliary;
    report->counts.resize(layer->held.size());
    for (std::size_t e = 0; e < layer->held.size(); ++e) {
      report->counts[e] = layer->share ? saved->island.counts[e] : begin[e + 1] - begin[e];
    }
    if (keep) context->saved_data["saved"] = c10::IValue::make_capsule(std::move(saved));
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved =
        c10::static_intrusive_pointer_cast<Saved>(context->saved_data["saved"].toCapsule());
    YUMOE_ASSERT(saved != nullptr);
    const at::Tensor d_out = gradients[0].contiguous();
    return {d_out, yumoe::backward(*saved, d_out), {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor apply_moe(const MoeLayer& layer, const at::Tensor& residual, const at::Tensor& x,
                     std::span<const float> bias, MoeReport& report) {
  YUMOE_ASSERT(x.is_contiguous());
  YUMOE_ASSERT(layer.share != nullptr || layer.remote != nullptr ||
               layer.experts.size() == layer.held.size());
  const bool keep = at::GradMode::is_enabled() && (x.requires_grad() || residual.requires_grad());
  return MoeFunction::apply(residual, x, &layer, bias, keep, &report);
}

}  // namespace yumoe

#include "model/remote_share.hpp"

#include <algorithm>
#include <future>
#include <optional>

#include "cluster/error.hpp"
#include "model/moe_layer.hpp"
#include "model/product.hpp"
#include "model/rows.hpp"

namespace yumoe {
namespace {

using rows::activate;
using rows::activate_backward;
using rows::buffer;
using rows::gather;
using rows::scatter_add;

struct Slice {
  std::int64_t begin = 0, rows = 0;
  const FeedForward* here = nullptr;  // null: elsewhere
};

// [held], in order.
std::vector<Slice> slices_of(const MoeLayer& layer, const Routing& routing) {
  std::vector<Slice> slices;
  std::size_t next = 0;
  for (std::size_t e = 0; e < layer.held.size(); ++e) {
    const auto& elsewhere = layer.remote->elsewhere;
    const bool is_here = !std::binary_search(elsewhere.begin(), elsewhere.end(), layer.held[e]);
    slices.push_back({routing.begin[e], routing.begin[e + 1] - routing.begin[e],
                      is_here ? &layer.experts.at(next++) : nullptr});
  }
  return slices;
}

std::span<float> rows_of(const at::Tensor& tensor, const Slice& slice) {
  const auto width = static_cast<std::size_t>(tensor.size(1));
  return {tensor.mutable_data_ptr<float>() + slice.begin * tensor.size(1),
          static_cast<std::size_t>(slice.rows) * width};
}

// Runs the network's part beside the caller's. The calls must outlive it, also when either throws.
class Beside {
 public:
  template <typename Work>
  explicit Beside(Work work) : done_(std::async(std::launch::async, std::move(work))) {}
  ~Beside() {
    if (done_.valid()) done_.wait();
  }
  void join() { done_.get(); }

 private:
  std::future<void> done_;
};

// [tokens * k], sorted rows by the slot they belong to.
template <typename Value>
std::vector<Value> by_slot(const Routing& routing, std::span<const Value> sorted) {
  std::vector<Value> result(sorted.size());
  for (std::size_t row = 0; row < sorted.size(); ++row) {
    result[static_cast<std::size_t>(routing.slot[row])] = sorted[row];
  }
  return result;
}

bool all_answered(const RemotePass& pass) {
  return std::find(pass.answered.begin(), pass.answered.end(), false) == pass.answered.end();
}

void spread_weights(const Routing& routing, RemotePass& pass) {
  const auto k = static_cast<std::size_t>(routing.experts_per_token);
  std::vector<float> slots = by_slot<float>(routing, routing.weight);
  std::vector<bool> answered(k);
  for (std::size_t t = 0; t * k < slots.size(); ++t) {
    for (std::size_t j = 0; j < k; ++j) {
      answered[j] = pass.answered[static_cast<std::size_t>(routing.chosen[t * k + j])];
    }
    renormalise(std::span(slots).subspan(t * k, k), answered);
  }
  for (std::size_t row = 0; row < slots.size(); ++row) {
    pass.weight[row] = slots[static_cast<std::size_t>(routing.slot[row])];
  }
}

// From the gradient of the weights that renormalise() made to that of those it was given.
void spread_weights_backward(const Routing& routing, const RemotePass& pass,
                             std::span<float> d_weight) {
  const auto k = static_cast<std::size_t>(routing.experts_per_token);
  const std::vector<float> given = by_slot<float>(routing, routing.weight);
  std::vector<float> d = by_slot<float>(routing, std::span<const float>(d_weight));
  for (std::size_t t = 0; t * k < d.size(); ++t) {
    const auto answered = [&](std::size_t j) {
      return pass.answered[static_cast<std::size_t>(routing.chosen[t * k + j])];
    };
    float all = 0, left = 0, along = 0;
    for (std::size_t j = 0; j < k; ++j) {
      all += given[t * k + j];
      if (!answered(j)) continue;
      left += given[t * k + j];
      along += d[t * k + j] * given[t * k + j];
    }
    for (std::size_t j = 0; j < k; ++j) {
      float& value = d[t * k + j];
      const float scale = answered(j) && left > 0 ? all / left : 0;
      value = left > 0
                  ? scale * value * static_cast<float>(answered(j)) + along / left * (1 - scale)
                  : 0;
    }
  }
  for (std::size_t row = 0; row < d.size(); ++row) {
    d_weight[row] = d[static_cast<std::size_t>(routing.slot[row])];
  }
}

}  // namespace

void remote_forward(const MoeLayer& layer, const Routing& routing, const at::Tensor& x, bool keep,
                    const at::Tensor& out, RemotePass& pass) {
  const std::vector<Slice> slices = slices_of(layer, routing);
  const std::int64_t all = routing.begin.back(), width = x.size(1);
  const at::Tensor xs = buffer(all, width);
  gather(x, routing.token.data(), xs);
  pass.y = buffer(all, width);
  std::vector<std::size_t> position_of_call;
  for (std::size_t e = 0; e < slices.size(); ++e) {
    if (slices[e].here != nullptr || slices[e].rows == 0) continue;
    position_of_call.push_back(e);
    pass.calls.push_back({.layer = layer.index,
                          .expert = layer.held[e],
                          .x = rows_of(xs, slices[e]),
                          .dy = {},
                          .out = rows_of(pass.y, slices[e]),
                          .keep = keep});
  }
  std::vector<ExpertRows> asked;
  std::vector<std::size_t> call_of_asked;
  for (std::size_t i = 0; i < pass.calls.size(); ++i) {
    if (layer.remote->lost.contains({layer.index, pass.calls[i].expert})) continue;
    asked.push_back(pass.calls[i]);
    call_of_asked.push_back(i);
  }
  {
    Beside network([&] { layer.remote->experts->forward(asked); });
    for (const Slice& slice : slices) {
      if (slice.here == nullptr || slice.rows == 0) continue;
      const FeedForward& expert = *slice.here;
      const std::int64_t inner = expert.second.value.size(1);
      const std::int64_t columns = kernels::hidden_columns(layer.activation, inner);
      if (!pass.hidden.defined()) pass.hidden = buffer(all, columns);
      const at::Tensor h = pass.hidden.narrow(0, slice.begin, slice.rows);
      const at::Tensor active = buffer(slice.rows, inner);
      product(h, xs.narrow(0, slice.begin, slice.rows), expert.first.value.t());
      activate(layer.activation, h, active);
      product(pass.y.narrow(0, slice.begin, slice.rows), active, expert.second.value.t());
    }
    network.join();
  }
  for (std::size_t i = 0; i < asked.size(); ++i) pass.calls[call_of_asked[i]] = asked[i];
  pass.answered.assign(slices.size(), true);
  for (std::size_t i = 0; i < pass.calls.size(); ++i) {
    pass.answered[position_of_call[i]] = pass.calls[i].answered;
  }
  pass.weight = routing.weight;
  if (!all_answered(pass)) spread_weights(routing, pass);
  for (std::size_t e = 0; e < slices.size(); ++e) {
    const Slice& slice = slices[e];
    if (slice.rows == 0 || !pass.answered[e]) continue;
    scatter_add(pass.y.narrow(0, slice.begin, slice.rows), routing.token.data() + slice.begin,
                pass.weight.data() + slice.begin, out);
  }
  if (!keep) pass = {};
}

void remote_backward(const MoeLayer& layer, const Routing& routing, RemotePass& pass,
                     const at::Tensor& x, const at::Tensor& d_out, const at::Tensor& dx,
                     std::span<float> d_weight) {
  const std::vector<Slice> slices = slices_of(layer, routing);
  const std::int64_t all = routing.begin.back(), width = d_out.size(1);
  const at::Tensor xs = buffer(all, width), dy = buffer(all, width), dxs = buffer(all, width);
  gather(x, routing.token.data(), xs);
  gather(d_out, routing.token.data(), dy);
  std::vector<bool> arrived = pass.answered;
  std::vector<ExpertRows> calls;
  std::vector<std::size_t> position_of_call;
  std::size_t next = 0;
  for (std::size_t e = 0; e < slices.size(); ++e) {
    const Slice& slice = slices[e];
    if (slice.here != nullptr || slice.rows == 0) continue;
    ExpertRows call = pass.calls.at(next++);
    if (!call.answered) continue;
    const std::span<const float> y = rows_of(pass.y, slice);
    const std::span<float> d = rows_of(dy, slice);
    for (std::int64_t row = 0; row < slice.rows; ++row) {
      const std::size_t at = static_cast<std::size_t>(row * width);
      const auto sorted = static_cast<std::size_t>(slice.begin + row);
      float sum = 0;
      for (std::size_t i = at; i < at + static_cast<std::size_t>(width); ++i) {
        sum += y[i] * d[i];
        d[i] *= pass.weight[sorted];
      }
      d_weight[sorted] = sum;
    }
    call.x = rows_of(xs, slice);
    call.dy = d;
    call.out = rows_of(dxs, slice);
    calls.push_back(call);
    position_of_call.push_back(e);
  }
  {
    Beside network([&] { layer.remote->experts->backward(calls); });
    for (const Slice& slice : slices) {
      if (slice.here == nullptr) continue;
      const FeedForward& expert = *slice.here;
      if (slice.rows == 0) {
        expert.first.gradient.zero_();
        expert.second.gradient.zero_();
        continue;
      }
      const at::Tensor d = dy.narrow(0, slice.begin, slice.rows);
      const at::Tensor active = buffer(slice.rows, expert.second.value.size(1));
      const at::Tensor d_hidden = buffer(slice.rows, pass.hidden.size(1));
      product(active, d, expert.second.value);
      activate_backward(layer.activation, pass.hidden.narrow(0, slice.begin, slice.rows),
                        pass.weight.data() + slice.begin, active, d_hidden,
                        d_weight.data() + slice.begin);
      product(expert.second.gradient, d.t(), active);
      product(expert.first.gradient, d_hidden.t(), xs.narrow(0, slice.begin, slice.rows));
      product(dxs.narrow(0, slice.begin, slice.rows), d_hidden, expert.first.value);
    }
    network.join();
  }
  for (std::size_t i = 0; i < calls.size(); ++i) {
    arrived[position_of_call[i]] = calls[i].answered;
    if (!calls[i].answered) layer.remote->lost.emplace(layer.index, calls[i].expert);
  }
  for (std::size_t e = 0; e < slices.size(); ++e) {
    const Slice& slice = slices[e];
    if (slice.rows == 0 || !arrived[e]) continue;
    scatter_add(dxs.narrow(0, slice.begin, slice.rows), routing.token.data() + slice.begin, nullptr,
                dx);
  }
  if (!all_answered(pass)) spread_weights_backward(routing, pass, d_weight);
}

}  // namespace yumoe

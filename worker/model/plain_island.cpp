// An island's exchange of rows in ATen operations: for ranks that compute on GPUs. In one piece, unlike the
// CPU's (expert_parallel.cpp), and by autograd: the gradient of an exchange is the exchange back.
//
// Tensors live on the device's default stream. The group's operations are ordered against that stream by
// the group (Collective::on_device), so that nothing here waits for them on the host. A tensor given to an
// exchange is kept until its wait() has returned: what the allocator hands its memory to afterwards runs
// on the default stream, hence after the exchange.

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/repeat_interleave.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "cluster/error.hpp"
#include "model/plain.hpp"

namespace yumoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <typename T>
at::Tensor upload(std::span<const T> values, at::IntArrayRef shape, at::ScalarType type,
                  c10::Device device) {
  const at::Tensor host =
      at::empty(shape, at::TensorOptions().dtype(type).pinned_memory(device.is_cuda()));
  if (!values.empty()) std::memcpy(host.mutable_data_ptr(), values.data(), values.size_bytes());
  return device.is_cpu() ? host : host.to(device, /*non_blocking=*/true);
}

std::int64_t sum_of(std::span<const std::int64_t> values) {
  return std::accumulate(values.begin(), values.end(), std::int64_t{0});
}

at::Tensor exchanged(Collective& group, const at::Tensor& rows, std::span<const std::int64_t> send,
                     std::span<const std::int64_t> receive) {
  const at::Tensor from = rows.contiguous();
  YUMOE_ASSERT(from.size(0) == sum_of(send) && from.scalar_type() == at::kFloat);
  const at::Tensor to = at::empty({sum_of(receive), from.size(1)}, from.options());
  const auto bytes = [&](std::span<const std::int64_t> counts) {
    std::vector<std::size_t> result;
    for (const std::int64_t count : counts) {
      result.push_back(static_cast<std::size_t>(count * from.size(1)) * sizeof(float));
    }
    return result;
  };
  group.all_to_all_v({static_cast<const std::uint8_t*>(from.const_data_ptr()), from.nbytes()},
                     bytes(send), {static_cast<std::uint8_t*>(to.mutable_data_ptr()), to.nbytes()},
                     bytes(receive));
  return to;
}

struct ExchangeFunction : torch::autograd::Function<ExchangeFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, Collective* group,
                            const std::vector<std::int64_t>& send,
                            const std::vector<std::int64_t>& receive) {
    context->saved_data["group"] =
        static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(group));
    context->saved_data["send"] = send;
    context->saved_data["receive"] = receive;
    return exchanged(*group, rows, send, receive);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    auto* group = reinterpret_cast<Collective*>(
        static_cast<std::intptr_t>(context->saved_data["group"].toInt()));
    const std::vector<std::int64_t> send = context->saved_data["send"].toIntVector(),
                                    receive = context->saved_data["receive"].toIntVector();
    return {exchanged(*group, gradients[0], receive, send), {}, {}, {}};
  }
};

}  // namespace

at::Tensor to_device(std::span<const float> values, at::IntArrayRef shape, c10::Device device) {
  return upload(values, shape, at::kFloat, device);
}
at::Tensor to_device(std::span<const std::int32_t> values, c10::Device device) {
  return upload(values, {static_cast<std::int64_t>(values.size())}, at::kInt, device);
}
at::Tensor to_device(std::span<const std::int64_t> values, c10::Device device) {
  return upload(values, {static_cast<std::int64_t>(values.size())}, at::kLong, device);
}

void add_island(const ExpertShare& share, c10::Device device, PlainConstants& constants) {
  const auto held = static_cast<std::int64_t>(share.owner.size());
  const std::int32_t self = share.group->rank(), ranks = share.group->size();
  const auto owner = [&](std::int64_t e) {
    const std::int32_t rank = share.owner[static_cast<std::size_t>(e)];
    return rank == ExpertShare::kEverywhere ? self : rank;
  };
  std::vector<std::int64_t> order(static_cast<std::size_t>(held)), place(order.size()), here;
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int64_t a, std::int64_t b) { return owner(a) < owner(b); });
  for (std::size_t i = 0; i < order.size(); ++i) {
    place[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
  }
  for (std::int64_t e = 0; e < held; ++e) {
    if (share.is_here(static_cast<std::size_t>(e))) here.push_back(e);
  }
  std::vector<std::int64_t> comes, numbers;
  for (std::int32_t from = 0; from < ranks; ++from) {
    for (std::size_t i = 0; i < here.size(); ++i) {
      const bool own_only =
          share.owner[static_cast<std::size_t>(here[i])] == ExpertShare::kEverywhere;
      comes.push_back(own_only && from != self ? 0 : 1);
      numbers.push_back(static_cast<std::int64_t>(i));
    }
  }
  constants.place = to_device(place, device);
  constants.here = to_device(here, device);
  constants.comes = to_device(comes, device).view({ranks, -1});
  constants.numbers = to_device(numbers, device);
}

IslandRows::IslandRows(const ExpertShare& share, const PlainConstants& constants,
                       const at::Tensor& counts)
    : group_(*share.group) {
  const auto ranks = static_cast<std::size_t>(group_.size());
  const auto self = static_cast<std::size_t>(group_.rank());
  const std::size_t held = share.owner.size();
  const at::Tensor mine = counts.contiguous();
  const at::Tensor all = at::empty(
      {static_cast<std::int64_t>(ranks), static_cast<std::int64_t>(held)}, mine.options());
  group_.all_gather({static_cast<const std::uint8_t*>(mine.const_data_ptr()), mine.nbytes()},
                    {static_cast<std::uint8_t*>(all.mutable_data_ptr()), all.nbytes()});
  counts_ = all.sum(0);
  const at::Tensor coming = all.index_select(1, constants.here) * constants.comes;
  ends_ = coming.sum(0).cumsum(0).to(at::kInt);

  group_.drain();
  const at::Tensor host = all.to(at::kCPU);
  const std::int64_t* count = host.const_data_ptr<std::int64_t>();
  send_.assign(ranks, 0);
  receive_.assign(ranks, 0);
  for (std::size_t e = 0; e < held; ++e) {
    const std::int32_t owner = share.owner[e];
    const bool everywhere = owner == ExpertShare::kEverywhere;
    send_[everywhere ? self : static_cast<std::size_t>(owner)] += count[self * held + e];
    for (std::size_t from = 0; from < ranks; ++from) {
      if (everywhere ? from == self : share.is_here(e)) receive_[from] += count[from * held + e];
    }
  }
  // What comes lies by rank, then expert; products want it by expert, then rank.
  const std::int64_t rows = sum_of(receive_);
  const at::Tensor expert = at::repeat_interleave(constants.numbers, coming.reshape({-1}), 0, rows);
  by_expert_ = expert.argsort(true, 0, false);
  as_received_ = at::empty_like(by_expert_);
  as_received_.scatter_(0, by_expert_, at::arange(rows, by_expert_.options()));
}

at::Tensor IslandRows::there(const at::Tensor& rows) const {
  return ExchangeFunction::apply(rows, &group_, send_, receive_).index_select(0, by_expert_);
}

at::Tensor IslandRows::back(const at::Tensor& rows) const {
  return ExchangeFunction::apply(rows.index_select(0, as_received_), &group_, receive_, send_);
}

}  // namespace yumoe

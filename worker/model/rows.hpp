#pragma once
// The row loops of kernels.hpp over tensors, shared among threads. fp32 on the CPU, contiguous rows.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cstdint>

#include "model/kernels.hpp"

namespace yumoe::rows {

inline constexpr std::int64_t kApart = 64;  // least rows worth a thread of their own

inline at::Tensor buffer(std::int64_t count, std::int64_t columns) {
  return at::empty({count, columns}, at::kFloat);
}

inline void activate(kernels::Activation activation, const at::Tensor& hidden,
                     const at::Tensor& out) {
  const std::int64_t width = out.size(1), columns = hidden.size(1);
  const float* from = hidden.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
  at::parallel_for(0, out.size(0), kApart, [&](std::int64_t begin, std::int64_t end) {
    kernels::activate(activation, from + begin * columns, to + begin * width, end - begin, width);
  });
}

inline void activate_backward(kernels::Activation activation, const at::Tensor& hidden,
                              const float* factor, const at::Tensor& d_out,
                              const at::Tensor& d_hidden, float* d_factor) {
  const std::int64_t width = d_out.size(1), columns = hidden.size(1);
  const float* from = hidden.const_data_ptr<float>();
  float* d = d_out.mutable_data_ptr<float>();
  float* to = d_hidden.mutable_data_ptr<float>();
  at::parallel_for(0, d_out.size(0), kApart, [&](std::int64_t begin, std::int64_t end) {
    kernels::activate_backward(
        activation, from + begin * columns, factor ? factor + begin : nullptr, d + begin * width,
        to + begin * columns, d_factor ? d_factor + begin : nullptr, end - begin, width);
  });
}

inline void gather(const at::Tensor& from, const std::int32_t* index, const at::Tensor& to) {
  const std::int64_t width = from.size(1);
  const float* source = from.const_data_ptr<float>();
  float* target = to.mutable_data_ptr<float>();
  at::parallel_for(0, to.size(0), kApart, [&](std::int64_t begin, std::int64_t end) {
    kernels::gather_rows(source, index + begin, target + begin * width, end - begin, width);
  });
}

inline void scatter_add(const at::Tensor& from, const std::int32_t* index, const float* factor,
                        const at::Tensor& to) {
  const std::int64_t width = from.size(1);
  const float* source = from.const_data_ptr<float>();
  float* target = to.mutable_data_ptr<float>();
  at::parallel_for(0, from.size(0), kApart, [&](std::int64_t begin, std::int64_t end) {
    kernels::scatter_add_rows(source + begin * width, index + begin,
                              factor ? factor + begin : nullptr, target, end - begin, width);
  });
}

}  // namespace yumoe::rows

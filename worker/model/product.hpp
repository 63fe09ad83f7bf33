#pragma once
// Matrix products on a CPU, into memory that is there already.
//
// Done by oneDNN's sgemm: 8 to 20 % faster than the library LibTorch links on the sizes a model has
// (docs/decisions/matrix-products.md). Uses as many threads as LibTorch is told to (one OpenMP).

#include <ATen/core/Tensor.h>

namespace yumoe {

// out = a @ b, or out += a @ b. All fp32 on the CPU; a and b may be transposed views, out has
// contiguous rows.
void product(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b);
void add_product(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b);

// A new tensor a @ b.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);

}  // namespace yumoe

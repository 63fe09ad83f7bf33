#include "model/product.hpp"

#include <ATen/ops/empty.h>
#include <dlfcn.h>
#include <dnnl.h>

#include <string>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

// oneDNN's sgemm. The library is bound to its own symbols first (RTLD_DEEPBIND): bound to those of
// the oneDNN within LibTorch, it answers "unimplemented".
decltype(&dnnl_sgemm) open_sgemm() {
  void* library = dlopen(YUMOE_DNNL_LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  if (library == nullptr) {
    throw Error(ErrorCode::device_missing, std::string("open oneDNN: ") + dlerror() +
                                               ": install libdnnl2 (launch/setup does)");
  }
  void* symbol = dlsym(library, "dnnl_sgemm");
  YUMOE_ASSERT(symbol != nullptr);
  return reinterpret_cast<decltype(&dnnl_sgemm)>(symbol);
}

struct Side {
  char transposed;      // 'N' or 'T'
  std::int64_t stride;  // between rows as they lie in memory
};

Side side_of(const at::Tensor& matrix) {
  if (matrix.stride(1) == 1 && matrix.stride(0) >= matrix.size(1)) return {'N', matrix.stride(0)};
  YUMOE_ASSERT(matrix.stride(0) == 1);
  return {'T', matrix.stride(1)};
}

void multiply(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b, float keep) {
  YUMOE_ASSERT(a.size(1) == b.size(0));
  YUMOE_ASSERT(out.size(0) == a.size(0) && out.size(1) == b.size(1) && out.stride(1) == 1);
  const Side left = side_of(a), right = side_of(b);
  static const auto sgemm = open_sgemm();
  const dnnl_status_t status =
      sgemm(left.transposed, right.transposed, out.size(0), out.size(1), a.size(1), 1.0F,
            a.const_data_ptr<float>(), left.stride, b.const_data_ptr<float>(), right.stride, keep,
            out.mutable_data_ptr<float>(), out.stride(0));
  YUMOE_ASSERT(status == dnnl_success);
}

}  // namespace

void product(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  multiply(out, a, b, 0.0F);
}

void add_product(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  multiply(out, a, b, 1.0F);
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor out = at::empty({a.size(0), b.size(1)}, a.options());
  multiply(out, a, b, 0.0F);
  return out;
}

}  // namespace yumoe

#define YUMOE_KERNEL_SET portable
#include "ledger/row_kernels_impl.hpp"

#include <string_view>

namespace yumoe::ledger {

#ifdef YUMOE_KERNELS_AVX2
namespace avx2 {
extern const RowKernels kernels;
}
#endif

const RowKernels* row_kernels_named(const char* name) {
  if (name == std::string_view("portable")) return &portable::kernels;
#ifdef YUMOE_KERNELS_AVX2
  if (name == std::string_view("avx2") && __builtin_cpu_supports("avx2")) return &avx2::kernels;
#endif
  return nullptr;
}

const RowKernels& row_kernels() {
  static const RowKernels* const chosen = [] {
    const RowKernels* const fast = row_kernels_named("avx2");
    return fast != nullptr ? fast : row_kernels_named("portable");
  }();
  return *chosen;
}

}  // namespace yumoe::ledger

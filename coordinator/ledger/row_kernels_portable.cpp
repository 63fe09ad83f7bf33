#define YUMOE_KERNEL_SET portable
#include <string_view>

#include "ledger/row_kernels_impl.hpp"

namespace yumoe::ledger {

#ifdef YUMOE_KERNELS_X86
namespace avx2 {
extern const RowKernels kernels;
}
namespace avx512 {
extern const RowKernels kernels;
}
#endif

const RowKernels* row_kernels_named(const char* name) {
  if (name == std::string_view("portable")) return &portable::kernels;
#ifdef YUMOE_KERNELS_X86
  if (name == std::string_view("avx2") && __builtin_cpu_supports("avx2")) return &avx2::kernels;
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (name == std::string_view("avx512") && has_avx512) return &avx512::kernels;
#endif
  return nullptr;
}

const RowKernels& row_kernels() {
  static const RowKernels* const chosen = [] {
    for (const char* name : {"avx512", "avx2"}) {
      if (const RowKernels* const set = row_kernels_named(name)) return set;
    }
    return row_kernels_named("portable");
  }();
  return *chosen;
}

}  // namespace yumoe::ledger

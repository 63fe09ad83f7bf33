#include "codec/select.hpp"

namespace yumoe::codec {
namespace {

struct Largest {
  std::uint32_t magnitude = 0;
  std::uint32_t value() const { return magnitude; }
};

std::uint64_t mask_of_64(const float* values, std::uint32_t threshold, Largest& largest) {
  std::uint64_t mask = 0;
  for (int i = 0; i < 64; ++i) {
    std::uint32_t magnitude;
    __builtin_memcpy(&magnitude, values + i, sizeof magnitude);
    magnitude &= kMagnitudeMask;
    largest.magnitude = magnitude > largest.magnitude ? magnitude : largest.magnitude;
    mask |= std::uint64_t{magnitude >= threshold} << i;
  }
  return mask;
}

}  // namespace
}  // namespace yumoe::codec

#define SELECT_BLOCK select_block_portable
#include "codec/select_block.inl"

namespace yumoe::codec {

SelectBlock fastest_select_block() {
#if defined(__x86_64__)
  // The whole of what the two translation units are compiled for: see router/CMakeLists.txt.
  const bool bit_operations = __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                              __builtin_cpu_supports("popcnt");
  if (bit_operations && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return select_block_avx512;
  }
  if (bit_operations && __builtin_cpu_supports("avx2")) return select_block_avx2;
#endif
  return select_block_portable;
}

}  // namespace yumoe::codec

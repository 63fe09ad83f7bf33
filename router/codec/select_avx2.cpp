#include "codec/select.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

namespace yumoe::codec {
namespace {

struct Largest {
  __m256i lanes = _mm256_setzero_si256();
  std::uint32_t value() const {
    alignas(32) std::uint32_t each[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(each), lanes);
    std::uint32_t most = 0;
    for (const std::uint32_t lane : each) most = lane > most ? lane : most;
    return most;
  }
};

std::uint64_t mask_of_64(const float* values, std::uint32_t threshold, Largest& largest) {
  const __m256i below = _mm256_set1_epi32(static_cast<int>(threshold - 1));
  const __m256i magnitude_mask = _mm256_set1_epi32(static_cast<int>(kMagnitudeMask));
  std::uint64_t mask = 0;
  for (int i = 0; i < 8; ++i) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + 8 * i));
    const __m256i magnitude = _mm256_and_si256(bits, magnitude_mask);
    largest.lanes = _mm256_max_epu32(largest.lanes, magnitude);
    const __m256i reached = _mm256_cmpgt_epi32(magnitude, below);
    const auto eight = static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(reached)));
    mask |= std::uint64_t{eight} << (8 * i);
  }
  return mask;
}

}  // namespace
}  // namespace yumoe::codec

#define SELECT_BLOCK select_block_avx2
#include "codec/select_block.inl"
#endif

#include "codec/select.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

namespace yumoe::codec {
namespace {

struct Largest {
  __m512i lanes = _mm512_setzero_si512();
  std::uint32_t value() const {
    alignas(64) std::uint32_t each[16];
    _mm512_store_si512(each, lanes);
    std::uint32_t most = 0;
    for (const std::uint32_t lane : each) most = lane > most ? lane : most;
    return most;
  }
};

std::uint64_t mask_of_64(const float* values, std::uint32_t threshold, Largest& largest) {
  const __m512i least = _mm512_set1_epi32(static_cast<int>(threshold));
  const __m512i magnitude_mask = _mm512_set1_epi32(static_cast<int>(kMagnitudeMask));
  std::uint64_t mask = 0;
  for (int i = 0; i < 4; ++i) {
    const __m512i magnitude = _mm512_and_si512(_mm512_loadu_si512(values + 16 * i), magnitude_mask);
    largest.lanes = _mm512_maskz_max_epu32(0xffff, largest.lanes, magnitude);
    mask |= std::uint64_t{_mm512_cmpge_epu32_mask(magnitude, least)} << (16 * i);
  }
  return mask;
}

}  // namespace
}  // namespace yumoe::codec

#define SELECT_BLOCK select_block_avx512
#include "codec/select_block.inl"
#endif

#pragma once
// Which elements of a block have the largest magnitudes. Written once (select_block.inl), compiled for
// three instruction sets, chosen when the process starts; integer comparisons only, so all three
// give the same answer. This header is read by those translation units and must stay free of inline
// code that the linker could share between them.

#include <cstdint>

namespace yumoe::codec {

// Magnitudes are compared as the bits of |x|: for finite floats that is the order of the values.
inline constexpr std::uint32_t kMagnitudeMask = 0x7fffffff;
inline constexpr std::uint32_t kMagnitudeInfinite = 0x7f800000;

struct SelectScratch {
  std::uint64_t* bitmap;      // [elements / 64 + 1]
  std::uint32_t* candidates;  // [elements + 64]
  std::uint32_t* magnitudes;  // [elements + 64]
  std::uint32_t guess;        // magnitude that few elements reach; 0: none yet. A hint: changes the
                              // cost, never the result
};

// Writes the indices of the `kept` largest non-zero magnitudes of values [elements], ascending, ties
// to the lower index, to `indices` [kept + 64], and returns how many (fewer if the block has fewer
// non-zeros). Returns kNotFinite if an element is not finite. 1 <= kept, elements <= 65'536.
// Cost: one pass over the values and about kept * 2 ns, if the block resembles the one before.
inline constexpr std::uint32_t kNotFinite = ~std::uint32_t{0};
using SelectBlock = std::uint32_t (*)(const float* values, std::uint32_t elements,
                                      std::uint32_t kept, SelectScratch* scratch,
                                      std::uint32_t* indices);

std::uint32_t select_block_portable(const float* values, std::uint32_t elements, std::uint32_t kept,
                                    SelectScratch* scratch, std::uint32_t* indices);
#if defined(__x86_64__)
std::uint32_t select_block_avx2(const float* values, std::uint32_t elements, std::uint32_t kept,
                                SelectScratch* scratch, std::uint32_t* indices);
std::uint32_t select_block_avx512(const float* values, std::uint32_t elements, std::uint32_t kept,
                                  SelectScratch* scratch, std::uint32_t* indices);
#endif

// The fastest that this processor can run.
SelectBlock fastest_select_block();

}  // namespace yumoe::codec

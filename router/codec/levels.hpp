#pragma once
// How kept values become 1 to 4 bits: a code is the sign (top bit) and a class of magnitude; it decodes
// to the mean of the values that got it.

#include <array>
#include <cstdint>
#include <span>

namespace yumoe::codec {

inline constexpr std::uint32_t kValueBitsMax = 4;

struct Levels {
  std::uint32_t value_bits = 2;
  std::array<std::uint32_t, 8> edges{};   // least magnitude (as bits) of class i + 1, ascending
  std::array<std::uint16_t, 16> table{};  // bfloat16 by code; 0 for a code that no value got
};

// Classes whose means lie closest to the magnitudes (Lloyd's iteration over a histogram of 256 steps
// between least and largest, even in the float's bits); means by sign, rounded to bfloat16, never to
// infinity. Writes each value's code. Deterministic: values are summed in order, in double.
//
// Source: Lloyd 1982. Against fixed edges at mean and mean +- 1.5 deviations (SparseLoCo) the squared
//         error of the kept values falls by a factor of three: docs/decisions, update codec.
Levels fit_levels(std::span<const float> values, std::uint32_t value_bits, std::uint8_t* codes);

inline float from_bfloat16(std::uint16_t half) {
  const std::uint32_t bits = std::uint32_t{half} << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace yumoe::codec

#include "codec/levels.hpp"

#include <algorithm>
#include <bit>

#include "codec/select.hpp"

namespace yumoe::codec {
namespace {

constexpr std::uint32_t kSteps = 256;

std::uint32_t magnitude_of(float value) {
  return std::bit_cast<std::uint32_t>(value) & kMagnitudeMask;
}

// Sums over the steps below each step, so that any range costs two look-ups.
struct Histogram {
  std::uint32_t low = 0;
  std::uint32_t shift = 0;  // step = (magnitude - low) >> shift
  std::array<std::uint32_t, kSteps + 1> count{};
  std::array<double, kSteps + 1> sum{};
};

Histogram histogram_of(std::span<const float> values) {
  std::uint32_t low = kMagnitudeMask;
  std::uint32_t high = 0;
  for (const float value : values) {
    low = std::min(low, magnitude_of(value));
    high = std::max(high, magnitude_of(value));
  }
  Histogram histogram;
  histogram.low = low;
  histogram.shift = static_cast<std::uint32_t>(
      std::max<int>(static_cast<int>(std::bit_width(high - low)), 8) - 8);
  for (const float value : values) {
    const std::uint32_t magnitude = magnitude_of(value);
    const std::uint32_t step = (magnitude - low) >> histogram.shift;
    histogram.count[step + 1] += 1;
    histogram.sum[step + 1] += static_cast<double>(std::bit_cast<float>(magnitude));
  }
  for (std::uint32_t step = 0; step < kSteps; ++step) {
    histogram.count[step + 1] += histogram.count[step];
    histogram.sum[step + 1] += histogram.sum[step];
  }
  return histogram;
}

// First step of each class but the lowest, starting from classes of equal count.
std::array<std::uint32_t, 8> fit_steps(const Histogram& histogram, std::uint32_t classes) {
  std::array<std::uint32_t, 8> first{};
  const std::uint32_t total = histogram.count[kSteps];
  for (std::uint32_t c = 1; c < classes; ++c) {
    const std::uint32_t below = static_cast<std::uint32_t>(std::uint64_t{total} * c / classes);
    first[c - 1] = static_cast<std::uint32_t>(
        std::lower_bound(histogram.count.begin(), histogram.count.end() - 1, below) -
        histogram.count.begin());
  }
  constexpr int kIterationsMax = 16;
  for (int iteration = 0; iteration < kIterationsMax; ++iteration) {
    std::array<double, 8> mean{};
    for (std::uint32_t c = 0; c < classes; ++c) {
      const std::uint32_t begin = c == 0 ? 0 : first[c - 1];
      const std::uint32_t end = c + 1 == classes ? kSteps : first[c];
      const std::uint32_t count = histogram.count[end] - histogram.count[begin];
      mean[c] = count == 0
                    ? static_cast<double>(std::bit_cast<float>(std::min(
                          histogram.low + (begin << histogram.shift), kMagnitudeInfinite - 1)))
                    : (histogram.sum[end] - histogram.sum[begin]) / count;
    }
    std::array<std::uint32_t, 8> next{};
    for (std::uint32_t c = 1; c < classes; ++c) {
      const std::uint32_t edge =
          magnitude_of(static_cast<float>(mean[c - 1] + (mean[c] - mean[c - 1]) / 2));
      const std::uint32_t step =
          edge <= histogram.low ? 0 : (edge - histogram.low) >> histogram.shift;
      next[c - 1] = std::clamp(step, c == 1 ? 0 : next[c - 2], kSteps);
    }
    if (next == first) break;
    first = next;
  }
  return first;
}

// Nearest, ties to even, but finite values stay finite.
std::uint16_t to_bfloat16(double value) {
  const float single = static_cast<float>(std::clamp(value, -0x1.fep127, 0x1.fep127));
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(single);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <std::uint32_t classes>
void write_codes(std::span<const float> values, const std::array<std::uint32_t, 8>& edges,
                 std::uint8_t* codes) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint32_t magnitude = magnitude_of(values[i]);
    const std::uint32_t sign = std::bit_cast<std::uint32_t>(values[i]) >> 31;
    std::uint32_t code = sign * classes;
    for (std::uint32_t c = 0; c + 1 < classes; ++c) code += magnitude >= edges[c];
    codes[i] = static_cast<std::uint8_t>(code);
  }
}

}  // namespace

Levels fit_levels(std::span<const float> values, std::uint32_t value_bits, std::uint8_t* codes) {
  Levels levels;
  levels.value_bits = value_bits;
  const std::uint32_t classes = 1u << (value_bits - 1);
  if (classes > 1) {
    const Histogram histogram = histogram_of(values);
    const std::array<std::uint32_t, 8> first = fit_steps(histogram, classes);
    for (std::uint32_t c = 0; c + 1 < classes; ++c) {
      const std::uint64_t edge = histogram.low + (std::uint64_t{first[c]} << histogram.shift);
      levels.edges[c] = static_cast<std::uint32_t>(std::min<std::uint64_t>(edge, kMagnitudeMask));
    }
  }
  switch (value_bits) {
    case 1: write_codes<1>(values, levels.edges, codes); break;
    case 2: write_codes<2>(values, levels.edges, codes); break;
    case 3: write_codes<4>(values, levels.edges, codes); break;
    default: write_codes<8>(values, levels.edges, codes); break;
  }
  std::array<double, 16> sum{};
  std::array<std::uint32_t, 16> count{};
  for (std::size_t i = 0; i < values.size(); ++i) {
    sum[codes[i]] += static_cast<double>(values[i]);
    count[codes[i]] += 1;
  }
  for (std::uint32_t code = 0; code < 2 * classes; ++code) {
    if (count[code] > 0) levels.table[code] = to_bfloat16(sum[code] / count[code]);
  }
  return levels;
}

}  // namespace yumoe::codec

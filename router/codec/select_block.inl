// The body of select_block. The includer provides
//   static std::uint64_t mask_of_64(const float* values, std::uint32_t threshold, Largest& largest)
// (bit i: |values[i]| >= threshold; `largest` collects the largest magnitude), struct Largest with
// value(), and the name SELECT_BLOCK. Plain loops are left to the compiler to vectorise.

namespace yumoe::codec {
namespace {

std::uint32_t magnitude_of(float value) {
  std::uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits & kMagnitudeMask;
}

struct Marked {
  std::uint32_t count;
  std::uint32_t largest;
};

// Sets bit i of the bitmap where |values[i]| >= threshold.
Marked mark(const float* values, std::uint32_t elements, std::uint32_t threshold,
            std::uint64_t* bitmap) {
  Largest largest;
  std::uint32_t count = 0;
  std::uint32_t i = 0;
  for (; i + 64 <= elements; i += 64) {
    // The next block comes while this one is worked on; beyond the end it does no harm.
    for (std::uint32_t j = 0; j < 64; j += 16) __builtin_prefetch(values + i + elements + j, 0, 2);
    const std::uint64_t word = mask_of_64(values + i, threshold, largest);
    bitmap[i / 64] = word;
    count += static_cast<std::uint32_t>(__builtin_popcountll(word));
  }
  std::uint32_t most = largest.value();
  if (i < elements) {
    std::uint64_t word = 0;
    for (std::uint32_t j = i; j < elements; ++j) {
      const std::uint32_t magnitude = magnitude_of(values[j]);
      most = magnitude > most ? magnitude : most;
      word |= std::uint64_t{magnitude >= threshold} << (j - i);
    }
    bitmap[i / 64] = word;
    count += static_cast<std::uint32_t>(__builtin_popcountll(word));
  }
  return {count, most};
}

std::uint32_t count_in_block(const float* values, std::uint32_t elements, std::uint32_t threshold) {
  const int least = static_cast<int>(threshold);
  int count = 0;
  for (std::uint32_t i = 0; i < elements; ++i) {
    count += static_cast<int>(magnitude_of(values[i])) >= least;
  }
  return static_cast<std::uint32_t>(count);
}

std::uint32_t count_candidates(const std::uint32_t* magnitudes, std::uint32_t count,
                               std::uint32_t threshold) {
  const int least = static_cast<int>(threshold);
  int reached = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    reached += static_cast<int>(magnitudes[i]) >= least;
  }
  return static_cast<std::uint32_t>(reached);
}

// A threshold that at least `kept` elements reach and, unless many are equal, not many more. The block
// has more than `kept` non-zeros, the largest of magnitude `largest`.
std::uint32_t search(const float* values, std::uint32_t elements, std::uint32_t kept,
                     std::uint32_t largest, std::uint32_t enough) {
  std::uint32_t low = 1;             // reached by at least `kept`
  std::uint32_t high = largest + 1;  // reached by none
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    const std::uint32_t count = count_in_block(values, elements, middle);
    if (count < kept) {
      high = middle;
    } else {
      low = middle;
      if (count <= enough) break;
    }
  }
  return low;
}

// Bit positions of the bitmap in ascending order. Four are written at a time, so that the usual word
// with few bits costs no mispredicted branch; what is written too much is overwritten.
std::uint32_t extract(const std::uint64_t* bitmap, std::uint32_t words, std::uint32_t* out) {
  constexpr std::uint64_t kGuard = std::uint64_t{1} << 63;
  std::uint32_t count = 0;
  for (std::uint32_t w = 0; w < words; ++w) {
    std::uint64_t bits = bitmap[w];
    const auto here = static_cast<std::uint32_t>(__builtin_popcountll(bits));
    for (std::uint32_t written = 0; written < here || written == 0; written += 4) {
      for (std::uint32_t j = 0; j < 4; ++j) {
        out[count + written + j] =
            w * 64 + static_cast<std::uint32_t>(__builtin_ctzll(bits | kGuard));
        bits &= bits - 1;
      }
    }
    count += here;
  }
  return count;
}

// Keeps the `kept` largest of the candidates, in place of order; returns the least magnitude kept.
std::uint32_t refine(const SelectScratch& scratch, std::uint32_t count, std::uint32_t kept,
                     std::uint32_t low, std::uint32_t largest, std::uint32_t* indices) {
  const std::uint32_t* magnitudes = scratch.magnitudes;
  std::uint32_t high = largest + 1;
  std::uint32_t reached = count;  // by `low`
  std::uint32_t above = 0;        // reached `high`
  while (reached != kept && high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    const std::uint32_t now = count_candidates(magnitudes, count, middle);
    (now < kept ? high : low) = middle;
    (now < kept ? above : reached) = now;
  }
  std::uint32_t ties = kept - above;  // how many of those equal to `low` are wanted
  std::uint32_t written = 0;
  if (reached == kept) {
    for (std::uint32_t i = 0; i < count; ++i) {
      indices[written] = scratch.candidates[i];
      written += magnitudes[i] >= low;
    }
  } else {
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint32_t tie = magnitudes[i] == low && ties > 0;
      ties -= tie;
      indices[written] = scratch.candidates[i];
      written += (magnitudes[i] > low) | tie;
    }
  }
  return low;
}

}  // namespace

std::uint32_t SELECT_BLOCK(const float* values, std::uint32_t elements, std::uint32_t kept,
                           SelectScratch* scratch, std::uint32_t* indices) {
  constexpr std::uint32_t kMargin = 1u << 20;  // an eighth of an octave: four deviations of the
                                               // least kept magnitude from block to block
  const std::uint32_t enough = 4 * kept + 64;
  std::uint32_t threshold = scratch->guess > 0 ? scratch->guess : 1;
  Marked marked = mark(values, elements, threshold, scratch->bitmap);
  if (marked.largest >= kMagnitudeInfinite) return kNotFinite;
  const bool too_few = marked.count < kept && threshold > 1;
  if (too_few || marked.count > enough) {
    if (count_in_block(values, elements, 1) > kept) {
      threshold = search(values, elements, kept, marked.largest, enough);
    } else {
      threshold = 1;
    }
    marked = mark(values, elements, threshold, scratch->bitmap);
  }
  const std::uint32_t count = extract(scratch->bitmap, (elements + 63) / 64, scratch->candidates);
  if (count <= kept) {
    for (std::uint32_t i = 0; i < count; ++i) indices[i] = scratch->candidates[i];
    scratch->guess = threshold;
    return count;
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    scratch->magnitudes[i] = magnitude_of(values[scratch->candidates[i]]);
  }
  const std::uint32_t least = refine(*scratch, count, kept, threshold, marked.largest, indices);
  scratch->guess = least > kMargin ? least - kMargin : 1;
  return kept;
}

}  // namespace yumoe::codec

#pragma once
// Random numbers that are the same on every machine and in every replay. The standard library's
// distributions are not specified bit for bit, so the few that are needed are spelt out here.

#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace yumoe {

// A seed for one purpose, derived from where it is used and never from time.
//
// Hashes the purpose and the numbers with BLAKE2b and takes the first 8 bytes, little-endian.
std::uint64_t derive_seed(std::string_view purpose, std::initializer_list<std::uint64_t> numbers);

// SplitMix64 seeding xoshiro256**. Source: Blackman and Vigna 2018, public-domain reference.
// Meets UniformRandomBitGenerator, but pass it to std:: distributions only where bits do not matter.
class Random {
 public:
  using result_type = std::uint64_t;

  explicit Random(std::uint64_t seed);

  static constexpr result_type min() { return 0; }
  static constexpr result_type max() { return ~result_type{0}; }
  result_type operator()();

  // Uniform in [0, bound), unbiased (Lemire 2019). `bound` is at least 1.
  std::uint64_t below(std::uint64_t bound);

  // Uniform in [0, 1) with 53 bits.
  double uniform();

  // Approximately standard normal: the sum of twelve uniforms less six (Irwin-Hall), exact in
  // double and free of libm, so equal on every machine. Range (-6, 6).
  double normal();

 private:
  std::uint64_t state_[4];
};

}  // namespace yumoe

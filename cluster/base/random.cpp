#include "cluster/random.hpp"

#include <bit>
#include <cstring>

#include "cluster/bytes.hpp"

namespace yumoe {

std::uint64_t derive_seed(std::string_view purpose, std::initializer_list<std::uint64_t> numbers) {
  Digester digester;
  digester.update(as_bytes(purpose));
  for (const std::uint64_t number : numbers) {
    digester.update(as_bytes(std::span<const std::uint64_t>(&number, 1)));
  }
  const Digest digest = digester.finish();
  std::uint64_t seed;
  std::memcpy(&seed, digest.bytes.data(), sizeof seed);
  return seed;
}

Random::Random(std::uint64_t seed) {
  for (std::uint64_t& word : state_) {
    seed += 0x9e3779b97f4a7c15;
    std::uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    word = z ^ (z >> 31);
  }
}

Random::result_type Random::operator()() {
  const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const std::uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

std::uint64_t Random::below(std::uint64_t bound) {
  __extension__ using Wide = unsigned __int128;
  Wide product = static_cast<Wide>((*this)()) * bound;
  if (static_cast<std::uint64_t>(product) < bound) {
    const std::uint64_t threshold = -bound % bound;
    while (static_cast<std::uint64_t>(product) < threshold) {
      product = static_cast<Wide>((*this)()) * bound;
    }
  }
  return static_cast<std::uint64_t>(product >> 64);
}

double Random::uniform() { return static_cast<double>((*this)() >> 11) * 0x1.0p-53; }

double Random::normal() {
  double sum = -6.0;
  for (int i = 0; i < 12; ++i) sum += uniform();
  return sum;
}

}  // namespace yumoe

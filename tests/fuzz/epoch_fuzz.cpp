// Epochs drawn from the fuzzer's bytes: no crash, no undefined behaviour, and always what the plain
// epoch says.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "conformance/plain_epoch.hpp"
#include "conformance/random_epoch.hpp"
#include "coordinator/epoch.hpp"

namespace {

// The input's bytes, eight at a time, then numbers that follow from them.
class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  std::uint64_t operator()() {
    for (int k = 0; k < 8; ++k) {
      const std::uint64_t byte = at_ < size_ ? data_[at_++] : 0;
      state_ = (state_ ^ byte) * 0x100000001b3ULL + 0x9e3779b97f4a7c15ULL;
    }
    return state_ ^ (state_ >> 29);
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  std::size_t at_ = 0;
  std::uint64_t state_ = 0xcbf29ce484222325ULL;
};

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace yumoe::ledger;
  Bytes bytes(data, size);
  const auto next = [&bytes] { return bytes(); };
  const EpochInput input = RandomEpoch<decltype(next)>(next).draw(40);
  static EpochRunner runner;
  static EpochOutput out;
  runner.run(input, out);
  const EpochOutput expected = plain::run_epoch(input);
  require(out.active == expected.active && out.permit == expected.permit);
  require(out.stake_weight == expected.stake_weight && out.consensus == expected.consensus);
  require(out.dividends == expected.dividends && out.validator_trust == expected.validator_trust);
  require(out.emission == expected.emission && out.server_emission == expected.server_emission);
  require(out.validator_emission == expected.validator_emission);
  for (std::size_t k = 0; k < out.mechanisms.size(); ++k) {
    require(out.mechanisms[k].incentive == expected.mechanisms[k].incentive);
    require(out.mechanisms[k].bonds == expected.mechanisms[k].bonds);
  }
  return 0;
}

// Timelocked messages and envelopes from anywhere: refused by name or read, nothing else.

#include <cstdlib>

#include "cluster/error.hpp"
#include "coordinator/timelock.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace yumoe;
  static const Bytes signature = from_hex(
      "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed"
      "5e"
      "39");
  const ByteView bytes(data, size);
  try {
    const TimelockEnvelope envelope = timelock_envelope_from(bytes);
    const Bytes back = to_bytes(envelope);
    if (!std::equal(back.begin(), back.end(), data, data + size)) std::abort();
    timelock_open(envelope.sealed, signature);
  } catch (const Error&) {
  }
  try {
    timelock_open(bytes, signature);
  } catch (const Error&) {
  }
  return 0;
}

// Any bytes, as each kind of message: a value or a named error, and a value encodes again.
#include "coordinator/run.hpp"
#include "router/protocol.hpp"

using namespace yumoe;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const ByteView bytes(data + 1, size - 1);
  try {
    switch (data[0] % 5) {
      case 0: open_envelope(bytes); break;
      case 1: encode(decode_to_coordinator(bytes)); break;
      case 2: encode(decode_to_participant(bytes)); break;
      case 3: encode(decode_contribution(bytes)); break;
      case 4: encode(decode_event(bytes)); break;
    }
  } catch (const Error&) {
  }
  return 0;
}

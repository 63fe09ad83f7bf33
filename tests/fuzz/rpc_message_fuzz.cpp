// Whatever a chain node sends: one message, or refused by name.

#include "cluster/error.hpp"
#include "coordinator/chain_rpc.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    yumoe::rpc_message_from({reinterpret_cast<const char*>(data), size});
  } catch (const yumoe::Error&) {
  }
  return 0;
}

// Any bytes as manifest.json: refused with a named error, or a manifest that survives a round trip.

#include <cstdlib>

#include "cluster/error.hpp"
#include "router/token_manifest.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto manifest = yumoe::parse_manifest({reinterpret_cast<const char*>(data), size});
    if (yumoe::parse_manifest(yumoe::json_of(manifest)) != manifest) std::abort();
  } catch (const yumoe::Error& error) {
    if (error.code() != yumoe::ErrorCode::data_invalid) std::abort();
  }
  return 0;
}

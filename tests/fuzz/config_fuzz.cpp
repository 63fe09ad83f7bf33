// Any bytes as a configuration and a flag: refused with one line, or a configuration that prints to
// TOML that reads back to the same.
//
// The input's first line is the flag, the rest is the file.

#include <cstdlib>

#include "cluster/error.hpp"
#include "launch/config.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t end = std::min(input.find('\n'), input.size());
  std::vector<std::string> flags;
  if (end > 0) flags.emplace_back(input.substr(0, end));
  try {
    const auto config = yumoe::parse_config(input.substr(std::min(end + 1, size)), "fuzz", flags);
    const std::string printed = yumoe::toml_of(config);
    if (yumoe::toml_of(yumoe::parse_config(printed, "printed")) != printed) std::abort();
    yumoe::json_of(config);
  } catch (const yumoe::Error& error) {
    if (error.code() != yumoe::ErrorCode::config_invalid) std::abort();
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}

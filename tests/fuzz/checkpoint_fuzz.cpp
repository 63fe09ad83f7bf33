// Any bytes as a checkpoint, an exported run and a safetensors file: refused by name or read, never
// worse. Bytes get past the seal only if it is right, so libhdf5 itself is not what is tested.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "cluster/error.hpp"
#include "coordinator/checkpoint.hpp"
#include "coordinator/run_record.hpp"
#include "coordinator/safetensors.hpp"

namespace {

// A file in memory, written anew for each input.
const std::string& path_of(const std::uint8_t* data, std::size_t size) {
  static const int file = ::memfd_create("fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(file);
  if (::ftruncate(file, 0) != 0 || ::pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) {
    std::abort();
  }
  return path;
}

template <typename Body>
void refuse_or_read(Body&& body) {
  try {
    body();
  } catch (const yumoe::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string& path = path_of(data, size);
  refuse_or_read([&] { yumoe::read_checkpoint(path); });
  refuse_or_read([&] { yumoe::open_run_record(path); });
  refuse_or_read([&] {
    const yumoe::SafetensorsReader reader(path);
    for (const auto& [name, tensor] : reader.tensors()) refuse_or_read([&] { reader.read(name); });
  });
  return 0;
}

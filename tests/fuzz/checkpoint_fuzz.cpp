// Any bytes as a checkpoint, an exported run and a safetensors file: refused by name or read, never
// worse. Half the inputs get a seal whose own checksum is right, so that its parser is reached; the
// pieces' checksums then keep all but sound files from libhdf5, which is not what is tested here.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cluster/error.hpp"
#include "coordinator/checkpoint.hpp"
#include "coordinator/run_record.hpp"
#include "coordinator/safetensors.hpp"

namespace {

// Makes the footer of coordinator/store/seal.hpp out of the last 48 bytes.
void make_seal_right(std::vector<std::uint8_t>& bytes) {
  constexpr std::size_t kFooterBytes = 48;
  if (bytes.size() < kFooterBytes) return;
  std::uint8_t* footer = bytes.data() + bytes.size() - kFooterBytes;
  const std::uint32_t version_and_piece[] = {1, 1 << 20};
  std::memcpy(footer, "YUMOSEAL", 8);
  std::memcpy(footer + 8, version_and_piece, 8);
  std::uint64_t body_bytes;
  std::memcpy(&body_bytes, footer + 16, 8);
  body_bytes %= bytes.size() - kFooterBytes + 1;
  std::memcpy(footer + 16, &body_bytes, 8);
  const std::uint64_t checksum =
      XXH3_64bits(bytes.data() + body_bytes, bytes.size() - 8 - body_bytes);
  std::memcpy(footer + 40, &checksum, 8);
}

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
  std::vector<std::uint8_t> bytes(data, data + size);
  if (size > 0 && data[0] % 2 == 1) make_seal_right(bytes);
  const std::string& path = path_of(bytes.data(), bytes.size());
  refuse_or_read([&] { yumoe::read_checkpoint(path); });
  refuse_or_read([&] { yumoe::open_run_record(path); });
  refuse_or_read([&] {
    const yumoe::SafetensorsReader reader(path);
    for (const auto& entry : reader.tensors()) {
      refuse_or_read([&] { reader.read(entry.first); });
    }
  });
  return 0;
}

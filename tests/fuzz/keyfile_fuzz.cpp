// Key files: every format but the two whose key stretching takes seconds.

#include <cstdint>
#include <cstdlib>

#include "cluster/error.hpp"
#include "cluster/wallet.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace yumoe;
  if (size > 64u << 10) return 0;
  const ByteView contents(data, size);
  try {
    const KeyfileFormat format = keyfile_format(contents);
    const bool slow = format == KeyfileFormat::nacl || format == KeyfileFormat::fernet;
    if (slow && size > 40) return 0;
    const Key key = read_key(contents, "fuzz", [](const std::filesystem::path&) {
      return std::optional(LockedBytes(as_bytes("old pass")));
    });
    const LockedBytes json = key.to_json();
    if (read_key(json.view(), "again", nullptr).public_key() != key.public_key()) std::abort();
  } catch (const Error&) {
    // Refused, as it may be.
  }
  return 0;
}

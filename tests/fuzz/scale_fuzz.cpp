// Random types and bytes: a registry read from the input, and the recorded runtime's types.

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "cluster/error.hpp"
#include "coordinator/chain_data.hpp"
#include "coordinator/extrinsic.hpp"
#include "coordinator/trie.hpp"

namespace {

using namespace yumoe;

// Whatever the outcome, an Error of ours is the only way to refuse.
template <typename Act>
bool accepted(const Act& act) {
  try {
    act();
    return true;
  } catch (const Error&) {
    return false;
  }
}

void decode_and_back(const TypeRegistry& types, TypeId id, ByteView bytes) {
  accepted([&] {
    ScaleReader reader(bytes);
    const Json value = decode_value(types, id, reader);
    const Bytes encoded = encode_value(types, id, value, CompactRange::any);
    // What was decoded once must decode to itself again.
    if (!same_value(decode_value(types, id, encoded), value)) std::abort();
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  const std::uint8_t what = data[0];
  const TypeId id = data[1] | static_cast<TypeId>(data[2]) << 8;
  const ByteView rest(data + 3, size - 3);
  switch (what % 5) {
    case 0:
      decode_and_back(golden_metadata().types(),
                      id % static_cast<TypeId>(golden_metadata().types().size()), rest);
      break;
    case 1:
      accepted([&] {
        ScaleReader reader(rest);
        const TypeRegistry types = TypeRegistry::read(reader);
        if (types.size() == 0) return;
        accepted([&] { decode_value(types, id % static_cast<TypeId>(types.size()), reader); });
      });
      break;
    case 2: accepted([&] { Metadata::parse(rest); }); break;
    case 3: accepted([&] { decode_extrinsic(golden_metadata(), rest); }); break;
    default: {
      const std::vector<Bytes> nodes{Bytes(rest.begin(), rest.end())};
      accepted([&] { read_proof(digest_of(rest), nodes, Bytes{data[1], data[2]}); });
    }
  }
  return 0;
}

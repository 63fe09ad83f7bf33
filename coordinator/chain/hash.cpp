#include <sodium.h>
#include <xxhash.h>

#include <cstring>

#include "cluster/error.hpp"
#include "coordinator/metadata.hpp"

namespace yumoe {
namespace {

Bytes twox(ByteView bytes, std::size_t words) {
  Bytes hash(words * 8);
  for (std::size_t seed = 0; seed < words; ++seed) {
    const XXH64_hash_t word = XXH64(bytes.data(), bytes.size(), seed);
    std::memcpy(hash.data() + seed * 8, &word, 8);
  }
  return hash;
}

Bytes concatenated(Bytes head, ByteView tail) {
  head.insert(head.end(), tail.begin(), tail.end());
  return head;
}

}  // namespace

Bytes twox_128(ByteView bytes) { return twox(bytes, 2); }

Bytes blake2(ByteView bytes, std::size_t size_bytes) {
  YUMOE_ASSERT(size_bytes == 16 || size_bytes == 32 || size_bytes == 64);
  Bytes hash(size_bytes);
  crypto_generichash(hash.data(), hash.size(), bytes.data(), bytes.size(), nullptr, 0);
  return hash;
}

Bytes hash_storage_key(StorageHasher hasher, ByteView encoded) {
  switch (hasher) {
    case StorageHasher::blake2_128: return blake2(encoded, 16);
    case StorageHasher::blake2_256: return blake2(encoded, 32);
    case StorageHasher::blake2_128_concat: return concatenated(blake2(encoded, 16), encoded);
    case StorageHasher::twox_128: return twox(encoded, 2);
    case StorageHasher::twox_256: return twox(encoded, 4);
    case StorageHasher::twox_64_concat: return concatenated(twox(encoded, 1), encoded);
    case StorageHasher::identity: return Bytes(encoded.begin(), encoded.end());
  }
  YUMOE_ASSERT(false);
  return {};
}

Bytes storage_prefix(std::string_view pallet_prefix, std::string_view item) {
  return concatenated(twox_128(as_bytes(pallet_prefix)), twox_128(as_bytes(item)));
}

}  // namespace yumoe

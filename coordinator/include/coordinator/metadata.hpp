#pragma once
// What a runtime says of itself: pallets, storage, calls, events, errors, constants, runtime APIs.
// Everything is looked up by name, so a runtime upgrade that moves an index changes nothing here.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/scale.hpp"

namespace yumoe {

enum class StorageHasher : std::uint8_t {  // in the metadata's order
  blake2_128,
  blake2_256,
  blake2_128_concat,
  twox_128,
  twox_256,
  twox_64_concat,
  identity
};

struct StorageItem {
  std::string pallet;  // as named in the metadata
  std::string prefix;  // as hashed into the key
  std::string name;
  bool optional = false;               // absent means None; otherwise absent means `default_value`
  std::vector<StorageHasher> hashers;  // empty: a plain value
  std::vector<TypeId> keys;            // one a hasher
  TypeId value = 0;
  Bytes default_value;
};

struct Constant {
  std::string name;
  TypeId type = 0;
  Bytes value;
};

struct Pallet {
  std::string name;
  std::uint8_t index = 0;
  std::string storage_prefix;
  std::vector<StorageItem> storage;
  std::optional<TypeId> calls, event, error;  // variant types
  std::vector<Constant> constants;
};

struct SignedExtension {
  std::string identifier;
  TypeId extra = 0;       // goes into the extrinsic
  TypeId additional = 0;  // is signed but not sent
};

struct ExtrinsicFormat {
  std::vector<std::uint8_t> versions;
  TypeId address = 0, call = 0, signature = 0;
  std::vector<SignedExtension> extensions;  // those of version 4, in order
};

struct ApiMethod {
  std::vector<TypeField> inputs;
  TypeId output = 0;
};

struct ModuleError {
  std::string pallet;
  std::string name;
  std::string docs;
};

class Metadata {
 public:
  // Accepts bare metadata ("meta" and a version byte) and the same inside Option<Vec<u8>> or
  // Vec<u8>, as nodes answer. Versions 14, 15 and 16. Throws Error{metadata_unsupported} for others
  // and Error{scale_malformed} for bytes that are not metadata. Cost: about 10 ms for a full
  // runtime.
  static Metadata parse(ByteView bytes);

  std::uint8_t version() const { return version_; }
  const TypeRegistry& types() const { return types_; }
  const std::vector<Pallet>& pallets() const { return pallets_; }
  const ExtrinsicFormat& extrinsic() const { return extrinsic_; }
  std::uint16_t ss58_prefix() const { return types_.ss58_prefix(); }
  std::optional<TypeId> event_records() const { return event_records_; }  // type of System.Events

  // Throw Error{metadata_unsupported} naming what this runtime does not have.
  const Pallet& pallet(std::string_view name) const;
  const StorageItem& storage(std::string_view pallet, std::string_view item) const;
  const Constant& constant(std::string_view pallet, std::string_view name) const;
  const TypeVariant& call(std::string_view pallet, std::string_view name) const;
  const ApiMethod& api(std::string_view trait, std::string_view method) const;  // version 15 on

  const Pallet* pallet_at(std::uint8_t index) const;  // nullptr: none
  std::optional<ModuleError> module_error(std::uint8_t pallet, std::uint8_t error) const;

  // --- values ---
  Json constant_value(std::string_view pallet, std::string_view name) const;

  // Pallet and call index, then the arguments. `arguments`: an object by name or an array in order.
  Bytes encode_call(std::string_view pallet, std::string_view call, const Json& arguments) const;
  Json decode_call(ByteView bytes) const;

  // Decodes the value of System.Events: [{"phase","extrinsic_idx","module_id","event_id",
  // "attributes","topics",...}].
  Json decode_events(ByteView bytes) const;

  // Names a decoded DispatchError: "SubtensorModule.NotEnoughStake", "BadOrigin", "Token.NoFunds".
  std::string dispatch_error_name(const Json& error) const;

  // --- storage ---
  // `keys`: an array; fewer than the item has give the prefix under which the rest lie.
  Bytes storage_key(std::string_view pallet, std::string_view item, const Json& keys) const;
  // What a full key says: an array of keys, null for each that is hashed away.
  Json decode_storage_key(const StorageItem& item, ByteView key) const;
  // The value, or the item's default (null if optional) where `bytes` is nullopt.
  Json decode_storage(const StorageItem& item, const std::optional<Bytes>& bytes) const;

 private:
  friend class MetadataReader;
  std::uint8_t version_ = 0;
  TypeRegistry types_;
  std::vector<Pallet> pallets_;
  ExtrinsicFormat extrinsic_;
  std::map<std::string, ApiMethod, std::less<>> apis_;  // "Trait.method"
  std::optional<TypeId> event_records_;
};

// Substrate's fast hashes: XXH64 with seeds 0, 1, ..., little-endian. Source: sp_core::hashing.
Bytes twox_128(ByteView bytes);
Bytes hash_storage_key(StorageHasher hasher, ByteView encoded);
Bytes blake2(ByteView bytes, std::size_t size_bytes);  // 16, 32 or 64

// twox128(pallet) + twox128(item): where an item's keys begin.
Bytes storage_prefix(std::string_view pallet_prefix, std::string_view item);

}  // namespace yumoe

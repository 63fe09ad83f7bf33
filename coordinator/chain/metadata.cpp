#include "coordinator/metadata.hpp"

#include <nlohmann/json.hpp>

#include "chain/metadata_reader.hpp"
#include "chain/text.hpp"
#include "cluster/error.hpp"

namespace yumoe {
namespace {

[[noreturn]] void absent(const std::string& what) {
  throw Error(ErrorCode::metadata_unsupported, "looking up " + what + ": this runtime has none");
}

bool keeps_key(StorageHasher hasher) {
  return hasher == StorageHasher::blake2_128_concat || hasher == StorageHasher::twox_64_concat ||
         hasher == StorageHasher::identity;
}

std::size_t hash_bytes(StorageHasher hasher) {
  switch (hasher) {
    case StorageHasher::blake2_128:
    case StorageHasher::blake2_128_concat:
    case StorageHasher::twox_128: return 16;
    case StorageHasher::blake2_256:
    case StorageHasher::twox_256: return 32;
    case StorageHasher::twox_64_concat: return 8;
    case StorageHasher::identity: break;
  }
  return 0;
}

}  // namespace

Metadata Metadata::parse(ByteView bytes) { return MetadataReader::read(bytes); }

const Pallet& Metadata::pallet(std::string_view name) const {
  for (const auto& pallet : pallets_) {
    if (pallet.name == name) return pallet;
  }
  absent("pallet " + std::string(name));
}

const Pallet* Metadata::pallet_at(std::uint8_t index) const {
  for (const auto& pallet : pallets_) {
    if (pallet.index == index) return &pallet;
  }
  return nullptr;
}

const StorageItem& Metadata::storage(std::string_view pallet_name, std::string_view item) const {
  for (const auto& candidate : pallet(pallet_name).storage) {
    if (candidate.name == item) return candidate;
  }
  absent("storage " + std::string(pallet_name) + "." + std::string(item));
}

const Constant& Metadata::constant(std::string_view pallet_name, std::string_view name) const {
  for (const auto& candidate : pallet(pallet_name).constants) {
    if (candidate.name == name) return candidate;
  }
  absent("constant " + std::string(pallet_name) + "." + std::string(name));
}

const TypeVariant& Metadata::call(std::string_view pallet_name, std::string_view name) const {
  const Pallet& owner = pallet(pallet_name);
  const TypeVariant* found = owner.calls ? types_.at(*owner.calls).variant(name) : nullptr;
  if (found == nullptr) absent("call " + std::string(pallet_name) + "." + std::string(name));
  return *found;
}

const ApiMethod& Metadata::api(std::string_view trait, std::string_view method) const {
  const auto found = apis_.find(std::string(trait) + '.' + std::string(method));
  if (found == apis_.end()) {
    absent("runtime API " + std::string(trait) + "." + std::string(method) + " in metadata " +
           std::to_string(version_));
  }
  return found->second;
}

std::optional<ModuleError> Metadata::module_error(std::uint8_t index, std::uint8_t error) const {
  const Pallet* owner = pallet_at(index);
  if (owner == nullptr || !owner->error) return std::nullopt;
  const TypeVariant* variant = types_.at(*owner->error).variant_at(error);
  if (variant == nullptr) return std::nullopt;
  return ModuleError{owner->name, variant->name, variant->docs};
}

Json Metadata::constant_value(std::string_view pallet_name, std::string_view name) const {
  const Constant& found = constant(pallet_name, name);
  return decode_value(types_, found.type, found.value);
}

Bytes Metadata::encode_call(std::string_view pallet_name, std::string_view name,
                            const Json& arguments) const {
  call(pallet_name, name);  // names what is missing better than the encoder could
  return encode_value(
      types_, extrinsic_.call,
      Json::object(
          {{"call_module", pallet_name}, {"call_function", name}, {"call_args", arguments}}));
}

Json Metadata::decode_call(ByteView bytes) const {
  return decode_value(types_, extrinsic_.call, bytes);
}

Json Metadata::decode_events(ByteView bytes) const {
  if (!event_records_) absent("storage System.Events");
  return decode_value(types_, *event_records_, bytes);
}

std::string Metadata::dispatch_error_name(const Json& error) const {
  if (error.is_string()) return error.get<std::string>();
  if (!error.is_object() || error.size() != 1) return error.dump();
  const std::string kind = error.begin().key();
  const Json& inner = error.begin().value();
  if (kind != "Module" || !inner.is_object())
    return inner.is_string() ? kind + "." + inner.get<std::string>() : kind;
  const auto index = inner.find("index");
  const auto code = inner.find("error");
  const auto is_byte = [](const Json& json) {
    return json.is_number_integer() && json >= 0 && json <= 255;
  };
  if (index == inner.end() || code == inner.end() || !is_byte(*index)) return error.dump();
  // Four bytes of which the first is the error; older runtimes have the byte alone.
  std::uint8_t number = 0;
  if (is_byte(*code)) {
    number = code->get<std::uint8_t>();
  } else if (const auto bytes =
                 code->is_string() ? parse_0x(code->get_ref<const std::string&>()) : std::nullopt;
             bytes && !bytes->empty()) {
    number = bytes->front();
  } else {
    return error.dump();
  }
  const auto named = module_error(index->get<std::uint8_t>(), number);
  if (!named) return "Module(" + index->dump() + "," + std::to_string(number) + ")";
  return named->pallet + "." + named->name;
}

Bytes Metadata::storage_key(std::string_view pallet_name, std::string_view name,
                            const Json& keys) const {
  const StorageItem& item = storage(pallet_name, name);
  if (!keys.is_array() || keys.size() > item.keys.size()) {
    throw Error(ErrorCode::scale_malformed, "making the key of " + item.pallet + "." + item.name +
                                                ": it takes a list of up to " +
                                                std::to_string(item.keys.size()) + " keys");
  }
  Bytes key = storage_prefix(item.prefix, item.name);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const Bytes part =
        hash_storage_key(item.hashers[i], encode_value(types_, item.keys[i], keys[i]));
    key.insert(key.end(), part.begin(), part.end());
  }
  return key;
}

Json Metadata::decode_storage_key(const StorageItem& item, ByteView key) const {
  ScaleReader reader(key);
  const ByteView prefix = reader.raw(32);
  const Bytes wanted = storage_prefix(item.prefix, item.name);
  if (!std::equal(prefix.begin(), prefix.end(), wanted.begin())) {
    reader.refuse("the key does not belong to " + item.pallet + "." + item.name);
  }
  Json keys = Json::array();
  for (std::size_t i = 0; i < item.keys.size(); ++i) {
    const ByteView hash = reader.raw(hash_bytes(item.hashers[i]));
    if (!keeps_key(item.hashers[i])) {
      keys.push_back(Json());
      continue;
    }
    const std::size_t start = reader.position();
    keys.push_back(decode_value(types_, item.keys[i], reader));
    const Bytes again = hash_storage_key(item.hashers[i], reader.from(start));
    if (!std::equal(hash.begin(), hash.end(), again.begin())) {
      reader.refuse("a key does not match its hash");
    }
  }
  reader.require_end("the key");
  return keys;
}

Json Metadata::decode_storage(const StorageItem& item, const std::optional<Bytes>& bytes) const {
  if (bytes) return decode_value(types_, item.value, *bytes);
  if (item.optional) return Json();
  return decode_value(types_, item.value, item.default_value);
}

}  // namespace yumoe

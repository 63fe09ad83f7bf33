#include "chain/metadata_reader.hpp"

#include <algorithm>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr std::uint8_t kVersionMin = 14, kVersionMax = 16;
constexpr std::string_view kMagic = "meta";

bool read_option(ScaleReader& reader) {
  const std::uint8_t flag = reader.u8();
  if (flag > 1) reader.refuse("an option's first byte is neither 0 nor 1");
  return flag == 1;
}

TypeId read_type_id(ScaleReader& reader) {
  const std::uint64_t id = reader.compact();
  if (id > 0xffffffff) reader.refuse("a type id is over 32 bits");
  return static_cast<TypeId>(id);
}

void skip_strings(ScaleReader& reader) {
  for (std::size_t n = reader.count(); n > 0; --n) reader.bytes();
}

bool starts_with_magic(ByteView bytes) {
  return bytes.size() > kMagic.size() && std::equal(kMagic.begin(), kMagic.end(), bytes.begin());
}

// Nodes answer bare metadata, or Vec<u8> around it, or Option<Vec<u8>>.
ByteView unwrapped(ByteView bytes) {
  if (starts_with_magic(bytes)) return bytes;
  for (const std::size_t flag_bytes : {0u, 1u}) {
    if (bytes.size() <= flag_bytes || (flag_bytes == 1 && bytes[0] != 1)) continue;
    const ByteView rest = bytes.subspan(flag_bytes);
    const std::size_t length_bytes = (rest[0] & 3) == 0 ? 1 : (rest[0] & 3) == 1 ? 2 : 4;
    if (rest.size() > length_bytes && starts_with_magic(rest.subspan(length_bytes))) {
      ScaleReader reader(rest);
      const ByteView inner = reader.bytes();
      reader.require_end("the metadata");
      return inner;
    }
  }
  throw Error(ErrorCode::metadata_unsupported,
              "reading runtime metadata: it does not begin with \"meta\": ask the node for "
              "state_getMetadata or Metadata_metadata_at_version");
}

}  // namespace

Metadata MetadataReader::read(ByteView bytes) {
  MetadataReader reader(unwrapped(bytes));
  reader.read_all();
  return std::move(reader.metadata_);
}

void MetadataReader::read_all() {
  in_.raw(kMagic.size());
  version_ = in_.u8();
  if (version_ < kVersionMin || version_ > kVersionMax) {
    throw Error(ErrorCode::metadata_unsupported,
                "reading runtime metadata: version " + std::to_string(version_) +
                    " is not one of 14, 15, 16: ask the node for another version");
  }
  metadata_.version_ = version_;
  metadata_.types_ = TypeRegistry::read(in_);
  for (std::size_t n = in_.count(4); n > 0; --n) metadata_.pallets_.push_back(read_pallet());
  switch (version_) {
    case 14:
      read_extrinsic_14();
      read_type_id(in_);  // the runtime's own type
      break;
    case 15:
      read_extrinsic_15();
      read_type_id(in_);
      read_apis();
      break;
    default: read_extrinsic_16(); read_apis();
  }
  // What follows (outer enums, custom values) says nothing that is used here.
  assign_roles();
}

StorageItem MetadataReader::read_storage_item(const Pallet& pallet) {
  StorageItem item;
  item.pallet = pallet.name;
  item.prefix = pallet.storage_prefix;
  item.name = in_.string();
  const std::uint8_t modifier = in_.u8();
  if (modifier > 1) in_.refuse("a storage item is neither optional nor with default");
  item.optional = modifier == 0;
  const std::uint8_t kind = in_.u8();
  if (kind > 1) in_.refuse("a storage item is neither plain nor a map");
  if (kind == 1) {
    for (std::size_t n = in_.count(); n > 0; --n) {
      const std::uint8_t hasher = in_.u8();
      if (hasher > static_cast<std::uint8_t>(StorageHasher::identity)) in_.refuse("unknown hasher");
      item.hashers.push_back(static_cast<StorageHasher>(hasher));
    }
    item.keys = key_types(read_type_id(in_), item.hashers.size());
  }
  item.value = read_type_id(in_);
  const ByteView default_value = in_.bytes();
  item.default_value.assign(default_value.begin(), default_value.end());
  skip_strings(in_);
  if (version_ == 16) skip_deprecation();
  return item;
}

// One key a hasher: several are the parts of a tuple.
std::vector<TypeId> MetadataReader::key_types(TypeId key, std::size_t hashers) const {
  if (hashers == 1) return {key};
  const Type& type = metadata_.types_.at(key);
  if (type.kind != TypeKind::tuple || type.elements.size() != hashers) {
    in_.refuse("a map has more hashers than keys");
  }
  return type.elements;
}

Constant MetadataReader::read_constant() {
  Constant constant;
  constant.name = in_.string();
  constant.type = read_type_id(in_);
  const ByteView value = in_.bytes();
  constant.value.assign(value.begin(), value.end());
  skip_strings(in_);
  if (version_ == 16) skip_deprecation();
  return constant;
}

// Version 16 says of an enum which of its variants are deprecated.
std::optional<TypeId> MetadataReader::read_optional_enum() {
  if (!read_option(in_)) return std::nullopt;
  const TypeId type = read_type_id(in_);
  if (version_ == 16) {
    for (std::size_t n = in_.count(2); n > 0; --n) {
      in_.u8();
      skip_deprecation();
    }
  }
  return type;
}

void MetadataReader::skip_deprecation() {
  switch (in_.u8()) {
    case 0:
    case 1: return;
    case 2:
      in_.bytes();
      if (read_option(in_)) in_.bytes();
      return;
    default: in_.refuse("unknown kind of deprecation");
  }
}

Pallet MetadataReader::read_pallet() {
  Pallet pallet;
  pallet.name = in_.string();
  if (read_option(in_)) {
    pallet.storage_prefix = in_.string();
    for (std::size_t n = in_.count(5); n > 0; --n)
      pallet.storage.push_back(read_storage_item(pallet));
  }
  pallet.calls = read_optional_enum();
  pallet.event = read_optional_enum();
  for (std::size_t n = in_.count(4); n > 0; --n) pallet.constants.push_back(read_constant());
  pallet.error = read_optional_enum();
  if (version_ == 16) skip_associated_types_and_views();
  pallet.index = in_.u8();
  if (version_ >= 15) skip_strings(in_);
  if (version_ == 16) skip_deprecation();
  return pallet;
}

void MetadataReader::skip_associated_types_and_views() {
  for (std::size_t n = in_.count(3); n > 0; --n) {
    in_.bytes();
    read_type_id(in_);
    skip_strings(in_);
  }
  for (std::size_t n = in_.count(36); n > 0; --n) {
    in_.raw(32);
    in_.bytes();
    read_inputs();
    read_type_id(in_);
    skip_strings(in_);
    skip_deprecation();
  }
}

std::vector<TypeField> MetadataReader::read_inputs() {
  std::vector<TypeField> inputs(in_.count(2));
  for (auto& input : inputs) {
    input.name = in_.string();
    input.type = read_type_id(in_);
  }
  return inputs;
}

std::vector<SignedExtension> MetadataReader::read_extensions() {
  std::vector<SignedExtension> extensions(in_.count(3));
  for (auto& extension : extensions) {
    extension.identifier = in_.string();
    extension.extra = read_type_id(in_);
    extension.additional = read_type_id(in_);
  }
  return extensions;
}

void MetadataReader::read_extrinsic_14() {
  ExtrinsicFormat& format = metadata_.extrinsic_;
  const Type& type = metadata_.types_.at(read_type_id(in_));
  format.versions = {in_.u8()};
  format.extensions = read_extensions();
  const auto parameter = [&](std::string_view name) {
    for (const auto& [candidate, id] : type.parameters) {
      if (candidate == name && id) return *id;
    }
    throw Error(ErrorCode::metadata_unsupported,
                "reading runtime metadata: its extrinsic type does not name its " +
                    std::string(name) + ": ask the node for version 15");
  };
  format.address = parameter("Address");
  format.call = parameter("Call");
  format.signature = parameter("Signature");
}

void MetadataReader::read_extrinsic_15() {
  ExtrinsicFormat& format = metadata_.extrinsic_;
  format.versions = {in_.u8()};
  format.address = read_type_id(in_);
  format.call = read_type_id(in_);
  format.signature = read_type_id(in_);
  read_type_id(in_);  // all extras as one type
  format.extensions = read_extensions();
}

void MetadataReader::read_extrinsic_16() {
  ExtrinsicFormat& format = metadata_.extrinsic_;
  const ByteView versions = in_.bytes();
  format.versions.assign(versions.begin(), versions.end());
  format.address = read_type_id(in_);
  format.call = read_type_id(in_);
  format.signature = read_type_id(in_);
  std::vector<std::uint64_t> order;  // which extensions version 4 (else the lowest) has
  bool have_4 = false;
  for (std::size_t n = in_.count(2); n > 0; --n) {
    const std::uint8_t version = in_.u8();
    std::vector<std::uint64_t> indices(in_.count());
    for (auto& index : indices) index = in_.compact();
    if (version == 4 || (!have_4 && order.empty())) order = std::move(indices);
    have_4 = have_4 || version == 4;
  }
  const auto all = read_extensions();
  for (const std::uint64_t index : order) {
    if (index >= all.size()) in_.refuse("an extension index is out of range");
    format.extensions.push_back(all[index]);
  }
}

void MetadataReader::read_apis() {
  for (std::size_t n = in_.count(3); n > 0; --n) {
    const std::string trait = in_.string();
    for (std::size_t methods = in_.count(4); methods > 0; --methods) {
      const std::string name = in_.string();
      ApiMethod method;
      method.inputs = read_inputs();
      method.output = read_type_id(in_);
      skip_strings(in_);
      if (version_ == 16) skip_deprecation();
      metadata_.apis_.emplace(trait + '.' + name, std::move(method));
    }
    skip_strings(in_);
    if (version_ == 16) {
      in_.compact();  // the trait's version
      skip_deprecation();
    }
  }
}

void MetadataReader::assign_roles() {
  TypeRegistry& types = metadata_.types_;
  if (types.at(metadata_.extrinsic_.call).kind == TypeKind::variant) {
    types.set_role(metadata_.extrinsic_.call, TypeRole::call);
  }
  for (TypeId id = 0; id < types.size(); ++id) {
    if (types.at(id).role != TypeRole::event_record) continue;
    const TypeId event = types.at(id).fields[1].type;
    if (types.at(event).kind == TypeKind::variant) types.set_role(event, TypeRole::event);
  }
  for (const Pallet& pallet : metadata_.pallets_) {
    if (pallet.name != "System") continue;
    for (const auto& item : pallet.storage) {
      if (item.name == "Events") metadata_.event_records_ = item.value;
    }
    for (const auto& constant : pallet.constants) {
      if (constant.name != "SS58Prefix" || constant.value.size() > 2) continue;
      std::uint16_t prefix = 0;
      for (std::size_t i = constant.value.size(); i-- > 0;) {
        prefix = static_cast<std::uint16_t>(prefix << 8 | constant.value[i]);
      }
      if (prefix < 1 << 14) types.set_ss58_prefix(prefix);
    }
  }
}

}  // namespace yumoe

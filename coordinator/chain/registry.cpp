#include <algorithm>

#include "cluster/error.hpp"
#include "coordinator/scale.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kNestingMax = 256;

void skip_strings(ScaleReader& reader) {
  for (std::size_t n = reader.count(); n > 0; --n) reader.bytes();
}

std::string read_docs(ScaleReader& reader) {
  std::string docs;
  for (std::size_t n = reader.count(); n > 0; --n) {
    const std::string line = reader.string();
    const std::size_t start = std::min(line.find_first_not_of(' '), line.size());
    if (!docs.empty() && start < line.size()) docs += ' ';
    docs += line.substr(start);
  }
  return docs;
}

TypeId read_type_id(ScaleReader& reader) {
  const std::uint64_t id = reader.compact();
  if (id > 0xffffffff) reader.refuse("a type id is over 32 bits");
  return static_cast<TypeId>(id);
}

bool read_option(ScaleReader& reader) {
  const std::uint8_t flag = reader.u8();
  if (flag > 1) reader.refuse("an option's first byte is neither 0 nor 1");
  return flag == 1;
}

std::vector<TypeField> read_fields(ScaleReader& reader) {
  std::vector<TypeField> fields(reader.count(4));
  for (auto& field : fields) {
    if (read_option(reader)) field.name = reader.string();
    field.type = read_type_id(reader);
    if (read_option(reader)) field.type_name = reader.string();
    skip_strings(reader);
  }
  return fields;
}

void read_variants(ScaleReader& reader, Type& type) {
  type.variants.resize(reader.count(4));
  type.by_index.assign(256, -1);
  for (std::size_t i = 0; i < type.variants.size(); ++i) {
    TypeVariant& variant = type.variants[i];
    variant.name = reader.string();
    variant.fields = read_fields(reader);
    variant.index = reader.u8();
    variant.docs = read_docs(reader);
    if (type.by_index[variant.index] >= 0) reader.refuse("two variants have one index");
    type.by_index[variant.index] = static_cast<std::int16_t>(i);
  }
}

Type read_type(ScaleReader& reader) {
  Type type;
  for (std::size_t n = reader.count(); n > 0; --n) type.path.push_back(reader.string());
  for (std::size_t n = reader.count(2); n > 0; --n) {
    std::string name = reader.string();
    type.parameters.emplace_back(std::move(name), std::nullopt);
    if (read_option(reader)) type.parameters.back().second = read_type_id(reader);
  }
  const std::uint8_t kind = reader.u8();
  if (kind > static_cast<std::uint8_t>(TypeKind::bit_sequence))
    reader.refuse("unknown kind of type");
  type.kind = static_cast<TypeKind>(kind);
  switch (type.kind) {
    case TypeKind::composite: type.fields = read_fields(reader); break;
    case TypeKind::variant: read_variants(reader, type); break;
    case TypeKind::array: type.length = reader.u32(); [[fallthrough]];
    case TypeKind::sequence:
    case TypeKind::compact: type.element = read_type_id(reader); break;
    case TypeKind::tuple:
      for (std::size_t n = reader.count(); n > 0; --n) {
        type.elements.push_back(read_type_id(reader));
      }
      break;
    case TypeKind::primitive: {
      const std::uint8_t primitive = reader.u8();
      if (primitive > static_cast<std::uint8_t>(Primitive::i256)) {
        reader.refuse("unknown primitive type");
      }
      type.primitive = static_cast<Primitive>(primitive);
      break;
    }
    case TypeKind::bit_sequence:
      type.element = read_type_id(reader);
      type.elements.push_back(read_type_id(reader));  // its order
      break;
  }
  skip_strings(reader);
  return type;
}

bool path_ends(const Type& type, std::string_view end) {
  const std::string path = type.path_text();
  if (!path.ends_with(end)) return false;
  return path.size() == end.size() || path[path.size() - end.size() - 1] == ':';
}

}  // namespace

std::string Type::path_text() const {
  std::string text;
  for (const auto& part : path) {
    if (!text.empty()) text += "::";
    text += part;
  }
  return text;
}

const TypeVariant* Type::variant(std::string_view name) const {
  for (const auto& candidate : variants) {
    if (candidate.name == name) return &candidate;
  }
  return nullptr;
}

const TypeVariant* Type::variant_at(std::uint8_t index) const {
  if (by_index.empty() || by_index[index] < 0) return nullptr;
  return &variants[static_cast<std::size_t>(by_index[index])];
}

TypeRegistry TypeRegistry::read(ScaleReader& reader) {
  TypeRegistry registry;
  const std::size_t count = reader.count(6);
  registry.types_.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (reader.compact() != i) reader.refuse("type ids are not in order");
    registry.types_.push_back(read_type(reader));
  }
  registry.find_roles();
  return registry;
}

const Type& TypeRegistry::at(TypeId id) const {
  if (id >= types_.size()) {
    throw Error(ErrorCode::scale_malformed, "looking up type " + std::to_string(id) +
                                                ": the metadata describes only " +
                                                std::to_string(types_.size()));
  }
  return types_[id];
}

std::optional<TypeId> TypeRegistry::find(std::string_view path_end) const {
  for (TypeId id = 0; id < types_.size(); ++id) {
    if (path_ends(types_[id], path_end)) return id;
  }
  return std::nullopt;
}

bool TypeRegistry::is_byte(TypeId id) const {
  const Type& type = at(id);
  return type.kind == TypeKind::primitive && type.primitive == Primitive::u8;
}

bool TypeRegistry::is_empty(TypeId id) const {
  std::vector<TypeId> open{id};
  for (std::size_t looked_at = 0; !open.empty(); ++looked_at) {
    if (looked_at == kNestingMax) return false;
    const Type& type = at(open.back());
    open.pop_back();
    if (type.kind == TypeKind::array && type.length == 0) continue;
    if (type.kind != TypeKind::composite && type.kind != TypeKind::tuple) return false;
    for (const auto& field : type.fields) open.push_back(field.type);
    open.insert(open.end(), type.elements.begin(), type.elements.end());
  }
  return true;
}

void TypeRegistry::find_roles() {
  const auto is_bytes = [this](TypeId id, std::uint32_t length) {
    if (id >= types_.size()) return false;
    const Type& type = types_[id];
    return type.kind == TypeKind::array && type.length == length && type.element < types_.size() &&
           is_byte(type.element);
  };
  for (Type& type : types_) {
    if (type.path.empty()) continue;
    const std::string& name = type.path.back();
    if (type.kind == TypeKind::composite && type.fields.size() == 1) {
      const TypeId inner = type.fields[0].type;
      if (name == "AccountId32" && is_bytes(inner, 32)) type.role = TypeRole::account;
      if (name == "U256" && inner < types_.size() && types_[inner].kind == TypeKind::array &&
          types_[inner].length == 4) {
        type.role = TypeRole::u256;
      }
      if (name == "BTreeMap" && type.path.size() == 1) type.role = TypeRole::map;
    }
    if (type.kind == TypeKind::composite && name == "EventRecord" && type.fields.size() == 3) {
      type.role = TypeRole::event_record;
    }
    if (type.kind == TypeKind::variant) {
      if (name == "Option" && type.path.size() == 1) type.role = TypeRole::option;
      if (name == "Era" && type.variants.size() == 256) type.role = TypeRole::era;
      if (name == "MultiAddress") type.role = TypeRole::address;
    }
  }
}

}  // namespace yumoe

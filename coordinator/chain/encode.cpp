#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "chain/text.hpp"
#include "cluster/error.hpp"
#include "cluster/identity.hpp"
#include "coordinator/extrinsic.hpp"
#include "coordinator/scale.hpp"

namespace yumoe {
namespace {

constexpr int kNestingMax = 256;
constexpr std::size_t kOutputMax = 64u << 20;

struct Integer {
  std::size_t bytes;
  bool is_signed;
};

std::optional<Integer> integer_of(Primitive primitive) {
  switch (primitive) {
    case Primitive::u8: return Integer{1, false};
    case Primitive::u16: return Integer{2, false};
    case Primitive::character:
    case Primitive::u32: return Integer{4, false};
    case Primitive::u64: return Integer{8, false};
    case Primitive::u128: return Integer{16, false};
    case Primitive::u256: return Integer{32, false};
    case Primitive::i8: return Integer{1, true};
    case Primitive::i16: return Integer{2, true};
    case Primitive::i32: return Integer{4, true};
    case Primitive::i64: return Integer{8, true};
    case Primitive::i128: return Integer{16, true};
    case Primitive::i256: return Integer{32, true};
    case Primitive::boolean:
    case Primitive::string: break;
  }
  return std::nullopt;
}

// Whole numbers from 0, as JSON or C++ may hold them.
std::optional<std::uint64_t> unsigned_of(const Json& json) {
  if (json.is_number_unsigned()) return json.get<std::uint64_t>();
  if (!json.is_number_integer() || json.get<std::int64_t>() < 0) return std::nullopt;
  return static_cast<std::uint64_t>(json.get<std::int64_t>());
}

std::string shortened(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

class Encoder {
 public:
  Encoder(const TypeRegistry& types, ScaleWriter& writer, CompactRange range)
      : types_(types), out_(writer), range_(range) {}

  void value(TypeId id, const Json& json) {
    const Type& type = types_.at(id);
    const Level level(*this);
    if (out_.size() > kOutputMax) refuse("the value is over 64 MiB", json);
    switch (type.role) {
      case TypeRole::account: return out_.raw(account(json).bytes);
      case TypeRole::u256: return out_.raw(integer(json, {32, false}));
      case TypeRole::option: return option(type, json);
      case TypeRole::map: return map(type, json);
      case TypeRole::era: return era(json);
      case TypeRole::call: return call(id, type, json);
      case TypeRole::event: return event(type, json);
      case TypeRole::event_record: return event_record(type, json);
      case TypeRole::address: return address(type, json);
      case TypeRole::plain: break;
    }
    by_kind(type, json);
  }

 private:
  struct Level {
    explicit Level(Encoder& owner) : encoder(owner) {
      if (++encoder.depth_ > kNestingMax) encoder.refuse("values are nested too deeply", Json());
    }
    ~Level() { --encoder.depth_; }
    Encoder& encoder;
  };

  // One step of the path that an error names.
  struct Step {
    Step(Encoder& owner, std::string_view name) : encoder(owner), before(owner.path_.size()) {
      if (!encoder.path_.empty()) encoder.path_ += '.';
      encoder.path_ += name;
    }
    ~Step() { encoder.path_.resize(before); }
    Encoder& encoder;
    std::size_t before;
  };

  [[noreturn]] void refuse(std::string_view why, const Json& json) const {
    throw Error(ErrorCode::scale_malformed, "encoding " + (path_.empty() ? "a value" : path_) +
                                                ": " + std::string(why) + ", got " +
                                                shortened(json));
  }

  void by_kind(const Type& type, const Json& json) {
    switch (type.kind) {
      case TypeKind::composite: return fields(type.fields, json);
      case TypeKind::variant: return variant(type, json);
      case TypeKind::sequence: return sequence(type, json);
      case TypeKind::array: return array(type, json);
      case TypeKind::tuple: return tuple(type, json);
      case TypeKind::primitive: return primitive(type.primitive, json);
      case TypeKind::compact: return compact(type.element, json);
      case TypeKind::bit_sequence: return bits(type, json);
    }
  }

  Bytes integer(const Json& json, Integer shape) const {
    std::optional<Bytes> number;
    if (json.is_number_integer() || json.is_string()) {
      number = json.is_string()
                   ? parse_integer(json.get_ref<const std::string&>(), shape.bytes, shape.is_signed)
                   : parse_integer(json.dump(), shape.bytes, shape.is_signed);
    }
    if (!number) {
      refuse("wanted an integer of " + std::to_string(shape.bytes * 8) +
                 (shape.is_signed ? " bits with sign" : " bits"),
             json);
    }
    return *number;
  }

  void primitive(Primitive primitive, const Json& json) {
    if (primitive == Primitive::boolean) {
      if (!json.is_boolean()) refuse("wanted true or false", json);
      return out_.u8(json.get<bool>() ? 1 : 0);
    }
    if (primitive == Primitive::string) {
      if (!json.is_string()) refuse("wanted text", json);
      if (!is_utf8(as_bytes(json.get_ref<const std::string&>()))) refuse("wanted UTF-8", json);
      return out_.string(json.get_ref<const std::string&>());
    }
    const Integer shape = *integer_of(primitive);
    if (!shape.is_signed && shape.bytes <= 8) {  // the common case
      const auto number = unsigned_of(json);
      if (number && (shape.bytes == 8 || *number >> (8 * shape.bytes) == 0)) {
        return out_.raw({reinterpret_cast<const std::uint8_t*>(&*number), shape.bytes});
      }
    }
    out_.raw(integer(json, shape));
  }

  void compact(TypeId id, const Json& json) {
    const Level level(*this);
    const Type& type = types_.at(id);
    if (type.kind == TypeKind::composite && type.fields.size() == 1) {
      const TypeField& field = type.fields[0];
      const bool by_name = json.is_object() && json.contains(field.name);
      return compact(field.type, by_name ? json.at(field.name) : json);
    }
    auto shape =
        type.kind == TypeKind::primitive ? integer_of(type.primitive) : std::optional<Integer>();
    if (types_.is_empty(id)) shape = Integer{4, false};  // see Decoder::compact
    if (!shape || shape->is_signed) refuse("a compact of this type is not known", json);
    out_.compact(integer(json, range_ == CompactRange::any ? Integer{32, false} : *shape));
  }

  PublicKey account(const Json& json) const {
    if (!json.is_string()) refuse("wanted an account (SS58 or 0x and 64 digits)", json);
    const auto& text = json.get_ref<const std::string&>();
    if (!text.starts_with("0x")) {
      try {
        return from_ss58(text);
      } catch (const Error& error) {
        refuse(error.what(), json);
      }
    }
    const auto bytes = parse_0x(text);
    if (!bytes || bytes->size() != 32) refuse("wanted an account of 32 bytes", json);
    PublicKey key;
    std::copy(bytes->begin(), bytes->end(), key.bytes.begin());
    return key;
  }

  Bytes byte_string(const Json& json) const {
    if (json.is_string()) {
      const auto& text = json.get_ref<const std::string&>();
      if (text.starts_with("0x")) {
        if (const auto bytes = parse_0x(text)) return *bytes;
        refuse("wanted an even number of hexadecimal digits after 0x", json);
      }
      const ByteView bytes = as_bytes(text);
      return {bytes.begin(), bytes.end()};
    }
    if (!json.is_array()) refuse("wanted bytes (0x..., text or a list of numbers)", json);
    Bytes bytes;
    for (const Json& element : json) bytes.push_back(integer(element, {1, false})[0]);
    return bytes;
  }

  void sequence(const Type& type, const Json& json) {
    if (types_.is_byte(type.element)) return out_.bytes(byte_string(json));
    if (!json.is_array()) refuse("wanted a list", json);
    out_.compact(json.size());
    each(type.element, json);
  }

  void array(const Type& type, const Json& json) {
    if (types_.is_byte(type.element)) {
      const Bytes bytes = byte_string(json);
      if (bytes.size() != type.length) {
        refuse("wanted " + std::to_string(type.length) + " bytes", json);
      }
      return out_.raw(bytes);
    }
    if (!json.is_array() || json.size() != type.length) {
      refuse("wanted a list of " + std::to_string(type.length), json);
    }
    each(type.element, json);
  }

  void each(TypeId element, const Json& json) {
    const std::size_t before = path_.size();
    std::size_t index = 0;
    const Type& type = types_.at(element);
    const bool simple = type.kind == TypeKind::primitive;
    for (const Json& item : json) {
      const auto number = simple ? unsigned_of(item) : std::nullopt;
      if (number && fits(type.primitive, *number)) {  // spares the path's text
        primitive(type.primitive, item);
      } else {
        path_ += '[' + std::to_string(index) + ']';
        value(element, item);
        path_.resize(before);
      }
      ++index;
    }
  }

  static bool fits(Primitive primitive, std::uint64_t number) {
    const auto shape = integer_of(primitive);
    return shape && !shape->is_signed && (shape->bytes >= 8 || number >> (8 * shape->bytes) == 0);
  }

  void tuple(const Type& type, const Json& json) {
    const std::size_t wanted = type.elements.size();
    if (wanted == 0 && (json.is_null() || json.empty())) return;
    if (!json.is_array() || json.size() != wanted) {
      refuse("wanted a list of " + std::to_string(wanted), json);
    }
    for (std::size_t i = 0; i < wanted; ++i) {
      const Step step(*this, std::to_string(i));
      value(type.elements[i], json[i]);
    }
  }

  void fields(const std::vector<TypeField>& fields, const Json& json) {
    if (fields.empty()) {
      if (!json.is_null() && !(json.is_structured() && json.empty()))
        refuse("wanted nothing", json);
      return;
    }
    if (fields.size() == 1 && fields[0].name.empty()) return value(fields[0].type, json);
    if (json.is_array() && json.size() == fields.size()) {
      for (std::size_t i = 0; i < fields.size(); ++i) {
        const Step step(*this, fields[i].name.empty() ? std::to_string(i) : fields[i].name);
        value(fields[i].type, json[i]);
      }
      return;
    }
    if (fields[0].name.empty() || !json.is_object()) {
      refuse("wanted " + std::to_string(fields.size()) + " fields", json);
    }
    for (const auto& [key, unused] : json.items()) {
      const bool known = std::any_of(fields.begin(), fields.end(),
                                     [&key = key](const auto& field) { return field.name == key; });
      if (!known) refuse("there is no field '" + key + "'", json);
    }
    for (const auto& field : fields) {
      const Step step(*this, field.name);
      const auto found = json.find(field.name);
      if (found == json.end()) refuse("the field is missing", json);
      value(field.type, *found);
    }
  }

  void chosen(const TypeVariant& variant, const Json& json) {
    const Step step(*this, variant.name);
    out_.u8(variant.index);
    fields(variant.fields, json);
  }

  void variant(const Type& type, const Json& json) {
    if (json.is_string()) {
      if (const TypeVariant* found = type.variant(json.get_ref<const std::string&>())) {
        if (found->fields.empty()) return chosen(*found, Json());
      }
    }
    if (json.is_object() && json.size() == 1) {
      if (const TypeVariant* found = type.variant(json.begin().key())) {
        return chosen(*found, json.begin().value());
      }
    }
    refuse("wanted a variant of " + type.path_text(), json);
  }

  void option(const Type& type, const Json& json) {
    for (const auto& variant : type.variants) {
      if (variant.fields.empty() == json.is_null()) {
        out_.u8(variant.index);
        if (!json.is_null()) fields(variant.fields, json);
        return;
      }
    }
    refuse("the option type has no such variant", json);
  }

  void address(const Type& type, const Json& json) {
    const TypeVariant* plain = type.variant(json.is_number() ? "Index" : "Id");
    if (!json.is_object() && plain != nullptr) return chosen(*plain, json);
    variant(type, json);
  }

  void map(const Type& type, const Json& json) {
    const Type& list = types_.at(type.fields[0].type);
    if (list.kind != TypeKind::sequence || !json.is_object()) return by_kind(type, json);
    const Type& pair = types_.at(list.element);
    if (pair.kind != TypeKind::tuple || pair.elements.size() != 2) return by_kind(type, json);
    // The chain keeps maps in the order of their keys: numbers by value, all else by encoded bytes.
    std::vector<std::pair<Bytes, const Json*>> entries;
    for (const auto& [key, entry] : json.items()) {
      entries.emplace_back(encode_value(types_, pair.elements[0], Json(key), range_), &entry);
    }
    const bool numeric = is_number(pair.elements[0]);
    std::sort(entries.begin(), entries.end(), [numeric](const auto& a, const auto& b) {
      if (!numeric) return a.first < b.first;
      return std::lexicographical_compare(a.first.rbegin(), a.first.rend(), b.first.rbegin(),
                                          b.first.rend());
    });
    out_.compact(entries.size());
    for (const auto& [key, entry] : entries) {
      out_.raw(key);
      value(pair.elements[1], *entry);
    }
  }

  bool is_number(TypeId id) const {
    for (int depth = 0; depth < kNestingMax; ++depth) {
      const Type& type = types_.at(id);
      if (type.kind == TypeKind::primitive) return integer_of(type.primitive).has_value();
      if (type.kind != TypeKind::composite || type.fields.size() != 1) return false;
      id = type.fields[0].type;
    }
    return false;
  }

  void era(const Json& json) {
    if (json.is_string()) {
      const auto& text = json.get_ref<const std::string&>();
      const auto bytes = parse_0x(text.starts_with("0x") ? text : "0x" + text);
      if (bytes && !bytes->empty() && bytes->size() == ((*bytes)[0] == 0 ? 1u : 2u)) {
        return out_.raw(*bytes);
      }
    }
    if (json.is_array() && json.size() == 2) {
      const auto period = unsigned_of(json[0]), phase = unsigned_of(json[1]);
      if (period && phase && *period >= 2 && *period <= 65536 && std::has_single_bit(*period)) {
        return out_.raw(Era{*period, *phase}.encode());
      }
    }
    if (json.is_object() && json.contains("period") && json.contains("current")) {
      const auto period = unsigned_of(json["period"]), current = unsigned_of(json["current"]);
      if (period && current) return out_.raw(Era::mortal(*period, *current).encode());
    }
    refuse("wanted an era: \"00\", [period, phase] or {\"period\",\"current\"}", json);
  }

  const Type& enum_of(const TypeVariant& pallet, const Json& json) const {
    if (pallet.fields.size() != 1) refuse("the pallet's enum is not one field", json);
    const Type& type = types_.at(pallet.fields[0].type);
    if (type.kind != TypeKind::variant) refuse("the pallet's type is not an enum", json);
    return type;
  }

  static const Json* first_of(const Json& json, std::initializer_list<const char*> names) {
    for (const char* name : names) {
      if (const auto found = json.find(name); found != json.end()) return &*found;
    }
    return nullptr;
  }

  void call(TypeId id, const Type& type, const Json& json) {
    if (json.is_string() && json.get_ref<const std::string&>().starts_with("0x")) {
      const auto bytes = parse_0x(json.get_ref<const std::string&>());
      if (!bytes) refuse("wanted the call's bytes", json);
      ScaleReader reader(*bytes);
      skip_value(types_, id, reader);
      reader.require_end("the call");
      return out_.raw(*bytes);
    }
    if (!json.is_object()) return variant(type, json);
    const Json* module = first_of(json, {"call_module", "module", "pallet"});
    const Json* function = first_of(json, {"call_function", "function", "call"});
    if (module == nullptr || function == nullptr || !module->is_string() ||
        !function->is_string()) {
      return variant(type, json);
    }
    const TypeVariant* pallet = type.variant(module->get_ref<const std::string&>());
    if (pallet == nullptr) refuse("the runtime has no such pallet", json);
    const TypeVariant* found =
        enum_of(*pallet, json).variant(function->get_ref<const std::string&>());
    if (found == nullptr) refuse("the pallet has no such call", json);
    out_.u8(pallet->index);
    chosen(*found, arguments_of(json, *found));
  }

  // {"name","value"} pairs, an object under "params", or the arguments beside the names themselves.
  static Json arguments_of(const Json& json, const TypeVariant& function) {
    const Json* given = first_of(json, {"call_args", "params", "args"});
    Json object = Json::object();
    if (given == nullptr) {
      for (const auto& field : function.fields) {
        if (json.contains(field.name)) object[field.name] = json.at(field.name);
      }
    } else if (given->is_array() && !given->empty() && (*given)[0].is_object() &&
               (*given)[0].contains("name") && (*given)[0].contains("value")) {
      for (const Json& argument : *given) {
        if (!argument.is_object() || !argument.contains("name") || !argument["name"].is_string() ||
            !argument.contains("value")) {
          return *given;
        }
        object[argument["name"].get_ref<const std::string&>()] = argument["value"];
      }
    } else {
      return *given;
    }
    if (function.fields.size() == 1 && function.fields[0].name.empty() && object.size() == 1) {
      return object.begin().value();
    }
    return object;
  }

  void event(const Type& type, const Json& json) {
    if (!json.is_object() || !json.contains("module_id") || !json["module_id"].is_string() ||
        !json.contains("event_id") || !json["event_id"].is_string()) {
      return variant(type, json);
    }
    const TypeVariant* pallet = type.variant(json["module_id"].get_ref<const std::string&>());
    if (pallet == nullptr) refuse("the runtime has no such pallet", json);
    const TypeVariant* found =
        enum_of(*pallet, json).variant(json["event_id"].get_ref<const std::string&>());
    if (found == nullptr) refuse("the pallet has no such event", json);
    out_.u8(pallet->index);
    chosen(*found, json.value("attributes", Json()));
  }

  void event_record(const Type& type, const Json& json) {
    if (!json.is_object() || !json.contains("event")) return by_kind(type, json);
    const Json phase = json.value("phase", Json());
    const Json extrinsic = json.value("extrinsic_idx", Json());
    value(type.fields[0].type,
          phase == "ApplyExtrinsic" ? Json::object({{"ApplyExtrinsic", extrinsic}}) : phase);
    value(type.fields[1].type, json["event"]);
    value(type.fields[2].type, json.value("topics", Json::array()));
  }

  void bits(const Type& type, const Json& json) {
    const Type& store = types_.at(type.element);
    const auto shape =
        store.kind == TypeKind::primitive ? integer_of(store.primitive) : std::optional<Integer>();
    if (!shape || !json.is_string() || !json.get_ref<const std::string&>().starts_with("0b")) {
      refuse("wanted bits as \"0b0101\"", json);
    }
    const std::string_view text = std::string_view(json.get_ref<const std::string&>()).substr(2);
    const Type& order = types_.at(type.elements[0]);
    const bool most_significant_first = !order.path.empty() && order.path.back() == "Msb0";
    const std::size_t word = shape->bytes;
    Bytes bytes((text.size() + word * 8 - 1) / (word * 8) * word);
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] != '0' && text[i] != '1') refuse("wanted bits as \"0b0101\"", json);
      std::size_t bit = i % (word * 8);
      if (most_significant_first) bit = word * 8 - 1 - bit;
      if (text[i] == '1') {
        bytes[i / (word * 8) * word + bit / 8] |= static_cast<std::uint8_t>(1u << (bit % 8));
      }
    }
    out_.compact(text.size());
    out_.raw(bytes);
  }

  const TypeRegistry& types_;
  ScaleWriter& out_;
  CompactRange range_;
  std::string path_;
  int depth_ = 0;
};

}  // namespace

void encode_value(const TypeRegistry& types, TypeId type, const Json& value, ScaleWriter& writer,
                  CompactRange range) {
  Encoder(types, writer, range).value(type, value);
}

Bytes encode_value(const TypeRegistry& types, TypeId type, const Json& value, CompactRange range) {
  ScaleWriter writer;
  encode_value(types, type, value, writer, range);
  return writer.take();
}

}  // namespace yumoe

#include <cmath>
#include <nlohmann/json.hpp>

#include "chain/text.hpp"
#include "chain/type_text.hpp"
#include "cluster/error.hpp"
#include "cluster/identity.hpp"
#include "coordinator/metadata.hpp"
#include "coordinator/scale.hpp"

namespace yumoe {
namespace {

constexpr int kNestingMax = 256;
// How many JSON values an input byte may become: real types stay under 3. Types of no size are why
// there must be a bound at all: a list of a billion empty tuples is five bytes long.
constexpr std::size_t kValuesPerByte = 8, kValuesFree = 4096;

std::size_t size_of(Primitive primitive) {
  switch (primitive) {
    case Primitive::boolean:
    case Primitive::u8:
    case Primitive::i8: return 1;
    case Primitive::u16:
    case Primitive::i16: return 2;
    case Primitive::character:
    case Primitive::u32:
    case Primitive::i32: return 4;
    case Primitive::u64:
    case Primitive::i64: return 8;
    case Primitive::u128:
    case Primitive::i128: return 16;
    case Primitive::u256:
    case Primitive::i256: return 32;
    case Primitive::string: break;
  }
  return 0;
}

Json unsigned_to_json(ByteView little_endian) {
  std::uint64_t value = 0;
  std::size_t significant = little_endian.size();
  while (significant > 0 && little_endian[significant - 1] == 0) --significant;
  if (significant > 8) return to_decimal(little_endian, false);
  for (std::size_t i = significant; i-- > 0;) value = value << 8 | little_endian[i];
  return value;
}

Json signed_to_json(ByteView little_endian) {
  const std::uint8_t fill = (little_endian.back() & 0x80) != 0 ? 0xff : 0;
  std::uint64_t value = fill == 0 ? 0 : ~std::uint64_t{0};
  bool narrow = true;
  for (std::size_t i = little_endian.size(); i-- > 0;) {
    if (i >= 8) {
      narrow = narrow && little_endian[i] == fill;
    } else {
      value = value << 8 | little_endian[i];
    }
  }
  if (little_endian.size() > 8 && ((value >> 63) != 0) != (fill != 0)) narrow = false;
  if (!narrow) return to_decimal(little_endian, true);
  const auto number = static_cast<std::int64_t>(value);
  if (number >= 0) return static_cast<std::uint64_t>(number);
  return number;
}

Json bytes_to_json(ByteView bytes) {
  // Text that begins like hexadecimal would come back as other bytes, so it is shown as hex itself.
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (is_utf8(bytes) && !text.starts_with("0x")) return std::string(text);
  return to_0x(bytes);
}

class Decoder {
 public:
  Decoder(const TypeRegistry& types, ScaleReader& reader)
      : types_(types),
        reader_(reader),
        values_left_(kValuesFree + kValuesPerByte * reader.left()) {}

  Json value(TypeId id, bool outermost = false) {
    const Type& type = types_.at(id);
    const Level level(*this);
    spend(1);
    switch (type.role) {
      case TypeRole::account: return account();
      case TypeRole::u256: return unsigned_to_json(reader_.raw(32));
      case TypeRole::option: return option(type);
      case TypeRole::map: return map(type);
      case TypeRole::era: return era(type);
      case TypeRole::call: return call(type);
      case TypeRole::event: return event(type);
      case TypeRole::event_record: return event_record(type);
      case TypeRole::address:
      case TypeRole::plain: break;
    }
    return by_kind(type, outermost);
  }

 private:
  struct Level {
    explicit Level(Decoder& owner) : decoder(owner) {
      if (++decoder.depth_ > kNestingMax) decoder.reader_.refuse("values are nested too deeply");
    }
    ~Level() { --decoder.depth_; }
    Decoder& decoder;
  };

  void spend(std::size_t values) {
    if (values > values_left_) reader_.refuse("the value is far larger than its bytes");
    values_left_ -= values;
  }

  Json by_kind(const Type& type, bool outermost) {
    switch (type.kind) {
      case TypeKind::composite:
        if (type.fields.empty()) return outermost ? Json::array() : Json::object();
        return fields(type.fields);
      case TypeKind::variant: return variant(type);
      case TypeKind::sequence: return list(type.element, reader_.count(0));
      case TypeKind::array:
        if (types_.is_byte(type.element) && type.length > 0) return to_0x(reader_.raw(type.length));
        return elements(type.element, type.length);
      case TypeKind::tuple: {
        Json array = Json::array();
        for (const TypeId element : type.elements) array.push_back(value(element));
        return array;
      }
      case TypeKind::primitive: return primitive(type.primitive);
      case TypeKind::compact: return compact(type.element);
      case TypeKind::bit_sequence: return bits(type);
    }
    reader_.refuse("unknown kind of type");
  }

  Json list(TypeId element, std::size_t count) {
    if (types_.is_byte(element)) return bytes_to_json(reader_.raw(count));
    return elements(element, count);
  }

  Json elements(TypeId element, std::size_t count) {
    Json array = Json::array();
    const Type& type = types_.at(element);
    if (type.kind == TypeKind::primitive && size_of(type.primitive) > 1) {
      if (count > reader_.left() / size_of(type.primitive)) reader_.refuse("a list is cut short");
      array.get_ref<Json::array_t&>().reserve(count);
    }
    for (std::size_t i = 0; i < count; ++i) array.push_back(value(element));
    return array;
  }

  Json fields(const std::vector<TypeField>& fields) {
    if (fields.size() == 1 && fields[0].name.empty()) return value(fields[0].type);
    if (fields[0].name.empty()) {
      Json array = Json::array();
      for (const auto& field : fields) array.push_back(value(field.type));
      return array;
    }
    Json object = Json::object();
    for (const auto& field : fields) object[field.name] = value(field.type);
    return object;
  }

  const TypeVariant& chosen(const Type& type) {
    const std::uint8_t index = reader_.u8();
    const TypeVariant* variant = type.variant_at(index);
    if (variant == nullptr) {
      reader_.refuse(type.path_text() + " has no variant " + std::to_string(index));
    }
    return *variant;
  }

  Json variant(const Type& type) {
    const TypeVariant& variant = chosen(type);
    if (variant.fields.empty()) return variant.name;
    Json inner = fields(variant.fields);
    if (type.role == TypeRole::address && ((variant.name == "Id" && inner.is_string()) ||
                                           (variant.name == "Index" && inner.is_number()))) {
      return inner;
    }
    return Json::object({{variant.name, std::move(inner)}});
  }

  Json account() {
    PublicKey key;
    const ByteView bytes = reader_.raw(32);
    std::copy(bytes.begin(), bytes.end(), key.bytes.begin());
    return to_ss58(key, types_.ss58_prefix());
  }

  Json option(const Type& type) {
    const TypeVariant& variant = chosen(type);
    return variant.fields.empty() ? Json() : fields(variant.fields);
  }

  // Its one field is a list of (key, value).
  Json map(const Type& type) {
    const Type& list = types_.at(type.fields[0].type);
    if (list.kind != TypeKind::sequence) return by_kind(type, false);
    const Type& pair = types_.at(list.element);
    if (pair.kind != TypeKind::tuple || pair.elements.size() != 2) return by_kind(type, false);
    Json pairs = Json::array();
    bool simple = true;
    for (std::size_t n = reader_.count(0); n > 0; --n) {
      Json key = value(pair.elements[0]);
      simple = simple && (key.is_string() || key.is_number_integer());
      Json entry = Json::array({std::move(key)});
      entry.push_back(value(pair.elements[1]));
      pairs.push_back(std::move(entry));
    }
    if (!simple) return pairs;
    Json object = Json::object();
    for (auto& entry : pairs) {
      const std::string key = entry[0].is_string() ? entry[0].get<std::string>() : entry[0].dump();
      object[key] = std::move(entry[1]);
    }
    return object;
  }

  Json era(const Type&) {
    const std::uint8_t first = reader_.u8();
    if (first == 0) return "00";
    const unsigned bits = first | static_cast<unsigned>(reader_.u8()) << 8;
    const std::uint64_t period = std::uint64_t{2} << (bits & 15);
    const std::uint64_t quantum = std::max<std::uint64_t>(period >> 12, 1);
    return Json::array({period, (bits >> 4) * quantum});
  }

  Json primitive(Primitive primitive) {
    switch (primitive) {
      case Primitive::boolean: {
        const std::uint8_t byte = reader_.u8();
        if (byte > 1) reader_.refuse("a bool is neither 0 nor 1");
        return byte == 1;
      }
      case Primitive::character: {
        const std::uint32_t code = reader_.u32();
        if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
          reader_.refuse("no such character");
        return code;
      }
      case Primitive::string: return reader_.string();
      case Primitive::i8:
      case Primitive::i16:
      case Primitive::i32:
      case Primitive::i64:
      case Primitive::i128:
      case Primitive::i256: return signed_to_json(reader_.raw(size_of(primitive)));
      default: return unsigned_to_json(reader_.raw(size_of(primitive)));
    }
  }

  // A compact stands for an integer or a struct around one. The compact of () is read as an integer
  // too, as the real client does; it only occurs in the kind of address that this chain never
  // takes.
  Json compact(TypeId id) {
    for (int depth = 0; depth < kNestingMax; ++depth) {
      const Type& type = types_.at(id);
      if (type.kind == TypeKind::composite && type.fields.size() == 1) {
        if (!type.fields[0].name.empty()) {
          return Json::object({{type.fields[0].name, compact(type.fields[0].type)}});
        }
        id = type.fields[0].type;
        continue;
      }
      if (type.kind != TypeKind::primitive && !types_.is_empty(id)) break;
      return unsigned_to_json(reader_.compact_bytes());
    }
    reader_.refuse("a compact of this type is not known");
  }

  Json bits(const Type& type) {
    const Type& store = types_.at(type.element);
    if (store.kind != TypeKind::primitive || size_of(store.primitive) == 0) {
      reader_.refuse("a bit sequence has no known store");
    }
    const Type& order = types_.at(type.elements[0]);
    const bool most_significant_first = !order.path.empty() && order.path.back() == "Msb0";
    const std::size_t word = size_of(store.primitive), count = reader_.count(0);
    if (count / 8 > reader_.left()) reader_.refuse("a bit sequence is cut short");
    const ByteView bytes = reader_.raw((count + word * 8 - 1) / (word * 8) * word);
    std::string text(count, '0');
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t bit = i % (word * 8);
      if (most_significant_first) bit = word * 8 - 1 - bit;
      if (bytes[i / (word * 8) * word + bit / 8] >> (bit % 8) & 1) text[i] = '1';
    }
    return "0b" + text;
  }

  Json call(const Type& type) {
    const std::size_t start = reader_.position();
    const TypeVariant& pallet = chosen(type);
    if (pallet.fields.size() != 1) reader_.refuse("a pallet's calls are not one enum");
    const Type& calls = types_.at(pallet.fields[0].type);
    if (calls.kind != TypeKind::variant) reader_.refuse("a pallet's calls are not one enum");
    const TypeVariant& function = chosen(calls);
    Json arguments = Json::array();
    for (const auto& field : function.fields) {
      arguments.push_back(Json::object({{"name", field.name},
                                        {"type", plain_type_name(field.type_name)},
                                        {"value", value(field.type)}}));
    }
    const std::uint8_t index[2] = {pallet.index, function.index};
    return Json::object({{"call_module", pallet.name},
                         {"call_function", function.name},
                         {"call_index", to_0x(index)},
                         {"call_args", std::move(arguments)},
                         {"call_hash", to_0x(blake2(reader_.from(start), 32))}});
  }

  Json event(const Type& type) {
    const TypeVariant& pallet = chosen(type);
    if (pallet.fields.size() != 1) reader_.refuse("a pallet's events are not one enum");
    const Type& events = types_.at(pallet.fields[0].type);
    if (events.kind != TypeKind::variant) reader_.refuse("a pallet's events are not one enum");
    const TypeVariant& event = chosen(events);
    const std::uint8_t index[2] = {pallet.index, event.index};
    return Json::object({{"module_id", pallet.name},
                         {"event_id", event.name},
                         {"event_index", to_hex(index)},
                         {"attributes", event.fields.empty() ? Json() : fields(event.fields)}});
  }

  Json event_record(const Type& type) {
    Json phase = value(type.fields[0].type);
    const std::size_t start = reader_.position();
    Json event = value(type.fields[1].type);
    const std::uint8_t pallet_index = reader_.from(start)[0];
    Json record = Json::object();
    record["extrinsic_idx"] = Json();
    if (phase.is_object() && phase.contains("ApplyExtrinsic")) {
      record["extrinsic_idx"] = phase["ApplyExtrinsic"];
      phase = "ApplyExtrinsic";
    }
    record["phase"] = std::move(phase);
    record["topics"] = value(type.fields[2].type);
    if (event.is_object() && event.contains("event_id")) {
      record["module_id"] = event["module_id"];
      record["event_id"] = event["event_id"];
      record["attributes"] = event["attributes"];
      record["event_index"] = pallet_index;
    }
    record["event"] = std::move(event);
    return record;
  }

  const TypeRegistry& types_;
  ScaleReader& reader_;
  std::size_t values_left_;
  int depth_ = 0;
};

class ExactNumbers : public nlohmann::detail::json_sax_dom_parser<Json> {
 public:
  using nlohmann::detail::json_sax_dom_parser<Json>::json_sax_dom_parser;
  bool number_float(double value, const std::string& text) {
    if (text.find_first_of(".eE") == text.npos) {
      std::string digits = text;
      return string(digits);
    }
    return nlohmann::detail::json_sax_dom_parser<Json>::number_float(value, text);
  }
};

}  // namespace

Json decode_value(const TypeRegistry& types, TypeId type, ScaleReader& reader) {
  return Decoder(types, reader).value(type, true);
}

Json decode_value(const TypeRegistry& types, TypeId type, ByteView bytes) {
  ScaleReader reader(bytes);
  Json value = decode_value(types, type, reader);
  reader.require_end("the value");
  return value;
}

void skip_value(const TypeRegistry& types, TypeId type, ScaleReader& reader) {
  // Building and dropping costs more than a second walker would, and can never disagree with it.
  (void)decode_value(types, type, reader);
}

bool same_value(const Json& a, const Json& b) {
  if (a.is_number() && b.is_string()) return a.dump() == b.get_ref<const std::string&>();
  if (a.is_string() && b.is_number()) return same_value(b, a);
  if (a.is_object() && b.is_object()) {
    if (a.size() != b.size()) return false;
    auto right = b.begin();
    for (auto left = a.begin(); left != a.end(); ++left, ++right) {
      if (left.key() != right.key() || !same_value(left.value(), right.value())) return false;
    }
    return true;
  }
  if (a.is_array() && b.is_array()) {
    if (a.size() != b.size()) return false;
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (!same_value(a[i], b[i])) return false;
    }
    return true;
  }
  return a == b;
}

Json parse_json_exact(std::string_view text) {
  Json result;
  ExactNumbers sax(result, true);
  try {
    Json::sax_parse(text.begin(), text.end(), &sax);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::message_malformed, std::string("parsing JSON: ") + error.what());
  }
  return result;
}

}  // namespace yumoe

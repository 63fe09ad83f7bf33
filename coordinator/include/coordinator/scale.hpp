#pragma once
// SCALE, the chain's byte encoding, and the types a runtime describes in its metadata. Nothing here
// knows a pallet: every shape comes from a TypeRegistry.
//
// Values as JSON (both directions, and for every type in the registry):
//   integers          a JSON integer where 64 bits hold it, else a decimal string ("170141...");
//                     on the way in also "0x..." (big-endian). Never a floating-point number.
//   bytes             Vec<u8>: text if it is UTF-8 that does not begin with 0x, else
//                     "0x..."; [u8; N], H160, H256: "0x...". In: "0x..." is hex, other text is
//                     UTF-8.
//   AccountId32       SS58 (prefix 42 unless the metadata says otherwise). In: also "0x" + 64
//   digits. struct            object by field name; a struct of one unnamed field is that field;
//   several
//                     unnamed fields are an array
//   enum              "Name", or {"Name": fields}; Option is null or the value (an option of an
//   option
//                     cannot tell None from Some(None)); MultiAddress is the account if it is an Id
//   BTreeMap          object when its keys print as strings or integers; in: also an array of pairs
//   the runtime call  {"call_module","call_function","call_index","call_hash",
//                      "call_args":[{"name","type","value"}]}; in: also {"module","function",
//                      "params": {...}} or "0x..." of an encoded call
//   the runtime event {"module_id","event_id","event_index","attributes"}

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/bytes.hpp"

namespace yumoe {

using Json = nlohmann::json;
using TypeId = std::uint32_t;

// Appends primitive values; the inverse of ScaleReader.
class ScaleWriter {
 public:
  void u8(std::uint8_t value) { bytes_.push_back(value); }
  void u16(std::uint16_t value) { little_endian(value, 2); }
  void u32(std::uint32_t value) { little_endian(value, 4); }
  void u64(std::uint64_t value) { little_endian(value, 8); }
  void compact(std::uint64_t value);
  // A little-endian integer of at most 67 bytes in compact form.
  void compact(ByteView little_endian);
  void raw(ByteView bytes);
  void bytes(ByteView bytes) { compact(bytes.size()), raw(bytes); }
  void string(std::string_view text) { bytes(as_bytes(text)); }

  std::size_t size() const { return bytes_.size(); }
  const Bytes& view() const { return bytes_; }
  Bytes take() { return std::move(bytes_); }

 private:
  void little_endian(std::uint64_t value, int bytes);
  Bytes bytes_;
};

// Reads primitive values from bytes that may be hostile: throws Error{scale_malformed}, never reads
// past the end, and believes no count larger than the bytes that are left.
class ScaleReader {
 public:
  explicit ScaleReader(ByteView bytes) : bytes_(bytes) {}

  std::uint8_t u8() { return raw(1)[0]; }
  std::uint16_t u16() { return static_cast<std::uint16_t>(little_endian(2)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(little_endian(4)); }
  std::uint64_t u64() { return little_endian(8); }
  // Refuses forms longer than needed, as the chain's decoder does.
  std::uint64_t compact();
  // The compact integer's bytes, little-endian, at least one and at most 67.
  Bytes compact_bytes();
  // A count of elements that need at least `element_bytes_min` bytes each.
  std::size_t count(std::size_t element_bytes_min = 1);
  ByteView raw(std::size_t size);
  ByteView bytes() { return raw(count()); }
  std::string string();

  std::size_t left() const { return bytes_.size() - at_; }
  std::size_t position() const { return at_; }
  ByteView from(std::size_t start) const { return bytes_.subspan(start, at_ - start); }
  void require_end(std::string_view what) const;
  [[noreturn]] void refuse(std::string_view why) const;

 private:
  std::uint64_t little_endian(std::size_t bytes);
  ByteView bytes_;
  std::size_t at_ = 0;
};

enum class TypeKind : std::uint8_t {
  composite,
  variant,
  sequence,
  array,
  tuple,
  primitive,
  compact,
  bit_sequence
};

// In the metadata's order.
enum class Primitive : std::uint8_t {
  boolean,
  character,
  string,
  u8,
  u16,
  u32,
  u64,
  u128,
  u256,
  i8,
  i16,
  i32,
  i64,
  i128,
  i256
};

// How a type is shown when its shape alone would not say it.
enum class TypeRole : std::uint8_t {
  plain,
  account,
  u256,
  option,
  map,
  era,
  call,
  event,
  event_record,
  address
};

struct TypeField {
  std::string name;  // empty: unnamed
  TypeId type = 0;
  std::string type_name;  // as the source wrote it ("T::AccountId"); for people
};

struct TypeVariant {
  std::string name;
  std::uint8_t index = 0;
  std::vector<TypeField> fields;
  std::string docs;
};

struct Type {
  std::vector<std::string> path;
  std::vector<std::pair<std::string, std::optional<TypeId>>> parameters;
  TypeKind kind = TypeKind::tuple;
  TypeRole role = TypeRole::plain;
  std::vector<TypeField> fields;       // composite
  std::vector<TypeVariant> variants;   // variant
  std::vector<std::int16_t> by_index;  // variant: from its index byte to `variants`, or -1
  std::vector<TypeId> elements;        // tuple
  TypeId element = 0;                  // sequence, array, compact; bit_sequence: its store
  std::uint32_t length = 0;            // array
  Primitive primitive = Primitive::boolean;

  std::string path_text() const;  // "sp_core::crypto::AccountId32"
  const TypeVariant* variant(std::string_view name) const;
  const TypeVariant* variant_at(std::uint8_t index) const;
};

class TypeRegistry {
 public:
  TypeRegistry() = default;
  // Reads scale-info's portable registry. Throws Error{scale_malformed}.
  static TypeRegistry read(ScaleReader& reader);

  const Type& at(TypeId id) const;  // throws Error{scale_malformed} if there is none
  std::size_t size() const { return types_.size(); }
  // The type whose path ends so ("EventRecord", "crypto::AccountId32"); nullopt if none.
  std::optional<TypeId> find(std::string_view path_end) const;

  void set_role(TypeId id, TypeRole role) { types_.at(id).role = role; }
  void set_ss58_prefix(std::uint16_t prefix) { ss58_prefix_ = prefix; }
  std::uint16_t ss58_prefix() const { return ss58_prefix_; }
  // Tells whether every value of the type takes no bytes.
  bool is_empty(TypeId id) const;
  bool is_byte(TypeId id) const;

 private:
  void find_roles();
  std::vector<Type> types_;
  std::uint16_t ss58_prefix_ = 42;
};

// Decodes one value. Total: throws Error{scale_malformed} naming type and position for any bytes
// that are not a value; nesting is bounded (256) and so is memory (a few hundred bytes an input
// byte). Cost: about 100 MB/s for numbers, 5 MB/s for accounts (SS58).
Json decode_value(const TypeRegistry& types, TypeId type, ScaleReader& reader);

// As above, and every byte must be used.
Json decode_value(const TypeRegistry& types, TypeId type, ByteView bytes);

// Passes over one value without building it; same checks.
void skip_value(const TypeRegistry& types, TypeId type, ScaleReader& reader);

// A compact integer is read at whatever width it comes, as the real client does, and so the
// recorded samples have some that their type could not hold; the chain takes none of those, so none
// is written unless a test asks for it.
enum class CompactRange : std::uint8_t { of_type, any };

// Encodes a value. Throws Error{scale_malformed} naming the path inside the value that does not fit
// ("encoding dests[3]: wanted an integer of 16 bits, got 70000").
void encode_value(const TypeRegistry& types, TypeId type, const Json& value, ScaleWriter& writer,
                  CompactRange range = CompactRange::of_type);
Bytes encode_value(const TypeRegistry& types, TypeId type, const Json& value,
                   CompactRange range = CompactRange::of_type);

// Tells whether two values are one: integers compare by number whether they stand as JSON integers
// or as decimal strings.
bool same_value(const Json& a, const Json& b);

// Parses JSON whose integers may be wider than 64 bits: those become decimal strings instead of
// losing digits. Throws Error{message_malformed}.
Json parse_json_exact(std::string_view text);

}  // namespace yumoe

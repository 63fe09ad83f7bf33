#include "coordinator/scale.hpp"

#include <gtest/gtest.h>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "coordinator/chain_data.hpp"

namespace yumoe {
namespace {

// The message of the Error that `act` throws; "" if it throws none or another code.
std::string message_of(ErrorCode code, auto&& act) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

// Writes scale-info's registry by hand, so that hostile ones can be made.
class RegistryBytes {
 public:
  TypeId tuple(std::vector<TypeId> elements) {
    begin();
    out_.u8(4);
    out_.compact(elements.size());
    for (const TypeId id : elements) out_.compact(id);
    return end();
  }
  TypeId sequence(TypeId element) {
    begin();
    out_.u8(2);
    out_.compact(element);
    return end();
  }
  TypeId primitive(Primitive primitive) {
    begin();
    out_.u8(5);
    out_.u8(static_cast<std::uint8_t>(primitive));
    return end();
  }
  TypeId compact(TypeId element) {
    begin();
    out_.u8(6);
    out_.compact(element);
    return end();
  }
  TypeId bits(TypeId store, TypeId order) {
    begin();
    out_.u8(7);
    out_.compact(store);
    out_.compact(order);
    return end();
  }
  TypeRegistry read() const {
    ScaleWriter all;
    all.compact(count_);
    all.raw(out_.view());
    ScaleReader reader(all.view());
    return TypeRegistry::read(reader);
  }

 private:
  void begin() {
    out_.compact(count_);
    out_.u8(0);  // path
    out_.u8(0);  // parameters
  }
  TypeId end() {
    out_.u8(0);  // docs
    return count_++;
  }
  ScaleWriter out_;
  TypeId count_ = 0;
};

Bytes compact_bytes(std::uint64_t value) {
  ScaleWriter writer;
  writer.compact(value);
  return writer.take();
}

TEST(Scale, RefusesCompactIntegersLongerThanNeeded) {
  for (const char* hex : {"0x0100", "0xfd00", "0x02000000", "0xfeff0000", "0x03ffffff3f",
                          "0x0700000000", "0x0b000000000000"}) {
    const Bytes bytes = from_hex(hex);
    EXPECT_NE(message_of(ErrorCode::scale_malformed, [&] { ScaleReader(bytes).compact_bytes(); }),
              "")
        << hex;
  }
  for (const std::uint64_t value :
       {0ull, 63ull, 64ull, 16383ull, 16384ull, 1073741823ull, 1073741824ull, ~0ull}) {
    const Bytes bytes = compact_bytes(value);
    EXPECT_EQ(ScaleReader(bytes).compact(), value);
  }
}

TEST(Scale, NeverBelievesACountLargerThanTheBytes) {
  RegistryBytes types;
  const TypeId list = types.sequence(types.primitive(Primitive::u64));
  const TypeRegistry registry = types.read();
  Bytes bytes = compact_bytes(1u << 29);
  bytes.resize(bytes.size() + 64);
  message_of(ErrorCode::scale_malformed, [&] { decode_value(registry, list, bytes); });
}

TEST(Scale, BoundsMemoryOnTypesOfNoSize) {
  // A billion empty tuples are five bytes; a tuple of tuples of tuples doubles with each level.
  RegistryBytes types;
  TypeId doubling = types.tuple({});
  const TypeId bomb = types.sequence(doubling);
  for (int i = 0; i < 60; ++i) doubling = types.tuple({doubling, doubling});
  const TypeRegistry registry = types.read();
  EXPECT_NE(message_of(ErrorCode::scale_malformed,
                       [&] { decode_value(registry, bomb, compact_bytes(1u << 29)); })
                .find("larger than its bytes"),
            std::string::npos);
  message_of(ErrorCode::scale_malformed, [&] { decode_value(registry, doubling, Bytes{}); });
}

TEST(Scale, BoundsNestingOnTypesThatHoldThemselves) {
  RegistryBytes types;
  const TypeId self = types.tuple({0});
  const TypeRegistry registry = types.read();
  EXPECT_NE(message_of(ErrorCode::scale_malformed, [&] { decode_value(registry, self, Bytes(9)); })
                .find("nested"),
            std::string::npos);
  EXPECT_FALSE(registry.is_empty(self));
  // Calls within calls, as deep as the bytes allow: Utility.batch of one batch of one batch ...
  Bytes call;
  const Bytes batch = from_hex("0x0b0004");
  for (int i = 0; i < 1000; ++i) call.insert(call.end(), batch.begin(), batch.end());
  EXPECT_NE(message_of(ErrorCode::scale_malformed, [&] { golden_metadata().decode_call(call); })
                .find("nested"),
            std::string::npos);
}

TEST(Scale, NamesTheTypeAMissingReferenceBelongsTo) {
  RegistryBytes types;
  const TypeId broken = types.sequence(77);
  const TypeRegistry registry = types.read();
  EXPECT_NE(message_of(ErrorCode::scale_malformed,
                       [&] { decode_value(registry, broken, compact_bytes(1)); })
                .find("type 77"),
            std::string::npos);
}

TEST(Scale, SaysWhereAValueDoesNotFit) {
  const auto encode = [](const Json& arguments) {
    return message_of(ErrorCode::scale_malformed, [&] {
      golden_metadata().encode_call("SubtensorModule", "set_weights", arguments);
    });
  };
  Json good = {{"netuid", 1}, {"dests", {0, 1}}, {"weights", {1, 2}}, {"version_key", 0}};
  EXPECT_NO_THROW(golden_metadata().encode_call("SubtensorModule", "set_weights", good));
  Json bad = good;
  bad["dests"][1] = 70000;
  EXPECT_NE(encode(bad).find("dests[1]"), std::string::npos) << encode(bad);
  bad = good;
  bad["weights"] = "all";
  EXPECT_NE(encode(bad).find("weights"), std::string::npos);
  bad = good;
  bad.erase("netuid");
  EXPECT_NE(encode(bad).find("netuid"), std::string::npos);
  bad = good;
  bad["netuids"] = 1;
  EXPECT_NE(encode(bad).find("netuids"), std::string::npos);
  bad = good;
  bad["version_key"] = 1.5;
  EXPECT_NE(encode(bad).find("version_key"), std::string::npos);
  bad = good;
  bad["version_key"] = -1;
  EXPECT_NE(encode(bad).find("version_key"), std::string::npos);
}

TEST(Scale, KeepsWideAndNegativeIntegersExactly) {
  RegistryBytes types;
  const TypeId u128 = types.primitive(Primitive::u128), i64 = types.primitive(Primitive::i64),
               i128 = types.primitive(Primitive::i128), i8 = types.primitive(Primitive::i8),
               wide = types.compact(u128);
  const TypeRegistry registry = types.read();
  const auto round = [&](TypeId type, const Json& value) {
    return decode_value(registry, type, encode_value(registry, type, value));
  };
  const std::string most = "340282366920938463463374607431768211455";
  EXPECT_EQ(round(u128, most), most);
  EXPECT_EQ(round(wide, most), most);
  EXPECT_EQ(round(u128, 5), 5);
  EXPECT_EQ(round(u128, "0xff"), 255);
  EXPECT_EQ(round(i64, std::numeric_limits<std::int64_t>::min()),
            std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(round(i8, -128), -128);
  EXPECT_EQ(round(i128, "-170141183460469231731687303715884105728"),
            "-170141183460469231731687303715884105728");
  EXPECT_EQ(round(i128, -1), -1);
  EXPECT_EQ(round(i128, "9223372036854775808"), "9223372036854775808");
  message_of(ErrorCode::scale_malformed, [&] { encode_value(registry, i8, 128); });
  message_of(ErrorCode::scale_malformed, [&] { encode_value(registry, u128, most + "0"); });
  EXPECT_EQ(parse_json_exact("[340282366920938463463374607431768211455,1.5]")[0], most);
}

TEST(Scale, ReadsBitSequencesOfEitherOrder) {
  RegistryBytes types;
  const TypeId bits = types.bits(types.primitive(Primitive::u8), types.tuple({}));
  const TypeRegistry registry = types.read();
  const Bytes bytes = encode_value(registry, 2, "0b10110000001");
  EXPECT_EQ(to_hex(bytes), "2c0d04");
  EXPECT_EQ(decode_value(registry, bits + 0, bytes), "0b10110000001");
}

TEST(Scale, EveryTruncationAndManyCorruptionsOfRealEventsAreRefusedOrReadSafely) {
  const Bytes raw = from_hex(golden()["events"]["raw_hex"].get_ref<const std::string&>());
  for (std::size_t length = 0; length < raw.size(); ++length) {
    const Bytes cut(raw.begin(), raw.begin() + static_cast<std::ptrdiff_t>(length));
    message_of(ErrorCode::scale_malformed, [&] { golden_metadata().decode_events(cut); });
  }
  Random random(20261124);
  int read = 0;
  for (int i = 0; i < 3000; ++i) {
    Bytes spoilt = raw;
    for (int flips = 0; flips < 3; ++flips) {
      spoilt[random.below(spoilt.size())] ^= static_cast<std::uint8_t>(1u << random.below(8));
    }
    try {
      golden_metadata().decode_events(spoilt);
      ++read;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::scale_malformed) << error.what();
    }
  }
  EXPECT_GT(read, 0);  // amounts and accounts may hold anything
}

}  // namespace
}  // namespace yumoe

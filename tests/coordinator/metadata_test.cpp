#include "coordinator/metadata.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "cluster/error.hpp"
#include "coordinator/chain_data.hpp"

namespace yumoe {
namespace {

ErrorCode code_of(auto&& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ErrorCode::usage;
}

const Json kWeights = {{"netuid", 1}, {"dests", {0}}, {"weights", {9}}, {"version_key", 0}};

// A runtime upgrade that gives a pallet another index, made by patching the recorded metadata.
Bytes with_pallet_moved(const std::string& pallet, std::uint8_t index) {
  Bytes bytes = golden_metadata_bytes();
  const std::string mark = "CallableCallFor<" + pallet + ", Runtime>";
  const auto found = std::search(bytes.begin(), bytes.end(), mark.begin(), mark.end());
  EXPECT_NE(found, bytes.end());
  found[static_cast<std::ptrdiff_t>(mark.size()) + 1] = index;  // behind the field's empty docs
  return bytes;
}

TEST(Metadata, FindsACallByNameWhereverAnUpgradeMovesIt) {
  EXPECT_EQ(to_hex(golden_metadata().encode_call("SubtensorModule", "set_weights", kWeights))
                .substr(0, 4),
            "0700");
  const Metadata moved = Metadata::parse(with_pallet_moved("SubtensorModule", 0xd7));
  const Bytes call = moved.encode_call("SubtensorModule", "set_weights", kWeights);
  EXPECT_EQ(to_hex(call).substr(0, 4), "d700");
  EXPECT_EQ(moved.decode_call(call)["call_module"], "SubtensorModule");
  EXPECT_EQ(code_of([&] { golden_metadata().decode_call(call); }), ErrorCode::scale_malformed);
}

TEST(Metadata, HashesAStorageKeyAsTheRuntimeSays) {
  // System.Account: name, modifier, map, one hasher. The same with every other hasher.
  const Bytes mark = {0x1c, 'A', 'c', 'c', 'o', 'u', 'n', 't', 0x01, 0x01, 0x04};
  const Bytes account(32, 7);
  const Json keys = Json::array({"0x" + to_hex(account)});
  const std::size_t sizes[] = {16, 32, 16 + 32, 16, 32, 8 + 32, 32};  // in StorageHasher's order
  for (std::uint8_t hasher = 0; hasher < 7; ++hasher) {
    Bytes bytes = golden_metadata_bytes();
    const auto found = std::search(bytes.begin(), bytes.end(), mark.begin(), mark.end());
    ASSERT_NE(found, bytes.end());
    found[static_cast<std::ptrdiff_t>(mark.size())] = hasher;
    const Bytes key = Metadata::parse(bytes).storage_key("System", "Account", keys);
    const Bytes hashed = hash_storage_key(static_cast<StorageHasher>(hasher), account);
    EXPECT_EQ(key.size(), 32 + sizes[hasher]);
    EXPECT_TRUE(std::equal(hashed.begin(), hashed.end(), key.begin() + 32, key.end()));
  }
}

TEST(Metadata, AgreesAboutOneRuntimeInVersions14And15) {
  const Metadata old =
      Metadata::parse(from_hex(golden()["metadata"]["v14_hex"].get_ref<const std::string&>()));
  EXPECT_EQ(old.version(), 14);
  EXPECT_EQ(golden_metadata().version(), 15);
  ASSERT_EQ(old.pallets().size(), golden_metadata().pallets().size());
  for (std::size_t i = 0; i < old.pallets().size(); ++i) {
    EXPECT_EQ(old.pallets()[i].name, golden_metadata().pallets()[i].name);
    EXPECT_EQ(old.pallets()[i].index, golden_metadata().pallets()[i].index);
    EXPECT_EQ(old.pallets()[i].storage.size(), golden_metadata().pallets()[i].storage.size());
  }
  EXPECT_EQ(old.encode_call("SubtensorModule", "set_weights", kWeights),
            golden_metadata().encode_call("SubtensorModule", "set_weights", kWeights));
  EXPECT_NO_THROW(golden_metadata().api("SubnetInfoRuntimeApi", "get_metagraph"));
  EXPECT_EQ(code_of([&] { old.api("SubnetInfoRuntimeApi", "get_metagraph"); }),
            ErrorCode::metadata_unsupported);
}

TEST(Metadata, NamesWhatTheRuntimeDoesNotHave) {
  const Metadata& metadata = golden_metadata();
  for (const auto& act : std::vector<std::function<void()>>{
           [&] { metadata.pallet("Nope"); }, [&] { metadata.storage("System", "Nope"); },
           [&] { metadata.call("System", "nope"); }, [&] { metadata.constant("System", "Nope"); },
           [&] { metadata.encode_call("Nope", "nope", Json::object()); }}) {
    EXPECT_EQ(code_of(act), ErrorCode::metadata_unsupported);
  }
}

TEST(Metadata, RefusesWhatIsNotMetadata) {
  const Bytes& good = golden_metadata_bytes();
  for (std::size_t length = 0; length < good.size(); length += 1999) {
    const Bytes cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length));
    const ErrorCode code = code_of([&] { Metadata::parse(cut); });
    EXPECT_TRUE(code == ErrorCode::scale_malformed || code == ErrorCode::metadata_unsupported);
  }
  Bytes old(good.begin() + 5, good.end());
  old[4] = 13;
  EXPECT_EQ(code_of([&] { Metadata::parse(old); }), ErrorCode::metadata_unsupported);
}

TEST(Metadata, MakesPrefixesFromSomeOfAMapsKeysAndReadsFullKeysBack) {
  const Metadata& metadata = golden_metadata();
  const StorageItem& item = metadata.storage("SubtensorModule", "Keys");
  const Bytes prefix = metadata.storage_key("SubtensorModule", "Keys", Json::array());
  const Bytes one = metadata.storage_key("SubtensorModule", "Keys", Json::array({7}));
  const Bytes both = metadata.storage_key("SubtensorModule", "Keys", Json::array({7, 300}));
  EXPECT_EQ(prefix, storage_prefix("SubtensorModule", "Keys"));
  EXPECT_TRUE(std::equal(prefix.begin(), prefix.end(), one.begin()));
  EXPECT_TRUE(std::equal(one.begin(), one.end(), both.begin()));
  EXPECT_EQ(metadata.decode_storage_key(item, both), Json::array({7, 300}));
  EXPECT_EQ(code_of([&] { metadata.decode_storage_key(item, one); }), ErrorCode::scale_malformed);
  EXPECT_EQ(code_of([&] {
              metadata.storage_key("SubtensorModule", "Keys", Json::array({7, 300, 1}));
            }),
            ErrorCode::scale_malformed);
  // A key whose hash does not belong to it is not believed.
  const StorageItem& account = metadata.storage("System", "Account");
  Bytes key = metadata.storage_key(
      "System", "Account", Json::array({"5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"}));
  key[35] ^= 1;
  EXPECT_EQ(code_of([&] { metadata.decode_storage_key(account, key); }),
            ErrorCode::scale_malformed);
}

TEST(Metadata, NamesDispatchErrorsOfEveryKind) {
  const Metadata& metadata = golden_metadata();
  const std::uint8_t pallet = metadata.pallet("SubtensorModule").index;
  EXPECT_EQ(metadata.dispatch_error_name("BadOrigin"), "BadOrigin");
  EXPECT_EQ(metadata.dispatch_error_name({{"Token", "BelowMinimum"}}), "Token.BelowMinimum");
  const auto first = metadata.module_error(pallet, 0);
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(
      metadata.dispatch_error_name({{"Module", {{"index", pallet}, {"error", "0x00000000"}}}}),
      "SubtensorModule." + first->name);
  EXPECT_EQ(metadata.dispatch_error_name({{"Module", {{"index", 250}, {"error", "0x05000000"}}}}),
            "Module(250,5)");
  EXPECT_FALSE(metadata.module_error(250, 0).has_value());
}

}  // namespace
}  // namespace yumoe

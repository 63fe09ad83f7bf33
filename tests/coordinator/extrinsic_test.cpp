#include "coordinator/extrinsic.hpp"

#include <gtest/gtest.h>

#include <algorithm>

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

Bytes remark() { return golden_metadata().encode_call("System", "remark", {{"remark", "hello"}}); }

ExtrinsicParameters parameters() {
  ExtrinsicParameters p;
  p.nonce = 300;
  p.tip = "70000";
  p.era = Era::mortal(64, 1000);
  p.genesis_hash.bytes.fill(1);
  p.checkpoint_hash.bytes.fill(2);
  p.spec_version = 461;
  p.transaction_version = 1;
  return p;
}

// The recorded runtime with one signed extension under a name nobody knows.
Metadata with_extension_renamed(std::string name, const std::string& to) {
  Bytes bytes = golden_metadata_bytes();
  name.insert(name.begin(), static_cast<char>(name.size() << 2));  // its SCALE string
  auto found = std::find_end(bytes.begin(), bytes.end(), name.begin(), name.end());
  EXPECT_NE(found, bytes.end());
  std::copy(to.begin(), to.end(), found + 1);
  return Metadata::parse(bytes);
}

TEST(Extrinsic, SignsSoThatItsOwnDecodingVerifies) {
  for (const KeyType type : {KeyType::ed25519, KeyType::sr25519}) {
    const Keypair pair = Keypair::generate(type);
    const Bytes bytes = sign_extrinsic(golden_metadata(), remark(), parameters(), pair);
    const DecodedExtrinsic decoded = decode_extrinsic(golden_metadata(), bytes);
    EXPECT_TRUE(decoded.is_signed);
    EXPECT_EQ(decoded.signer, pair.public_key());
    EXPECT_EQ(decoded.nonce, 300u);
    EXPECT_EQ(decoded.tip, "70000");
    EXPECT_EQ(decoded.era, parameters().era);
    EXPECT_EQ(decoded.call, remark());
    EXPECT_TRUE(verify_extrinsic(golden_metadata(), decoded, parameters()));
    ExtrinsicParameters other = parameters();
    other.genesis_hash.bytes[0] ^= 1;
    EXPECT_FALSE(verify_extrinsic(golden_metadata(), decoded, other));
    other = parameters();
    other.nonce = 301;
    EXPECT_FALSE(verify_extrinsic(golden_metadata(), decoded, other));
    EXPECT_EQ(extrinsic_to_json(golden_metadata(), bytes)["call"]["call_function"], "remark");
  }
}

TEST(Extrinsic, SignsTheHashOfAPayloadOver256Bytes) {
  const auto payload_of = [](std::size_t length) {
    const Bytes call = golden_metadata().encode_call(
        "System", "remark", {{"remark", "0x" + std::string(2 * length, '5')}});
    return signing_payload(golden_metadata(), call, parameters());
  };
  const std::size_t rest = payload_of(64).payload.size() - 64;
  EXPECT_EQ(payload_of(256 - rest).message.size(), 256u);
  EXPECT_EQ(payload_of(257 - rest).payload.size(), 257u);
  EXPECT_EQ(payload_of(257 - rest).message, blake2(payload_of(257 - rest).payload, 32));
}

TEST(Extrinsic, EraMatchesSubstrateForKnownBlocks) {
  struct Case {
    std::uint64_t period, current;
    const char* hex;
  };
  for (const Case& c : {Case{64, 1000001, "1500"},
                        {4, 7, "3100"},
                        {65536, 9999999, "7f96"},
                        {64, 42, "a502"},
                        {128, 12345, "9603"},
                        {64, 66, "2500"}}) {
    const Era era = Era::mortal(c.period, c.current);
    EXPECT_EQ(to_hex(era.encode()), c.hex);
    const Bytes bytes = era.encode();
    ScaleReader reader(bytes);
    EXPECT_EQ(Era::decode(reader), era);
    EXPECT_LE(era.birth(c.current), c.current);
    EXPECT_GT(era.death(c.current), c.current);
    EXPECT_EQ(era.death(c.current) - era.birth(c.current), era.period);
  }
  EXPECT_EQ(Era::mortal(50, 0).period, 64u);
  EXPECT_EQ(Era::mortal(1, 0).period, 4u);
  EXPECT_EQ(Era::mortal(1u << 20, 0).period, 65536u);
  EXPECT_EQ(Era::immortal().encode(), Bytes{0});
  const Bytes wrong = from_hex("4000");  // period 2
  ScaleReader reader(wrong);
  EXPECT_EQ(code_of([&] { Era::decode(reader); }), ErrorCode::scale_malformed);
}

TEST(Extrinsic, AsksForAValueOfAnExtensionItDoesNotKnow) {
  const Metadata strange = with_extension_renamed("CheckNonce", "ChuckNonce");
  EXPECT_EQ(code_of([&] { signing_payload(strange, remark(), parameters()); }),
            ErrorCode::metadata_unsupported);
  ExtrinsicParameters given = parameters();
  given.extensions["ChuckNonce"] = R"({"extra": 300})";
  EXPECT_EQ(signing_payload(strange, remark(), given).payload,
            signing_payload(golden_metadata(), remark(), parameters()).payload);
}

TEST(Extrinsic, NamesTheExtensionItHasNoValueFor) {
  try {
    signing_payload(with_extension_renamed("CheckNonce", "ChuckNonce"), remark(), parameters());
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("signed extension ChuckNonce wants a value"),
              std::string::npos)
        << error.what();
  }
}

// The recorded runtime with another type where an extrinsic says whose it is.
Metadata with_address_type(TypeId type) {
  const ExtrinsicFormat& format = golden_metadata().extrinsic();
  ScaleWriter from, to;
  from.u8(4);
  to.u8(4);
  for (const TypeId id : {format.address, format.call, format.signature}) {
    from.compact(id);
    to.compact(id == format.address ? type : id);
  }
  Bytes bytes = golden_metadata_bytes();
  const std::string magic = "meta";  // behind a length that will not be right any more
  bytes.erase(bytes.begin(), std::search(bytes.begin(), bytes.end(), magic.begin(), magic.end()));
  const auto found =
      std::find_end(bytes.begin(), bytes.end(), from.view().begin(), from.view().end());
  EXPECT_NE(found, bytes.end());
  Bytes patched(bytes.begin(), found);
  patched.insert(patched.end(), to.view().begin(), to.view().end());
  patched.insert(patched.end(), found + static_cast<std::ptrdiff_t>(from.view().size()),
                 bytes.end());
  return Metadata::parse(patched);
}

TEST(Extrinsic, WritesABareAccountWhereTheRuntimeTakesNoMultiAddress) {
  const auto account = golden_metadata().types().find("crypto::AccountId32");
  ASSERT_TRUE(account);
  const Metadata bare = with_address_type(*account);
  const Keypair pair = Keypair::from_seed(KeyType::ed25519, Bytes(32, 1));
  const Bytes usual = sign_extrinsic(golden_metadata(), remark(), parameters(), pair);
  const Bytes shorter = sign_extrinsic(bare, remark(), parameters(), pair);
  EXPECT_EQ(shorter.size() + 1, usual.size());  // no byte that says Id
  const DecodedExtrinsic decoded = decode_extrinsic(bare, shorter);
  EXPECT_EQ(decoded.signer, pair.public_key());
  EXPECT_TRUE(verify_extrinsic(bare, decoded, parameters()));
}

TEST(Extrinsic, RefusesAKeyWhoseSignaturesTheRuntimeDoesNotTake) {
  Bytes bytes = golden_metadata_bytes();
  const std::string name = "Sr25519", other = "Xr25519";
  auto found = bytes.begin();
  while ((found = std::search(found, bytes.end(), name.begin(), name.end())) != bytes.end()) {
    found = std::copy(other.begin(), other.end(), found);
  }
  const Metadata strange = Metadata::parse(bytes);
  const Keypair sr = Keypair::from_seed(KeyType::sr25519, Bytes(32, 1));
  const Keypair ed = Keypair::from_seed(KeyType::ed25519, Bytes(32, 1));
  EXPECT_EQ(code_of([&] { sign_extrinsic(strange, remark(), parameters(), sr); }),
            ErrorCode::metadata_unsupported);
  EXPECT_EQ(sign_extrinsic(strange, remark(), parameters(), ed),
            sign_extrinsic(golden_metadata(), remark(), parameters(), ed));
}

TEST(Extrinsic, LeavesOutExtensionsOfNoSizeWhateverTheirName) {
  const Metadata strange = with_extension_renamed("CheckWeight", "ChuckWeight");
  EXPECT_EQ(signing_payload(strange, remark(), parameters()).payload,
            signing_payload(golden_metadata(), remark(), parameters()).payload);
}

TEST(Extrinsic, RefusesDamagedOnes) {
  const Keypair pair = Keypair::from_uri(KeyType::sr25519, "//Alice");
  const Bytes good = sign_extrinsic(golden_metadata(), remark(), parameters(), pair);
  for (std::size_t length = 0; length < good.size(); ++length) {
    const Bytes cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length));
    EXPECT_EQ(code_of([&] { decode_extrinsic(golden_metadata(), cut); }),
              ErrorCode::scale_malformed);
  }
  Bytes version = good;
  version[2] = 0x83;
  EXPECT_EQ(code_of([&] { decode_extrinsic(golden_metadata(), version); }),
            ErrorCode::scale_malformed);
}

TEST(Extrinsic, MultisigAccountsDoNotDependOnOrderAndNeedAThreshold) {
  const PublicKey a = Keypair::from_uri(KeyType::sr25519, "//Alice").public_key();
  const PublicKey b = Keypair::from_uri(KeyType::sr25519, "//Bob").public_key();
  EXPECT_EQ(multisig_account({a, b}, 2), multisig_account({b, a}, 2));
  EXPECT_NE(multisig_account({a, b}, 1), multisig_account({a, b}, 2));
  EXPECT_EQ(code_of([&] { multisig_account({a}, 2); }), ErrorCode::key_invalid);
  EXPECT_EQ(code_of([&] { multisig_account({a}, 0); }), ErrorCode::key_invalid);
}

}  // namespace
}  // namespace yumoe

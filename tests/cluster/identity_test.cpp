#include "cluster/identity.hpp"

#include <gtest/gtest.h>
#include <sodium.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "cluster/error.hpp"
#include "identity/ristretto.hpp"

namespace yumoe {
namespace {

using nlohmann::json;

json read_json(const std::string& name) {
  std::ifstream file(std::string(YUMOE_SOURCE_DIR) + "/tests/conformance/data/" + name);
  EXPECT_TRUE(file.good()) << name;
  return json::parse(file);
}

KeyType type_of(const json& entry) {
  return entry.at("type") == "ed25519" ? KeyType::ed25519 : KeyType::sr25519;
}

ErrorCode code_of(auto&& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ErrorCode::usage;
}

Signature signature_of(const std::string& hex) {
  const Bytes bytes = from_hex(hex);
  Signature signature{};
  EXPECT_EQ(bytes.size(), signature.size());
  std::copy(bytes.begin(), bytes.end(), signature.begin());
  return signature;
}

TEST(Identity, DerivesTheRecordedKeysFromSeedsAndUris) {
  for (const json& entry : read_json("chain/extrinsics/keys.json")) {
    SCOPED_TRACE(entry.dump());
    if (entry["type"] == "raw") {  // no private key: only its addresses are recorded
      PublicKey key;
      const Bytes bytes = from_hex(entry["public"].get<std::string>());
      std::copy(bytes.begin(), bytes.end(), key.bytes.begin());
      EXPECT_EQ(to_ss58(key), entry["ss58_42"]);
      EXPECT_EQ(to_ss58(key, 13116), entry["ss58_13116"]);
      continue;
    }
    const Keypair pair =
        entry.contains("uri")
            ? Keypair::from_uri(type_of(entry), entry["uri"].get<std::string>())
            : Keypair::from_seed(type_of(entry), from_hex(entry["seed"].get<std::string>()));
    EXPECT_EQ("0x" + to_hex(pair.public_key().bytes), entry["public"]);
    EXPECT_EQ(to_ss58(pair.public_key()), entry["ss58_42"]);
    for (const int prefix : {0, 2, 13116}) {
      const std::string field = "ss58_" + std::to_string(prefix);
      if (!entry.contains(field)) continue;
      EXPECT_EQ(to_ss58(pair.public_key(), static_cast<std::uint16_t>(prefix)), entry[field]);
      EXPECT_EQ(from_ss58(entry[field].get<std::string>(), type_of(entry)), pair.public_key());
    }
  }
}

TEST(Identity, VerifiesTheRealClientsSr25519SignaturesAndRefusesTamperedOnes) {
  const json vectors = read_json("wallets/sr25519_vectors.json");
  for (const json& entry : vectors.at("sr25519")) {
    const Bytes message = from_hex(entry.at("msg").get<std::string>());
    Signature signature = signature_of(entry.at("sig"));
    PublicKey key;
    const Bytes bytes = from_hex(entry.at("pub").get<std::string>());
    std::copy(bytes.begin(), bytes.end(), key.bytes.begin());
    EXPECT_TRUE(verify(key, message, signature));
    for (const std::size_t at : {0u, 5u, 31u, 32u, 40u, 63u}) {
      signature[at] ^= 0x80;
      EXPECT_FALSE(verify(key, message, signature)) << at;
      signature[at] ^= 0x80;
    }
    key.bytes[3] ^= 1;
    EXPECT_FALSE(verify(key, message, signature));
  }
}

TEST(Identity, SignsSoThatBothKindsVerifyAndNoOtherMessageDoes) {
  for (const KeyType type : {KeyType::ed25519, KeyType::sr25519}) {
    const Keypair pair = Keypair::generate(type);
    for (const std::size_t length : {0u, 1u, 165u, 166u, 167u, 1000u}) {
      Bytes message(length, 0x5a);
      const Signature signature = pair.sign(message);
      EXPECT_TRUE(verify(pair.public_key(), message, signature)) << length;
      message.push_back(1);
      EXPECT_FALSE(verify(pair.public_key(), message, signature)) << length;
    }
  }
}

TEST(Identity, Ed25519RepeatsItselfAndSr25519DoesNot) {
  const Bytes seed(32, 7), message{1, 2, 3};
  const Keypair ed = Keypair::from_seed(KeyType::ed25519, seed);
  const Keypair sr = Keypair::from_seed(KeyType::sr25519, seed);
  EXPECT_EQ(ed.sign(message), ed.sign(message));
  EXPECT_NE(sr.sign(message), sr.sign(message));
}

TEST(Identity, RefusesTheIdentityAsAKey) {
  // With A = 0 the equation R = sB - cA holds for any s: anyone could sign.
  const Keypair pair = Keypair::generate(KeyType::sr25519);
  const Signature signature = pair.sign({});
  EXPECT_FALSE(verify(PublicKey{KeyType::sr25519, {}}, {}, signature));
}

TEST(Identity, OurPublicGroupArithmeticAgreesWithLibsodiums) {
  // s*B - c*A by libsodium, 200 random points, then each answer spoilt.
  for (int i = 0; i < 200; ++i) {
    ristretto::Encoded a, s, c, key, sb, ca, point;
    crypto_core_ristretto255_scalar_random(a.data());
    crypto_core_ristretto255_scalar_random(s.data());
    crypto_core_ristretto255_scalar_random(c.data());
    ASSERT_EQ(crypto_scalarmult_ristretto255_base(key.data(), a.data()), 0);
    ASSERT_EQ(crypto_scalarmult_ristretto255_base(sb.data(), s.data()), 0);
    ASSERT_EQ(crypto_scalarmult_ristretto255(ca.data(), c.data(), key.data()), 0);
    ASSERT_EQ(crypto_core_ristretto255_sub(point.data(), sb.data(), ca.data()), 0);
    EXPECT_TRUE(ristretto::equals_combination(point, s, c, key));
    point[i % 32] ^= 2;
    EXPECT_FALSE(ristretto::equals_combination(point, s, c, key));
  }
}

TEST(Identity, SoftAndHardJunctionsOfOneNameDiffer) {
  const Keypair soft = Keypair::from_uri(KeyType::sr25519, "//Alice/1");
  const Keypair again = Keypair::from_uri(KeyType::sr25519, "//Alice/+1");
  const Keypair hard = Keypair::from_uri(KeyType::sr25519, "//Alice//1");
  EXPECT_EQ(soft.public_key(), again.public_key());
  EXPECT_NE(soft.public_key(), hard.public_key());
  EXPECT_TRUE(verify(soft.public_key(), as_bytes("x"), soft.sign(as_bytes("x"))));
}

TEST(Identity, ReadsAMnemonicOfEveryLengthAndNamesWhatIsWrong) {
  const std::string twelve =
      "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
  EXPECT_EQ(to_ss58(Keypair::from_mnemonic(KeyType::sr25519, twelve).public_key()),
            "5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV");
  EXPECT_EQ(to_ss58(Keypair::from_uri(KeyType::sr25519, "//Alice").public_key()),
            "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
  std::string abandon;
  for (int i = 0; i < 23; ++i) abandon += "abandon ";
  EXPECT_NO_THROW(Keypair::from_mnemonic(KeyType::sr25519, abandon + "art"));
  for (const std::string& bad :
       {std::string("bottom drive obey"), abandon + "zoo",
        std::string("bottom drive obey lake curtain smoke basket hold race lonely fit walkx")}) {
    EXPECT_EQ(code_of([&] { Keypair::from_mnemonic(KeyType::sr25519, bad); }),
              ErrorCode::key_invalid);
  }
}

TEST(Identity, RefusesWhatIsNoKey) {
  const Bytes short_seed(31), high(64, 0xff), zero(64, 0);
  EXPECT_EQ(code_of([&] { Keypair::from_seed(KeyType::sr25519, short_seed); }),
            ErrorCode::key_invalid);
  EXPECT_EQ(code_of([&] { Keypair::from_expanded(high); }), ErrorCode::key_invalid);
  EXPECT_EQ(code_of([&] { Keypair::from_expanded(zero); }), ErrorCode::key_invalid);
  EXPECT_EQ(code_of([&] { Keypair::from_uri(KeyType::ed25519, "//Alice/soft"); }),
            ErrorCode::key_invalid);
  EXPECT_EQ(code_of([&] { Keypair::from_uri(KeyType::sr25519, "0x1234"); }),
            ErrorCode::key_invalid);
  EXPECT_EQ(code_of([&] { Keypair::from_uri(KeyType::sr25519, "//Alice//"); }),
            ErrorCode::key_invalid);
  for (const char* address : {"", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ", "0OIl",
                              "5Grwva", "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQYY"}) {
    EXPECT_EQ(code_of([&] { from_ss58(address); }), ErrorCode::key_invalid) << address;
  }
}

}  // namespace
}  // namespace yumoe

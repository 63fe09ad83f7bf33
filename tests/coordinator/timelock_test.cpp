// What timelocked weights promise: the real client's bytes are read, ours have its form, and no
// other signature and no altered byte opens them.

#include "coordinator/timelock.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "cluster/error.hpp"
#include "cluster/random.hpp"

namespace yumoe {
namespace {

ErrorCode code_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::invariant_broken;  // stands for "did not throw"
}

class Timelock : public ::testing::Test {
 protected:
  static Bytes hex(const char* name) { return from_hex(vector()[name].get<std::string>()); }
  static const nlohmann::json& vector() {
    static const nlohmann::json json = [] {
      std::ifstream in("tests/conformance/data/chain/timelock_round1000.json");
      return nlohmann::json::parse(in);
    }();
    return json;
  }
  const Bytes signature = hex("drand_quicknet_signature");
  const Bytes inner = hex("inner_hex");
};

TEST_F(Timelock, OpensTheRealClientsEnvelope) {
  const TimelockEnvelope envelope = timelock_envelope_from(hex("envelope_hex"));
  EXPECT_EQ(envelope.round, 1000u);
  EXPECT_EQ(envelope.sealed, inner);
  const Bytes plain = timelock_open(envelope.sealed, signature);
  EXPECT_EQ(std::string(plain.begin(), plain.end()), "hello weights");
}

TEST_F(Timelock, WritesTheEnvelopeTheRealClientWrote) {
  EXPECT_EQ(to_bytes(TimelockEnvelope{inner, 1000}), hex("envelope_hex"));
}

TEST_F(Timelock, OpensWhatItSealedAndTwoSealsDiffer) {
  for (const std::size_t size : {0u, 1u, 63u, 4'000u}) {
    const Bytes plain(size, 0x5a);
    const Bytes sealed = timelock_seal(plain, 1000);
    EXPECT_EQ(sealed.size(), 96 + 40 + 40 + 8 + 8 + size + 16 + 8 + 12 + 8 + 8);
    EXPECT_EQ(timelock_open(sealed, signature), plain);
    EXPECT_NE(timelock_seal(plain, 1000), sealed);
  }
}

TEST_F(Timelock, EqualRandomInputsGiveEqualBytes) {
  TimelockRandom random;
  random.key.fill(1);
  random.sigma.fill(2);
  const Bytes plain{1, 2, 3};
  EXPECT_EQ(timelock_seal(plain, 1000, random), timelock_seal(plain, 1000, random));
  EXPECT_EQ(timelock_open(timelock_seal(plain, 1000, random), signature), plain);
}

TEST_F(Timelock, StaysClosedForTheSignatureOfAnotherRound) {
  EXPECT_EQ(code_of([&] { timelock_open(timelock_seal(inner, 1001), signature); }),
            ErrorCode::signature_invalid);
}

TEST_F(Timelock, KnowsTheSignatureOfItsRoundAndNoOther) {
  EXPECT_TRUE(drand_signature_valid(1000, signature));
  EXPECT_FALSE(drand_signature_valid(1001, signature));
  EXPECT_FALSE(drand_signature_valid(0, signature));
  Bytes altered = signature;
  altered[20] ^= 1;
  EXPECT_FALSE(drand_signature_valid(1000, altered));
  EXPECT_FALSE(drand_signature_valid(1000, Bytes(48, 0)));
  EXPECT_FALSE(drand_signature_valid(1000, Bytes{}));
  Bytes infinity(48, 0);
  infinity[0] = 0xc0;
  EXPECT_FALSE(drand_signature_valid(1000, infinity));
}

TEST_F(Timelock, RefusesEveryAlteredByteByName) {
  for (std::size_t i = 0; i < inner.size(); i += 5) {
    Bytes altered = inner;
    altered[i] ^= 0x10;
    const ErrorCode code = code_of([&] { timelock_open(altered, signature); });
    EXPECT_TRUE(code == ErrorCode::signature_invalid || code == ErrorCode::message_malformed) << i;
  }
}

TEST_F(Timelock, RefusesEveryShorterAndLongerMessage) {
  for (std::size_t size = 0; size < inner.size(); ++size) {
    EXPECT_EQ(code_of([&] { timelock_open(ByteView(inner).first(size), signature); }),
              ErrorCode::message_malformed);
  }
  Bytes longer = inner;
  longer.push_back(0);
  EXPECT_EQ(code_of([&] { timelock_open(longer, signature); }), ErrorCode::message_malformed);
  const Bytes envelope = hex("envelope_hex");
  for (std::size_t size = 0; size < envelope.size(); ++size) {
    EXPECT_EQ(code_of([&] { timelock_envelope_from(ByteView(envelope).first(size)); }),
              ErrorCode::message_malformed);
  }
}

TEST_F(Timelock, RefusesLengthsThatOverflow) {
  Bytes altered = inner;
  for (int i = 0; i < 8; ++i) altered[96 + i] = 0xff;  // V claims 2^64 - 1 bytes
  EXPECT_EQ(code_of([&] { timelock_open(altered, signature); }), ErrorCode::message_malformed);
}

TEST_F(Timelock, WeightsPayloadIsTheScaleOfItsFields) {
  const Bytes hotkey(32, 0xaa);
  const std::uint16_t uids[] = {1, 258};
  const std::uint16_t values[] = {65535, 7};
  EXPECT_EQ(to_hex(timelock_weights_payload(hotkey, uids, values, 5)),
            "80" + to_hex(hotkey) + "0801000201" + "08ffff0700" + "0500000000000000");
}

TEST_F(Timelock, RoundsFollowQuicknetsCalendar) {
  EXPECT_EQ(drand_round_time(1), TimeMs{kDrandGenesisSeconds * 1000});
  EXPECT_EQ(drand_round_time(1000), TimeMs{(kDrandGenesisSeconds + 2997) * 1000});
  const TimeMs now = drand_round_time(1000);
  // 10 blocks and the margin of 3, 12 s each: 156 s, 52 rounds on from 999 whole periods.
  EXPECT_EQ(drand_reveal_round(now, 10, std::chrono::seconds(12)), 999u + 52u);
  EXPECT_EQ(drand_reveal_round(TimeMs{0}, 0, std::chrono::seconds(12)), 1u);
}

TEST_F(Timelock, AWeightsCommitOf256UidsFitsTheChainsLimit) {
  std::vector<std::uint16_t> uids(256), values(256, 65535);
  for (std::uint16_t i = 0; i < 256; ++i) uids[i] = i;
  const Bytes hotkey(32, 1);
  EXPECT_LE(timelock_seal(timelock_weights_payload(hotkey, uids, values, 0), 1000).size(),
            kTimelockCommitBytesMax);
}

}  // namespace
}  // namespace yumoe

// What the protocol promises: values survive, signatures bind, and no byte string does harm.

#include "router/protocol.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sodium.h>

#include <limits>

#include "cluster/error.hpp"
#include "cluster/random.hpp"

namespace yumoe {
namespace {

TrainingShard sample_shard() {
  TrainingShard shard;
  shard.round = {7};
  shard.uid = {3};
  shard.seed = 42;
  shard.data = {100, 80};
  shard.inner_steps = 10;
  shard.steps_before = 60;
  shard.experts = {0, 2, 5};
  return shard;
}

Directive sample_directive() {
  Directive d;
  d.sequence = 9;
  d.round = {7};
  d.version = {6};
  d.aggregates = {{{6}, digest_of(as_bytes("a")), digest_of(as_bytes("b"))}};
  d.shard = sample_shard();
  d.commit_deadline = {123'456};
  d.answer = Answer::committed;
  d.reveal_wanted = true;
  d.evaluate = {{5}, digest_of(as_bytes("c")), {99}, {{sample_shard(), digest_of(as_bytes("d"))}}};
  d.standing = {0.5, 0.25, 65'535, 1, 4};
  d.reason = "late";
  return d;
}

TEST(Protocol, DirectivesSurviveTheWire) {
  const auto back =
      std::get<Directive>(decode_to_participant(encode(ToParticipant{sample_directive()})));
  EXPECT_EQ(back.shard, sample_shard());
  EXPECT_EQ(back.answer, Answer::committed);
  EXPECT_TRUE(back.reveal_wanted);
  ASSERT_EQ(back.aggregates.size(), 1u);
  EXPECT_EQ(back.aggregates[0].version, digest_of(as_bytes("b")));
  ASSERT_EQ(back.evaluate.contributions.size(), 1u);
  EXPECT_EQ(back.evaluate.contributions[0].shard, sample_shard());
  EXPECT_EQ(back.standing.weight, 65'535);
  EXPECT_EQ(back.reason, "late");
}

TEST(Protocol, AuditsAndExpertsSurviveTheWire) {
  Scores scores{
      {5}, 1, 3, 1, {{{1}, Verdict::measured, {}, {3, 0.1, 0.01, 16}, {{2, {3, 0.02, 0.01, 16}}}}},
      {}};
  scores.audits.push_back({{4}, {5}, AuditVerdict::different, 7, digest_of_shard(sample_shard())});
  const auto message = decode_to_coordinator(encode(ToCoordinator{scores}));
  const Scores& back = std::get<Scores>(message);
  ASSERT_EQ(back.entries.at(0).experts.size(), 1u);
  EXPECT_EQ(back.entries[0].experts[0].expert, 2u);
  EXPECT_EQ(back.entries[0].experts[0].measurement.reduction, 0.02);
  ASSERT_EQ(back.audits.size(), 1u);
  EXPECT_EQ(back.audits[0].verdict, AuditVerdict::different);
  EXPECT_EQ(back.audits[0].first_step, 7u);
  EXPECT_EQ(back.audits[0].delta, digest_of_shard(sample_shard()));
  scores.entries[0].experts.push_back({2, {}});  // the same expert twice
  EXPECT_THROW(decode_to_coordinator(encode(ToCoordinator{scores})), Error);
}

TEST(Protocol, ContributionsSurviveTheWire) {
  Contribution c{
      {7}, {3}, digest_of_shard(sample_shard()), {}, 10, 800, 1.5, 8, 7, {1, 2, 3}, {9, 8},
      {},  {5}};
  const Contribution back = decode_contribution(encode(c));
  EXPECT_EQ(back.shard, c.shard);
  EXPECT_EQ(back.expert_tokens, c.expert_tokens);
  EXPECT_EQ(back.update, c.update);
  EXPECT_EQ(back.seconds, 1.5);
  EXPECT_EQ(back.moments_from, RoundId{5});
  for (const std::uint64_t never : {std::uint64_t{0}, std::uint64_t{8}}) {
    c.moments_from = {never};
    EXPECT_THROW(decode_contribution(encode(c)), Error) << never;
  }
}

TEST(Protocol, ProfilesAndProbesSurviveTheWire_AndProbesAskForNoMoreThanAPiece) {
  Join join{Role::worker,
            {1, 2, 3, 4, 5, 6, "known", "eu", "cpu", 7, true, "less memory than it said"},
            "miner"};
  const auto back = std::get<Join>(decode_to_coordinator(encode(ToCoordinator{join})));
  EXPECT_EQ(back.profile, join.profile);
  const auto probe =
      std::get<Probe>(decode_to_coordinator(encode(ToCoordinator{Probe{9, 1 << 20}})));
  EXPECT_EQ(probe.number, 9u);
  EXPECT_EQ(probe.wanted_bytes, 1u << 20);
  EXPECT_THROW(decode_to_coordinator(encode(ToCoordinator{Probe{9, (1 << 20) + 1}})), Error);
}

TEST(Protocol, ShardDigestCoversEveryField) {
  const Digest digest = digest_of_shard(sample_shard());
  TrainingShard changed = sample_shard();
  changed.experts = {0, 2, 6};
  EXPECT_NE(digest_of_shard(changed), digest);
  changed = sample_shard();
  changed.seed ^= 1;
  EXPECT_NE(digest_of_shard(changed), digest);
}

class Envelopes : public ::testing::Test {
 protected:
  Keypair keys = Keypair::from_uri(KeyType::sr25519, "//Alice");
  Nonce nonce = [] {
    Nonce n;
    n.fill(5);
    return n;
  }();
  Bytes sealed = seal(keys, nonce, 1, {1'000}, encode(ToCoordinator{Commit{{7}, {}, 10}}));
};

TEST_F(Envelopes, VerifyAsSealed) {
  const Envelope envelope = open_envelope(sealed);
  EXPECT_TRUE(is_signed(envelope));
  EXPECT_EQ(envelope.sender, keys.public_key());
  EXPECT_EQ(std::get<Commit>(decode_to_coordinator(envelope.body)).bytes, 10u);
}

TEST_F(Envelopes, DoNotVerifyWithAnythingChanged) {
  Envelope envelope = open_envelope(sealed);
  ++envelope.sequence;
  EXPECT_FALSE(is_signed(envelope));
  envelope = open_envelope(sealed);
  envelope.challenge[0] ^= 1;
  EXPECT_FALSE(is_signed(envelope));
  envelope = open_envelope(sealed);
  envelope.body.back() ^= 1;
  EXPECT_FALSE(is_signed(envelope));
  envelope = open_envelope(sealed);
  envelope.time.value += 1;
  EXPECT_FALSE(is_signed(envelope));
  envelope = open_envelope(sealed);
  envelope.sender = Keypair::from_uri(KeyType::sr25519, "//Bob").public_key();
  EXPECT_FALSE(is_signed(envelope));
}

TEST_F(Envelopes, OfAnotherVersionAreNamed) {
  // The version is the first two bytes of the struct's data section, after the 8-byte segment table
  // and the 8-byte root pointer.
  sealed[16] = 99;
  try {
    open_envelope(sealed);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::version_mismatch);
  }
}

template <typename Decode>
void survives_damage(Bytes good, const Decode& decode) {
  Random random(7);
  for (int i = 0; i < 3'000; ++i) {
    Bytes bad = good;
    const auto flips = 1 + random.below(4);
    for (std::uint64_t f = 0; f < flips; ++f) {
      bad[random.below(bad.size())] ^= static_cast<std::uint8_t>(1 + random.below(255));
    }
    if (random.below(4) == 0) bad.resize(random.below(bad.size()));
    try {
      decode(bad);
    } catch (const Error& error) {
      EXPECT_THAT(error.code(),
                  ::testing::AnyOf(ErrorCode::message_malformed, ErrorCode::version_mismatch));
    }
  }
}

TEST(Protocol, DamagedMessagesGiveAValueOrANamedError) {
  survives_damage(encode(ToParticipant{sample_directive()}),
                  [](const Bytes& b) { decode_to_participant(b); });
  Scores scores{{5}, 1, 3, 1, {{{1}, Verdict::measured, {3, 0.1, 0.01, 16}, {3, 0.1, 0.01, 16}}}};
  survives_damage(encode(ToCoordinator{scores}), [](const Bytes& b) { decode_to_coordinator(b); });
  survives_damage(encode(Contribution{{1}, {1}, {}, {}, 1, 1, 1, 1, 1, {1, 2}, {1, 2, 3}, {}, {1}}),
                  [](const Bytes& b) { decode_contribution(b); });
}

TEST(Protocol, RefusesNumbersThatAreNone) {
  Scores scores{{5}, 1, 3, 1, {{{1}, Verdict::measured, {}, {3, 0.1, 0.01, 16}}}};
  scores.entries[0].private_draw.reduction = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(decode_to_coordinator(encode(ToCoordinator{scores})), Error);
  Heartbeat beat;
  beat.loss = std::numeric_limits<double>::infinity();
  EXPECT_THROW(decode_to_coordinator(encode(ToCoordinator{beat})), Error);
  scores.entries[0].private_draw.reduction = 0.1;
  scores.entries.push_back(scores.entries[0]);  // the same uid twice
  EXPECT_THROW(decode_to_coordinator(encode(ToCoordinator{scores})), Error);
}

TEST(Protocol, AHeldoutLossThatWasNotMeasuredIsLegal) {
  Scores scores{{5}, 1, std::numeric_limits<double>::quiet_NaN(), 1, {}};
  EXPECT_NO_THROW(decode_to_coordinator(encode(ToCoordinator{scores})));
}

}  // namespace
}  // namespace yumoe

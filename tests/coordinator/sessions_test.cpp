// What a connection must do to be listened to, and what it costs to break a rule.

#include "service/sessions.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

using ::testing::HasSubstr;

class OneConnection : public ::testing::Test {
 protected:
  // As frames from `peer`; its CURVE key is made of its name.
  Sessions::Outcome admit(Bytes envelope, std::optional<Bytes> payload = {}) {
    Received received;
    received.peer = peer;
    received.client_key[0] = static_cast<std::uint8_t>(peer.back());
    received.frames.push_back(std::move(envelope));
    if (payload) received.frames.push_back(std::move(*payload));
    kept = received;  // the frames outlive what looks into them
    return sessions.admit(kept, now);
  }
  Bytes sealed(std::uint64_t sequence, const ToCoordinator& message = Heartbeat{}) {
    return seal(keys, nonce, sequence, now, encode(message));
  }
  void shake_hands() {
    const auto outcome = admit(seal_unsigned(0, now, encode(ToCoordinator{Hello{}})));
    const auto* reply = std::get_if<Sessions::Reply>(&outcome);
    ASSERT_NE(reply, nullptr);
    nonce = std::get<Challenge>(reply->content).nonce;
  }
  // The refusal's code; "" if it was none.
  static std::string refused(const Sessions::Outcome& outcome) {
    const auto* reply = std::get_if<Sessions::Reply>(&outcome);
    const auto* refusal = reply == nullptr ? nullptr : std::get_if<Refusal>(&reply->content);
    return refusal == nullptr ? "" : refusal->code + ": " + refusal->message;
  }
  static bool is_taken(const Sessions::Outcome& outcome) {
    return std::holds_alternative<Sessions::Message>(outcome);
  }

  Sessions sessions{"run"};
  Peer peer = "a";
  TimeMs now{1'000'000};
  Keypair keys = Keypair::from_seed(KeyType::ed25519, Bytes(32, 1));
  Nonce nonce{};
  Received kept;
};

TEST_F(OneConnection, IsHeardOnceItSignsTheChallenge) {
  shake_hands();
  const auto outcome = admit(sealed(1));
  ASSERT_TRUE(is_taken(outcome));
  EXPECT_EQ(std::get<Sessions::Message>(outcome).session->hotkey, keys.public_key());
}

TEST_F(OneConnection, IsRefusedWhatItSaidBefore) {
  shake_hands();
  const Bytes said = sealed(1);
  ASSERT_TRUE(is_taken(admit(said)));
  ASSERT_TRUE(is_taken(admit(sealed(2))));
  EXPECT_THAT(refused(admit(said)), HasSubstr("replayed"));
}

TEST_F(OneConnection, CannotUseWhatWasSaidOnAnother) {
  shake_hands();
  const Bytes said = sealed(1);
  ASSERT_TRUE(is_taken(admit(said)));
  // The same signed bytes from elsewhere carry no challenge of that connection.
  peer = "b";
  const Nonce first = nonce;
  shake_hands();
  ASSERT_NE(nonce, first);
  EXPECT_FALSE(is_taken(admit(said)));
}

TEST_F(OneConnection, IsRefusedAForgedSignature) {
  shake_hands();
  Envelope envelope = open_envelope(sealed(1, Leave{"bye"}));
  const Keypair other = Keypair::from_seed(KeyType::ed25519, Bytes(32, 2));
  Bytes bytes = seal(other, nonce, 1, now, envelope.body);
  // Somebody else's signature under this hotkey's name.
  const auto& own = keys.public_key().bytes;
  const auto& theirs = other.public_key().bytes;
  const auto at = std::search(bytes.begin(), bytes.end(), theirs.begin(), theirs.end());
  ASSERT_NE(at, bytes.end());
  std::copy(own.begin(), own.end(), at);
  EXPECT_THAT(refused(admit(bytes)), HasSubstr(std::string(name_of(ErrorCode::signature_invalid))));
}

TEST_F(OneConnection, IsRefusedUnsignedWordsAndASecondHotkey) {
  shake_hands();
  Bytes changed = sealed(1, Leave{"the reason"});
  const std::string_view word = "the reason";
  const auto at = std::search(changed.begin(), changed.end(), word.begin(), word.end());
  ASSERT_NE(at, changed.end());
  *at ^= 1;
  EXPECT_THAT(refused(admit(changed)),
              HasSubstr(std::string(name_of(ErrorCode::signature_invalid))));

  now.value += 60'000;
  shake_hands();
  ASSERT_TRUE(is_taken(admit(sealed(1))));
  keys = Keypair::from_seed(KeyType::ed25519, Bytes(32, 3));
  EXPECT_THAT(refused(admit(sealed(2))), HasSubstr("another hotkey"));
}

TEST_F(OneConnection, IsRefusedGarbageTruncationAndTooMuch) {
  const auto fresh = [&] {
    now.value += 60'000;
    shake_hands();
  };
  fresh();
  Bytes cut = sealed(1);
  cut.resize(cut.size() / 2);
  EXPECT_NE(refused(admit(cut)), "");
  fresh();
  EXPECT_NE(refused(admit(Bytes(100, 0xff))), "");
  fresh();
  EXPECT_THAT(refused(admit(sealed(1), Bytes(kPieceBytesMax + 1))),
              HasSubstr(std::string(name_of(ErrorCode::message_too_large))));
  fresh();
  EXPECT_TRUE(is_taken(admit(sealed(1), Bytes(kPieceBytesMax))));
}

TEST_F(OneConnection, WhoBreaksARuleIsNotListenedToForAWhile) {
  shake_hands();
  EXPECT_NE(refused(admit(Bytes(10, 0))), "");
  const Bytes hello = seal_unsigned(0, now, encode(ToCoordinator{Hello{}}));
  EXPECT_TRUE(std::holds_alternative<Sessions::Ignored>(admit(hello)));
  now.value += std::chrono::milliseconds(Sessions::kPenalty).count();
  shake_hands();
  EXPECT_TRUE(is_taken(admit(sealed(1))));
}

TEST_F(OneConnection, TellsHowFarItsClockIsOff) {
  shake_hands();
  const auto outcome = admit(
      seal(keys, nonce, 1, TimeMs{now.value + 3'600'000}, encode(ToCoordinator{Heartbeat{}})));
  ASSERT_TRUE(is_taken(outcome));
  EXPECT_EQ(std::get<Sessions::Message>(outcome).session->clock_skew_ms, 3'600'000);
}

}  // namespace
}  // namespace yumoe

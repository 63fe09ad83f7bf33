// What a connection may send: honest traffic passes at any pace, a flood ends with its evidence.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "router/protocol.hpp"
#include "service/sessions.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

class SessionRate : public ::testing::Test {
 protected:
  Sessions sessions{"run", {100, 200}};
  TimeMs now{1'000};
  Received hello{Peer{}, CurveKey{}, {seal_unsigned(0, TimeMs{0}, encode(ToCoordinator{Hello{}}))}};

  bool floods() { return std::holds_alternative<Sessions::Flood>(sessions.admit(hello, now)); }
};

TEST_F(SessionRate, LetsABurstThroughAndASteadyPaceForEver) {
  for (int i = 0; i < 190; ++i) ASSERT_FALSE(floods()) << i;
  now = now + milliseconds(5'000);
  for (int i = 0; i < 10'000; ++i) {
    now = now + milliseconds(10);  // 100 a second
    ASSERT_FALSE(floods()) << i;
  }
}

TEST_F(SessionRate, EndsAFloodWithEvidenceAndHearsNothingForAWhile) {
  int sent = 0;
  Sessions::Outcome outcome;
  do {
    outcome = sessions.admit(hello, now);
  } while (++sent < 1'000 && !std::holds_alternative<Sessions::Flood>(outcome));
  EXPECT_NEAR(sent, 202, 2);
  EXPECT_THAT(std::get<Sessions::Flood>(outcome).evidence, ::testing::HasSubstr("200 messages"));
  EXPECT_TRUE(std::holds_alternative<Sessions::Ignored>(sessions.admit(hello, now)));
  now = now + Sessions::kPenalty + milliseconds(1);
  EXPECT_TRUE(std::holds_alternative<Sessions::Reply>(sessions.admit(hello, now)));
}

}  // namespace
}  // namespace yumoe

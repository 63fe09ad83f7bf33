// Dispatch of rows to experts elsewhere, decided on paper: credits, merging, deadlines, hedging, masking.

#include "router/dispatch.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "router/expert_message.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Time = Dispatcher::Time;

DispatchOptions quick() {
  DispatchOptions options;
  options.deadline_max_ms = 100;
  options.rest_ms = 1'000;
  return options;
}

const ExpertKey kExpert{.layer = 0, .expert = 3};

TEST(Dispatch, SendsNoMoreThanAServerGaveCreditsFor) {
  Dispatcher dispatcher(quick(), 1);
  dispatcher.set_replicas(0, 3, {0});
  for (int i = 0; i < 3; ++i) {
    dispatcher.add(Time(0), kExpert, 4'096);  // full: nothing merges
  }
  const auto sends = dispatcher.due(Time(0));
  ASSERT_EQ(sends.size(), 2U);
  EXPECT_THAT(dispatcher.due(Time(1)), IsEmpty());
  dispatcher.answered(Time(1'000), sends[0].request, 1);  // from now on one at a time
  EXPECT_THAT(dispatcher.due(Time(1'000)), IsEmpty());
  dispatcher.answered(Time(2'000), sends[1].request, 1);
  EXPECT_EQ(dispatcher.due(Time(2'000)).size(), 1U);
}

TEST(Dispatch, MergesCallsOfSeveralCallersForOneExpert) {
  Dispatcher dispatcher(quick(), 1);
  dispatcher.set_replicas(0, 3, {0});
  dispatcher.set_replicas(0, 4, {0});
  const auto a = dispatcher.add(Time(0), kExpert, 10);
  const auto b = dispatcher.add(Time(0), {.layer = 0, .expert = 4}, 10);
  const auto c = dispatcher.add(Time(0), kExpert, 20);
  const auto sends = dispatcher.due(Time(0));
  ASSERT_EQ(sends.size(), 2U);
  EXPECT_THAT(sends[0].calls, ElementsAre(a, c));
  EXPECT_THAT(sends[1].calls, ElementsAre(b));
  EXPECT_THAT(dispatcher.answered(Time(10), sends[0].request, 2), ElementsAre(a, c));
}

TEST(Dispatch, AsksAReplicaWhenAnAnswerIsLateAndTakesTheFirst) {
  Dispatcher dispatcher(quick(), 2);
  dispatcher.set_replicas(0, 3, {0, 1});
  const auto call = dispatcher.add(Time(0), kExpert, 1);
  const auto first = dispatcher.due(Time(0));
  ASSERT_EQ(first.size(), 1U);
  EXPECT_EQ(dispatcher.next_time(), Time(100'000));
  EXPECT_THAT(dispatcher.due(Time(99'999)), IsEmpty());
  const auto hedge = dispatcher.due(Time(100'000));
  ASSERT_EQ(hedge.size(), 1U);
  EXPECT_NE(hedge[0].server, first[0].server);
  // The late one comes after all, before the replica's.
  EXPECT_THAT(dispatcher.answered(Time(110'000), first[0].request, 2), ElementsAre(call));
  EXPECT_THAT(dispatcher.answered(Time(120'000), hedge[0].request, 2), IsEmpty());
  EXPECT_EQ(dispatcher.next_time(), std::nullopt);
}

TEST(Dispatch, LeavesABusyServerAloneForLongerEachTimeAndAsksAnotherMeanwhile) {
  Dispatcher dispatcher(quick(), 2);
  dispatcher.set_replicas(0, 3, {0});
  dispatcher.set_replicas(0, 4, {0, 1});
  const auto call = dispatcher.add(Time(0), kExpert, 1);
  Time now(0);
  for (const int pause : {20, 40, 80, 160}) {
    const auto sends = dispatcher.due(now);
    ASSERT_EQ(sends.size(), 1U) << pause;
    dispatcher.busy(now, sends[0].request);
    EXPECT_EQ(dispatcher.next_time(), now + milliseconds(pause));
    EXPECT_THAT(dispatcher.due(now + milliseconds(pause) - Time(1)), IsEmpty());
    EXPECT_FALSE(dispatcher.is_masked(now, 0, 3)) << "it is there";
    now += milliseconds(pause);
  }
  dispatcher.busy(now, dispatcher.due(now).at(0).request);
  dispatcher.add(now, {.layer = 0, .expert = 4}, 1);
  const auto other = dispatcher.due(now);
  EXPECT_EQ(other.at(0).server, 1U);
  dispatcher.answered(now + milliseconds(5), other.at(0).request, 2);
  now += milliseconds(320);
  EXPECT_THAT(dispatcher.answered(now, dispatcher.due(now).at(0).request, 2), ElementsAre(call));
  // Once it has answered it is as any other.
  dispatcher.add(now, kExpert, 1);
  dispatcher.busy(now, dispatcher.due(now).at(0).request);
  now += milliseconds(20);
  EXPECT_EQ(dispatcher.due(now).size(), 1U);
}

TEST(Dispatch, GivesUpACallForAServerThatIsBusyForEver) {
  Dispatcher dispatcher(quick(), 1);
  dispatcher.set_replicas(0, 3, {0});
  const auto call = dispatcher.add(Time(0), kExpert, 1);
  Time now(0);
  for (int round = 0; round < 20; ++round) {
    for (const auto& send : dispatcher.due(now)) dispatcher.busy(now, send.request);
    if (const auto next = dispatcher.next_time()) now = std::max(now, *next);
  }
  EXPECT_THAT(dispatcher.given_up(now), ElementsAre(call));
  EXPECT_LT(now, milliseconds(8'000));
}

TEST(Dispatch, TakesDeadlinesFromWhatAServerNeeded) {
  Dispatcher dispatcher(quick(), 1);
  dispatcher.set_replicas(0, 3, {0});
  EXPECT_EQ(dispatcher.deadline_of(0), milliseconds(100));
  Time now(0);
  for (int i = 0; i < 20; ++i) {
    dispatcher.add(now, kExpert, 1);
    const auto sends = dispatcher.due(now);
    now += milliseconds(20 + i % 3);
    dispatcher.answered(now, sends.at(0).request, 2);
  }
  EXPECT_GT(dispatcher.deadline_of(0), milliseconds(30));
  EXPECT_LT(dispatcher.deadline_of(0), milliseconds(60));
}

TEST(Dispatch, MasksAnExpertWhoseServersAreDeadAndTriesThemAgainAfterARest) {
  DispatchOptions options = quick();
  options.strikes_max = 2;
  Dispatcher dispatcher(options, 2);
  dispatcher.set_replicas(0, 3, {0, 1});
  const auto call = dispatcher.add(Time(0), kExpert, 1);
  Time now(0);
  std::vector<Dispatcher::CallId> lost;
  while (lost.empty() && now < Time(10'000'000)) {
    dispatcher.due(now);
    lost = dispatcher.given_up(now);
    now += milliseconds(10);
  }
  EXPECT_THAT(lost, ElementsAre(call));
  EXPECT_TRUE(dispatcher.is_masked(now, 0, 3));
  const auto next = dispatcher.add(now, kExpert, 1);
  EXPECT_THAT(dispatcher.given_up(now), ElementsAre(next)) << "a dead expert costs no time";
  now += milliseconds(2'000);
  EXPECT_FALSE(dispatcher.is_masked(now, 0, 3));
  const auto again = dispatcher.add(now, kExpert, 1);
  const auto probe = dispatcher.due(now);
  ASSERT_EQ(probe.size(), 1U);
  EXPECT_THAT(dispatcher.answered(now + milliseconds(1), probe[0].request, 2), ElementsAre(again));
}

TEST(Dispatch, GivesUpACallForAnExpertThatNobodyHolds) {
  Dispatcher dispatcher(quick(), 1);
  const auto call = dispatcher.add(Time(0), {.layer = 9, .expert = 9}, 1);
  EXPECT_THAT(dispatcher.given_up(Time(0)), ElementsAre(call));
}

TEST(Dispatch, AnswersEveryCallWhenATenthIsLostAndSomeAreASecondLate) {
  DispatchOptions options = quick();
  options.deadline_max_ms = 500;
  Dispatcher dispatcher(options, 2);
  dispatcher.set_replicas(0, 3, {0, 1});
  Random random(7);
  std::multimap<Time, Dispatcher::RequestId> arriving;
  std::set<Dispatcher::CallId> open;
  std::size_t answered = 0;
  Time now(0);
  for (int step = 0; answered < 2'000 && step < 2'000'000; ++step, now += Time(500)) {
    if (open.size() < 4) open.insert(dispatcher.add(now, kExpert, 1));
    for (const Dispatcher::Send& send : dispatcher.due(now)) {
      const double luck = random.uniform();
      if (luck < 0.1) continue;  // lost
      arriving.emplace(now + (luck < 0.12 ? milliseconds(1'000) : milliseconds(5)), send.request);
    }
    while (!arriving.empty() && arriving.begin()->first <= now) {
      for (const auto call : dispatcher.answered(now, arriving.begin()->second, 2)) {
        EXPECT_EQ(open.erase(call), 1U) << "answered twice";
        ++answered;
      }
      arriving.erase(arriving.begin());
    }
    ASSERT_THAT(dispatcher.given_up(now), IsEmpty());
  }
  EXPECT_EQ(answered, 2'000U);
}

TEST(Dispatch, SpreadsTheWeightOfWhatDidNotAnswer) {
  std::vector<float> weights = {0.5F, 0.3F, 0.2F};
  EXPECT_TRUE(renormalise(weights, {true, false, true}));
  EXPECT_FLOAT_EQ(weights[0], 0.5F / 0.7F);
  EXPECT_EQ(weights[1], 0.0F);
  EXPECT_FLOAT_EQ(weights[2], 0.2F / 0.7F);
  EXPECT_FALSE(renormalise(weights, {false, false, false}));
  EXPECT_EQ(weights[0] + weights[2], 0.0F);
}

TEST(ExpertMessage, ComesBackAsItWasAndRefusesWhatIsDamaged) {
  ExpertCall call{.id = 7,
                  .backward = true,
                  .version = digest_of(as_bytes("v")),
                  .layer = 1,
                  .expert = 2,
                  .rows = 2,
                  .width = 3,
                  .keep = false,
                  .forward_id = 0};
  Bytes payload(2 * 2 * 3 * 4, 1);
  const std::vector<Bytes> frames = encode(call, payload);
  const ExpertCall read = decode_expert_call(frames);
  EXPECT_EQ(read.id, 7U);
  EXPECT_TRUE(read.backward);
  EXPECT_EQ(read.version, call.version);
  const auto code_of = [](std::vector<Bytes> bad) {
    try {
      decode_expert_call(bad);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::usage;
  };
  std::vector<Bytes> bad = frames;
  bad[1][5] ^= 1;
  EXPECT_EQ(code_of(bad), ErrorCode::digest_mismatch);
  bad = frames;
  bad[1].pop_back();
  EXPECT_EQ(code_of(bad), ErrorCode::message_malformed);
  EXPECT_EQ(code_of({frames[0]}), ErrorCode::message_malformed);
  for (std::size_t at = 0; at < frames[0].size(); ++at) {  // no byte makes it crash
    bad = frames;
    bad[0][at] ^= 0x41;
    code_of(bad);
  }
}

}  // namespace
}  // namespace yumoe

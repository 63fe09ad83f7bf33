// Experts on other machines over real sockets: the same numbers as locally, and what happens when messages
// are lost, late or damaged, servers die, and versions differ.

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <thread>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "router/expert_message.hpp"
#include "worker/expert_servers.hpp"
#include "worker/feed_forward_experts.hpp"
#include "worker/recent.hpp"
#include "worker/remote_experts.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

const DeviceOptions kDevice{.device = "cpu", .threads = 1};

ModelOptions model_of_experts() {
  ModelOptions model;
  model.vocabulary = 16;
  model.width = 16;
  model.layers = 1;
  model.heads = 2;
  model.key_value_heads = 1;
  model.experts = 4;
  model.expert_width = 32;
  return model;
}

std::vector<float> parameters() {
  const Layout layout = Layout::of(model_of_experts());
  std::vector<float> values(layout.parameters());
  initialise(layout, 3, values);
  return values;
}

std::unique_ptr<ExpertCompute> compute_of(const ExpertTraining& training = {}) {
  return feed_forward_experts(Layout::of(model_of_experts()), parameters(), {0, 1, 2, 3}, kDevice,
                              training);
}

std::vector<float> random_numbers(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.normal());
  return values;
}

class Server : public ExpertServerThread {
 public:
  explicit Server(const std::string& version = "one", const Trouble& trouble = {},
                  const ExpertTraining& training = {})
      : ExpertServerThread(version, trouble, [training] { return compute_of(training); }) {}
  ExpertPlace place() const { return {address(), {{0, 0}, {0, 1}, {0, 2}, {0, 3}}}; }
};

RemoteExperts experts_at(std::vector<ExpertPlace> places, DispatchOptions options = {}) {
  return RemoteExperts(std::move(places), digest_of(as_bytes("one")), 16, options);
}

DispatchOptions dispatch_patiently() {
  DispatchOptions options;
  options.deadline_min_ms = options.deadline_max_ms = 20'000;
  return options;
}

struct Rows {
  std::vector<float> x, dy, y, dx;
  ExpertRows call;
  Rows(std::uint32_t expert, std::size_t rows, std::uint64_t seed, bool keep = false)
      : x(random_numbers(rows * 16, seed)),
        dy(random_numbers(rows * 16, seed + 1)),
        y(rows * 16),
        dx(rows * 16) {
    call.expert = expert;
    call.x = x;
    call.dy = dy;
    call.out = y;
    call.keep = keep;
  }
  Bytes bytes() const {
    const ByteView view = as_bytes(std::span<const float>(x));
    return Bytes(view.begin(), view.end());
  }
};

std::vector<float> forward_of(ExpertCompute& compute, const Rows& rows) {
  std::vector<float> y(rows.x.size());
  compute.forward(0, rows.call.expert, rows.bytes(), y, false);
  return y;
}

// A stranger's calls, frame by frame.
TEST(ExpertServers, AnswerACallThatDoesNotFitItsKeptStateAndGoOn) {
  Server server;
  const auto stranger = connect_zeromq(server.address(), CurveKeypair::generate(), {});
  const auto answer_to = [&](const ExpertCall& call) {
    std::vector<float> payload(call.numbers(), 0.5f);
    const ByteView view = as_bytes(std::span<const float>(payload));
    stranger->send(encode(call, Bytes(view.begin(), view.end())));
    const auto frames = stranger->receive(std::chrono::seconds(10));
    return frames ? decode_expert_answer(*frames).status : ExpertStatus::other_version;
  };
  ExpertCall call{
      .id = 1, .version = digest_of(as_bytes("one")), .rows = 1, .width = 16, .keep = true};
  ASSERT_EQ(answer_to(call), ExpertStatus::ok);
  ExpertCall back = call;
  back.id = 2, back.backward = true, back.keep = false, back.forward_id = 1;
  back.rows = 2;
  EXPECT_EQ(answer_to(back), ExpertStatus::malformed);
  back.rows = 1, back.expert = 3;
  EXPECT_EQ(answer_to(back), ExpertStatus::malformed);
  back.expert = 0;
  EXPECT_EQ(answer_to(back), ExpertStatus::ok);
}

// Computes as many calls as the gate lets through, and writes down whose row came when.
class Gated final : public ExpertCompute {
 public:
  Gated(std::atomic<int>& open, std::vector<float>& seen) : open_(open), seen_(seen) {}
  bool holds(std::uint32_t, std::uint32_t) const override { return true; }
  std::size_t width() const override { return 16; }
  std::unique_ptr<KeptRows> forward(std::uint32_t, std::uint32_t, Bytes x, std::span<float> y,
                                    bool keep) override {
    while (open_ <= 0) std::this_thread::sleep_for(milliseconds(1));
    --open_;
    std::memcpy(y.data(), x.data(), x.size());
    seen_.push_back(y[0]);
    auto kept = std::make_unique<KeptRows>();
    kept->bytes = 1'000;
    return keep ? std::move(kept) : nullptr;
  }
  void backward(std::uint32_t, std::uint32_t, const KeptRows&, std::span<const float> dy,
                std::span<float> dx) override {
    std::copy(dy.begin(), dy.end(), dx.begin());
  }

 private:
  std::atomic<int>& open_;
  std::vector<float>& seen_;
};

constexpr int kOpen = 1'000'000;

struct GatedServer {
  explicit GatedServer(const ExpertServer::Options& limits)
      : thread(
            "one", {}, [this] { return std::make_unique<Gated>(open, seen); }, 11, limits) {}
  std::atomic<int> open = 0;  // calls
  std::vector<float> seen;    // to read when the server has ended
  ExpertServerThread thread;
};

// Says calls and hears answers frame by frame, whatever it was told about credits.
class Stranger {
 public:
  explicit Stranger(const CoordinatorAddress& address)
      : transport_(connect_zeromq(address, CurveKeypair::generate(), {})) {}
  void say(std::uint64_t id, std::uint32_t rows, float value, bool keep = false,
           std::uint64_t forward_id = 0) {
    ExpertCall call{.id = id,
                    .backward = forward_id != 0,
                    .version = digest_of(as_bytes("one")),
                    .rows = rows,
                    .width = 16,
                    .keep = keep,
                    .forward_id = forward_id};
    const std::vector<float> payload(call.numbers(), value);
    const ByteView view = as_bytes(std::span<const float>(payload));
    transport_->send(encode(call, Bytes(view.begin(), view.end())));
  }
  void say_frames(std::vector<Bytes> frames) { transport_->send(std::move(frames)); }
  std::vector<ExpertAnswer> hear(std::size_t count) {
    std::vector<ExpertAnswer> answers;
    while (answers.size() < count) {
      const auto frames = transport_->receive(std::chrono::seconds(10));
      if (!frames) break;
      answers.push_back(decode_expert_answer(*frames));
    }
    return answers;
  }
  std::size_t count_of(ExpertStatus status, std::size_t answers) {
    const auto heard = hear(answers);
    EXPECT_EQ(heard.size(), answers);
    return static_cast<std::size_t>(std::ranges::count(heard, status, &ExpertAnswer::status));
  }

 private:
  std::unique_ptr<ClientTransport> transport_;
};

TEST(ExpertServers, RefuseWhatIsTooMuchOfOneCallerAndServeOthersInTurn) {
  ExpertServer::Options limits;
  limits.caller_calls_max = 5;
  GatedServer server(limits);
  Stranger greedy(server.thread.address()), modest(server.thread.address());
  greedy.say(1, 1, 1);
  std::this_thread::sleep_for(milliseconds(200));  // it is in work
  for (std::uint64_t id = 2; id <= 40; ++id) greedy.say(id, 1, 1);
  modest.say(1, 1, 2);
  std::this_thread::sleep_for(milliseconds(300));
  server.open = kOpen;
  EXPECT_EQ(modest.count_of(ExpertStatus::ok, 1), 1U);
  EXPECT_EQ(greedy.count_of(ExpertStatus::busy, 40), 34U) << "one in work, five that wait";
  server.thread.stop();
  ASSERT_EQ(server.seen.size(), 7U);
  EXPECT_EQ(std::ranges::find(server.seen, 2.0F) - server.seen.begin() < 3, true)
      << "the modest one waits for one call of the greedy one beside that in work";
}

TEST(ExpertServers, RefuseBytesBeyondACallersAndEverybodysBound) {
  ExpertServer::Options limits;
  limits.caller_waiting_bytes_max = 300'000;
  limits.waiting_bytes_max = 500'000;
  GatedServer server(limits);
  Stranger first(server.thread.address()), second(server.thread.address());
  first.say(1, 1, 1);
  std::this_thread::sleep_for(milliseconds(200));
  for (std::uint64_t id = 2; id <= 5; ++id) first.say(id, 2'000, 1);  // 132 kB each
  std::this_thread::sleep_for(milliseconds(200));
  for (std::uint64_t id = 1; id <= 3; ++id) second.say(id, 2'000, 2);
  std::this_thread::sleep_for(milliseconds(300));
  server.open = kOpen;
  EXPECT_EQ(first.count_of(ExpertStatus::busy, 5) + second.count_of(ExpertStatus::busy, 3), 4U)
      << "two of the first caller by its own bound; three of 132 kB fit into everybody's";
}

TEST(ExpertServers, RefuseAHeaderThatIsNoneInsteadOfKeepingItUncounted) {
  GatedServer server({});
  Stranger stranger(server.thread.address());
  stranger.say(1, 1, 1);
  std::this_thread::sleep_for(milliseconds(200));  // it is in work; the rest would wait
  ExpertCall call{.id = 2, .version = digest_of(as_bytes("one")), .rows = 1, .width = 16};
  std::vector<Bytes> frames = encode(call, Bytes(call.numbers() * sizeof(float)));
  frames[0].resize(1 << 20);
  stranger.say_frames(frames);
  stranger.say_frames({Bytes(1 << 20)});
  std::this_thread::sleep_for(milliseconds(200));
  server.open = kOpen;
  const auto answers = stranger.hear(3);
  ASSERT_EQ(answers.size(), 3U);
  EXPECT_EQ(answers[0].id, 1U);
  for (int i = 1; i < 3; ++i) {
    EXPECT_EQ(answers[i].status, ExpertStatus::malformed);
    EXPECT_EQ(answers[i].id, 0U) << "what is in such a header is not looked at";
  }
}

TEST(ExpertServers, TakeACallOfACallerThatHasNoneWaitingAlsoWhenTwoStrangersFillAll) {
  ExpertServer::Options limits;
  limits.caller_waiting_bytes_max = 300'000;  // two calls of 132 kB
  limits.waiting_bytes_max = 550'000;         // four
  for (const bool by_count : {false, true}) {
    if (by_count) limits = {.caller_calls_max = 2, .calls_max = 4};
    GatedServer server(limits);
    Stranger first(server.thread.address()), second(server.thread.address());
    first.say(1, 2'000, 1);
    std::this_thread::sleep_for(milliseconds(200));  // in work
    for (std::uint64_t id = 2; id <= 3; ++id) {
      first.say(id, 2'000, 1);
      second.say(id, 2'000, 2);
    }
    std::this_thread::sleep_for(milliseconds(200));
    server.open = 1;  // all four are taken, and one of them is in work
    std::this_thread::sleep_for(milliseconds(200));
    std::vector<std::unique_ptr<Stranger>> modest;
    for (int i = 0; i < 3; ++i) {
      modest.push_back(std::make_unique<Stranger>(server.thread.address()));
      modest.back()->say(1, 2'000, 3);
    }
    std::this_thread::sleep_for(milliseconds(200));
    server.open = kOpen;
    std::size_t ok = 0;
    for (const auto& caller : modest) ok += caller->count_of(ExpertStatus::ok, 1);
    EXPECT_EQ(ok, 3U)
        << "in the free place, that of a stranger's second call, and of the longest there";
    EXPECT_EQ(first.count_of(ExpertStatus::busy, 3) + second.count_of(ExpertStatus::busy, 2), 2U);
  }
}

TEST(ExpertServers, ForgetTheKeptRowsOfAGreedyCallerAndNotAnothers) {
  ExpertServer::Options limits;
  limits.caller_kept_bytes_max = 20'000;
  limits.kept_bytes_max = 21'000;
  GatedServer server(limits);
  server.open = kOpen;
  Stranger greedy(server.thread.address()), modest(server.thread.address());
  modest.say(1, 1, 2, true);
  ASSERT_EQ(modest.count_of(ExpertStatus::ok, 1), 1U);
  for (std::uint64_t id = 1; id <= 100; ++id) greedy.say(id, 1, 1, true);
  ASSERT_EQ(greedy.count_of(ExpertStatus::ok, 100), 100U);
  modest.say(2, 1, 2, false, 1);
  EXPECT_EQ(modest.count_of(ExpertStatus::ok, 1), 1U);
  greedy.say(200, 1, 1, false, 1);
  greedy.say(201, 1, 1, false, 100);
  const auto answers = greedy.hear(2);
  ASSERT_EQ(answers.size(), 2U);
  EXPECT_EQ(answers[0].status, ExpertStatus::not_kept);
  EXPECT_EQ(answers[1].status, ExpertStatus::ok);
}

TEST(Recent, KeepsEachCallersNewestWithinItsBoundAndAllWithinTheirs) {
  const auto caller = [](std::uint8_t name) { return CurveKey{name}; };
  Recent<int> recent(10'000, 15'000);
  for (int i = 0; i < 50; ++i) recent.add(caller(1), static_cast<std::uint64_t>(i), i, 744);
  EXPECT_EQ(recent.bytes(), 10'000U);
  EXPECT_EQ(recent.find(caller(1), 39), nullptr);
  ASSERT_NE(recent.find(caller(1), 40), nullptr);
  for (int i = 0; i < 6; ++i) recent.add(caller(2), static_cast<std::uint64_t>(i), i, 744);
  EXPECT_EQ(recent.bytes(), 15'000U);
  EXPECT_EQ(recent.find(caller(1), 40), nullptr) << "who has most loses first";
  EXPECT_NE(recent.find(caller(2), 0), nullptr);
  recent.add(caller(2), 5, 7, 744);
  EXPECT_EQ(*recent.find(caller(2), 5), 7);
  EXPECT_EQ(recent.bytes(), 15'000U) << "in place of the one before";
  recent.erase_if([](int value) { return value > 2; });
  EXPECT_EQ(recent.bytes(), 3'000U);
  recent.add(caller(3), 1, 1, 20'000);
  EXPECT_EQ(recent.find(caller(3), 1), nullptr) << "more than its bound";
  EXPECT_EQ(recent.bytes(), 3'000U);
}

TEST(RemoteExperts, WaitForAServerThatIsBusyAndAskItAgain) {
  TransportOptions options;
  options.port = 0;
  const auto transport = listen_zeromq(options, CurveKeypair::generate());
  std::atomic<bool> stop = false;
  std::jthread server([&] {
    for (int said = 0; !stop;) {
      const auto received = transport->receive(milliseconds(20));
      if (!received) continue;
      const ExpertCall call = decode_expert_call(received->frames);
      ExpertAnswer answer{.id = call.id, .version = call.version, .rows = 1, .width = 16};
      answer.status = ++said <= 3 ? ExpertStatus::busy : ExpertStatus::ok;
      transport->send(
          received->peer,
          encode(answer, answer.status == ExpertStatus::ok ? received->frames[1] : Bytes()));
    }
  });
  DispatchOptions dispatch;
  dispatch.strikes_max = 1;
  RemoteExperts remote = experts_at({{transport->address(), {{0, 0}}}}, dispatch);
  Rows rows(0, 1, 5);
  const auto start = std::chrono::steady_clock::now();
  remote.forward({&rows.call, 1});
  EXPECT_TRUE(rows.call.answered);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(20 + 40 + 80));
  EXPECT_EQ(remote.counts().busy, 3U);
  EXPECT_EQ(remote.counts().repeated, 0U) << "busy is no failure";
  stop = true;
}

TEST(RemoteExperts, TakeNoMoreOfAServerThatFloodsBeforeTheyLookAtOthers) {
  TransportOptions options;
  options.port = 0;
  const auto flood = listen_zeromq(options, CurveKeypair::generate());
  const auto calm = listen_zeromq(options, CurveKeypair::generate());
  RemoteExperts remote =
      experts_at({{flood->address(), {{0, 0}}}, {calm->address(), {{0, 1}}}}, dispatch_patiently());
  Rows first(0, 1, 5), second(1, 1, 6), third(1, 1, 7);
  Peer caller;  // of the server spoken to last
  const auto answer = [&](ServerTransport& server, std::uint64_t id) {
    server.send(caller,
                encode(ExpertAnswer{.id = id, .version = {}, .credits = 4, .rows = 1, .width = 16},
                       Bytes(64)));
  };
  const auto serve = [&](ServerTransport& server, Rows& rows) -> std::uint64_t {
    std::jthread waits([&] { remote.forward({&rows.call, 1}); });
    const auto received = server.receive(std::chrono::seconds(10));
    if (!received) return 0;
    caller = received->peer;
    const std::uint64_t id = decode_expert_call(received->frames).id;
    answer(server, id);
    return id;
  };
  const std::uint64_t first_id = serve(*flood, first);
  const Peer flooded = caller;
  const std::uint64_t second_id = serve(*calm, second);
  ASSERT_TRUE(first.call.answered && second.call.answered);
  for (int i = 0; i < 200; ++i) flood->send(flooded, {Bytes(8), Bytes(8)});
  answer(*calm, 2 * second_id - first_id);  // the next call's, so that it is there at once
  std::this_thread::sleep_for(milliseconds(300));
  remote.forward({&third.call, 1});
  EXPECT_TRUE(third.call.answered);
  EXPECT_LE(remote.counts().damaged, 64U) << "and not all that the other said";
}

// Takes its time, so that all a caller has under way comes together.
class Slow final : public ExpertCompute {
 public:
  bool holds(std::uint32_t, std::uint32_t) const override { return true; }
  std::size_t width() const override { return 16; }
  std::unique_ptr<KeptRows> forward(std::uint32_t, std::uint32_t, Bytes x, std::span<float> y,
                                    bool keep) override {
    std::this_thread::sleep_for(milliseconds(60));
    std::memcpy(y.data(), x.data(), x.size());
    return keep ? std::make_unique<KeptRows>() : nullptr;
  }
  void backward(std::uint32_t, std::uint32_t, const KeptRows&, std::span<const float> dy,
                std::span<float> dx) override {
    std::copy(dy.begin(), dy.end(), dx.begin());
  }
};

TEST(RemoteExperts, AreNotRefusedForTheCreditsTheyWereGiven) {
  ExpertServer::Options limits;
  limits.caller_waiting_bytes_max =
      1'024'000 + 65'536;            // of two calls of 8,000 rows, or one that brings x
  limits.caller_kept_bytes_max = 0;  // every backward brings x
  ExpertServerThread server(
      "one", {}, [] { return std::make_unique<Slow>(); }, 11, limits);
  ExpertPlace place{server.address(), {}};
  for (std::uint32_t expert = 0; expert < 12; ++expert) place.experts.emplace_back(0, expert);
  RemoteExperts remote = experts_at({place}, dispatch_patiently());
  std::vector<Rows> rows;
  std::vector<ExpertRows> calls;
  for (std::uint32_t expert = 0; expert < 12; ++expert) rows.emplace_back(expert, 8'000, 5, true);
  for (Rows& each : rows) {
    each.call.x = each.x, each.call.out = each.y;
    calls.push_back(each.call);
  }
  remote.forward(calls);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_TRUE(calls[i].answered);
    calls[i].dy = rows[i].dy, calls[i].out = rows[i].dx;
  }
  remote.backward(calls);
  for (const ExpertRows& call : calls) EXPECT_TRUE(call.answered);
  EXPECT_EQ(remote.counts().busy, 0U);
}

TEST(ExpertServers, TellMoreCreditsForCallsThatAreSmallAgain) {
  ExpertServer::Options limits;
  limits.caller_waiting_bytes_max = 300'000;
  GatedServer server(limits);
  server.open = kOpen;
  Stranger caller(server.thread.address());
  const auto credits = [&](std::uint64_t id, std::uint32_t rows, bool keep) {
    caller.say(id, rows, 1, keep);
    const auto answers = caller.hear(1);
    return answers.empty() ? 0U : answers[0].credits;
  };
  EXPECT_EQ(credits(1, 1, true), 4U);
  EXPECT_EQ(credits(2, 2'000, false), 2U) << "132 kB each";
  EXPECT_EQ(credits(3, 2'000, true), 1U) << "260 kB with x";
  EXPECT_EQ(credits(4, 1, true), 1U) << "another large one may follow";
  std::uint32_t last = 0;
  for (std::uint64_t id = 5; id < 60; ++id) last = credits(id, 1, true);
  EXPECT_EQ(last, 4U);
}

TEST(RemoteExperts, GiveUpACallInTimeHoweverFastAServerTalks) {
  TransportOptions options;
  options.port = 0;
  const auto transport = listen_zeromq(options, CurveKeypair::generate());
  std::atomic<bool> stop = false;
  std::jthread server([&] {
    std::optional<Received> caller;
    while (!stop) {
      if (!caller) caller = transport->receive(milliseconds(20));
      if (caller) transport->send(caller->peer, {Bytes(8), Bytes(8)});
    }
  });
  DispatchOptions dispatch;
  dispatch.strikes_max = 1;
  dispatch.deadline_max_ms = 200;
  RemoteExperts remote = experts_at({{transport->address(), {{0, 0}}}}, dispatch);
  Rows rows(0, 1, 5);
  const auto start = std::chrono::steady_clock::now();
  remote.forward({&rows.call, 1});
  EXPECT_FALSE(rows.call.answered);
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(600));
  EXPECT_GT(remote.counts().damaged, 64U);
  stop = true;
}

TEST(RemoteExperts, CutCallsThatAreTooLargeForOneMessage) {
  const Server server;
  DispatchOptions options;
  options.deadline_max_ms = options.deadline_min_ms = 20'000;
  RemoteExperts remote = experts_at({server.place()}, options);
  const std::size_t count = expert_rows_max(16) + 7;
  Rows rows(1, count, 5, true);
  remote.forward({&rows.call, 1});
  ASSERT_TRUE(rows.call.answered);
  EXPECT_EQ(remote.counts().requests, 2U);
  const auto local = compute_of();
  const auto near = [](const std::vector<float>& a, const std::vector<float>& b) {
    float most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
    return most < 1e-5F;
  };
  std::vector<float> y(rows.x.size()), dx(rows.x.size());
  const auto kept = local->forward(0, 1, rows.bytes(), y, true);
  EXPECT_TRUE(near(rows.y, y));
  rows.call.out = rows.dx;
  remote.backward({&rows.call, 1});
  ASSERT_TRUE(rows.call.answered);
  local->backward(0, 1, *kept, rows.dy, dx);
  EXPECT_TRUE(near(rows.dx, dx));
}

TEST(RemoteExperts, GiveTheSameBitsAsLocalOnesForwardAndBackward) {
  Server server;
  RemoteExperts remote = experts_at({server.place()});
  const auto local = compute_of();
  Rows rows(2, 5, 1, true);
  remote.forward({&rows.call, 1});
  ASSERT_TRUE(rows.call.answered);
  std::vector<float> y(rows.x.size()), dx(rows.x.size());
  const auto kept = local->forward(0, 2, rows.bytes(), y, true);
  local->backward(0, 2, *kept, rows.dy, dx);
  EXPECT_EQ(rows.y, y);
  EXPECT_NE(rows.call.forward, 0U);
  rows.call.out = rows.dx;
  remote.backward({&rows.call, 1});
  ASSERT_TRUE(rows.call.answered);
  EXPECT_EQ(rows.dx, dx);
  // Kept state serves once; said again with x it is the same.
  rows.call.forward += 1'000;
  std::fill(rows.dx.begin(), rows.dx.end(), 0.0F);
  remote.backward({&rows.call, 1});
  EXPECT_EQ(rows.dx, dx);
  EXPECT_EQ(remote.counts().repeated, 1U) << "the server said that it keeps no such state";
}

TEST(RemoteExperts, RefuseAnotherVersionByNameAndUseTheServersThatAgree) {
  Server other("two"), same;
  RemoteExperts alone = experts_at({other.place()});
  Rows rows(1, 3, 5);
  try {
    alone.forward({&rows.call, 1});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::version_mismatch);
    EXPECT_THAT(error.what(), testing::HasSubstr(digest_of(as_bytes("two")).hex().substr(0, 16)));
    EXPECT_THAT(error.what(), testing::HasSubstr(digest_of(as_bytes("one")).hex().substr(0, 16)));
  }
  RemoteExperts both = experts_at({other.place(), same.place()});
  both.forward({&rows.call, 1});
  EXPECT_TRUE(rows.call.answered);
}

TEST(RemoteExperts, AnswerEveryCallWhenATenthIsLostSomeDamagedAndSomeASecondLate) {
  const Trouble trouble{.lost = 0.10, .damaged = 0.05, .late = 0.03};
  Server one("one", trouble), two("one", trouble);
  DispatchOptions options;
  options.deadline_max_ms = 200;
  options.strikes_max = 32;  // a busy machine is no dead server
  options.attempts_max = 32;
  RemoteExperts remote = experts_at({one.place(), two.place()}, options);
  const auto local = compute_of();
  for (std::uint64_t i = 0; i < 300; ++i) {
    Rows rows(static_cast<std::uint32_t>(i % 4), 2, 100 + i);
    remote.forward({&rows.call, 1});
    ASSERT_TRUE(rows.call.answered) << "call " << i;
    ASSERT_EQ(rows.y, forward_of(*local, rows)) << "call " << i;
  }
  EXPECT_GT(remote.counts().damaged, 0U);
  EXPECT_EQ(remote.counts().given_up, 0U);
  EXPECT_GT(remote.counts().requests, 310U);
}

TEST(RemoteExperts, MaskADeadServerQuickly) {
  auto server = std::make_unique<Server>();
  DispatchOptions options;
  options.deadline_max_ms = 400;  // a busy machine must not look dead
  options.strikes_max = 2;
  options.rest_ms = 60'000;
  RemoteExperts remote = experts_at({server->place()}, options);
  Rows rows(0, 1, 9);
  remote.forward({&rows.call, 1});
  ASSERT_TRUE(rows.call.answered);
  server.reset();
  remote.forward({&rows.call, 1});
  EXPECT_FALSE(rows.call.answered);
  const std::uint64_t asked = remote.counts().requests;
  remote.forward({&rows.call, 1});
  EXPECT_FALSE(rows.call.answered);
  EXPECT_EQ(remote.counts().requests, asked) << "a masked expert is not asked";
}

TEST(RemoteExperts, ServeSeveralCallersAtOnce) {
  Server server;
  DispatchOptions options;
  options.deadline_min_ms = 2'000;
  RemoteExperts remote = experts_at({server.place()}, options);
  const auto local = compute_of();
  std::mutex mutex;
  std::vector<std::jthread> callers;
  for (std::uint64_t caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (std::uint64_t i = 0; i < 50; ++i) {
        Rows rows(1, 1 + caller, caller * 1'000 + i);
        remote.forward({&rows.call, 1});
        const std::lock_guard lock(mutex);
        EXPECT_TRUE(rows.call.answered);
        const std::vector<float> expected = forward_of(*local, rows);
        for (std::size_t n = 0; n < expected.size(); ++n) EXPECT_NEAR(rows.y[n], expected[n], 1e-5);
      }
    });
  }
}

TEST(RemoteExperts, TrainOnceWhenABackwardIsSaidTwice) {
  const ExpertTraining training{.learning_rate = 0.01};
  Server server("one", {.lose_first = 1, .spare = 1}, training);  // the answer to backward is lost
  DispatchOptions options;
  options.deadline_max_ms = 1'000;
  RemoteExperts remote = experts_at({server.place()}, options);
  const auto local = compute_of(training);
  Rows rows(3, 4, 77, true);
  remote.forward({&rows.call, 1});
  rows.call.out = rows.dx;
  remote.backward({&rows.call, 1});
  ASSERT_TRUE(rows.call.answered);
  EXPECT_EQ(remote.counts().requests, 3U);
  std::vector<float> y(rows.x.size()), dx(rows.x.size());
  local->backward(0, 3, *local->forward(0, 3, rows.bytes(), y, true), rows.dy, dx);
  EXPECT_EQ(rows.dx, dx);
  rows.call.out = rows.y;
  remote.forward({&rows.call, 1});
  EXPECT_EQ(rows.y, forward_of(*local, rows)) << "trained once, as the local one";
}

TEST(RemoteExperts, AreSaidInOneLineThatIsReadBack) {
  EXPECT_EQ(parse_experts("0-2,6,1", 8), (ExpertSet{0, 1, 2, 6}));
  EXPECT_EQ(text_of_experts({0, 1, 2, 6}), "0-2,6");
  for (const char* wrong : {"", "a", "3-1", "0-8", "1,", "-1", "1-2-3", "99999999999"}) {
    EXPECT_THROW(parse_experts(wrong, 8), Error) << wrong;
  }
  const std::string address = "tcp://127.0.0.1:5?key=" + std::string(64, 'a');
  const ExpertPlace place = parse_expert_place("1,3@" + address, 2, 4);
  EXPECT_EQ(place.address.text(), address);
  EXPECT_THAT(place.experts, testing::ElementsAre(std::pair(0U, 1U), std::pair(0U, 3U),
                                                  std::pair(1U, 1U), std::pair(1U, 3U)));
  EXPECT_THROW(parse_expert_place(address, 2, 4), Error);
  EXPECT_THROW(parse_expert_place("1@udp://x", 2, 4), Error);
}

TEST(RemoteExperts, GoOnWithTheServersThatHaveTheVersionAndSayWhatIsWrongWithTheOthers) {
  Server other("two"), same;
  ExpertPlace silent = same.place(), wrong = same.place();
  silent.address.key[3] ^= 1;
  wrong.experts = {{0, 1}, {0, 7}};
  ExpertPlace right = same.place();
  right.experts = {{0, 2}, {0, 3}};
  RemoteExperts remote = experts_at({other.place(), silent, wrong, right});
  const ExpertSet there = remote.use(digest_of(as_bytes("one")), milliseconds(1'000));
  EXPECT_EQ(there, (ExpertSet{2, 3}));
  EXPECT_THAT(remote.remarks(),
              testing::ElementsAre(testing::HasSubstr("of base version"),
                                   testing::HasSubstr("do not answer"),
                                   testing::HasSubstr("do not hold expert 7"), ""));
  Rows rows(2, 3, 5);
  remote.forward({&rows.call, 1});
  EXPECT_TRUE(rows.call.answered);
  EXPECT_EQ(remote.use(digest_of(as_bytes("two")), milliseconds(1'000)), (ExpertSet{0, 1, 2, 3}))
      << "a server that was wrong once is asked again";
  Rows again(0, 3, 5);
  remote.forward({&again.call, 1});
  EXPECT_TRUE(again.call.answered);
}

TEST(ExpertServer, ServesTheVersionBeforeTheNewestTooAndNoOlderOne) {
  TransportOptions options;
  options.port = 0;
  const auto transport = listen_zeromq(options, CurveKeypair::generate());
  ExpertServer server(*transport, {});
  const auto version = [](const char* text) { return digest_of(as_bytes(std::string_view(text))); };
  std::atomic<bool> stop = false;
  std::jthread thread([&] {
    at::set_num_threads(1);
    server.serve(stop);
  });
  RemoteExperts remote({{transport->address(), {{0, 0}}}}, version("one"), 16, {});
  EXPECT_TRUE(remote.use(version("one"), milliseconds(100)).empty()) << "nothing is served yet";
  for (const char* name : {"one", "two", "three"}) server.add(version(name), compute_of());
  EXPECT_TRUE(remote.use(version("one"), milliseconds(400)).empty());
  EXPECT_EQ(remote.use(version("two"), milliseconds(2'000)), (ExpertSet{0}));
  EXPECT_EQ(remote.use(version("three"), milliseconds(2'000)), (ExpertSet{0}));
  stop = true;
}

}  // namespace
}  // namespace yumoe

// A participant's link against a scripted coordinator over real ZeroMQ sockets: the link's thread, the
// coordinator's and several callers at once, so that the thread sanitizer has something to see.

#include "worker/link.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <map>
#include <mutex>
#include <thread>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// Answers as a coordinator would that has one run, one round and one file. Its members may be set before
// a participant connects, and read through snapshot() while it serves.
class Host {
 public:
  struct Heard {
    std::map<RoundId, Bytes> revealed;
    int joins = 0, beats = 0, commits = 0, scores = 0, pieces_asked = 0;
    std::string left;
  };

  bool answers = true;
  bool forges_receipts = false;
  std::string refuses;      // for good, with this reason
  int loses_every_nth = 0;  // piece of the file
  Bytes file = Bytes(3 * kPieceBytesMax + 17, 0x42);

  Host() {
    options.port = 0;
    options.heartbeat_interval_ms = 10;
    server = listen_zeromq(options, CurveKeypair::generate());
  }
  ~Host() { stop(); }

  void start() {
    thread = std::jthread([this](const std::stop_token& token) {
      while (!token.stop_requested()) {
        if (const auto received = server->receive(10ms)) hear(*received);
      }
    });
  }
  void stop() {
    thread.request_stop();
    if (thread.joinable()) thread.join();
  }
  CoordinatorAddress address() const { return server->address(); }
  Digest file_digest() const { return digest_of(file); }
  Heard snapshot() const {
    const std::lock_guard lock(mutex);
    return heard;
  }
  // Forgets the participant, as a coordinator does that starts again.
  void forget() {
    const std::lock_guard lock(mutex);
    nonce[0]++;
    heard.revealed.clear();
    forgotten = true;
  }

  TransportOptions options;
  Keypair keys = Keypair::generate(KeyType::ed25519);

 private:
  void say(const Peer& peer, const ToParticipant& message, std::optional<Bytes> payload = {}) {
    std::vector<Bytes> frames{seal_unsigned(++sequence, SystemClock().now(), encode(message))};
    if (payload) frames.push_back(std::move(*payload));
    server->send(peer, std::move(frames));
  }

  void hear(const Received& received) {
    if (!answers) return;
    const Envelope envelope = open_envelope(received.frames[0]);
    const std::lock_guard lock(mutex);
    const ToCoordinator message = decode_to_coordinator(envelope.body);
    if (forgotten || std::holds_alternative<Hello>(message)) {
      forgotten = false;
      return say(received.peer, Challenge{nonce, "run"});
    }
    std::visit([&](const auto& m) { on(m, envelope, received); }, message);
  }

  void on(const Hello&, const Envelope&, const Received&) {}
  void on(const Join&, const Envelope&, const Received& received) {
    ++heard.joins;
    if (!refuses.empty()) return say(received.peer, Refusal{"peer_refused", refuses, true});
    say(received.peer, Welcome{Uid{1}, Netuid{1}, "run", keys.public_key(), {}, {}, {}, 7});
    direct(received.peer);
  }
  void on(const Heartbeat&, const Envelope&, const Received&) { ++heard.beats; }
  void on(const Commit& commit, const Envelope& envelope, const Received& received) {
    ++heard.commits;
    answer = Answer::committed;
    receipt(received.peer, envelope.sender, ReceiptKind::commit, commit.round, commit.digest);
    direct(received.peer);
  }
  void on(const RevealPiece& piece, const Envelope& envelope, const Received& received) {
    Bytes& bytes = heard.revealed[piece.round];
    if (piece.offset != bytes.size()) return;
    bytes.insert(bytes.end(), received.frames[1].begin(), received.frames[1].end());
    receipt(received.peer, envelope.sender, ReceiptKind::reveal, piece.round, digest_of(bytes));
  }
  void on(const Fetch& fetch, const Envelope&, const Received& received) {
    if (fetch.digest != file_digest())
      return say(received.peer, Piece{fetch.digest, fetch.offset, 0});
    if (loses_every_nth > 0 && ++heard.pieces_asked % loses_every_nth == 0) return;
    const std::size_t size = std::min(kPieceBytesMax, file.size() - fetch.offset);
    const auto first = file.begin() + static_cast<std::ptrdiff_t>(fetch.offset);
    say(received.peer, Piece{fetch.digest, fetch.offset, file.size()},
        Bytes(first, first + static_cast<std::ptrdiff_t>(size)));
  }
  void on(const Scores& scores, const Envelope& envelope, const Received& received) {
    ++heard.scores;
    receipt(received.peer, envelope.sender, ReceiptKind::scores, scores.round, {});
  }
  void on(const Leave& leave, const Envelope&, const Received&) { heard.left = leave.reason; }
  void on(const LedgerCall&, const Envelope&, const Received&) {}
  void on(const Probe& probe, const Envelope&, const Received& received) {
    const Bytes payload(probe.wanted_bytes, 1);
    say(received.peer, Piece{{}, probe.number, probe.wanted_bytes},
        payload.empty() ? std::nullopt : std::optional(payload));
  }

  void direct(const Peer& peer) {
    Directive directive;
    directive.sequence = ++directives;
    directive.round = directive.shard.round = directive.evaluate.round = RoundId{1};
    directive.rounds_total = 1;
    directive.answer = answer;
    directive.reveal_wanted = answer == Answer::committed;
    say(peer, directive);
  }
  void receipt(const Peer& peer, const PublicKey& to, ReceiptKind kind, RoundId round,
               const Digest& what) {
    Receipt said{kind, round, what, SystemClock().now()};
    said.signature = keys.sign(digest_of_receipt("run", to, said).bytes);
    if (forges_receipts) said.signature[5] ^= 1;
    say(peer, said);
  }

  mutable std::mutex mutex;
  Heard heard;
  Nonce nonce{1};
  bool forgotten = false;
  Answer answer = Answer::missing;
  std::uint64_t sequence = 0, directives = 0;
  std::unique_ptr<ServerTransport> server;
  std::jthread thread;
};

class ParticipantLink : public ::testing::Test {
 protected:
  std::unique_ptr<Link> connect() {
    Join join;
    join.name = "w";
    return std::make_unique<Link>(host.address(), Keypair::generate(KeyType::ed25519), join,
                                  host.options, stop);
  }
  template <typename Condition>
  static bool comes_true(Condition condition) {
    for (int i = 0; i < 1'000 && !condition(); ++i) std::this_thread::sleep_for(10ms);
    return condition();
  }

  Host host;
  std::atomic<bool> stop = false;
};

TEST_F(ParticipantLink, CarriesARoundWhileSeveralThreadsUseIt) {
  host.loses_every_nth = 3;
  host.start();
  const auto link = connect();
  EXPECT_EQ(link->welcome(10s).private_seed, 7u);
  ASSERT_TRUE(link->directive(0, 10s));

  std::atomic<bool> is_computing = true;
  std::jthread compute([&] {
    for (std::uint32_t step = 1; is_computing; ++step) {
      Heartbeat beat;
      beat.steps_done = step;
      link->report(beat);
      if (step % 50 == 0) link->tell(WorkerProfile{});
      (void)link->latest();
      (void)link->counts();
      std::this_thread::sleep_for(1ms);
    }
  });
  // The same file for two callers: each gets the whole of it.
  auto one =
      std::async(std::launch::async, [&] { return link->fetch(host.file_digest(), 1 << 23, 30s); });
  auto two =
      std::async(std::launch::async, [&] { return link->fetch(host.file_digest(), 1 << 23, 30s); });
  const Bytes contribution(2 * kPieceBytesMax + 5, 0x17);
  link->offer(RoundId{1}, contribution);
  Scores scores;
  scores.round = RoundId{1};
  link->send_scores(scores);
  EXPECT_GT(link->measure_way(10s).round_trip_ms, 0);
  EXPECT_EQ(one.get(), host.file);
  EXPECT_EQ(two.get(), host.file);
  EXPECT_TRUE(comes_true([&] {
    const auto heard = host.snapshot();
    const auto found = heard.revealed.find(RoundId{1});
    return found != heard.revealed.end() && found->second == contribution && heard.beats > 2 &&
           heard.scores > 0;
  }));
  EXPECT_TRUE(link->settle(10s));
  is_computing = false;
}

TEST_F(ParticipantLink, JoinsAndOffersAgainWhenTheCoordinatorForgotIt) {
  host.start();
  const auto link = connect();
  link->welcome(10s);
  EXPECT_TRUE(comes_true([&] { return host.snapshot().beats > 0; }));
  host.forget();
  EXPECT_TRUE(comes_true([&] { return host.snapshot().joins >= 2; }));
  link->offer(RoundId{1}, Bytes(100, 1));
  EXPECT_TRUE(link->settle(10s));
}

TEST_F(ParticipantLink, ThrowsStoppedOutOfEveryWaitOnceItIsToldTo) {
  host.answers = false;
  host.start();
  const auto link = connect();
  auto welcome = std::async(std::launch::async, [&] { link->welcome(60s); });
  auto fetch = std::async(std::launch::async, [&] { link->fetch(Digest{}, 1, 60s); });
  auto way = std::async(std::launch::async, [&] { link->measure_way(60s); });
  std::this_thread::sleep_for(50ms);
  stop = true;
  EXPECT_THROW(welcome.get(), Stopped);
  EXPECT_THROW(fetch.get(), Stopped);
  EXPECT_THROW(way.get(), Stopped);
}

TEST_F(ParticipantLink, PassesOnWhyTheCoordinatorRefusedForGood) {
  host.refuses = "this run has its validators";
  host.start();
  const auto link = connect();
  try {
    link->welcome(10s);
    FAIL() << "was welcomed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::peer_refused);
    EXPECT_THAT(error.what(), HasSubstr("this run has its validators"));
  }
}

TEST_F(ParticipantLink, TakesNoForgedReceiptForAnAnswer) {
  host.forges_receipts = true;
  host.start();
  const auto link = connect();
  link->welcome(10s);
  link->offer(RoundId{1}, Bytes(100, 1));
  EXPECT_TRUE(comes_true([&] { return host.snapshot().revealed.contains(RoundId{1}); }));
  EXPECT_FALSE(link->settle(200ms));
}

TEST_F(ParticipantLink, NamesAFileThatIsNotThereAndOneThatIsTooLarge) {
  host.start();
  const auto link = connect();
  link->welcome(10s);
  const auto code_of = [&](const Digest& digest, std::size_t bytes_max) {
    try {
      link->fetch(digest, bytes_max, 10s);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::usage;
  };
  EXPECT_EQ(code_of(digest_of(Bytes{1}), 100), ErrorCode::file_missing);
  EXPECT_EQ(code_of(host.file_digest(), 100), ErrorCode::message_too_large);
}

TEST_F(ParticipantLink, GivesUpACoordinatorThatIsSilent) {
  host.start();
  const auto link = connect();
  const auto first = link->welcome(10s);
  link->give_up_after(100ms);
  host.stop();
  std::this_thread::sleep_for(200ms);
  EXPECT_THROW(link->directive(1'000, 10ms), Error);
}

TEST_F(ParticipantLink, SaysWhyItLeaves) {
  host.start();
  {
    const auto link = connect();
    link->welcome(10s);
    link->leave_because("the lights went out");
  }
  EXPECT_TRUE(comes_true([&] { return host.snapshot().left == "the lights went out"; }));
}

}  // namespace
}  // namespace yumoe

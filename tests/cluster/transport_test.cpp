// What the transport promises, over real ZeroMQ sockets on the loopback.

#include "cluster/transport.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <thread>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

class Loopback : public ::testing::Test {
 protected:
  TransportOptions options = [] {
    TransportOptions o;
    o.port = 0;
    o.message_bytes_max = 65'536;
    o.queued_messages_max = 4;
    return o;
  }();
  CurveKeypair server_keys = CurveKeypair::generate();
  CurveKeypair client_keys = CurveKeypair::generate();
  std::unique_ptr<ServerTransport> server = listen_zeromq(options, server_keys);
  std::unique_ptr<ClientTransport> client = connect_zeromq(server->address(), client_keys, options);
};

TEST_F(Loopback, CarriesFramesBothWaysAndTellsWhichCurveKeySpoke) {
  ASSERT_TRUE(client->send({Bytes{1, 2}, Bytes{3}}));
  const auto received = server->receive(5s);
  ASSERT_TRUE(received);
  EXPECT_THAT(received->frames, ::testing::ElementsAre(Bytes{1, 2}, Bytes{3}));
  EXPECT_EQ(received->client_key, client_keys.public_key);

  ASSERT_TRUE(server->send(received->peer, {Bytes{4}}));
  const auto answer = client->receive(5s);
  ASSERT_TRUE(answer);
  EXPECT_THAT(*answer, ::testing::ElementsAre(Bytes{4}));
  EXPECT_EQ(server->counts().bytes_in, 3 + received->peer.size() - sizeof(CurveKey))
      << "and ZeroMQ's name of it";
}

TEST_F(Loopback, NeverDeliversToAClientThatExpectsAnotherServerKey) {
  CoordinatorAddress wrong = server->address();
  wrong.key = CurveKeypair::generate().public_key;
  const auto stranger = connect_zeromq(wrong, client_keys, options);
  stranger->send({Bytes{1}});
  EXPECT_FALSE(server->receive(300ms));
}

TEST_F(Loopback, LetsInOnlyTheKeysItsDoorAllows) {
  const CurveKeypair known = CurveKeypair::generate();
  const auto closed = listen_zeromq(options, server_keys, {.allowed = {known.public_key}});
  const auto stranger = connect_zeromq(closed->address(), client_keys, options);
  const auto guest = connect_zeromq(closed->address(), known, options);
  stranger->send({Bytes{1}});
  guest->send({Bytes{2}});
  const auto received = closed->receive(5s);
  ASSERT_TRUE(received);
  EXPECT_EQ(received->client_key, known.public_key);
  EXPECT_FALSE(closed->receive(300ms));
}

TEST_F(Loopback, HoldsASenderBackWhoseMessagesAreNotRead) {
  const auto narrow =
      listen_zeromq(options, server_keys, {.allowed = {}, .unread_messages_max = 2});
  const auto busy = connect_zeromq(narrow->address(), client_keys, options);
  int taken = 0;
  for (int tries = 0; tries < 400; ++tries) {
    if (busy->send({Bytes(60'000)})) ++taken;
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_LT(taken, 200) << "beside what the two ends and the system's buffers hold";
  for (int i = 0; i < taken; ++i) ASSERT_TRUE(narrow->receive(5s)) << "held back, not lost: " << i;
}

TEST_F(Loopback, WaitsForAnyOfSeveralAndForADescriptor) {
  std::vector<std::unique_ptr<ClientTransport>> both;
  both.push_back(connect_zeromq(server->address(), client_keys, options));
  both.push_back(connect_zeromq(server->address(), CurveKeypair::generate(), options));
  wait_any(both, -1, 1ms);
  both[1]->send({Bytes{1}});
  const auto received = server->receive(5s);
  ASSERT_TRUE(received);
  server->send(received->peer, {Bytes{2}});
  wait_any(both, -1, 5s);
  EXPECT_FALSE(both[0]->receive(0ms));
  EXPECT_TRUE(both[1]->receive(0ms));
  const int bell = ::eventfd(1, EFD_CLOEXEC);
  const auto start = std::chrono::steady_clock::now();
  wait_any(both, bell, 5s);
  EXPECT_LT(std::chrono::steady_clock::now() - start, 4s);
  ::close(bell);
}

TEST_F(Loopback, DropsAnOversizedFrameWithItsConnectionAndServesOthers) {
  client->send({Bytes(100'000)});
  EXPECT_FALSE(server->receive(300ms));
  const auto other = connect_zeromq(server->address(), CurveKeypair::generate(), options);
  ASSERT_TRUE(other->send({Bytes{7}}));
  EXPECT_TRUE(server->receive(5s));
}

TEST_F(Loopback, DropsMessagesOfMoreFramesThanAllowed) {
  client->send({Bytes{1}, Bytes{2}, Bytes{3}});
  EXPECT_FALSE(server->receive(1s));
  EXPECT_EQ(server->counts().messages_dropped, 1u);
}

TEST_F(Loopback, TellsTheSenderInsteadOfBlockingWhenAPeerDoesNotRead) {
  client->send({Bytes{1}});
  const auto received = server->receive(5s);
  ASSERT_TRUE(received);
  bool refused = false;
  for (int i = 0; i < 10'000 && !refused; ++i) {
    refused = !server->send(received->peer, {Bytes(60'000)});
  }
  EXPECT_TRUE(refused);
}

// Callers that never read: what is sent to them fills the system's buffers and then ours.
class Unread : public Loopback {
 protected:
  void listen(std::size_t of_one, std::size_t of_all) {
    options.queued_messages_max = 10'000;
    server =
        listen_zeromq(options, server_keys,
                      {.allowed = {}, .unsent_bytes_max = of_one, .all_unsent_bytes_max = of_all});
    options.queued_messages_max = 1;  // theirs
  }
  Peer come(const CurveKeypair& keys) {
    clients.push_back(connect_zeromq(server->address(), keys, options));
    EXPECT_TRUE(clients.back()->send({Bytes{1}}));
    const auto received = server->receive(5s);
    EXPECT_TRUE(received);
    return received ? received->peer : Peer();
  }
  // Until it takes nothing more, also not a moment later.
  void fill(const Peer& peer) {
    for (int refused = 0; refused < 10;) {
      if (server->send(peer, {Bytes(60'000)})) {
        refused = 0;
      } else {
        ++refused;
        std::this_thread::sleep_for(20ms);
      }
    }
  }
  std::vector<std::unique_ptr<ClientTransport>> clients;
};

TEST_F(Unread, BoundsWhatIsUnsentToAKeyAndNotToEachOfItsConnections) {
  listen(1'000'000, 100'000'000);
  const Peer one = come(client_keys), two = come(client_keys);
  fill(one);
  // The system's buffers may still take one or the other; a connection counted by itself takes 16 and more.
  int taken = 0;
  while (taken < 8 && server->send(two, {Bytes(60'000)})) ++taken;
  EXPECT_LT(taken, 8) << "of the same key";
  EXPECT_TRUE(server->send(come(CurveKeypair::generate()), {Bytes(60'000)}));
  clients.clear();
  bool went = false;
  for (int tries = 0; tries < 100 && !went; ++tries, std::this_thread::sleep_for(20ms)) {
    went = server->send(come(client_keys), {Bytes(60'000)});
  }
  EXPECT_TRUE(went) << "what was unsent is gone with its connection";
}

TEST_F(Unread, LeavesRoomForACallerOfWhomNothingIsUnsentAlsoWhenTwoKeysDoNotRead) {
  listen(17 * 60'000, 34 * 60'000);
  const Peer one = come(client_keys), two = come(CurveKeypair::generate());
  fill(one);
  fill(two);
  int taken = 0;
  while (taken < 8 && server->send(one, {Bytes(60'000)})) ++taken;
  EXPECT_LT(taken, 8);
  EXPECT_TRUE(server->send(come(CurveKeypair::generate()), {Bytes(60'000)}));
}

TEST_F(Loopback, TellsTheSenderThatAPeerIsUnknown) {
  EXPECT_FALSE(server->send(Peer(40, 'x'), {Bytes{1}}));
  EXPECT_FALSE(server->send("nobody", {Bytes{1}}));
}

TEST_F(Loopback, NamesAPortThatIsTaken) {
  TransportOptions taken = options;
  const std::string endpoint = server->address().endpoint;
  taken.port = std::stoi(endpoint.substr(endpoint.rfind(':') + 1));
  try {
    listen_zeromq(taken, server_keys);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::port_taken);
    EXPECT_THAT(error.what(), HasSubstr("--transport.port"));
  }
}

TEST(CoordinatorAddress, RoundTripsAndNamesWhatIsWrong) {
  const CoordinatorAddress address{"tcp://127.0.0.1:48150", CurveKeypair::generate().public_key};
  const CoordinatorAddress back = CoordinatorAddress::parse(address.text());
  EXPECT_EQ(back.endpoint, address.endpoint);
  EXPECT_EQ(back.key, address.key);
  for (const char* bad : {"", "127.0.0.1:1?key=00", "tcp://h:1", "tcp://h:1?key=abcd"}) {
    EXPECT_THROW(CoordinatorAddress::parse(bad), Error) << bad;
  }
}

}  // namespace
}  // namespace yumoe

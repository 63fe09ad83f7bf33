#pragma once
// Who is behind each connection: challenges newcomers, checks signatures and sequence numbers, and
// forgets whoever breaks a rule. Knows nothing of rounds.

#include <map>
#include <optional>
#include <string>
#include <variant>

#include "cluster/clock.hpp"
#include "cluster/transport.hpp"
#include "router/protocol.hpp"

namespace yumoe {

class Sessions {
 public:
  // What a connection may send: so many messages at once, and so many a second on and on.
  struct Rate {
    double messages_per_s = 2'000;
    double burst = 10'000;
  };
  explicit Sessions(std::string run) : Sessions(std::move(run), Rate()) {}
  Sessions(std::string run, Rate rate) : run_(std::move(run)), rate_(rate) {}

  struct Session {
    Nonce nonce{};
    std::uint64_t sequence = 0;
    std::optional<PublicKey> hotkey;  // once a signature by it was verified
    std::optional<Uid> uid;           // once joined
    Join join;                        // as it introduced itself
    TimeMs last_heard;
    std::int64_t clock_skew_ms = 0;
    double allowance = 0;  // messages it may send at once
    TimeMs counted;        // when that was so
  };

  struct Message {  // verified
    Session* session = nullptr;
    Envelope envelope;
    ToCoordinator content;
    ByteView payload;
  };
  struct Reply {
    ToParticipant content;
  };
  struct Ignored {};
  struct Flood {  // it sent more than the rate allows, and was dropped
    std::optional<Uid> uid;
    std::string evidence;
  };
  using Outcome = std::variant<Message, Reply, Ignored, Flood>;

  // Sorts one incoming message. A newcomer, or anybody this process does not remember, is sent a
  // challenge. A message that breaks a rule is answered with a refusal once, costs the session, and
  // its CURVE key is not listened to for kPenalty.
  Outcome admit(const Received& received, TimeMs now);

  Session* find(const Peer& peer);
  // The connection that speaks for `uid`, if any.
  const Peer* peer_of(Uid uid) const;
  // Binds a joined participant to its connection; an older connection is forgotten.
  void bind(const Peer& peer, Uid uid);
  void forget(const Peer& peer);
  // The breaker's key is not listened to for kPenalty.
  void punish(const Peer& peer, const CurveKey& key, TimeMs now);

  std::size_t count() const noexcept { return sessions_.size(); }

  static constexpr std::chrono::seconds kPenalty{10};
  static constexpr std::size_t kSessionsMax = 70'000;

 private:
  Reply challenge(const Peer& peer, TimeMs now);
  bool exceeds_rate(Session& session, TimeMs now) const;
  void drop_silent(TimeMs now);

  std::string run_;
  Rate rate_;
  std::map<Peer, Session> sessions_;
  std::map<Uid, Peer> peers_;
  std::map<CurveKey, TimeMs> punished_until_;
};

}  // namespace yumoe

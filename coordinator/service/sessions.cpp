#include "service/sessions.hpp"

#include <sodium.h>

#include <algorithm>
#include <cstdio>

#include "cluster/error.hpp"
#include "cluster/log.hpp"

namespace yumoe {
namespace {

constexpr std::chrono::seconds kUnjoinedMax{60};

Sessions::Reply refusal_of(const Error& error) {
  return {Refusal{std::string(name_of(error.code())), std::string(error.what()).substr(0, 1'000),
                  error.code() == ErrorCode::version_mismatch}};
}

}  // namespace

Sessions::Outcome Sessions::admit(const Received& received, TimeMs now) {
  if (const auto found = punished_until_.find(received.client_key);
      found != punished_until_.end()) {
    if (now < found->second) return Ignored{};
    punished_until_.erase(found);
  }
  // Counted before anything of it is read, so that a flood costs little.
  if (Session* session = find(received.peer); session != nullptr && exceeds_rate(*session, now)) {
    char evidence[160];
    std::snprintf(evidence, sizeof evidence,
                  "more than %.0f messages at once and %.0f a second on and on: dropped for %lld s",
                  rate_.burst, rate_.messages_per_s, static_cast<long long>(kPenalty.count()));
    const Flood flood{session->uid, evidence};
    log_warning(std::string("dropped a connection: ") + evidence);
    punish(received.peer, received.client_key, now);
    return flood;
  }
  try {
    Envelope envelope = open_envelope(received.frames[0]);
    Session* session = find(received.peer);
    if (session == nullptr) return challenge(received.peer, now);
    ToCoordinator content = decode_to_coordinator(envelope.body);
    if (std::holds_alternative<Hello>(content)) return challenge(received.peer, now);
    if (envelope.challenge != session->nonce) {
      // Said before the challenge reached its sender; once it has joined, such stragglers are nothing.
      if (session->uid) return Ignored{};
      return challenge(received.peer, now);
    }
    if (!is_signed(envelope)) {
      throw Error(ErrorCode::signature_invalid, "message of " + to_ss58(envelope.sender));
    }
    if (envelope.sequence <= session->sequence) {
      throw Error(ErrorCode::signature_invalid,
                  "message number " + std::to_string(envelope.sequence) + " came before: replayed");
    }
    if (session->hotkey && *session->hotkey != envelope.sender) {
      throw Error(ErrorCode::signature_invalid, "another hotkey on the same connection");
    }
    session->sequence = envelope.sequence;
    session->hotkey = envelope.sender;
    session->last_heard = now;
    session->clock_skew_ms = (envelope.time - now).count();
    const ByteView payload = received.frames.size() > 1 ? ByteView(received.frames[1]) : ByteView();
    if (payload.size() > kPieceBytesMax) {
      throw Error(ErrorCode::message_too_large,
                  "payload of " + std::to_string(payload.size()) + " bytes");
    }
    return Message{session, std::move(envelope), std::move(content), payload};
  } catch (const Error& error) {
    log_warning(std::string("dropped a connection: ") + error.what());
    punish(received.peer, received.client_key, now);
    return refusal_of(error);
  }
}

bool Sessions::exceeds_rate(Session& session, TimeMs now) const {
  const double seconds = static_cast<double>((now - session.counted).count()) / 1e3;
  session.allowance =
      std::min(rate_.burst, session.allowance + rate_.messages_per_s * std::max(0.0, seconds));
  session.counted = std::max(session.counted, now);
  if (session.allowance < 1) return true;
  --session.allowance;
  return false;
}

Sessions::Reply Sessions::challenge(const Peer& peer, TimeMs now) {
  if (sessions_.size() >= kSessionsMax) drop_silent(now);
  if (sessions_.size() >= kSessionsMax && find(peer) == nullptr) {
    return {Refusal{std::string(name_of(ErrorCode::peer_refused)),
                    "too many connections that have not joined: try again in a minute", false}};
  }
  // Whoever has not joined yet gets the same nonce again, so that an answer on its way stays valid.
  if (const Session* session = find(peer); session != nullptr && !session->uid) {
    return {Challenge{session->nonce, run_}};
  }
  forget(peer);
  Session& session = sessions_[peer];
  randombytes_buf(session.nonce.data(), session.nonce.size());
  session.last_heard = session.counted = now;
  session.allowance = rate_.burst;
  return {Challenge{session.nonce, run_}};
}

// Connections that never introduced themselves, so that strangers cannot fill the table.
void Sessions::drop_silent(TimeMs now) {
  std::erase_if(sessions_, [&](const auto& entry) {
    return !entry.second.uid && now - entry.second.last_heard > kUnjoinedMax;
  });
}

Sessions::Session* Sessions::find(const Peer& peer) {
  const auto found = sessions_.find(peer);
  return found == sessions_.end() ? nullptr : &found->second;
}

const Peer* Sessions::peer_of(Uid uid) const {
  const auto found = peers_.find(uid);
  return found == peers_.end() ? nullptr : &found->second;
}

void Sessions::bind(const Peer& peer, Uid uid) {
  if (const Peer* older = peer_of(uid); older != nullptr && *older != peer) forget(Peer(*older));
  sessions_.at(peer).uid = uid;
  peers_[uid] = peer;
}

void Sessions::forget(const Peer& peer) {
  const auto found = sessions_.find(peer);
  if (found == sessions_.end()) return;
  if (found->second.uid) {
    const auto bound = peers_.find(*found->second.uid);
    if (bound != peers_.end() && bound->second == peer) peers_.erase(bound);
  }
  sessions_.erase(found);
}

void Sessions::punish(const Peer& peer, const CurveKey& key, TimeMs now) {
  forget(peer);
  if (punished_until_.size() >= kSessionsMax) punished_until_.clear();
  punished_until_[key] = now + kPenalty;
}

}  // namespace yumoe

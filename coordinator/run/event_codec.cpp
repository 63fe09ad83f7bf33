#include "cluster/overloaded.hpp"
#include "coordinator/run.hpp"
#include "router/wire.hpp"
#include "schemas/event.capnp.h"

namespace yumoe {
namespace {

using wire::digest_of_field;
using wire::not_negative_of;
using wire::text_of;

constexpr std::size_t kEvidenceBytesMax = 4 << 20;

void write(wire::Event::Revealed::Builder out, const Revealed& event) {
  out.setUid(event.uid.value);
  out.setRound(event.round.value);
  out.setBlob(wire::data(event.blob.bytes));
  out.setFilter(event.filter);
  out.setEvidence(event.evidence);
  out.setSteps(event.steps);
  out.setTokens(event.tokens);
  out.setSeconds(event.seconds);
  out.setLossLast(event.loss_last);
  out.setRepeatsUid(event.repeats.value);
  out.setRepeatsRound(event.repeats_round.value);
  auto tokens = out.initExpertTokens(static_cast<unsigned>(event.expert_tokens.size()));
  for (unsigned i = 0; i < tokens.size(); ++i) tokens.set(i, event.expert_tokens[i]);
}

Revealed read(wire::Event::Revealed::Reader in) {
  Revealed event;
  event.uid = {in.getUid()};
  event.round = {in.getRound()};
  event.blob = digest_of_field(in.getBlob(), "blob");
  event.filter = text_of(in.getFilter(), kNameBytesMax, "filter");
  event.evidence = text_of(in.getEvidence(), kTextBytesMax, "evidence");
  event.steps = in.getSteps();
  event.tokens = in.getTokens();
  event.seconds = not_negative_of(in.getSeconds(), "seconds");
  event.loss_last = wire::finite_of(in.getLossLast(), "last loss");
  event.repeats = {in.getRepeatsUid()};
  event.repeats_round = {in.getRepeatsRound()};
  event.expert_tokens = wire::numbers_of(in.getExpertTokens(), kExpertTokensMax, "expert tokens");
  return event;
}

PublicKey key_of(std::uint8_t type, capnp::Data::Reader bytes) {
  if (type > 1) wire::malformed("unknown key type");
  return {static_cast<KeyType>(type), wire::array_of<32>(bytes, "key")};
}

Joined read(wire::Event::Joined::Reader in) {
  Joined event;
  event.hotkey = key_of(in.getKeyType(), in.getHotkey());
  const auto role = static_cast<std::uint16_t>(in.getRole());
  if (role > 1) wire::malformed("unknown role");
  event.role = static_cast<Role>(role);
  event.name = text_of(in.getName(), kNameBytesMax, "name");
  event.profile = wire::read(in.getProfile());
  event.stake = not_negative_of(in.getStake(), "stake");
  return event;
}

void write(wire::Event::Joined::Builder out, const Joined& event) {
  out.setKeyType(static_cast<std::uint8_t>(event.hotkey.type));
  out.setHotkey(wire::data(event.hotkey.bytes));
  out.setRole(static_cast<wire::ToCoordinator::Role>(event.role));
  out.setName(event.name);
  wire::write(out.initProfile(), event.profile);
  out.setStake(event.stake);
}

}  // namespace

std::string_view kind_of(const Event& event) {
  constexpr std::string_view kKinds[] = {"started",  "joined",  "left",       "committed",
                                         "revealed", "scored",  "aggregated", "checkpointed",
                                         "tick",     "resumed", "called"};
  return kKinds[event.index()];
}

Bytes encode(const Event& event) {
  return wire::write_message<wire::Event>([&](wire::Event::Builder out) {
    std::visit(Overloaded{
                   [&](const Started& e) {
                     auto to = out.initStarted();
                     to.setVersionDigest(wire::data(e.version.bytes));
                     to.setPrivateSeed(e.private_seed);
                   },
                   [&](const Joined& e) { write(out.initJoined(), e); },
                   [&](const Left& e) {
                     auto to = out.initLeft();
                     to.setUid(e.uid.value);
                     to.setReason(e.reason);
                   },
                   [&](const Committed& e) {
                     auto to = out.initCommitted();
                     to.setUid(e.uid.value);
                     to.setRound(e.round.value);
                     to.setDigest(wire::data(e.digest.bytes));
                     to.setBytes(e.bytes);
                     to.setEvidence(wire::data(e.evidence));
                   },
                   [&](const Revealed& e) { write(out.initRevealed(), e); },
                   [&](const Scored& e) {
                     auto to = out.initScored();
                     to.setValidator(e.validator.value);
                     wire::write(to.initScores(), e.scores);
                     to.setEvidence(wire::data(e.evidence));
                   },
                   [&](const Aggregated& e) {
                     auto to = out.initAggregated();
                     to.setRound(e.round.value);
                     to.setBlob(wire::data(e.blob.bytes));
                     to.setVersionDigest(wire::data(e.version.bytes));
                     to.setUpBytes(e.up_bytes);
                     to.setDownBytes(e.down_bytes);
                   },
                   [&](const Checkpointed& e) {
                     auto to = out.initCheckpointed();
                     to.setVersion(e.version.value);
                     to.setStateDigest(wire::data(e.state.bytes));
                   },
                   [&](const Tick&) { out.setTick(); },
                   [&](const Resumed&) { out.setResumed(); },
                   [&](const Called& e) {
                     auto to = out.initCalled();
                     to.setKeyType(static_cast<std::uint8_t>(e.account.type));
                     to.setAccount(wire::data(e.account.bytes));
                     to.setNonce(e.nonce);
                     to.setOperation(wire::data(e.operation));
                     to.setEvidence(wire::data(e.evidence));
                   },
               },
               event);
  });
}

Event decode_event(ByteView bytes) {
  return wire::read_message<wire::Event>(bytes, [](wire::Event::Reader in) -> Event {
    using Which = wire::Event::Which;
    switch (in.which()) {
      case Which::STARTED:
        return Started{digest_of_field(in.getStarted().getVersionDigest(), "version digest"),
                       in.getStarted().getPrivateSeed()};
      case Which::JOINED: return read(in.getJoined());
      case Which::LEFT:
        return Left{{in.getLeft().getUid()},
                    text_of(in.getLeft().getReason(), kTextBytesMax, "reason")};
      case Which::COMMITTED: {
        const auto from = in.getCommitted();
        return Committed{{from.getUid()},
                         {from.getRound()},
                         digest_of_field(from.getDigest(), "commitment"),
                         from.getBytes(),
                         wire::bytes_of(from.getEvidence(), kEvidenceBytesMax, "evidence")};
      }
      case Which::REVEALED: return read(in.getRevealed());
      case Which::SCORED: {
        const auto from = in.getScored();
        return Scored{{from.getValidator()},
                      wire::read(from.getScores()),
                      wire::bytes_of(from.getEvidence(), kEvidenceBytesMax, "evidence")};
      }
      case Which::AGGREGATED: {
        const auto from = in.getAggregated();
        return Aggregated{{from.getRound()},
                          digest_of_field(from.getBlob(), "aggregate"),
                          digest_of_field(from.getVersionDigest(), "version digest"),
                          from.getUpBytes(),
                          from.getDownBytes()};
      }
      case Which::CHECKPOINTED:
        return Checkpointed{{in.getCheckpointed().getVersion()},
                            digest_of_field(in.getCheckpointed().getStateDigest(), "state digest")};
      case Which::TICK: return Tick{};
      case Which::RESUMED: return Resumed{};
      case Which::CALLED: {
        const auto from = in.getCalled();
        return Called{key_of(from.getKeyType(), from.getAccount()), from.getNonce(),
                      wire::bytes_of(from.getOperation(), kCallBytesMax, "operation"),
                      wire::bytes_of(from.getEvidence(), kEvidenceBytesMax, "evidence")};
      }
    }
    wire::malformed("unknown event");
  });
}

}  // namespace yumoe

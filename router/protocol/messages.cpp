#include "cluster/overloaded.hpp"
#include "router/wire.hpp"

namespace yumoe {
namespace {

using wire::array_of;
using wire::bytes_of;
using wire::check_count;
using wire::digest_of_field;
using wire::finite_of;
using wire::malformed;
using wire::not_negative_of;
using wire::optional_digest;
using wire::read_message;
using wire::text_of;
using wire::write_message;

constexpr std::size_t kStepsListedMax = 4'096;
constexpr std::size_t kSettingsMax = 4'096;
constexpr std::size_t kItemsMax = 65'536;

Contribution read_contribution(wire::Contribution::Reader in) {
  Contribution c;
  c.round = {in.getRound()};
  c.uid = {in.getUid()};
  c.shard = digest_of_field(in.getShardDigest(), "shard digest");
  c.base = digest_of_field(in.getBaseDigest(), "base digest");
  c.steps = in.getSteps();
  c.tokens = in.getTokens();
  c.seconds = not_negative_of(in.getSeconds(), "seconds");
  c.loss_first = finite_of(in.getLossFirst(), "first loss");
  c.loss_last = finite_of(in.getLossLast(), "last loss");
  c.expert_tokens = wire::numbers_of(in.getExpertTokens(), kExpertTokensMax, "expert tokens");
  c.update = bytes_of(in.getUpdate(), kContributionBytesMax, "update");
  c.delta = digest_of_field(in.getDeltaDigest(), "delta digest");
  c.loss_bits = wire::numbers_of(in.getLossBits(), kExpertTokensMax, "losses");
  c.moments_from = {in.getMomentsFrom()};
  if (c.moments_from.value == 0 || c.moments_from > c.round) {
    throw Error(ErrorCode::message_malformed,
                "moments of round " + std::to_string(c.moments_from.value) +
                    " in a contribution to round " + std::to_string(c.round.value));
  }
  return c;
}

Directive read_directive(wire::ToParticipant::Directive::Reader in) {
  Directive d;
  d.sequence = in.getSequence();
  d.round = {in.getRound()};
  d.rounds_total = in.getRoundsTotal();
  d.version = {in.getVersion()};
  d.version_digest = optional_digest(in.getVersionDigest(), "version digest");
  d.checkpoint = {in.getCheckpoint()};
  d.checkpoint_state = optional_digest(in.getCheckpointState(), "checkpoint digest");
  const auto steps = in.getAggregates();
  check_count(steps, kStepsListedMax, "aggregates");
  for (const auto step : steps) {
    d.aggregates.push_back({{step.getRound()},
                            digest_of_field(step.getDigest(), "aggregate digest"),
                            digest_of_field(step.getVersionDigest(), "version digest")});
  }
  d.shard = wire::read(in.getShard());
  d.commit_deadline = {in.getCommitDeadlineMs()};
  const auto answer = static_cast<std::uint16_t>(in.getAnswer());
  if (answer > 3) malformed("unknown answer");
  d.answer = static_cast<Answer>(answer);
  d.reveal_wanted = in.getRevealWanted();
  const auto evaluate = in.getEvaluate();
  d.evaluate.round = {evaluate.getRound()};
  d.evaluate.base = optional_digest(evaluate.getBaseDigest(), "base digest");
  d.evaluate.deadline = {evaluate.getDeadlineMs()};
  check_count(evaluate.getContributions(), kItemsMax, "contributions");
  for (const auto item : evaluate.getContributions()) {
    d.evaluate.contributions.push_back(
        {wire::read(item.getShard()), digest_of_field(item.getDigest(), "contribution digest")});
  }
  d.evaluate.answered = evaluate.getAnswered();
  d.evaluate.closer = evaluate.getCloser();
  check_count(evaluate.getAudits(), kItemsMax, "audits");
  for (const auto item : evaluate.getAudits()) {
    d.evaluate.audits.push_back(
        {wire::read(item.getShard()), digest_of_field(item.getDigest(), "contribution digest")});
  }
  d.finished = in.getFinished();
  const auto standing = in.getStanding();
  d.standing = {finite_of(standing.getScore(), "score"), finite_of(standing.getRating(), "rating"),
                standing.getWeight(), standing.getRank(), standing.getOf()};
  d.reason = text_of(in.getReason(), kTextBytesMax, "reason");
  return d;
}

void write_directive(wire::ToParticipant::Directive::Builder out, const Directive& d) {
  out.setSequence(d.sequence);
  out.setRound(d.round.value);
  out.setRoundsTotal(d.rounds_total);
  out.setVersion(d.version.value);
  out.setVersionDigest(wire::data(d.version_digest.bytes));
  out.setCheckpoint(d.checkpoint.value);
  out.setCheckpointState(wire::data(d.checkpoint_state.bytes));
  auto steps = out.initAggregates(static_cast<unsigned>(d.aggregates.size()));
  for (unsigned i = 0; i < steps.size(); ++i) {
    steps[i].setRound(d.aggregates[i].round.value);
    steps[i].setDigest(wire::data(d.aggregates[i].aggregate.bytes));
    steps[i].setVersionDigest(wire::data(d.aggregates[i].version.bytes));
  }
  wire::write(out.initShard(), d.shard);
  out.setCommitDeadlineMs(d.commit_deadline.value);
  out.setAnswer(static_cast<wire::ToParticipant::Directive::Answer>(d.answer));
  out.setRevealWanted(d.reveal_wanted);
  auto evaluate = out.initEvaluate();
  evaluate.setRound(d.evaluate.round.value);
  evaluate.setBaseDigest(wire::data(d.evaluate.base.bytes));
  evaluate.setDeadlineMs(d.evaluate.deadline.value);
  auto items = evaluate.initContributions(static_cast<unsigned>(d.evaluate.contributions.size()));
  for (unsigned i = 0; i < items.size(); ++i) {
    wire::write(items[i].initShard(), d.evaluate.contributions[i].shard);
    items[i].setDigest(wire::data(d.evaluate.contributions[i].digest.bytes));
  }
  evaluate.setAnswered(d.evaluate.answered);
  evaluate.setCloser(d.evaluate.closer);
  auto audits = evaluate.initAudits(static_cast<unsigned>(d.evaluate.audits.size()));
  for (unsigned i = 0; i < audits.size(); ++i) {
    wire::write(audits[i].initShard(), d.evaluate.audits[i].shard);
    audits[i].setDigest(wire::data(d.evaluate.audits[i].digest.bytes));
  }
  out.setFinished(d.finished);
  auto standing = out.initStanding();
  standing.setScore(d.standing.score);
  standing.setRating(d.standing.rating);
  standing.setWeight(d.standing.weight);
  standing.setRank(d.standing.rank);
  standing.setOf(d.standing.of);
  out.setReason(d.reason);
}

Welcome read_welcome(wire::ToParticipant::Welcome::Reader in) {
  Welcome w;
  w.uid = {in.getUid()};
  w.netuid = {in.getNetuid()};
  w.run = text_of(in.getRun(), kNameBytesMax, "run");
  if (in.getCoordinatorKeyType() > 1) malformed("unknown key type");
  w.coordinator = {static_cast<KeyType>(in.getCoordinatorKeyType()),
                   array_of<32>(in.getCoordinator(), "coordinator key")};
  check_count(in.getConfiguration(), kSettingsMax, "configuration");
  for (const auto setting : in.getConfiguration()) {
    w.configuration.emplace_back(text_of(setting.getKey(), kTextBytesMax, "setting"),
                                 text_of(setting.getValue(), kTextBytesMax, "setting"));
  }
  w.configuration_digest = digest_of_field(in.getConfigurationDigest(), "configuration digest");
  w.token_set = digest_of_field(in.getTokenSetDigest(), "token set digest");
  w.private_seed = in.getPrivateSeed();
  return w;
}

void write_welcome(wire::ToParticipant::Welcome::Builder out, const Welcome& w) {
  out.setUid(w.uid.value);
  out.setNetuid(w.netuid.value);
  out.setRun(w.run);
  out.setCoordinator(wire::data(w.coordinator.bytes));
  out.setCoordinatorKeyType(static_cast<std::uint8_t>(w.coordinator.type));
  auto settings = out.initConfiguration(static_cast<unsigned>(w.configuration.size()));
  for (unsigned i = 0; i < settings.size(); ++i) {
    settings[i].setKey(w.configuration[i].first);
    settings[i].setValue(w.configuration[i].second);
  }
  out.setConfigurationDigest(wire::data(w.configuration_digest.bytes));
  out.setTokenSetDigest(wire::data(w.token_set.bytes));
  out.setPrivateSeed(w.private_seed);
}

}  // namespace

Bytes encode(const Contribution& c) {
  return write_message<wire::Contribution>([&](wire::Contribution::Builder out) {
    out.setRound(c.round.value);
    out.setUid(c.uid.value);
    out.setShardDigest(wire::data(c.shard.bytes));
    out.setBaseDigest(wire::data(c.base.bytes));
    out.setSteps(c.steps);
    out.setTokens(c.tokens);
    out.setSeconds(c.seconds);
    out.setLossFirst(c.loss_first);
    out.setLossLast(c.loss_last);
    auto tokens = out.initExpertTokens(static_cast<unsigned>(c.expert_tokens.size()));
    for (unsigned i = 0; i < tokens.size(); ++i) tokens.set(i, c.expert_tokens[i]);
    out.setUpdate(wire::data(c.update));
    out.setDeltaDigest(wire::data(c.delta.bytes));
    auto losses = out.initLossBits(static_cast<unsigned>(c.loss_bits.size()));
    for (unsigned i = 0; i < losses.size(); ++i) losses.set(i, c.loss_bits[i]);
    out.setMomentsFrom(c.moments_from.value);
  });
}

Contribution decode_contribution(ByteView bytes) {
  return read_message<wire::Contribution>(bytes, read_contribution);
}

Digest digest_of_delta(const Layout& layout, const ExpertSet& experts,
                       std::span<const float> delta) {
  Digester digester;
  for (const TensorSpec* tensor : layout.tensors_of(experts)) {
    digester.update(as_bytes(delta.subspan(tensor->offset, tensor->elements)));
  }
  return digester.finish();
}

Digest digest_of_shard(const TrainingShard& shard) {
  return digest_of(
      write_message<wire::Shard>([&](wire::Shard::Builder out) { wire::write(out, shard); }));
}

Bytes encode(const ToCoordinator& message) {
  return write_message<wire::ToCoordinator>([&](wire::ToCoordinator::Builder out) {
    std::visit(Overloaded{
                   [&](const Hello&) { out.setHello(); },
                   [&](const Join& join) {
                     auto to = out.initJoin();
                     to.setRole(static_cast<wire::ToCoordinator::Role>(join.role));
                     wire::write(to.initProfile(), join.profile);
                     to.setName(join.name);
                   },
                   [&](const Heartbeat& heartbeat) {
                     auto to = out.initHeartbeat();
                     to.setDirective(heartbeat.directive);
                     to.setVersion(heartbeat.version.value);
                     to.setRound(heartbeat.round.value);
                     to.setStepsDone(heartbeat.steps_done);
                     to.setTokensDone(heartbeat.tokens_done);
                     to.setLoss(heartbeat.loss);
                     to.setTokensPerS(heartbeat.tokens_per_s);
                   },
                   [&](const Commit& commit) {
                     auto to = out.initCommit();
                     to.setRound(commit.round.value);
                     to.setDigest(wire::data(commit.digest.bytes));
                     to.setBytes(commit.bytes);
                   },
                   [&](const RevealPiece& piece) {
                     auto to = out.initReveal();
                     to.setRound(piece.round.value);
                     to.setOffset(piece.offset);
                   },
                   [&](const Fetch& fetch) {
                     auto to = out.initFetch();
                     to.setDigest(wire::data(fetch.digest.bytes));
                     to.setOffset(fetch.offset);
                   },
                   [&](const Scores& scores) { wire::write(out.initScores(), scores); },
                   [&](const Leave& leave) { out.setLeave(leave.reason); },
                   [&](const LedgerCall& call) {
                     auto to = out.initCall();
                     to.setRun(call.run);
                     to.setNonce(call.nonce);
                     to.setOperation(wire::data(call.operation));
                   },
                   [&](const Probe& probe) {
                     auto to = out.initProbe();
                     to.setNumber(probe.number);
                     to.setWantedBytes(probe.wanted_bytes);
                   },
               },
               message);
  });
}

ToCoordinator decode_to_coordinator(ByteView bytes) {
  return read_message<wire::ToCoordinator>(
      bytes, [](wire::ToCoordinator::Reader in) -> ToCoordinator {
        using Which = wire::ToCoordinator::Which;
        switch (in.which()) {
          case Which::HELLO: return Hello{};
          case Which::JOIN: {
            const auto from = in.getJoin();
            const auto role = static_cast<std::uint16_t>(from.getRole());
            if (role > 1) malformed("unknown role");
            return Join{static_cast<Role>(role), wire::read(from.getProfile()),
                        text_of(from.getName(), kNameBytesMax, "name")};
          }
          case Which::HEARTBEAT: {
            const auto from = in.getHeartbeat();
            return Heartbeat{from.getDirective(),
                             {from.getVersion()},
                             {from.getRound()},
                             from.getStepsDone(),
                             from.getTokensDone(),
                             finite_of(from.getLoss(), "loss"),
                             not_negative_of(from.getTokensPerS(), "tokens per second")};
          }
          case Which::COMMIT: {
            const auto from = in.getCommit();
            if (from.getBytes() == 0 || from.getBytes() > kContributionBytesMax) {
              malformed("committed length is out of range");
            }
            return Commit{{from.getRound()},
                          digest_of_field(from.getDigest(), "commitment"),
                          from.getBytes()};
          }
          case Which::REVEAL:
            return RevealPiece{{in.getReveal().getRound()}, in.getReveal().getOffset()};
          case Which::FETCH:
            return Fetch{digest_of_field(in.getFetch().getDigest(), "digest"),
                         in.getFetch().getOffset()};
          case Which::SCORES: return wire::read(in.getScores());
          case Which::LEAVE: return Leave{text_of(in.getLeave(), kTextBytesMax, "reason")};
          case Which::CALL: {
            const auto from = in.getCall();
            return LedgerCall{text_of(from.getRun(), kNameBytesMax, "run"), from.getNonce(),
                              wire::bytes_of(from.getOperation(), kCallBytesMax, "operation")};
          }
          case Which::PROBE: {
            const auto from = in.getProbe();
            if (from.getWantedBytes() > kPieceBytesMax) malformed("probe asks for too much");
            return Probe{from.getNumber(), from.getWantedBytes()};
          }
        }
        malformed("unknown message");
      });
}

Bytes encode(const ToParticipant& message) {
  return write_message<wire::ToParticipant>([&](wire::ToParticipant::Builder out) {
    std::visit(
        Overloaded{
            [&](const Challenge& challenge) {
              auto to = out.initChallenge();
              to.setNonce(wire::data(challenge.nonce));
              to.setRun(challenge.run);
              to.setProtocol(kProtocolVersion);
            },
            [&](const Welcome& welcome) { write_welcome(out.initWelcome(), welcome); },
            [&](const Directive& directive) { write_directive(out.initDirective(), directive); },
            [&](const Receipt& receipt) {
              auto to = out.initReceipt();
              to.setKind(static_cast<wire::ToParticipant::Receipt::Kind>(receipt.kind));
              to.setRound(receipt.round.value);
              to.setDigest(wire::data(receipt.digest.bytes));
              to.setTimeMs(receipt.time.value);
              to.setSignature(wire::data(receipt.signature));
            },
            [&](const Piece& piece) {
              auto to = out.initPiece();
              to.setDigest(wire::data(piece.digest.bytes));
              to.setOffset(piece.offset);
              to.setTotalBytes(piece.total_bytes);
            },
            [&](const Refusal& refusal) {
              auto to = out.initRefusal();
              to.setCode(refusal.code);
              to.setMessage(refusal.message);
              to.setFinal(refusal.final);
            },
            [&](const LedgerAnswer& answer) {
              auto to = out.initCalled();
              to.setNonce(answer.nonce);
              to.setError(answer.error);
              to.setBlock(answer.block);
              to.setFree(answer.free);
            },
        },
        message);
  });
}

ToParticipant decode_to_participant(ByteView bytes) {
  return read_message<wire::ToParticipant>(
      bytes, [](wire::ToParticipant::Reader in) -> ToParticipant {
        using Which = wire::ToParticipant::Which;
        switch (in.which()) {
          case Which::CHALLENGE:
            return Challenge{array_of<32>(in.getChallenge().getNonce(), "nonce"),
                             text_of(in.getChallenge().getRun(), kNameBytesMax, "run")};
          case Which::WELCOME: return read_welcome(in.getWelcome());
          case Which::DIRECTIVE: return read_directive(in.getDirective());
          case Which::RECEIPT: {
            const auto from = in.getReceipt();
            const auto kind = static_cast<std::uint16_t>(from.getKind());
            if (kind > 2) malformed("unknown receipt");
            return Receipt{static_cast<ReceiptKind>(kind),
                           {from.getRound()},
                           digest_of_field(from.getDigest(), "digest"),
                           {from.getTimeMs()},
                           array_of<64>(from.getSignature(), "signature")};
          }
          case Which::PIECE: {
            const auto from = in.getPiece();
            return Piece{digest_of_field(from.getDigest(), "digest"), from.getOffset(),
                         from.getTotalBytes()};
          }
          case Which::REFUSAL: {
            const auto from = in.getRefusal();
            return Refusal{text_of(from.getCode(), kNameBytesMax, "code"),
                           text_of(from.getMessage(), kTextBytesMax, "message"), from.getFinal()};
          }
          case Which::CALLED: {
            const auto from = in.getCalled();
            return LedgerAnswer{from.getNonce(), text_of(from.getError(), kTextBytesMax, "error"),
                                from.getBlock(), from.getFree()};
          }
        }
        malformed("unknown message");
      });
}

}  // namespace yumoe

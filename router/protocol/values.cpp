// The values that both messages and journal events carry.
#include <cmath>

#include "router/wire.hpp"

namespace yumoe::wire {
namespace {

constexpr std::size_t kExpertsMax = 65'536;
constexpr std::size_t kParticipantsMax = 65'536;

void write(ToCoordinator::Scores::Measurement::Builder out, const Measurement& measurement) {
  out.setLossBefore(measurement.loss_before);
  out.setReduction(measurement.reduction);
  out.setStandardError(measurement.standard_error);
  out.setWindows(measurement.windows);
}

Measurement read(ToCoordinator::Scores::Measurement::Reader in) {
  Measurement measurement;
  measurement.loss_before = finite_of(in.getLossBefore(), "loss before");
  measurement.reduction = finite_of(in.getReduction(), "loss reduction");
  measurement.standard_error = not_negative_of(in.getStandardError(), "standard error");
  measurement.windows = in.getWindows();
  return measurement;
}

}  // namespace

void write(Shard::Builder out, const TrainingShard& shard) {
  out.setRound(shard.round.value);
  out.setNetuid(shard.netuid.value);
  out.setUid(shard.uid.value);
  out.setSeed(shard.seed);
  out.setDataFirst(shard.data.first);
  out.setDataCount(shard.data.count);
  out.setInnerSteps(shard.inner_steps);
  out.setStepsBefore(shard.steps_before);
  auto experts = out.initExperts(static_cast<unsigned>(shard.experts.size()));
  for (unsigned i = 0; i < experts.size(); ++i) experts.set(i, shard.experts[i]);
}

TrainingShard read(Shard::Reader in) {
  TrainingShard shard;
  shard.round = {in.getRound()};
  shard.netuid = {in.getNetuid()};
  shard.uid = {in.getUid()};
  shard.seed = in.getSeed();
  shard.data = {in.getDataFirst(), in.getDataCount()};
  shard.inner_steps = in.getInnerSteps();
  shard.steps_before = in.getStepsBefore();
  const auto experts = in.getExperts();
  check_count(experts, kExpertsMax, "experts");
  for (const std::uint32_t expert : experts) {
    if (!shard.experts.empty() && expert <= shard.experts.back()) {
      malformed("experts are not ascending");
    }
    shard.experts.push_back(expert);
  }
  return shard;
}

void write(Profile::Builder out, const WorkerProfile& profile) {
  out.setTokensPerS(profile.tokens_per_s);
  out.setMemoryMib(profile.memory_mib);
  out.setUpBytesPerS(profile.up_bytes_per_s);
  out.setDownBytesPerS(profile.down_bytes_per_s);
  out.setRoundTripMs(profile.round_trip_ms);
  out.setExpertsMax(profile.experts_max);
  out.setTier(profile.tier);
  out.setRegion(profile.region);
  out.setDevice(profile.device);
  out.setInnerStepsMax(profile.inner_steps_max);
  out.setMeasuring(profile.measuring);
  out.setRemark(profile.remark);
}

WorkerProfile read(Profile::Reader in) {
  WorkerProfile profile;
  profile.tokens_per_s = not_negative_of(in.getTokensPerS(), "tokens per second");
  profile.memory_mib = in.getMemoryMib();
  profile.up_bytes_per_s = not_negative_of(in.getUpBytesPerS(), "up bandwidth");
  profile.down_bytes_per_s = not_negative_of(in.getDownBytesPerS(), "down bandwidth");
  profile.round_trip_ms = not_negative_of(in.getRoundTripMs(), "round trip");
  profile.experts_max = in.getExpertsMax();
  profile.tier = text_of(in.getTier(), kNameBytesMax, "tier");
  profile.region = text_of(in.getRegion(), kNameBytesMax, "region");
  profile.device = text_of(in.getDevice(), kNameBytesMax, "device");
  profile.inner_steps_max = in.getInnerStepsMax();
  profile.measuring = in.getMeasuring();
  profile.remark = text_of(in.getRemark(), kTextBytesMax, "remark");
  return profile;
}

void write(ToCoordinator::Scores::Builder out, const yumoe::Scores& scores) {
  out.setRound(scores.round.value);
  out.setSecondsSpent(scores.seconds_spent);
  out.setHeldoutLoss(scores.heldout_loss);
  out.setHeldoutBitsPerByte(scores.heldout_bits_per_byte);
  auto entries = out.initEntries(static_cast<unsigned>(scores.entries.size()));
  for (unsigned i = 0; i < entries.size(); ++i) {
    const ScoreEntry& entry = scores.entries[i];
    entries[i].setUid(entry.uid.value);
    entries[i].setVerdict(static_cast<ToCoordinator::Scores::Verdict>(entry.verdict));
    write(entries[i].initAssigned(), entry.assigned);
    write(entries[i].initPrivate(), entry.private_draw);
    if (entry.given.windows > 0) write(entries[i].initGiven(), entry.given);
    auto experts = entries[i].initExperts(static_cast<unsigned>(entry.experts.size()));
    for (unsigned e = 0; e < experts.size(); ++e) {
      experts[e].setExpert(entry.experts[e].expert);
      write(experts[e].initMeasurement(), entry.experts[e].measurement);
    }
  }
  auto audits = out.initAudits(static_cast<unsigned>(scores.audits.size()));
  for (unsigned i = 0; i < audits.size(); ++i) {
    const ShardAudit& audit = scores.audits[i];
    audits[i].setUid(audit.uid.value);
    audits[i].setRound(audit.round.value);
    audits[i].setVerdict(static_cast<ToCoordinator::Scores::AuditVerdict>(audit.verdict));
    audits[i].setFirstStep(audit.first_step);
    audits[i].setDeltaDigest(wire::data(audit.delta.bytes));
  }
}

yumoe::Scores read(ToCoordinator::Scores::Reader in) {
  yumoe::Scores scores;
  scores.round = {in.getRound()};
  scores.seconds_spent = not_negative_of(in.getSecondsSpent(), "seconds spent");
  // Not a number means "not measured", which is legal here and nowhere else.
  const auto measured = [](double value, const char* field) {
    return std::isnan(value) ? value : finite_of(value, field);
  };
  scores.heldout_loss = measured(in.getHeldoutLoss(), "held-out loss");
  scores.heldout_bits_per_byte = measured(in.getHeldoutBitsPerByte(), "held-out bits");
  const auto entries = in.getEntries();
  check_count(entries, kParticipantsMax, "scores");
  for (const auto entry : entries) {
    if (!scores.entries.empty() && entry.getUid() <= scores.entries.back().uid.value) {
      malformed("scores are not ascending by uid");
    }
    const auto verdict = static_cast<std::uint16_t>(entry.getVerdict());
    if (verdict > 2) malformed("unknown verdict");
    scores.entries.push_back({{entry.getUid()},
                              static_cast<Verdict>(verdict),
                              read(entry.getAssigned()),
                              read(entry.getPrivate()),
                              {}});
    check_count(entry.getExperts(), kExpertsMax, "measured experts");
    for (const auto measured : entry.getExperts()) {
      auto& experts = scores.entries.back().experts;
      if (!experts.empty() && measured.getExpert() <= experts.back().expert) {
        malformed("measured experts are not ascending");
      }
      experts.push_back({measured.getExpert(), read(measured.getMeasurement())});
    }
    if (entry.hasGiven()) scores.entries.back().given = read(entry.getGiven());
  }
  check_count(in.getAudits(), kParticipantsMax, "audits");
  for (const auto audit : in.getAudits()) {
    const auto verdict = static_cast<std::uint16_t>(audit.getVerdict());
    if (verdict > 2) malformed("unknown audit verdict");
    scores.audits.push_back({{audit.getUid()},
                             {audit.getRound()},
                             static_cast<AuditVerdict>(verdict),
                             audit.getFirstStep(),
                             optional_digest(audit.getDeltaDigest(), "delta digest")});
  }
  return scores;
}

}  // namespace yumoe::wire

#include "service/shared.hpp"

#include <algorithm>

#include "cluster/error.hpp"
#include "cluster/log.hpp"

namespace yumoe {
namespace {

constexpr std::chrono::milliseconds kFetchWait{60'000};

std::int64_t number_of(const OptionTexts& texts, std::string_view key) {
  for (const auto& [name, text] : texts) {
    std::int64_t value = 0;
    if (name == key && option_detail::parse(text, value)) return value;
  }
  throw Error(ErrorCode::config_invalid, "the run's configuration has no " + std::string(key));
}

}  // namespace

RunFacts RunFacts::from(const Welcome& welcome) {
  if (digest_of(welcome.configuration) != welcome.configuration_digest) {
    throw Error(ErrorCode::version_mismatch,
                "the shared configuration does not have the digest the run agreed on");
  }
  const OptionTexts& texts = welcome.configuration;
  RunFacts facts;
  facts.model = section_from<ModelOptions>(texts, "model");
  facts.training = section_from<InnerOptions>(texts, "training");
  facts.outer = section_from<OuterOptions>(texts, "outer");
  facts.codec = section_from<CodecOptions>(texts, "codec");
  facts.evaluation = section_from<EvaluationOptions>(texts, "evaluation");
  facts.seed = static_cast<std::uint64_t>(number_of(texts, "run.seed"));
  facts.stale_rounds_max = static_cast<std::uint64_t>(number_of(texts, "run.stale_rounds_max"));
  return facts;
}

TokenSet open_data(const ParticipantSetup& setup, const RunFacts& facts, const Welcome& welcome) {
  TokenSet tokens = TokenSet::open(setup.data);
  if (!setup.own_data && tokens.digest() != welcome.token_set) {
    throw Error(ErrorCode::data_invalid,
                setup.data.string() + " is another token set (" +
                    tokens.digest().hex().substr(0, 16) + ") than the run's (" +
                    welcome.token_set.hex().substr(0, 16) +
                    "): copy the run's, or train on your own with --own-data");
  }
  if (tokens.vocabulary() > static_cast<std::uint64_t>(facts.model.vocabulary)) {
    throw Error(ErrorCode::data_invalid, setup.data.string() + " has a vocabulary of " +
                                             std::to_string(tokens.vocabulary()) +
                                             " tokens, the model of " +
                                             std::to_string(facts.model.vocabulary));
  }
  return tokens;
}

bool Follower::leads(RoundId from, RoundId to, const Directive& directive) const {
  for (std::uint64_t round = from.value + 1; round <= to.value; ++round) {
    const auto found =
        std::find_if(directive.aggregates.begin(), directive.aggregates.end(),
                     [&](const VersionStep& step) { return step.round.value == round; });
    if (found == directive.aggregates.end()) return false;
  }
  return from <= to;
}

void Follower::restart(const Directive& directive) {
  if (directive.checkpoint.value == 0) {
    base_ = BaseVersion::initial(layout_, facts_.seed);
    return;
  }
  log_info("fetching base version " + std::to_string(directive.checkpoint.value));
  const std::size_t bytes_max =
      64 + 4 * (2 * layout_.parameters() +
                static_cast<std::size_t>(layout_.model().layers * layout_.model().experts));
  base_ =
      BaseVersion::decode(layout_, link_.fetch(directive.checkpoint_state, bytes_max, kFetchWait));
}

void Follower::reach(RoundId round, const Directive& directive) {
  if (!leads(base_.round(), round, directive)) {
    if (!leads(directive.checkpoint, round, directive)) {
      throw Error(ErrorCode::stale_round, "base version " + std::to_string(round.value) +
                                              " can not be reached from what is kept");
    }
    restart(directive);
  }
  for (const VersionStep& step : directive.aggregates) {
    if (step.round.value != base_.round().value + 1 || step.round > round) continue;
    const Bytes bytes = link_.fetch(step.aggregate, kContributionBytesMax, kFetchWait);
    base_.apply(decode_aggregate(layout_, bytes), facts_.outer);
    if (base_.digest() != step.version) {
      const std::string reached = base_.digest().hex();
      base_ = BaseVersion::initial(layout_, facts_.seed);
      throw Error(ErrorCode::digest_mismatch,
                  "base version " + std::to_string(step.round.value) + " is " + reached +
                      " here and " + step.version.hex() +
                      " at the coordinator: this build computes other bits");
    }
  }
  YUMOE_ASSERT(base_.round() == round);
}

}  // namespace yumoe

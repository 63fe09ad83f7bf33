#pragma once
// What workers and validators do alike: read the run's configuration and keep up with its base version.

#include "cluster/random.hpp"
#include "router/base_version.hpp"
#include "router/codec.hpp"
#include "router/evaluation.hpp"
#include "router/outer_step.hpp"
#include "router/protocol.hpp"
#include "router/shard.hpp"
#include "router/token_set.hpp"
#include "worker/link.hpp"
#include "worker/service.hpp"

namespace yumoe {

// The shared configuration as participants need it.
struct RunFacts {
  ModelOptions model;
  InnerOptions training;
  OuterOptions outer;
  CodecOptions codec;
  EvaluationOptions evaluation;
  std::uint64_t seed = 0;
  std::uint64_t stale_rounds_max = 0;

  // Throws Error{config_invalid}, or Error{version_mismatch} if the digest is not that of the texts.
  static RunFacts from(const Welcome& welcome);

  // Seed of the order in which shards draw training windows.
  std::uint64_t data_order() const { return derive_seed("data order", {seed}); }
};

// Opens the token set and compares it with the run's. Throws Error{data_invalid}.
TokenSet open_data(const ParticipantSetup& setup, const RunFacts& facts, const Welcome& welcome);

// A base version that follows the run.
class Follower {
 public:
  Follower(const Layout& layout, const RunFacts& facts, Link& link)
      : layout_(layout),
        facts_(facts),
        link_(link),
        base_(BaseVersion::initial(layout, facts.seed)) {}

  const BaseVersion& base() const { return base_; }

  // Brings the base to `round` by applying aggregates, from the checkpoint if it is too far behind or
  // ahead; checks every digest that the directive tells. Throws Error{stale_round} if the directive
  // does not lead there.
  void reach(RoundId round, const Directive& directive);

 private:
  void restart(const Directive& directive);
  bool leads(RoundId from, RoundId to, const Directive& directive) const;

  const Layout& layout_;
  const RunFacts& facts_;
  Link& link_;
  BaseVersion base_;
};

}  // namespace yumoe

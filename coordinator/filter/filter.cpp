#include "coordinator/filter.hpp"

#include <cmath>
#include <cstdio>
#include <optional>

namespace yumoe {
namespace {

struct Failure {
  std::string filter;
  std::string evidence;
};

std::string short_hex(const Digest& digest) { return digest.hex().substr(0, 12); }

std::optional<Failure> check_claims(const Layout& layout, const InnerOptions& training,
                                    const TrainingShard& shard, const Digest& base,
                                    const Contribution& c) {
  if (c.round != shard.round || c.uid != shard.uid) {
    return Failure{"shard", "answers round " + std::to_string(c.round.value) + " of uid " +
                                std::to_string(c.uid.value)};
  }
  if (c.shard != digest_of_shard(shard)) {
    return Failure{"shard", "answers another shard, digest " + short_hex(c.shard)};
  }
  if (c.base != base) {
    return Failure{"sync",
                   "started from base " + short_hex(c.base) + ", agreed is " + short_hex(base)};
  }
  const std::uint64_t tokens =
      shard.data.count * static_cast<std::uint64_t>(layout.model().context);
  if (c.steps != shard.inner_steps || c.tokens != tokens) {
    return Failure{"work", "claims " + std::to_string(c.steps) + " steps and " +
                               std::to_string(c.tokens) + " tokens of " +
                               std::to_string(shard.inner_steps) + " and " +
                               std::to_string(tokens)};
  }
  if (c.round.value - c.moments_from.value >= static_cast<std::uint64_t>(training.moments_rounds)) {
    return Failure{"work", "moments kept since round " + std::to_string(c.moments_from.value) +
                               ", for more than " + std::to_string(training.moments_rounds) +
                               " rounds"};
  }
  const auto cells = static_cast<std::size_t>(layout.model().layers * layout.model().experts);
  if (c.expert_tokens.size() != cells) {
    return Failure{"schema", "counts tokens of " + std::to_string(c.expert_tokens.size()) +
                                 " experts, the model has " + std::to_string(cells)};
  }
  if (!c.loss_bits.empty() && c.loss_bits.size() != shard.inner_steps) {
    return Failure{"work", "lists " + std::to_string(c.loss_bits.size()) + " losses of " +
                               std::to_string(shard.inner_steps) + " steps"};
  }
  // Every token visits experts_per_token experts in each layer, all of them the worker's own.
  const auto experts = static_cast<std::size_t>(layout.model().experts);
  std::vector<bool> given(experts, false);
  for (const std::uint32_t expert : shard.experts) given[expert] = true;
  for (std::size_t i = 0; i < cells; ++i) {
    if (c.expert_tokens[i] > tokens || (c.expert_tokens[i] > 0 && !given[i % experts])) {
      return Failure{"work", "counts " + std::to_string(c.expert_tokens[i]) +
                                 " tokens for expert " + std::to_string(i % experts) +
                                 " of layer " + std::to_string(i / experts)};
    }
  }
  return std::nullopt;
}

// Leaves the parsed update in `update`.
std::optional<Failure> check_update(const Layout& layout, const CodecOptions& codec,
                                    const TrainingShard& shard, Bytes bytes,
                                    std::optional<Update>& update) {
  if (bytes.size() > update_bytes_max(layout, shard.experts, codec)) {
    return Failure{"size", std::to_string(bytes.size()) + " bytes, an honest update has at most " +
                               std::to_string(update_bytes_max(layout, shard.experts, codec))};
  }
  try {
    update.emplace(layout, std::move(bytes));
  } catch (const Error& error) {
    return Failure{"update", error.what()};
  }
  if (update->kept() > kept_max(layout, shard.experts, codec)) {
    return Failure{"size", std::to_string(update->kept()) + " kept values, at most " +
                               std::to_string(kept_max(layout, shard.experts, codec))};
  }
  if (update->experts() != shard.experts) {
    return Failure{"experts", "speaks of experts that are not the shard's"};
  }
  for (std::size_t i = 0; i < update->tensors().size(); ++i) {
    if (!std::isfinite(update->squared_norm(i))) {
      return Failure{"finite",
                     "norm of " + layout.tensors()[update->tensors()[i]].name + " is not finite"};
    }
  }
  return std::nullopt;
}

std::optional<Failure> check_norm(const TrainingShard& shard, const Update& update,
                                  std::size_t owners, const NormIndex& norms) {
  const auto excess = norms.find(shard.round, shard.uid, shard.inner_steps, update, owners);
  if (!excess) return std::nullopt;
  char text[256];
  std::snprintf(text, sizeof text,
                "norm of %.64s is %.4g, at most %.4g: the median of %zu others is %.4g",
                excess->group.c_str(), excess->norm, excess->most, excess->others, excess->median);
  return Failure{"norm", text};
}

// Only what passes is remembered.
std::optional<Failure> check_duplicate(const TrainingShard& shard, const Sketch& sketch,
                                       const DuplicateIndex& seen, Revealed& revealed) {
  if (const auto match = seen.find(shard.round, shard.uid, sketch)) {
    revealed.repeats = match->uid;
    revealed.repeats_round = match->round;
    char share[16];
    std::snprintf(share, sizeof share, "%.0f", 100 * match->share);
    return Failure{"duplicate", std::string("has ") + share +
                                    " % of its elements in common with uid " +
                                    std::to_string(match->uid.value) + "'s contribution of round " +
                                    std::to_string(match->round.value)};
  }
  return std::nullopt;
}

}  // namespace

Seen::Seen(const Layout& layout, const ScoringOptions& options)
    : duplicates(static_cast<std::uint64_t>(options.duplicate_rounds), options.duplicate_share),
      norms(layout, options.norm_bound) {}

void Seen::add(const Layout& layout, const Contribution& contribution, const Update& update) {
  duplicates.add(contribution.round, contribution.uid, sketch_of(layout, update));
  norms.add(contribution.round, contribution.uid, contribution.steps, update);
}

Revealed examine(const Layout& layout, const CodecOptions& codec, const InnerOptions& training,
                 const TrainingShard& shard, const Digest& base, ByteView bytes, std::size_t owners,
                 Seen& seen) {
  YUMOE_ASSERT(shard.data.count ==
               shard.inner_steps * static_cast<std::uint64_t>(training.batch_sequences));
  Revealed revealed;
  revealed.uid = shard.uid;
  revealed.round = shard.round;
  revealed.blob = digest_of(bytes);
  std::optional<Failure> failure;
  try {
    Contribution c = decode_contribution(bytes);
    std::optional<Update> update;
    failure = check_claims(layout, training, shard, base, c);
    if (!failure) failure = check_update(layout, codec, shard, std::move(c.update), update);
    if (!failure) {
      failure = check_norm(shard, *update, owners, seen.norms);
      seen.norms.add(shard.round, shard.uid, c.steps, *update);
    }
    const Sketch sketch = failure ? Sketch{} : sketch_of(layout, *update);
    if (!failure) failure = check_duplicate(shard, sketch, seen.duplicates, revealed);
    if (!failure) {
      seen.duplicates.add(shard.round, shard.uid, sketch);
      revealed.steps = c.steps;
      revealed.tokens = c.tokens;
      revealed.seconds = c.seconds;
      revealed.loss_last = c.loss_last;
      revealed.expert_tokens = std::move(c.expert_tokens);
    }
  } catch (const Error& error) {
    failure = Failure{"schema", error.what()};
  }
  if (failure) {
    revealed.filter = failure->filter;
    revealed.evidence = failure->evidence.substr(0, 512);
  }
  return revealed;
}

Revealed broken_commitment(const TrainingShard& shard, const Digest& committed,
                           const Digest& revealed, ByteView contribution, std::size_t times) {
  Revealed verdict;
  verdict.uid = shard.uid;
  verdict.round = shard.round;
  verdict.blob = digest_of(contribution);
  verdict.filter = "commitment";
  verdict.evidence = "committed to " + short_hex(committed) + ", revealed what has " +
                     short_hex(revealed) + ", " + std::to_string(times) + " times";
  return verdict;
}

}  // namespace yumoe

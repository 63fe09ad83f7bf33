#pragma once
// How a round's contributions become one aggregate: robust weighted sums over sparse updates, tensor by
// tensor, and the form in which the result travels down. Deterministic: fixed order (by uid as given,
// then index), sums in fp32, factors in fp64 rounded once. Pure, but for the residual it carries.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cluster/ids.hpp"
#include "cluster/option.hpp"
#include "router/codec.hpp"
#include "router/outer_step.hpp"

namespace yumoe {

struct AggregateOptions {
  std::string rule = "clipped_mean";
  double clip_factor = 1.0;
  double trimmed_share = 0.2;
  std::int64_t support_senders = 1;
  double support_weight = 0.5;
  std::string downstream = "auto";
  std::int64_t recompress_kept_per_block = 256;
  std::int64_t recompress_value_bits = 3;
  double recompress_error_decay = 0.95;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("rule", rule,
           {.choices = "mean|clipped_mean|trimmed_mean",
            .help = "weighted mean; the same with norms clipped to the median; or without the "
                    "extremes of each coordinate"});
    option("clip_factor", clip_factor,
           {.min = 0.1,
            .max = 1'000,
            .help = "clipped_mean: a tensor's norm may be this many times the median norm"});
    option("trimmed_share", trimmed_share,
           {.unit = "share",
            .min = 0,
            .max = 0.49,
            .help = "trimmed_mean: part of the contributions dropped at each end"});
    option(
        "support_senders", support_senders,
        {.unit = "senders",
         .min = 1,
         .max = 1'024,
         .help = "a coordinate sent by fewer is left out, unless their weight suffices; 1: off"});
    option("support_weight", support_weight,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "weight of a coordinate's senders that suffices although they are few"});
    option("downstream", downstream,
           {.choices = "forward|recompress|auto",
            .help = "send the contributions on, or their sum packed anew, or what is smaller"});
    option("recompress_kept_per_block", recompress_kept_per_block,
           {.unit = "elements",
            .min = 1,
            .max = 4'096,
            .help = "largest elements of a block kept of the sum"});
    option("recompress_value_bits", recompress_value_bits,
           {.unit = "bits", .min = 1, .max = 4, .help = "bits of a kept value of the sum"});
    option("recompress_error_decay", recompress_error_decay,
           {.min = 0,
            .max = 1,
            .help = "what is left of the sum's unsent residual from round to round"});
  }
};

// One contribution as it enters the sum.
struct WeightedUpdate {
  Uid uid;
  const Update* update = nullptr;
  double weight = 1;                             // rating, staleness: >= 0, finite
  std::uint64_t tokens = 0;                      // trained in all
  std::span<const std::uint32_t> expert_tokens;  // [layers * experts]: by layer, then expert
};

// What became of one contribution. Vectors are over update->tensors().
struct ContributionFactors {
  Uid uid;
  std::vector<double> clip;  // in [0, 1]; 1: not clipped
  std::vector<double>
      share;  // of the tensor's weight, in [0, 1]; they add up to 1 over its senders
              // and those that held the tensor but had nothing to send
};

struct AggregateResult {
  Aggregate aggregate;                       // gate_bias is left empty: the caller's
  std::vector<ContributionFactors> factors;  // as the contributions were given
  std::uint64_t forward_bytes = 0;     // of the updates and factors; 0 if that form is not possible
  std::uint64_t recompress_bytes = 0;  // 0 if that form was not tried
};

class Aggregator {
 public:
  // `layout` must outlive it. `codec` gives the blocks of the re-compression.
  // Throws Error{config_invalid} if a value is out of range, or if the contributions are to be
  // forwarded under a rule that is no weighted sum of them (trimmed_mean, support_senders > 1).
  Aggregator(const Layout& layout, const AggregateOptions& options, const CodecOptions& codec);

  // The weight of contribution u in a tensor is weight * tokens for the trunk and weight *
  // expert_tokens[layer, expert] for an expert, over the sum of that over all that hold the tensor: who
  // held it and sent nothing counts as zeros. A tensor that nobody trained is left out.
  //
  //   mean          sum of share * value
  //   clipped_mean  the same with min(1, clip_factor * median norm / norm) before each value; the median
  //                 is weighted, over those that sent the tensor
  //   trimmed_mean  of each coordinate's values, zeros of holders included, the floor(trimmed_share * n)
  //                 lowest and highest go; the rest is averaged by weight
  // and coordinates without support (support_senders, support_weight) are zero.
  //
  // contributions  by uid ascending, a uid may come twice; updates parsed under this layout
  // Throws Error{not_finite} if the sum overflows: such values are the filters' to refuse.
  // Source: Yin et al. 2018 (trimmed mean); median-norm clipping as in SparseLoCo's runs.
  // Cost: reads what was sent; re-compression one pass over a dense vector.
  AggregateResult aggregate(RoundId round, std::span<const WeightedUpdate> contributions);

  // What re-compression has not sent yet [layout.parameters()], or empty; part of a checkpoint.
  std::span<const float> residual() const noexcept { return residual_; }
  void restore(std::vector<float> residual);

 private:
  std::vector<ContributionFactors> factors_of(std::span<const WeightedUpdate> contributions) const;
  std::vector<float> sum_of(std::span<const WeightedUpdate> contributions,
                            std::span<const ContributionFactors> factors) const;

  const Layout* layout_;
  AggregateOptions options_;
  CodecOptions down_;
  std::vector<float> residual_;
};

}  // namespace yumoe

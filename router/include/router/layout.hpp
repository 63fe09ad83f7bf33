#pragma once
// What a model's parameters are called, what shape they have and where they lie in the one flat
// fp32 vector that coordinator, workers, codec and checkpoints share. Pure; no tensors here.
//
// Order in the vector: the trunk's tensors, then expert 0's tensors of every layer, then expert 1's,
// and so on. So an expert ("expert e": the e-th feed-forward network of every layer) is one
// contiguous range, and a worker's share is the trunk's range and one range an expert it holds.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/option.hpp"

namespace yumoe {

// A decoder-only MoE transformer: RMSNorm, rotary positions, grouped-query attention, SwiGLU experts,
// optional shared expert, top-k gate with sigmoid affinities. Source: spec of docs/model.md.
struct ModelOptions {
  std::int64_t vocabulary = 4096;
  std::int64_t context = 256;
  std::int64_t width = 192;
  std::int64_t layers = 4;
  std::int64_t heads = 6;
  std::int64_t key_value_heads = 2;
  std::int64_t experts = 8;
  std::int64_t experts_per_token = 2;
  std::int64_t expert_width = 384;
  std::int64_t shared_expert_width = 0;
  double rope_base = 10'000;
  bool tied_embedding = true;

  template <typename Visitor>
  void visit(Visitor& option) {
    option(
        "vocabulary", vocabulary,
        {.unit = "tokens", .min = 2, .max = 65'535, .help = "size of the token set's vocabulary"});
    option("context", context,
           {.unit = "tokens", .min = 8, .max = 65'536, .help = "length of a training sequence"});
    option("width", width, {.min = 8, .max = 65'536, .help = "width of the residual stream"});
    option("layers", layers, {.min = 1, .max = 1'024, .help = "transformer blocks"});
    option("heads", heads, {.min = 1, .max = 1'024, .help = "attention heads; divides width"});
    option("key_value_heads", key_value_heads,
           {.min = 1, .max = 1'024, .help = "heads of keys and values; divides heads"});
    option("experts", experts, {.min = 1, .max = 4'096, .help = "experts of a layer"});
    option("experts_per_token", experts_per_token,
           {.min = 1, .max = 64, .help = "experts that see each token"});
    option("expert_width", expert_width,
           {.min = 1, .max = 262'144, .help = "hidden width of an expert"});
    option("shared_expert_width", shared_expert_width,
           {.min = 0,
            .max = 262'144,
            .help = "hidden width of the expert that sees every token; 0 for none"});
    option("rope_base", rope_base, {.min = 1, .max = 1e9, .help = "base of the rotary positions"});
    option("tied_embedding", tied_embedding,
           {.help = "whether input and output embedding are one tensor"});
  }
};

// Which experts somebody holds or works on: a sorted list of distinct expert indices.
using ExpertSet = std::vector<std::uint32_t>;

ExpertSet all_experts(const ModelOptions& options);

enum class Initial : std::uint8_t { zeros, ones, normal };

struct TensorSpec {
  std::string name;                 // "layer.3.expert.7.gate_up"; see Layout::of
  std::vector<std::int64_t> shape;  // row-major, 1 or 2 dimensions
  std::uint64_t offset = 0;         // first element in the flat vector
  std::uint64_t elements = 0;
  std::int32_t layer = -1;   // -1: belongs to no layer
  std::int32_t expert = -1;  // -1: trunk
  Initial initial = Initial::normal;
  float initial_deviation = 0;  // for Initial::normal
};

class Layout {
 public:
  // Tensors, in order, with d = width, h = head width = d / heads, f = expert_width:
  //   embedding [vocabulary, d]; output [vocabulary, d] unless tied; final_norm [d];
  //   for each layer l: layer.l.attention_norm [d], layer.l.query [d, d] (rows are outputs),
  //   layer.l.key and .value [kv_heads * h, d], layer.l.attention_out [d, d],
  //   layer.l.expert_norm [d], layer.l.gate [experts, d],
  //   layer.l.shared.gate_up [2 * s, d] and layer.l.shared.down [d, s] if s = shared width > 0;
  //   then for each expert e, each layer l: layer.l.expert.e.gate_up [2 * f, d] (first f rows are
  //   the SwiGLU gate, last f rows its up projection), layer.l.expert.e.down [d, f].
  // The gate's balancing bias is not a parameter: see router/base_version.hpp.
  // Deviations: embedding 0.02; matrices 1 / sqrt(columns); attention_out and down additionally
  // divided by sqrt(2 * layers). Norms start at one.
  // Throws Error{config_invalid} if widths do not divide or experts_per_token exceeds experts.
  static Layout of(const ModelOptions& options);

  const ModelOptions& model() const noexcept { return model_; }
  std::span<const TensorSpec> tensors() const noexcept { return tensors_; }
  std::uint64_t parameters() const noexcept { return parameters_; }
  std::uint64_t trunk_parameters() const noexcept { return trunk_parameters_; }
  std::uint64_t expert_parameters() const noexcept { return expert_parameters_; }  // of one expert

  // Tensors of the trunk and of the experts in `held`, in layout order.
  std::vector<const TensorSpec*> tensors_of(const ExpertSet& held) const;

  // Names, shapes and order; equal digests mean equal meaning of a flat vector.
  const Digest& digest() const noexcept { return digest_; }

 private:
  ModelOptions model_;
  std::vector<TensorSpec> tensors_;
  std::uint64_t parameters_ = 0;
  std::uint64_t trunk_parameters_ = 0;
  std::uint64_t expert_parameters_ = 0;
  Digest digest_;
};

// Fills `parameters` [layout.parameters()] with the initial model of a seed. Each tensor has a
// stream of its own (derive_seed("initial", {seed, tensor index})), so the result depends on nothing
// else and is the same bits on every machine. Normal values are the sum of eight 16-bit uniforms
// (Irwin-Hall) times one factor: no libm, reaches 4.9 deviations. Cost: about 7 ns an element.
void initialise(const Layout& layout, std::uint64_t seed, std::span<float> parameters);

// The digest of a base version: layout digest, then all parameters in order.
Digest digest_of_parameters(const Layout& layout, std::span<const float> parameters);

}  // namespace yumoe

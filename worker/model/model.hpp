#pragma once
// The decoder-only MoE transformer over one flat parameter vector.

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/blocks.hpp"
#include "model/decode.hpp"
#include "model/moe_layer.hpp"
#include "router/layout.hpp"

namespace yumoe {

struct PlainConstants;

struct BatchResult {
  std::vector<float> losses;         // [tokens]: cross-entropy, nats
  double auxiliary = 0;              // balance and z-loss terms; in the gradient, not in losses
  std::vector<std::int64_t> counts;  // [layers, held]: assignments
  double mean() const;               // of losses, summed in order
};

// Holds the trunk and the experts of `held`: values, and gradients if `trains`, each one flat fp32
// tensor in layout order without the experts that are not held.
//
// The same parameters can be run in two ways: fused (CPU: own loops, hand-written backward) and
// plain (any device: ATen operations and their autograd). They agree within rounding.
class Model {
 public:
  //
  // With a `share` this is one rank's part of an island's model: the trunk, and of the experts in
  // `held` those that are here. Every rank is given the same batch and takes its sequences of it; results,
  // and gradients of the trunk, are the same on every rank. share.owner.size() == held.size().
  //
  // With a `remote` share (of `held`, and not with the other one) those experts are called where they
  // are. They have no parameters here and are not trained from here. Calls' errors pass through. A step
  // whose backward loses an expert is done again without it, so that its gradient is of what was computed.
  Model(const Layout& layout, ExpertSet held, const RoutingOptions& routing, c10::Device device,
        bool trains, std::optional<ExpertShare> share = std::nullopt,
        std::optional<RemoteShare> remote = std::nullopt);

  const ExpertSet& held() const { return held_; }      // the gates choose among these
  const ExpertSet& placed() const { return placed_; }  // and these are here
  const std::optional<ExpertShare>& share() const { return share_; }
  const ExpertSet& elsewhere() const { return elsewhere_; }
  const ExpertSet& trained() const { return trained_; }  // held, on this or another rank
  bool is_trained(std::uint32_t expert) const;

  // Sum of squares of the last train()'s gradients: of an island's, of all ranks, each expert once, and
  // the same on every rank. Without an island only after a plain pass.
  double gradient_squares() const;
  at::Tensor& parameters() { return parameters_; }
  at::Tensor& gradients() { return gradients_; }

  // One expert that is here, to the host. out [layout.expert_parameters()]
  void copy_expert(std::uint32_t expert, std::span<float> out);

  // Copies between the whole flat vector [layout.parameters()] and this model's share of it.
  void load(std::span<const float> whole);
  void store(std::span<float> whole) const;  // leaves the rest untouched
  // whole = base - parameters, for this model's share.
  void store_difference(std::span<const float> base, std::span<float> whole) const;

  // Where an expert that is here lies in parameters(): memory of the model's device.
  std::span<float> parameters_of(std::uint32_t expert);

  struct Range {
    std::int64_t begin = 0, count = 0;  // in parameters()
    bool decays = false;                // matrices; norms do not
  };
  const std::vector<Range>& ranges() const { return ranges_; }

  // rows: sequences of context + 1 tokens, one after the other. bias [layers, experts] or empty.
  // Overwrites gradients() with the gradient of mean loss + auxiliary.
  BatchResult train(std::span<const std::uint16_t> rows, std::span<const float> bias);
  BatchResult evaluate(std::span<const std::uint16_t> rows, std::span<const float> bias);

  // What may follow each piece's last token, logits [pieces, vocabulary]: one pass over the new tokens
  // alone, with what `cache` has of those before. Fused, no island. bias as above.
  at::Tensor extend(std::span<const NewTokens> pieces, std::span<const float> bias,
                    KeyValueCache& cache);

  // Runs plain instead of fused from now on; what devices other than the CPU always do.
  void use_plain() { plain_ = true; }

 private:
  struct Place {
    std::uint64_t whole, own, count;  // ranges of the whole vector and where they lie here
  };
  struct Block {
    Parameter attention_norm, expert_norm;
    AttentionLayer attention;
    MoeLayer moe;
  };
  struct Tokens;

  Parameter view(const std::string& name) const;
  Parameter joined(const std::string& first, const std::string& last) const;
  void build_blocks(const RoutingOptions& routing);
  BatchResult run(const Tokens& tokens, std::span<const float> bias, bool trains);
  BatchResult run_remote(const Tokens& tokens, std::span<const float> bias, bool trains);
  BatchResult run_fused(const Tokens& tokens, std::span<const float> bias, bool trains);
  Tokens part_of(const Tokens& batch) const;
  void sum_gradients();
  void share_losses(BatchResult& result, std::size_t batch_tokens) const;
  BatchResult run_plain(const Tokens& tokens, std::span<const float> bias, bool trains);
  const PlainConstants& plain_constants();
  at::Tensor squares_on_device();
  std::size_t place_in_held(std::uint32_t expert) const;

  Layout layout_;
  ExpertSet held_, placed_, trained_, elsewhere_;
  std::optional<ExpertShare> share_;
  std::optional<RemoteShare> remote_;
  c10::Device device_;
  bool trains_;
  bool plain_;
  std::vector<Place> places_;
  std::vector<Range> ranges_;
  at::Tensor parameters_, gradients_;
  RotaryTable rotary_;
  std::shared_ptr<const PlainConstants> constants_;  // of the plain path, once it ran
  std::optional<std::array<double, 2>> squares_;     // likewise: common, own (gradient_squares)
  Parameter embedding_, output_, final_norm_;
  std::vector<Block> blocks_;
};

}  // namespace yumoe

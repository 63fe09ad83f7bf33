#pragma once
// A base version: the model everybody agrees on after a round, with all that the next one follows from.

#include <cstdint>
#include <span>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/ids.hpp"
#include "router/layout.hpp"
#include "router/outer_step.hpp"

namespace yumoe {

class BaseVersion {
 public:
  // Version 0 of a run's seed. `layout` must outlive it.
  static BaseVersion initial(const Layout& layout, std::uint64_t seed);

  // What participants fetch when they join late. decode() is total: any bytes give a version of this
  // layout or Error{checkpoint_corrupt}.
  static BaseVersion decode(const Layout& layout, ByteView state);
  Bytes encode() const;

  // From the parts a checkpoint keeps. Sizes must fit the layout; Error{checkpoint_corrupt} if not.
  static BaseVersion from_parts(const Layout& layout, RoundId round,
                                std::span<const float> parameters, std::span<const float> gate_bias,
                                std::span<const float> momentum);

  RoundId round() const noexcept { return round_; }
  std::span<const float> parameters() const noexcept { return parameters_; }  // layout order
  std::span<const float> gate_bias() const noexcept { return gate_bias_; }    // [layers * experts]
  std::span<const float> momentum() const noexcept { return outer_.momentum; }  // empty if unused

  // Makes version round() + 1. Throws Error{stale_round} if the aggregate is for another one.
  void apply(const Aggregate& aggregate, const OuterOptions& options);

  // Covers layout, round, parameters, gate bias and momentum. Cost: about 1 GB/s.
  Digest digest() const;

 private:
  explicit BaseVersion(const Layout& layout) : layout_(&layout) {}
  const Layout* layout_;
  RoundId round_;
  std::vector<float> parameters_;
  std::vector<float> gate_bias_;
  OuterState outer_;
};

}  // namespace yumoe

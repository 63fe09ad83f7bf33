#include "router/base_version.hpp"

#include <cmath>
#include <cstring>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr std::uint64_t kStateMagic = 0x31657461'74737979;  // "yystate1" in memory

std::size_t bias_elements(const Layout& layout) {
  return static_cast<std::size_t>(layout.model().layers * layout.model().experts);
}

void check_finite(std::span<const float> values, const char* what) {
  for (const float value : values) {
    if (!std::isfinite(value))
      throw Error(ErrorCode::checkpoint_corrupt, std::string(what) + " is not finite");
  }
}

}  // namespace

BaseVersion BaseVersion::initial(const Layout& layout, std::uint64_t seed) {
  BaseVersion version(layout);
  version.parameters_.resize(layout.parameters());
  initialise(layout, seed, version.parameters_);
  version.gate_bias_.assign(bias_elements(layout), 0);
  return version;
}

BaseVersion BaseVersion::from_parts(const Layout& layout, RoundId round,
                                    std::span<const float> parameters,
                                    std::span<const float> gate_bias,
                                    std::span<const float> momentum) {
  if (parameters.size() != layout.parameters() || gate_bias.size() != bias_elements(layout) ||
      (!momentum.empty() && momentum.size() != layout.parameters())) {
    throw Error(ErrorCode::checkpoint_corrupt, "base version of another model");
  }
  check_finite(parameters, "parameter");
  check_finite(gate_bias, "gate bias");
  check_finite(momentum, "momentum");
  BaseVersion version(layout);
  version.round_ = round;
  version.parameters_.assign(parameters.begin(), parameters.end());
  version.gate_bias_.assign(gate_bias.begin(), gate_bias.end());
  version.outer_.momentum.assign(momentum.begin(), momentum.end());
  return version;
}

Bytes BaseVersion::encode() const {
  const std::uint64_t header[] = {kStateMagic, round_.value, parameters_.size(), gate_bias_.size(),
                                  outer_.momentum.size()};
  Bytes state(sizeof header + 4 * (header[2] + header[3] + header[4]));
  std::uint8_t* next = state.data();
  for (const ByteView part :
       {as_bytes(std::span<const std::uint64_t>(header)), as_bytes(parameters()),
        as_bytes(gate_bias()), as_bytes(momentum())}) {
    if (!part.empty()) std::memcpy(next, part.data(), part.size());
    next += part.size();
  }
  return state;
}

BaseVersion BaseVersion::decode(const Layout& layout, ByteView state) {
  std::uint64_t header[5];
  if (state.size() < sizeof header)
    throw Error(ErrorCode::checkpoint_corrupt, "state is truncated");
  std::memcpy(header, state.data(), sizeof header);
  const std::uint64_t momentum = header[4];
  if (header[0] != kStateMagic || header[2] != layout.parameters() ||
      header[3] != bias_elements(layout) || (momentum != 0 && momentum != layout.parameters()) ||
      state.size() != sizeof header + 4 * (header[2] + header[3] + momentum)) {
    throw Error(ErrorCode::checkpoint_corrupt, "state is of another model or truncated");
  }
  const std::uint8_t* next = state.data() + sizeof header;
  const auto take = [&](std::uint64_t count) {
    std::vector<float> values(count);
    std::memcpy(values.data(), next, 4 * count);
    next += 4 * count;
    return values;
  };
  const std::vector<float> parameters = take(header[2]);
  const std::vector<float> gate_bias = take(header[3]);
  return from_parts(layout, {header[1]}, parameters, gate_bias, take(momentum));
}

void BaseVersion::apply(const Aggregate& aggregate, const OuterOptions& options) {
  if (aggregate.round.value != round_.value + 1) {
    throw Error(ErrorCode::stale_round, "aggregate of round " +
                                            std::to_string(aggregate.round.value) +
                                            " on base version " + std::to_string(round_.value));
  }
  if (aggregate.gate_bias.size() != gate_bias_.size()) {
    throw Error(ErrorCode::update_malformed, "aggregate with a gate bias of another model");
  }
  apply_aggregate(*layout_, aggregate, options, outer_, parameters_);
  gate_bias_ = aggregate.gate_bias;
  round_ = aggregate.round;
}

Digest BaseVersion::digest() const {
  const std::uint64_t round = round_.value;
  return Digester()
      .update(layout_->digest().bytes)
      .update(as_bytes(std::span<const std::uint64_t>(&round, 1)))
      .update(as_bytes(parameters()))
      .update(as_bytes(gate_bias()))
      .update(as_bytes(momentum()))
      .finish();
}

}  // namespace yumoe

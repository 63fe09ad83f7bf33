#include "router/outer_step.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

// Aggregate on the wire, little-endian: u8 version; u64 round; u32 sources; for each source: u16 uid,
// u32 number of factors, u32 bytes of the update, f32 factors, update; then u32 number of gate biases,
// f32 gate biases; 32 bytes BLAKE2b of all before.
constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kDigestBytes = 32;

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::update_malformed, "parse aggregate: " + what);
}

template <typename T>
void append(Bytes& bytes, const T* values, std::size_t count) {
  const std::size_t end = bytes.size();
  bytes.resize(end + count * sizeof(T));
  if (count > 0) std::memcpy(bytes.data() + end, values, count * sizeof(T));
}
template <typename T>
void append(Bytes& bytes, T value) {
  append(bytes, &value, 1);
}

class Reader {
 public:
  explicit Reader(ByteView bytes) : bytes_(bytes) {}
  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  ByteView take(std::uint64_t size) {
    if (size > bytes_.size()) refuse("ends too early");
    const ByteView taken = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return taken;
  }
  std::vector<float> floats(std::uint32_t count) {
    const ByteView taken = take(std::uint64_t{count} * sizeof(float));
    std::vector<float> values(count);
    if (count > 0) std::memcpy(values.data(), taken.data(), taken.size());
    return values;
  }
  std::size_t left() const { return bytes_.size(); }

 private:
  ByteView bytes_;
};

// The source's update, parsed; every factor checked against it.
Update parse_source(const Layout& layout, const AggregateSource& source) {
  Update update(layout, source.update);
  if (source.factors.size() != update.tensors().size()) refuse("has not one factor a tensor");
  for (const float factor : source.factors) {
    if (!std::isfinite(factor)) refuse("factor is not finite");
  }
  return update;
}

std::vector<Update> parse_sources(const Layout& layout, const Aggregate& aggregate) {
  std::vector<Update> updates;
  updates.reserve(aggregate.sources.size());
  for (std::size_t i = 0; i < aggregate.sources.size(); ++i) {
    if (i > 0 && aggregate.sources[i].uid < aggregate.sources[i - 1].uid) {
      refuse("sources are not in ascending order of uid");
    }
    updates.push_back(parse_source(layout, aggregate.sources[i]));
  }
  return updates;
}

std::span<float> slice_of(const TensorSpec& tensor, std::span<float> flat) {
  return flat.subspan(tensor.offset, tensor.elements);
}

void step_plain(const Layout& layout, const Aggregate& aggregate, std::span<const Update> updates,
                float rate, std::span<float> base) {
  for (std::size_t s = 0; s < updates.size(); ++s) {
    for (std::size_t i = 0; i < updates[s].tensors().size(); ++i) {
      const TensorSpec& tensor = layout.tensors()[updates[s].tensors()[i]];
      updates[s].add_to(i, -(rate * aggregate.sources[s].factors[i]), slice_of(tensor, base));
    }
  }
}

void step_nesterov(const Layout& layout, const Aggregate& aggregate,
                   std::span<const Update> updates, float rate, float momentum,
                   std::span<float> velocity, std::span<float> base) {
  std::vector<std::size_t> next(updates.size());  // position in each update, tensors ascending
  std::vector<float> gradient;
  for (std::uint32_t index = 0; index < layout.tensors().size(); ++index) {
    const TensorSpec& tensor = layout.tensors()[index];
    gradient.assign(tensor.elements, 0.0f);
    for (std::size_t s = 0; s < updates.size(); ++s) {
      std::size_t& at = next[s];
      if (at == updates[s].tensors().size() || updates[s].tensors()[at] != index) continue;
      updates[s].add_to(at, aggregate.sources[s].factors[at], gradient);
      ++at;
    }
    float* const v = slice_of(tensor, velocity).data();
    float* const b = slice_of(tensor, base).data();
    const float* const g = gradient.data();
    for (std::uint64_t i = 0; i < tensor.elements; ++i) {
      v[i] = momentum * v[i] + g[i];
      b[i] -= rate * (g[i] + momentum * v[i]);
    }
  }
}

}  // namespace

Bytes encode_aggregate(const Aggregate& aggregate) {
  Bytes bytes;
  append(bytes, kVersion);
  append(bytes, aggregate.round.value);
  append(bytes, static_cast<std::uint32_t>(aggregate.sources.size()));
  for (const AggregateSource& source : aggregate.sources) {
    append(bytes, source.uid.value);
    append(bytes, static_cast<std::uint32_t>(source.factors.size()));
    append(bytes, static_cast<std::uint32_t>(source.update.size()));
    append(bytes, source.factors.data(), source.factors.size());
    append(bytes, source.update.data(), source.update.size());
  }
  append(bytes, static_cast<std::uint32_t>(aggregate.gate_bias.size()));
  append(bytes, aggregate.gate_bias.data(), aggregate.gate_bias.size());
  const Digest digest = digest_of(bytes);
  append(bytes, digest.bytes.data(), kDigestBytes);
  return bytes;
}

Aggregate decode_aggregate(const Layout& layout, ByteView bytes) {
  if (bytes.size() < kDigestBytes) refuse("ends too early");
  const ByteView body = bytes.first(bytes.size() - kDigestBytes);
  if (!std::ranges::equal(digest_of(body).bytes, bytes.last(kDigestBytes))) {
    refuse("digest differs: damaged on the way");
  }
  Reader reader(body);
  if (reader.number<std::uint8_t>() != kVersion) refuse("written by another version");
  Aggregate aggregate;
  aggregate.round.value = reader.number<std::uint64_t>();
  const auto sources = reader.number<std::uint32_t>();
  for (std::uint32_t i = 0; i < sources; ++i) {
    AggregateSource source;
    source.uid.value = reader.number<std::uint16_t>();
    const auto factors = reader.number<std::uint32_t>();
    const auto update_bytes = reader.number<std::uint32_t>();
    source.factors = reader.floats(factors);
    const ByteView update = reader.take(update_bytes);
    source.update.assign(update.begin(), update.end());
    aggregate.sources.push_back(std::move(source));
  }
  aggregate.gate_bias = reader.floats(reader.number<std::uint32_t>());
  const auto cells = static_cast<std::uint64_t>(layout.model().layers * layout.model().experts);
  if (!aggregate.gate_bias.empty() && aggregate.gate_bias.size() != cells) {
    refuse("has a gate bias of another model");
  }
  for (const float bias : aggregate.gate_bias) {
    if (!std::isfinite(bias)) refuse("gate bias is not finite");
  }
  if (reader.left() != 0) refuse("has bytes behind its end");
  parse_sources(layout, aggregate);
  return aggregate;
}

double outer_rate(const OuterOptions& options, RoundId round) {
  if (options.total_rounds <= 1) return options.learning_rate;
  const double done = static_cast<double>(std::max<std::uint64_t>(round.value, 1) - 1) /
                      static_cast<double>(options.total_rounds - 1);
  return options.learning_rate +
         (options.learning_rate_final - options.learning_rate) * std::min(done, 1.0);
}

void apply_aggregate(const Layout& layout, const Aggregate& aggregate, const OuterOptions& options,
                     OuterState& state, std::span<float> base) {
  YUMOE_ASSERT(base.size() == layout.parameters());
  const std::vector<Update> updates = parse_sources(layout, aggregate);
  const auto rate = static_cast<float>(outer_rate(options, aggregate.round));
  if (options.step == "sparseloco") {
    step_plain(layout, aggregate, updates, rate, base);
    return;
  }
  YUMOE_ASSERT(options.step == "diloco");
  if (state.momentum.empty()) state.momentum.resize(layout.parameters());
  YUMOE_ASSERT(state.momentum.size() == layout.parameters());
  step_nesterov(layout, aggregate, updates, rate, static_cast<float>(options.momentum),
                state.momentum, base);
}

}  // namespace yumoe

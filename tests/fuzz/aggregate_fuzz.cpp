// Any bytes decode to an aggregate that can be applied, or give Error{update_malformed}. Digest and
// checksums are put right first, so that what lies behind them is reached: byte 0 says how the
// rest is cut into factors and an update.

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "cluster/error.hpp"
#include "codec/wire.hpp"
#include "router/outer_step.hpp"

namespace {

const yumoe::Layout& small_layout() {
  static const yumoe::Layout layout = [] {
    yumoe::ModelOptions model;
    model.vocabulary = 64;
    model.width = 8;
    model.layers = 1;
    model.heads = 2;
    model.key_value_heads = 1;
    model.experts = 2;
    model.expert_width = 8;
    return yumoe::Layout::of(model);
  }();
  return layout;
}

void require(bool condition) {
  if (!condition) std::abort();
}

void decode(yumoe::Bytes bytes) {
  const yumoe::Digest digest = yumoe::digest_of(bytes);
  bytes.insert(bytes.end(), digest.bytes.begin(), digest.bytes.end());
  try {
    const yumoe::Aggregate aggregate = yumoe::decode_aggregate(small_layout(), bytes);
    std::vector<float> base(small_layout().parameters());
    yumoe::OuterState state;
    yumoe::apply_aggregate(small_layout(), aggregate, {}, state, base);
    require(yumoe::encode_aggregate(aggregate) == bytes);
  } catch (const yumoe::Error& error) {
    require(error.code() == yumoe::ErrorCode::update_malformed);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  decode(yumoe::Bytes(data, data + size));
  if (size < 2) return 0;
  yumoe::AggregateSource source;
  source.uid = yumoe::Uid{data[1]};
  source.factors.assign(data[0] % 32, 0.5f);
  source.update.assign(data + 2, data + size);
  const std::uint64_t checksum = yumoe::codec::checksum_of(small_layout(), source.update);
  const auto* tail = reinterpret_cast<const std::uint8_t*>(&checksum);
  source.update.insert(source.update.end(), tail, tail + sizeof checksum);
  yumoe::Bytes bytes = yumoe::encode_aggregate({yumoe::RoundId{1}, {source}, {}});
  bytes.resize(bytes.size() - 32);
  decode(std::move(bytes));
  return 0;
}

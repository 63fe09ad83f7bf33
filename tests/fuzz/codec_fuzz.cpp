// Any bytes parse to an update that can be read to the end, or give Error{update_malformed}. The
// checksum is put right first: otherwise nothing behind it would ever be reached.

#include <cmath>
#include <cstdlib>

#include "cluster/error.hpp"
#include "codec/wire.hpp"
#include "router/codec.hpp"

namespace {

const yumoe::Layout& small_layout() {
  static const yumoe::Layout layout = [] {
    yumoe::ModelOptions model;
    model.vocabulary = 200;
    model.width = 16;
    model.layers = 2;
    model.heads = 2;
    model.key_value_heads = 1;
    model.experts = 4;
    model.expert_width = 24;
    return yumoe::Layout::of(model);
  }();
  return layout;
}

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const yumoe::Layout& layout = small_layout();
  yumoe::Bytes bytes(data, data + size);
  if (size >= 8) {
    const std::uint64_t checksum =
        yumoe::codec::checksum_of(layout, yumoe::ByteView(bytes).first(size - 8));
    std::memcpy(bytes.data() + size - 8, &checksum, 8);
  }
  try {
    const yumoe::Update update(layout, bytes);
    std::uint64_t kept = 0;
    for (std::size_t i = 0; i < update.tensors().size(); ++i) {
      const std::uint64_t elements = layout.tensors()[update.tensors()[i]].elements;
      require(std::isfinite(update.squared_norm(i)));
      std::vector<float> dense(elements);
      update.add_to(i, 1.0f, dense);
      update.for_each(i, [&](std::uint64_t index, float value) {
        require(index < elements && std::isfinite(value));
        ++kept;
      });
    }
    require(kept == update.kept());
  } catch (const yumoe::Error& error) {
    require(error.code() == yumoe::ErrorCode::update_malformed);
  }
  return 0;
}

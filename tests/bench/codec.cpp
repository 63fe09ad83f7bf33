// Update codec: bits a kept value, encode and decode rates against what one thread reads from memory
// in the same run. Rates count dense elements (4 bytes each), as the peers' figures do.

#include "router/codec.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <numeric>

#include "cluster/random.hpp"
#include "row.hpp"

namespace yumoe {
namespace {

using bench::Bar;

// About 40 million parameters (160 MB: five times the third cache), 8 experts.
Layout large_layout() {
  ModelOptions model;
  model.vocabulary = 8'192;
  model.width = 512;
  model.layers = 3;
  model.heads = 8;
  model.expert_width = 1'024;
  return Layout::of(model);
}

// Pseudo-gradients as training gives them: heavier tails than normal, another scale in each row.
std::vector<float> residual_of(const Layout& layout, std::uint64_t seed) {
  std::vector<float> values(layout.parameters());
  Random random(seed);
  for (const TensorSpec& tensor : layout.tensors()) {
    const auto columns = static_cast<std::uint64_t>(tensor.shape.back());
    float scale = 1e-3f;
    for (std::uint64_t i = 0; i < tensor.elements; ++i) {
      if (i % columns == 0) scale = 1e-3f * static_cast<float>(0.5 + random.uniform());
      const auto a = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-31f;
      const auto b = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-31f;
      const auto c = static_cast<float>(static_cast<std::int32_t>(random())) * 0x1p-31f;
      values[tensor.offset + i] = scale * (a + b + c) * (0.3f + b * b + c * c);
    }
  }
  return values;
}

// Seconds of the fastest of `times` calls.
double fastest(int times, const std::function<void()>& before, const std::function<void()>& work) {
  double best = 1e9;
  for (int i = 0; i < times; ++i) {
    before();
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    best = std::min(best, took.count());
  }
  return best;
}

double sum_of_words(const std::vector<float>& values) {
  const auto* words = reinterpret_cast<const std::uint32_t*>(values.data());
  std::uint32_t sums[64] = {};
  for (std::size_t i = 0; i + 64 <= values.size(); i += 64) {
    for (std::size_t j = 0; j < 64; ++j) sums[j] ^= words[i + j];
  }
  return std::accumulate(std::begin(sums), std::end(sums), 0u);
}

int run() {
  bench::Report report;
  const Layout layout = large_layout();
  const ExpertSet experts = all_experts(layout.model());
  const std::vector<float> original = residual_of(layout, 1);
  const double elements = static_cast<double>(layout.parameters());
  std::vector<float> residual = original;
  const auto restore = [&] { std::copy(original.begin(), original.end(), residual.begin()); };
  const auto nothing = [] {};

  volatile double sink = 0;
  const double read = elements / fastest(5, nothing, [&] { sink = sum_of_words(original); });
  const CodecOptions options;
  Bytes bytes;
  const double encode = elements / fastest(5, restore, [&] {
                          bytes = encode_update(layout, experts, residual, options);
                        });
  const Update update(layout, bytes);
  std::vector<float> dense(layout.parameters());
  const auto add = [&](const Update& from) {
    for (std::size_t i = 0; i < from.tensors().size(); ++i) {
      const TensorSpec& tensor = layout.tensors()[from.tensors()[i]];
      from.add_to(i, 0.5f, std::span(dense).subspan(tensor.offset, tensor.elements));
    }
  };
  Bytes received;
  const double decode = elements / fastest(
                                       5, [&] { received = bytes; },
                                       [&] { add(Update(layout, std::move(received))); });
  const double accumulate = elements / fastest(5, nothing, [&] { add(update); });

  const double bits = static_cast<double>(bytes.size()) * 8 / static_cast<double>(update.kept());
  report.row("codec bits a kept value, whole update (other: fp32)", bits, 1, Bar::at_most, 9.8,
             "index entropy alone 7.36, with two bits a value 9.36");
  report.row("codec compression against dense fp32", elements * 4,
             static_cast<double>(bytes.size()), Bar::at_least, 205);
  report.row("codec encode against memory read, elements/s", encode, read, Bar::at_least, 0.25);
  report.row("codec check and decode into accumulator against memory read, elements/s", decode,
             read, Bar::at_least, 1.0);
  report.row("codec decode of a checked update against memory read, elements/s", accumulate, read,
             Bar::none, 0);

  CodecOptions down = options;
  down.kept_per_block = 256;
  restore();
  const Bytes aggregate = encode_update(layout, experts, residual, down);
  report.row("codec bits a kept value at 256 of 4096",
             static_cast<double>(aggregate.size()) * 8 /
                 static_cast<double>(Update(layout, aggregate).kept()),
             1, Bar::at_most, 7.7, "index entropy 5.33, with two bits a value 7.33");
  return report.finish();
}

}  // namespace
}  // namespace yumoe

int main() { return yumoe::run(); }

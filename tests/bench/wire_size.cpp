// Bytes down a worker against the number of workers: contributions forwarded, or their sum packed anew
// at 256 of 4096. Gradients share a part (half of the variance), as workers' on one model do. Rows
// give dense fp32 bytes over bytes down; what re-compression loses is in the note.

#include <cmath>
#include <cstdio>
#include <string>

#include "cluster/random.hpp"
#include "coordinator/aggregate.hpp"
#include "row.hpp"

namespace yumoe {
namespace {

using bench::Bar;

constexpr std::uint16_t kWorkersMax = 16;

std::vector<float> random_values(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.normal() * random.normal());
  return values;
}

std::vector<float> value_of(const Layout& layout, const Aggregate& aggregate) {
  std::vector<float> value(layout.parameters());
  for (const AggregateSource& source : aggregate.sources) {
    const Update update(layout, source.update);
    for (std::size_t i = 0; i < update.tensors().size(); ++i) {
      const TensorSpec& tensor = layout.tensors()[update.tensors()[i]];
      update.add_to(i, source.factors[i], std::span(value).subspan(tensor.offset, tensor.elements));
    }
  }
  return value;
}

double relative_error(const std::vector<float>& exact, const std::vector<float>& other) {
  double off = 0, whole = 0;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double difference = static_cast<double>(exact[i]) - static_cast<double>(other[i]);
    off += difference * difference;
    whole += static_cast<double>(exact[i]) * static_cast<double>(exact[i]);
  }
  return std::sqrt(off / whole);
}

int run() {
  bench::Report report;
  ModelOptions model;
  model.experts = 4;
  const Layout layout = Layout::of(model);
  const double dense = 4.0 * static_cast<double>(layout.parameters());
  const CodecOptions codec;
  const std::vector<std::uint32_t> expert_tokens(
      static_cast<std::size_t>(model.layers * model.experts), 1'000);
  const std::vector<float> shared = random_values(layout.parameters(), 0);

  std::vector<Update> updates;
  updates.reserve(kWorkersMax);
  std::vector<WeightedUpdate> contributions;
  for (std::uint16_t uid = 0; uid < kWorkersMax; ++uid) {
    std::vector<float> residual = random_values(layout.parameters(), uid + 1u);
    for (std::size_t i = 0; i < residual.size(); ++i) residual[i] += shared[i];
    updates.emplace_back(layout, encode_update(layout, all_experts(model), residual, codec));
    contributions.push_back({Uid{uid}, &updates.back(), 1.0, 1'000, expert_tokens});
    const std::size_t n = contributions.size();
    if ((n & (n - 1)) != 0) continue;

    AggregateOptions forward, packed;
    forward.downstream = "forward";
    packed.downstream = "recompress";
    const Aggregate exact =
        Aggregator(layout, forward, codec).aggregate(RoundId{1}, contributions).aggregate;
    const Aggregate sum =
        Aggregator(layout, packed, codec).aggregate(RoundId{1}, contributions).aggregate;
    char note[64];
    std::snprintf(note, sizeof note, "relative error of the sum %.3f before feedback",
                  relative_error(value_of(layout, exact), value_of(layout, sum)));
    const std::string workers = std::to_string(n) + (n == 1 ? " worker" : " workers");
    const auto bytes = [](const Aggregate& aggregate) {
      return static_cast<double>(encode_aggregate(aggregate).size());
    };
    report.row("down, " + workers + ", forwarded: dense fp32 bytes over ours", dense, bytes(exact),
               n == 4 ? Bar::at_least : Bar::none, 50);
    report.row("down, " + workers + ", sum packed anew: dense fp32 bytes over ours", dense,
               bytes(sum), n >= 4 ? Bar::at_least : Bar::none, 50, note);
  }
  return report.finish();
}

}  // namespace
}  // namespace yumoe

int main() { return yumoe::run(); }

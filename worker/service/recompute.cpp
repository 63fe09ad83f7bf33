#include <bit>
#include <fstream>

#include "cluster/error.hpp"
#include "service/shared.hpp"
#include "worker/memory.hpp"
#include "worker/trainer.hpp"

namespace yumoe {
namespace {

Bytes read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(ErrorCode::file_missing, path.string());
  return Bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
}

template <typename Message>
Message read_as(const std::filesystem::path& path) {
  ToParticipant message = decode_to_participant(read_file(path));
  if (!std::holds_alternative<Message>(message)) {
    throw Error(ErrorCode::message_malformed, path.string() + " holds another message");
  }
  return std::get<Message>(std::move(message));
}

}  // namespace

void recompute_shard(const std::filesystem::path& job, const std::filesystem::path& data,
                     const DeviceOptions& device) {
  keep_freed_memory();
  const auto welcome = read_as<Welcome>(job / "welcome");
  const auto first = read_as<Directive>(job / "shard-0");
  const RunFacts facts = RunFacts::from(welcome);
  const Layout layout = Layout::of(facts.model);
  BaseVersion base = BaseVersion::decode(layout, read_file(job / "base"));
  ParticipantSetup setup;
  setup.data = data;
  const TokenSet tokens = open_data(setup, facts, welcome);
  const WindowReader windows = windows_in_order(tokens, facts.data_order(), Split::train,
                                                static_cast<std::uint32_t>(facts.model.context));
  Trainer trainer(facts.model, facts.training, device);
  TrainingShard shard = first.shard;
  std::vector<float> losses;
  for (int i = 0;; ++i) {
    trainer.load_base(base.parameters(), base.gate_bias());
    losses.clear();
    trainer.train(shard, windows, [&](const StepReport& report) {
      losses.push_back(static_cast<float>(report.loss));
      return true;
    });
    const std::filesystem::path aggregate = job / ("aggregate-" + std::to_string(i));
    if (!std::filesystem::exists(aggregate)) break;
    base.apply(decode_aggregate(layout, read_file(aggregate)), facts.outer);
    shard = read_as<Directive>(job / ("shard-" + std::to_string(i + 1))).shard;
  }
  std::vector<float> delta(layout.parameters(), 0.0f);
  trainer.pseudo_gradient(delta);
  std::ofstream out(job / "delta");
  out << digest_of_delta(layout, shard.experts, delta).hex() << "\n";
  for (const float loss : losses) out << std::bit_cast<std::uint32_t>(loss) << "\n";
  if (!out.flush()) throw Error(ErrorCode::file_io, "write " + (job / "delta").string());
}

}  // namespace yumoe

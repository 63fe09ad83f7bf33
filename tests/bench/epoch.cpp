// The epoch against numpy's f32 bisection (../shared/peers/yuma.py), one thread each, in the same
// run. Ours is exact, handles masks and emission, and reads and writes rows as they are stored; the
// peer computes on ready matrices.
//
// Rows: ms an epoch, ours first; then what was spent beyond reading and writing the same bytes
// once.

#include "coordinator/epoch.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "row.hpp"

namespace {

using namespace yumoe::ledger;

EpochInput subnet(std::size_t validators, std::size_t n, int yuma, double density) {
  std::mt19937_64 random(validators * 131071 + n);
  EpochInput input;
  input.parameters.yuma = yuma;
  input.parameters.max_allowed_validators = static_cast<std::uint16_t>(validators);
  input.block = 1'000'000;
  input.last_step_block = 999'640;
  input.emission = 360'000'000'000;
  input.stake.assign(n, I64F64::zero());
  input.registered_at.assign(n, 1000);
  input.permit.assign(n, 0);
  input.mechanisms.resize(1);
  MechanismInput& m = input.mechanisms[0];
  m.last_update.assign(n, 999'900);
  m.weights.resize(n);
  m.bonds.resize(n);
  for (std::size_t i = 0; i < validators; ++i) {
    const double u = (static_cast<double>(random() >> 11) + 1) * 0x1p-53;
    input.stake[i] = I64F64::from_integer(static_cast<std::uint64_t>(1e12 * std::pow(u, -1 / 1.2)));
    input.permit[i] = 1;
    for (std::size_t j = 0; j < n; ++j) {
      if (static_cast<double>(random() % 1000) >= density * 1000) continue;
      m.weights[i].push_back(
          {static_cast<std::uint16_t>(j), static_cast<std::uint16_t>(1 + random() % 65535)});
      m.bonds[i].push_back(
          {static_cast<std::uint16_t>(j), static_cast<std::uint16_t>(1 + random() % 65535)});
    }
  }
  return input;
}

double milliseconds_of(const EpochInput& input) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  std::size_t sink = 0;
  EpochRunner runner;
  EpochOutput out;
  const auto start = Clock::now();
  while (times.size() < 15 || Clock::now() - start < std::chrono::milliseconds(300)) {
    const auto before = Clock::now();
    runner.run(input, out);
    sink += out.consensus.size();
    times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - before).count());
  }
  if (sink == 0) std::abort();
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2),
                   times.end());
  return times[times.size() / 2];
}

std::string output_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  if (!pipe) throw std::runtime_error("cannot start: " + command);
  std::string text;
  std::array<char, 4096> buffer{};
  while (const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe.get())) {
    text.append(buffer.data(), count);
  }
  return text;
}

// The peer's milliseconds for one shape, or 0 where it is not there.
double peer_milliseconds(const std::string& shape) {
  const char* const environment = std::getenv("YUMOE_PYTHON_ENV");
  const char* const peers = std::getenv("YUMOE_PEERS");
  std::string folder = peers != nullptr ? peers : "../shared/peers";
  if (!std::filesystem::exists(folder)) folder = "../" + folder;  // a git worktree lies one deeper
  const std::string script = folder + "/yuma.py";
  if (environment == nullptr || !std::filesystem::exists(script)) return 0;
  const std::string text = output_of("'" + std::string(environment) + "/bin/python' '" + script +
                                     "' --reps 5 --shapes " + shape);
  const std::size_t start = text.find('{');
  if (start == std::string::npos) return 0;
  return nlohmann::json::parse(text.substr(start))
      .at("results")
      .at(shape)
      .at("ms")
      .at("np_f32_bisect")
      .get<double>();
}

// Ours and the peer's take turns, and each keeps its best turn: other load on the machine then
// favours neither.
constexpr int kTurns = 3;

}  // namespace

int main() {
  yumoe::bench::Report report;
  for (const auto& [validators, n] :
       {std::pair<std::size_t, std::size_t>{64, 256}, {256, 256}, {1024, 1024}}) {
    const std::string shape = std::to_string(validators) + "x" + std::to_string(n);
    const std::array<EpochInput, 2> inputs = {subnet(validators, n, 2, 1.0),
                                              subnet(validators, n, 3, 1.0)};
    std::array<double, 2> ours = {1e9, 1e9};
    double peer = 1e9;
    for (int turn = 0; turn < kTurns; ++turn) {
      for (std::size_t k = 0; k < 2; ++k) ours[k] = std::min(ours[k], milliseconds_of(inputs[k]));
      peer = std::min(peer, peer_milliseconds(shape));
    }
    for (std::size_t k = 0; k < 2; ++k) {
      const std::string what =
          "epoch " + shape + " dense, Yuma " + std::to_string(k + 2) + ", ms against ";
      // Without the peer nothing is compared, so nothing is met.
      report.row(what + "numpy f32 bisection", ours[k], peer, yumoe::bench::Bar::at_most,
                 peer > 0 ? 1.0 : -1.0,
                 peer > 0 ? "" : "peer not found: set YUMOE_PYTHON_ENV and YUMOE_PEERS");
      // Weights and bonds read and bonds written once, 4 bytes an entry.
      const double bytes = static_cast<double>(validators * n) * 12;
      report.row(what + "one pass over its rows at 10 GB/s", ours[k], bytes / 10e9 * 1e3,
                 yumoe::bench::Bar::none, 0);
    }
  }
  // Linear in stored weights: a subnet with a tenth of them.
  const double full = milliseconds_of(subnet(256, 1024, 3, 1.0));
  const double tenth = milliseconds_of(subnet(256, 1024, 3, 0.1));
  report.row("epoch 256x1024, a tenth of the weights, ms against all of them", tenth, full,
             yumoe::bench::Bar::none, 0);
  return report.finish();
}

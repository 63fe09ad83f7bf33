// Experts on another process against the same experts called locally: latency of a call that computes
// nothing, of a small batch, and the throughput of large ones with training, for 1, 2 and 4 clients.
// One thread computes. And training over experts that a bad network hides now and then. `bench_remote_expert
// server noop|expert` and `client ...` are what it starts.

#include <ATen/Parallel.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "bench/row.hpp"
#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "worker/expert_servers.hpp"
#include "worker/feed_forward_experts.hpp"
#include "worker/remote_experts.hpp"
#include "worker/trainer.hpp"

namespace {

using namespace yumoe;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kWidth = 1'024;
constexpr std::size_t kBatch = 2'048;
std::atomic<bool> g_stop{false};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

ModelOptions model_options() {
  ModelOptions model;
  model.vocabulary = 16;
  model.width = kWidth;
  model.layers = 1;
  model.heads = 8;
  model.key_value_heads = 1;
  model.experts = 2;
  model.expert_width = 4 * kWidth;
  return model;
}

std::unique_ptr<ExpertCompute> expert(double learning_rate) {
  const Layout layout = Layout::of(model_options());
  std::vector<float> parameters(layout.parameters());
  initialise(layout, 1, parameters);
  return feed_forward_experts(layout, parameters, {0}, {.device = "cpu", .threads = 1},
                              {.learning_rate = learning_rate});
}

class Nothing final : public ExpertCompute {
 public:
  bool holds(std::uint32_t, std::uint32_t) const override { return true; }
  std::size_t width() const override { return kWidth; }
  std::unique_ptr<KeptRows> forward(std::uint32_t, std::uint32_t, Bytes x, std::span<float> y,
                                    bool) override {
    std::memcpy(y.data(), x.data(), x.size());
    return nullptr;
  }
  void backward(std::uint32_t, std::uint32_t, const KeptRows&, std::span<const float>,
                std::span<float>) override {}
};

std::vector<float> rows_of(std::size_t rows) {
  Random random(3);
  std::vector<float> values(rows * kWidth);
  for (float& value : values) value = static_cast<float>(random.normal());
  return values;
}

int serve(const std::string& kind) {
  signal(SIGTERM, [](int) { g_stop = true; });
  TransportOptions options;
  options.port = 0;
  options.message_bytes_max = 1 << 30;
  const auto transport = listen_zeromq(options, CurveKeypair::generate());
  std::unique_ptr<ExpertCompute> compute;
  if (kind == "noop") {
    compute = std::make_unique<Nothing>();
  } else {
    compute = expert(1e-4);
  }
  std::printf("%d %s\n", getpid(), transport->address().text().c_str());
  std::fflush(stdout);
  ExpertServer(*transport, Digest{}, *compute, {}).serve(g_stop);
  return 0;
}

RemoteExperts connect(const std::string& address) {
  DispatchOptions options;
  options.deadline_min_ms = 20'000;  // what is measured is not hedging
  options.deadline_max_ms = 60'000;
  return RemoteExperts({{CoordinatorAddress::parse(address), {{0, 0}}}}, Digest{}, kWidth, options);
}

void step(RemoteExperts& remote, std::span<const float> x, std::span<float> y,
          std::span<float> dx) {
  ExpertRows rows{.x = x, .dy = x, .out = y, .keep = true};
  remote.forward({&rows, 1});
  rows.out = dx;
  remote.backward({&rows, 1});
  if (!rows.answered) std::abort();
}

// Two batches under way, so that one is computed while the other travels. Says when it is ready, waits until
// nobody holds `gate` for itself, and prints when it began and ended.
int train_remotely(const std::string& address, int steps, const char* gate) {
  RemoteExperts remote = connect(address);
  const std::vector<float> x = rows_of(kBatch);
  {
    std::vector<float> y(x.size()), dx(x.size());
    step(remote, x, y, dx);
  }
  std::printf("ready\n");
  std::fflush(stdout);
  const int shared = open(gate, O_RDONLY);
  if (shared < 0 || flock(shared, LOCK_SH) != 0) std::abort();
  std::atomic<int> left = steps;
  const auto start = Clock::now();
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&] {
        std::vector<float> y(x.size()), dx(x.size());
        while (left-- > 0) step(remote, x, y, dx);
      });
    }
  }
  const auto at = [](Clock::time_point t) {
    return std::chrono::duration<double>(t.time_since_epoch()).count();
  };
  std::printf("%.6f %.6f\n", at(start), at(Clock::now()));
  return 0;
}

// A program of this file, its first line of output read.
struct Process {
  std::FILE* pipe;
  std::string line;
  explicit Process(const std::string& arguments)
      : pipe(popen(
            (std::filesystem::read_symlink("/proc/self/exe").string() + " " + arguments).c_str(),
            "r")) {}
  const std::string& read() {
    char text[512];
    if (std::fgets(text, sizeof text, pipe)) line = text;
    return line;
  }
  ~Process() { pclose(pipe); }
};

struct ServerProcess : Process {
  explicit ServerProcess(const std::string& kind) : Process("server " + kind) {
    read();
    pid = std::atoi(line.c_str());
    address = line.substr(line.find(' ') + 1);
    address.pop_back();
  }
  ~ServerProcess() { kill(pid, SIGTERM); }
  int pid = 0;
  std::string address;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void latencies(bench::Report& report) {
  {
    const ServerProcess server("noop");
    RemoteExperts remote = connect(server.address);
    const std::vector<float> x = rows_of(1);
    std::vector<float> y(x.size());
    std::vector<double> times;
    for (int i = 0; i < 2'000; ++i) {
      ExpertRows rows{.x = x, .dy = {}, .out = y};
      const auto start = Clock::now();
      remote.forward({&rows, 1});
      times.push_back(1e3 * seconds_since(start));
    }
    report.row("remote_expert no-op, batch 1, p50 in ms", median(times), 1, bench::Bar::at_most,
               0.25);
  }
  const ServerProcess server("expert");
  RemoteExperts remote = connect(server.address);
  const auto local = expert(0);
  const std::vector<float> x = rows_of(32);
  const ByteView bytes = as_bytes(std::span<const float>(x));
  std::vector<float> y(x.size());
  std::vector<double> here, there;
  for (int i = 0; i < 150; ++i) {
    const auto start = Clock::now();
    local->forward(0, 0, Bytes(bytes.begin(), bytes.end()), y, false);
    const auto middle = Clock::now();
    ExpertRows rows{.x = x, .dy = {}, .out = y};
    remote.forward({&rows, 1});
    here.push_back(std::chrono::duration<double>(middle - start).count());
    there.push_back(seconds_since(middle));
  }
  report.row("remote_expert FFN 1024, batch 32 forward, over local", median(there), median(here),
             bench::Bar::at_most, 1.10);
}

double local_rate(int steps) {
  const auto local = expert(1e-4);
  const std::vector<float> x = rows_of(kBatch);
  const ByteView bytes = as_bytes(std::span<const float>(x));
  std::vector<float> y(x.size()), dx(x.size());
  double best = 0;
  for (int i = 0; i <= steps; ++i) {
    const auto start = Clock::now();
    const auto kept = local->forward(0, 0, Bytes(bytes.begin(), bytes.end()), y, true);
    local->backward(0, 0, *kept, x, dx);
    if (i > 0) best += seconds_since(start);
  }
  return kBatch * steps / best;
}

double remote_rate(int clients, int steps) {
  const ServerProcess server("expert");
  // All begin together: a client's first batch, which is not counted, would else be computed in the time of
  // those that began before.
  char gate[] = "/tmp/yumoe-bench-XXXXXX";
  const int held = mkstemp(gate);
  if (held < 0 || flock(held, LOCK_EX) != 0) std::abort();
  std::vector<std::unique_ptr<Process>> processes;
  for (int i = 0; i < clients; ++i) {
    processes.push_back(std::make_unique<Process>("client '" + server.address + "' " +
                                                  std::to_string(steps) + " " + gate));
  }
  for (auto& process : processes) process->read();
  flock(held, LOCK_UN);
  double first = 1e300, last = 0;
  for (auto& process : processes) {
    double start = 0, end = 0;
    std::sscanf(process->read().c_str(), "%lf %lf", &start, &end);
    first = std::min(first, start);
    last = std::max(last, end);
  }
  close(held);
  unlink(gate);
  return static_cast<double>(kBatch) * clients * steps / (last - first);
}

// --- training with experts elsewhere that train themselves, on a network that loses a tenth of the calls ---

ModelOptions faults_model() {
  ModelOptions model;
  model.vocabulary = 128;
  model.context = 64;
  model.width = 64;
  model.layers = 2;
  model.heads = 4;
  model.key_value_heads = 2;
  model.experts = 8;
  model.expert_width = 96;
  return model;
}

constexpr std::uint32_t kFaultsSteps = 150;
constexpr std::uint32_t kServers = 2;

// Words in an order that depends on the position.
void read_words(std::uint64_t position, std::span<std::uint16_t> tokens) {
  static const std::vector<std::string> words = {"the ",  "old ",  "red ",  "fox ", "hen ",
                                                 "sees ", "eats ", "near ", "a ",   "barn. "};
  Random random(derive_seed("words", {position}));
  std::string text;
  while (text.size() < tokens.size()) text += words[random.below(words.size())];
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::uint16_t>(text[i]);
}

struct Curve {
  std::vector<double> losses;
  RemoteCounts counts;
};

// The trunk is trained here, every expert by its server, at each backward it is asked for.
Curve train_over(const Trouble& trouble) {
  const Layout layout = Layout::of(faults_model());
  std::vector<float> parameters(layout.parameters());
  initialise(layout, 1, parameters);
  std::vector<std::unique_ptr<ExpertServerThread>> servers;
  std::vector<ExpertPlace> places;
  for (std::uint32_t s = 0; s < kServers; ++s) {
    ExpertSet experts;
    for (std::uint32_t e = s; e < 8; e += kServers) experts.push_back(e);
    servers.push_back(std::make_unique<ExpertServerThread>(
        "base", trouble,
        [&layout, &parameters, experts] {
          return feed_forward_experts(layout, parameters, experts, {.device = "cpu", .threads = 1},
                                      {.learning_rate = 2e-3});
        },
        100 + s));
    ExpertPlace place{servers.back()->address(), {}};
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      for (const std::uint32_t e : experts) place.experts.emplace_back(layer, e);
    }
    places.push_back(place);
  }
  DispatchOptions dispatch;
  dispatch.attempts_max = dispatch.strikes_max = 32;
  dispatch.deadline_min_ms = 50;
  RemoteExperts remote(places, digest_of(as_bytes(std::string_view("base"))), 64, dispatch);
  InnerOptions inner;
  inner.batch_sequences = 4;
  inner.learning_rate = 2e-3;
  inner.warmup_steps = 10;
  inner.total_steps = kFaultsSteps;
  Trainer trainer(faults_model(), inner, {.device = "cpu", .threads = 1});
  trainer.load_base(parameters, {});
  trainer.use_remote(&remote, all_experts(faults_model()));
  TrainingShard shard;
  shard.round = RoundId{1};
  shard.inner_steps = kFaultsSteps;
  shard.data = {0, 4 * kFaultsSteps};
  Curve curve;
  trainer.train(shard, read_words, [&](const StepReport& step) {
    curve.losses.push_back(step.loss);
    return true;
  });
  curve.counts = remote.counts();
  return curve;
}

void faults(bench::Report& report) {
  const Curve quiet = train_over({});
  const Curve bad = train_over({.lost = 0.05, .late = 0.02, .requests_lost = 0.05});
  double most = 0;
  for (std::size_t i = 0; i < quiet.losses.size(); ++i) {
    most = std::max(most, std::abs(bad.losses[i] - quiet.losses[i]) / quiet.losses[i]);
  }
  const auto calls = static_cast<double>(quiet.counts.requests);
  char note[160];
  std::snprintf(
      note, sizeof note,
      "%u steps, loss %.3f to %.3f; %llu requests instead of %.0f; 1 in 50 answers 1 s late",
      kFaultsSteps, quiet.losses.front(), quiet.losses.back(),
      static_cast<unsigned long long>(bad.counts.requests), calls);
  report.row("remote_expert a tenth of calls lost and some 1 s late: calls that succeed",
             calls - static_cast<double>(bad.counts.given_up), calls, bench::Bar::at_least, 1,
             note);
  report.row("remote_expert a tenth of calls lost: most that a step's loss differs, in percent",
             100 * most, 1, bench::Bar::at_most, 1, "against the same training without faults");
  report.row("remote_expert loss of that training, last against first", quiet.losses.back(),
             quiet.losses.front(), bench::Bar::at_most, 0.7, "it learns");
}

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(1);
  const std::string role = argc > 2 ? argv[1] : "";
  if (role == "server") return serve(argv[2]);
  if (role == "client" && argc > 4) return train_remotely(argv[2], std::atoi(argv[3]), argv[4]);
  bench::Report report;
  if (role.empty() && argc > 1 && std::string(argv[1]) == "faults") {  // that part alone
    faults(report);
    return report.finish();
  }
  faults(report);
  latencies(report);
  for (const int clients : {1, 2, 4}) {
    // Enough batches that the first on its way and the last alone do not decide.
    const int steps = 12 / clients;
    const double before = local_rate(3), there = remote_rate(clients, steps), after = local_rate(3);
    report.row("remote_expert batch 2048 forward, backward and optimizer, " +
                   std::to_string(clients) + " client(s), share of local",
               there, (before + after) / 2, bench::Bar::at_least, 0.95,
               "two batches of a client under way");
  }
  return report.finish();
}

// Writing and reading a checkpoint of 1 GiB against the same bytes written and read raw.
//
// Both write to the same folder and sync; both read with the page cache dropped if that is
// permitted (root), else from it. Ours checks its checksums. Runs alternate, and who comes first
// alternates; the medians count. The disk of a shared machine is noisy: a first round of each is
// not counted.

#include "coordinator/checkpoint.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <vector>

#include "cluster/random.hpp"
#include "row.hpp"

namespace {

using namespace yumoe;
namespace fs = std::filesystem;

constexpr std::size_t kRawBytes = std::size_t{16} << 20;  // of one call, as dd bs=16M

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void demand(bool condition, const char* what) {
  if (condition) return;
  std::perror(what);
  std::exit(2);
}

void raw_write(const fs::path& path, ByteView bytes) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  demand(file >= 0, "open");
  while (!bytes.empty()) {
    const ssize_t wrote = ::write(file, bytes.data(), std::min(kRawBytes, bytes.size()));
    demand(wrote > 0, "write");
    bytes = bytes.subspan(static_cast<std::size_t>(wrote));
  }
  demand(::fsync(file) == 0, "fsync");
  ::close(file);
}

// Into one buffer used again, as dd does: cheaper than keeping what was read.
void raw_read(const fs::path& path, std::vector<std::uint8_t>& buffer) {
  const int file = ::open(path.c_str(), O_RDONLY);
  demand(file >= 0, "open");
  while (::read(file, buffer.data(), buffer.size()) > 0) {
  }
  ::close(file);
}

bool drop_page_cache() {
  ::sync();
  const int file = ::open("/proc/sys/vm/drop_caches", O_WRONLY);
  if (file < 0) return false;
  const bool dropped = ::write(file, "3", 1) == 1;
  ::close(file);
  return dropped;
}

}  // namespace

int main(int count, char** arguments) {
  const fs::path folder = fs::path(count > 1 ? arguments[1] : ".") / "bench-checkpoint";
  const int rounds = count > 2 ? std::atoi(arguments[2]) : 7;
  fs::create_directories(folder);
  ModelOptions model;
  model.vocabulary = 32'000;
  model.width = 512;
  model.layers = 8;
  model.experts = 16;
  model.expert_width = 444;
  model.heads = 8;
  const Layout layout = Layout::of(model);
  const std::size_t parameters = layout.parameters();
  std::vector<float> values(3 * parameters);
  Random random(7);
  for (float& value : values) value = static_cast<float>(random.uniform());
  const std::vector<float> gate_bias(static_cast<std::size_t>(model.layers * model.experts));
  const Bytes state(100'000, 1);
  const std::span<const float> all(values);
  const CheckpointView view{RoundId{1},
                            "bench",
                            layout,
                            all.first(parameters),
                            all.subspan(parameters, parameters),
                            all.last(parameters),
                            gate_bias,
                            state,
                            state,
                            {},
                            1};
  const fs::path ours = folder / "ours.h5", raw = folder / "raw";
  std::vector<double> our_write, raw_write_s, our_read, raw_read_s;
  std::vector<std::uint8_t> buffer(kRawBytes, 1);
  bool dropped = true;
  for (int round = 0; round <= rounds; ++round) {
    const auto take = [&](std::vector<double>& into, const std::function<void()>& work) {
      const double seconds = seconds_of(work);
      if (round > 0) into.push_back(seconds);
    };
    const auto alternate = [&](const std::function<void()>& a, const std::function<void()>& b) {
      (round % 2 ? a : b)();
      (round % 2 ? b : a)();
    };
    const auto fresh = [&](const fs::path& path) {
      fs::remove(path);
      dropped = drop_page_cache() && dropped;
    };
    alternate(
        [&] {
          fresh(ours);
          take(our_write, [&] { write_checkpoint(ours, view); });
        },
        [&] {
          fresh(raw);
          take(raw_write_s, [&] { raw_write(raw, as_bytes(all)); });
        });
    alternate(
        [&] {
          dropped = drop_page_cache() && dropped;
          take(our_read, [&] { demand(read_checkpoint(ours).round.value == 1, "read"); });
        },
        [&] {
          dropped = drop_page_cache() && dropped;
          take(raw_read_s, [&] { raw_read(raw, buffer); });
        });
    std::fprintf(stderr, "round %d\n", round);
  }
  const double gib = static_cast<double>(values.size() * 4) / (1 << 30);
  const std::string note = dropped ? "GiB/s; page cache dropped" : "GiB/s; page cache warm";
  bench::Report report;
  report.row("checkpoint write against raw write and fsync", gib / median(our_write),
             gib / median(raw_write_s), bench::Bar::at_least, 0.95, note);
  report.row("checkpoint read against raw read", gib / median(our_read), gib / median(raw_read_s),
             bench::Bar::at_least, 0.8, note);
  fs::remove_all(folder);
  return report.finish();
}

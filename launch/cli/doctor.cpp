#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cli/commands.hpp"
#include "cluster/error.hpp"
#include "cluster/transport.hpp"
#include "launch/data.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

// `bad` keeps the demo from running; `absent` only narrows what can be done.
enum class Health { good, absent, bad };

struct Finding {
  std::string what;
  Health health = Health::good;
  std::string found;  // what there is
  std::string mend;   // the command or setting that helps; empty if nothing is wrong
};

constexpr std::uint64_t kGibibyte = std::uint64_t{1} << 30;
constexpr std::uint64_t kMemoryWanted = 4 * kGibibyte;
constexpr std::uint64_t kDiskWanted = 4 * kGibibyte;
constexpr rlim_t kFilesWanted = 1'024;

std::string gibibytes(std::uint64_t bytes) {
  const std::uint64_t tenths = bytes / (kGibibyte / 10);
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " GiB";
}

// First words of a small system file; empty if there is none.
std::vector<std::string> words_of(const fs::path& file) {
  std::vector<std::string> words;
  std::ifstream in(file);
  for (std::string word; words.size() < 4'096 && in >> word;) words.push_back(word);
  return words;
}

std::optional<std::uint64_t> number_of(const std::string& word) {
  char* end = nullptr;
  const std::uint64_t number = std::strtoull(word.c_str(), &end, 10);
  if (word.empty() || *end != '\0') return std::nullopt;
  return number;
}

std::optional<fs::path> program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    const std::size_t colon = rest.find(':');
    const fs::path file = fs::path(rest.substr(0, colon)) / name;
    if (::access(file.c_str(), X_OK) == 0) return file;
    rest.erase(0, colon == std::string::npos ? rest.size() : colon + 1);
  }
  return std::nullopt;
}

Finding cores() {
  const unsigned count = std::thread::hardware_concurrency();
  Finding finding{"cores", Health::good, std::to_string(count), ""};
  const std::vector<std::string> limit = words_of("/sys/fs/cgroup/cpu.max");  // "200000 100000"
  if (limit.size() == 2) {
    const auto quota = number_of(limit[0]);
    const auto period = number_of(limit[1]);
    if (quota && period && *period > 0 && *quota < *period * count) {
      finding.found += ", of which this container may use " +
                       std::to_string(std::max<std::uint64_t>(1, *quota / *period));
    }
  }
  return finding;
}

Finding memory() {
  std::uint64_t total = 0;
  std::uint64_t available = 0;
  const std::vector<std::string> words = words_of("/proc/meminfo");
  for (std::size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] == "MemTotal:") total = number_of(words[i + 1]).value_or(0) << 10;
    if (words[i] == "MemAvailable:") available = number_of(words[i + 1]).value_or(0) << 10;
  }
  const std::vector<std::string> limit = words_of("/sys/fs/cgroup/memory.max");
  if (!limit.empty()) {
    const std::uint64_t most = number_of(limit[0]).value_or(total);
    total = std::min(total, most);
    available = std::min(available, most);
  }
  Finding finding{"memory", Health::good, gibibytes(available) + " free of " + gibibytes(total),
                  ""};
  if (available < kMemoryWanted) {
    finding.health = Health::absent;
    finding.mend =
        "the demo wants " + gibibytes(kMemoryWanted) + ": close programs, or start fewer workers";
  }
  return finding;
}

Finding disk() {
  struct statvfs status {};
  if (::statvfs(".", &status) != 0) {
    return {"disk", Health::bad, std::strerror(errno), "start in a folder that can be read"};
  }
  const std::uint64_t free = std::uint64_t{status.f_bavail} * status.f_frsize;
  const bool writable = ::access(".", W_OK) == 0;
  Finding finding{"disk", Health::good,
                  gibibytes(free) + " free here" + (writable ? "" : ", read-only"), ""};
  if (!writable) {
    finding.health = Health::bad;
    finding.mend = "start in a folder that can be written, or set store.folder and data.path";
  } else if (free < kDiskWanted) {
    finding.health = Health::absent;
    finding.mend = "make room, or set store.folder to another disk";
  }
  return finding;
}

Finding open_files() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const bool unlimited = limit.rlim_cur == RLIM_INFINITY;
  Finding finding{"open files", Health::good,
                  unlimited ? "unlimited" : std::to_string(limit.rlim_cur), ""};
  if (!unlimited && limit.rlim_cur < kFilesWanted) {
    finding.health = Health::absent;
    finding.mend = "ulimit -n " + std::to_string(kFilesWanted);
  }
  return finding;
}

Finding port(std::uint16_t number) {
  Finding finding{"port " + std::to_string(number), Health::good, "free", ""};
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(number);
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  if (::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    finding.health = Health::absent;
    finding.found = std::strerror(errno);
    finding.mend = "give another with --transport.port=N, or 0 for any";
  }
  ::close(socket);
  return finding;
}

Finding gpu() {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it("/proc/driver/nvidia/gpus", error), end; !error && it != end;
       it.increment(error)) {
    std::ifstream in(it->path() / "information");
    for (std::string line; std::getline(in, line);) {
      if (!line.starts_with("Model:")) continue;
      const std::size_t start = line.find_first_not_of(" \t", 6);
      if (start != std::string::npos) names.push_back(line.substr(start));
    }
  }
  // Some containers hide /proc/driver/nvidia but bring the devices.
  const bool device = fs::exists("/dev/nvidia0", error);
  if (names.empty() && !device) {
    return {"gpu", Health::absent, "none from NVIDIA", "not needed: workers compute on the CPU"};
  }
  std::string found = names.empty() ? "a device without a name" : "";
  for (const std::string& name : names) found += (found.empty() ? "" : ", ") + name;
  return {"gpu", Health::good, found, ""};
}

Finding mpi() {
  if (const auto mpirun = program("mpirun")) return {"mpi", Health::good, mpirun->string(), ""};
  return {"mpi", Health::absent, "no mpirun: islands of several processes cannot be started",
          "apt-get install openmpi-bin libopenmpi-dev"};
}

Finding slurm() {
  if (const auto sbatch = program("sbatch")) return {"slurm", Health::good, sbatch->string(), ""};
  return {"slurm", Health::absent, "no sbatch", "only a cluster with Slurm needs it"};
}

// An environment that launch/setup makes: what `variable` says, or the newest complete one in the cache.
std::optional<fs::path> environment(const char* variable, const std::string& kind) {
  if (const char* chosen = std::getenv(variable); chosen != nullptr && *chosen != '\0') {
    return fs::path(chosen);
  }
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache == nullptr && home == nullptr) return std::nullopt;
  const fs::path root = (cache != nullptr ? fs::path(cache) : fs::path(home) / ".cache") / "yumoe";
  std::optional<fs::path> newest;
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    if (!it->path().filename().string().starts_with(kind + "-")) continue;
    if (!fs::exists(it->path() / "complete", error)) continue;
    if (!newest || fs::last_write_time(*newest / "complete", error) <
                       fs::last_write_time(it->path() / "complete", error)) {
      newest = it->path();
    }
  }
  return newest;
}

// A file below an environment's site-packages.
std::optional<fs::path> file_in(const std::optional<fs::path>& environment,
                                const fs::path& inside) {
  if (!environment) return std::nullopt;
  std::error_code error;
  for (fs::directory_iterator it(*environment / "lib", error), end; !error && it != end;
       it.increment(error)) {
    const fs::path file = it->path() / "site-packages" / inside;
    if (fs::exists(file, error)) return file;
  }
  return std::nullopt;
}

std::optional<fs::path> python_file(const fs::path& inside) {
  return file_in(environment("YUMOE_PYTHON_ENV", "python"), inside);
}

Finding libtorch() {
  if (const auto file = python_file("torch/lib/libtorch_cpu.so")) {
    const bool cuda = python_file("torch/lib/libtorch_cuda.so").has_value();
    return {"libtorch", Health::good, file->parent_path().string() + (cuda ? " (CUDA)" : " (CPU)"),
            ""};
  }
  return {"libtorch", Health::bad, "not found: yumoe-worker cannot start", "launch/setup"};
}

// What `cmake --preset cuda` compiles and links against: of launch/setup cuda, else NCCL as a torch with CUDA
// brings it.
Finding cuda_environment() {
  const std::string get =
      "only islands of several GPUs need it: launch/setup cuda (500 MB), then "
      "YUMOE_CUDA_ENV=what it prints and cmake --preset cuda";
  const char* said = std::getenv("YUMOE_CUDA_ENV");
  const bool is_said = said != nullptr && *said != '\0';
  const auto chosen = environment("YUMOE_CUDA_ENV", "cuda");
  const auto nccl = file_in(chosen, "nvidia/nccl/lib/libnccl.so.2");
  const auto nvcc = file_in(chosen, "nvidia/cu13/bin/nvcc");
  if (nccl && nvcc) {
    return {"cuda build", Health::good, "NCCL and nvcc in " + chosen->string(),
            is_said ? "" : "export YUMOE_CUDA_ENV=" + chosen->string() + " to build with them"};
  }
  if (chosen && is_said) {
    return {"cuda build", Health::absent,
            chosen->string() + " (YUMOE_CUDA_ENV) lacks " + (nccl ? "nvcc" : "NCCL"), get};
  }
  if (const auto file = python_file("nvidia/nccl/lib/libnccl.so.2")) {
    return {"cuda build", Health::absent, "NCCL alone: " + file->string(), get};
  }
  return {"cuda build", Health::absent, "neither NCCL nor nvcc", get};
}

// What `cmake --preset ulfm` builds with.
Finding ulfm_environment() {
  const char* said = std::getenv("YUMOE_ULFM_ENV");
  const bool is_said = said != nullptr && *said != '\0';
  const auto chosen = environment("YUMOE_ULFM_ENV", "ulfm");
  std::error_code error;
  if (chosen && fs::exists(*chosen / "bin/mpicc", error)) {
    return {"ulfm build", Health::good, "Open MPI 5 with ULFM in " + chosen->string(),
            is_said ? "" : "cmake --preset ulfm builds with it"};
  }
  return {"ulfm build", Health::absent,
          is_said ? chosen->string() + " (YUMOE_ULFM_ENV) has no mpicc" : "no Open MPI 5 with ULFM",
          "only islands that go on in the same processes without a lost rank need it: launch/setup "
          "ulfm (45 MB), then cmake --preset ulfm"};
}

Finding worker_program() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  const fs::path worker = self.parent_path() / "yumoe-worker";
  if (!error && ::access(worker.c_str(), X_OK) == 0) {
    return {"yumoe-worker", Health::good, worker.string(), ""};
  }
  return {"yumoe-worker", Health::bad, "not beside " + self.string(),
          "cmake --preset release && cmake --build --preset release --target yumoe-worker"};
}

Finding training_text() {
  std::string missing;
  std::error_code error;
  for (const DefaultPackage& known : default_packages()) {
    const std::string package(known.package);
    if (!fs::exists("/var/lib/dpkg/info/" + package + ".list", error)) missing += " " + package;
  }
  if (missing.empty()) return {"training text", Health::good, "all eleven packages", ""};
  return {"training text", Health::absent, "missing:" + missing,
          "apt-get install" + missing + "; or data.sources = [\"your-folder\"]"};
}

std::string_view name_of(Health health) {
  switch (health) {
    case Health::good: return "ok";
    case Health::absent: return "absent";
    case Health::bad: return "missing";
  }
  return "unknown";
}

void print(const std::vector<Finding>& findings, bool json) {
  if (json) {
    nlohmann::ordered_json out;
    for (const Finding& finding : findings) {
      out["checks"].push_back({{"what", finding.what},
                               {"health", name_of(finding.health)},
                               {"found", finding.found},
                               {"mend", finding.mend}});
    }
    std::cout << out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << std::endl;
    return;
  }
  for (const Finding& finding : findings) {
    std::printf("%-8s %-14s %s\n", std::string(name_of(finding.health)).c_str(),
                finding.what.c_str(), finding.found.c_str());
    if (!finding.mend.empty()) std::printf("%-24s-> %s\n", "", finding.mend.c_str());
  }
  std::fflush(stdout);
}

}  // namespace

void add_doctor_command(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* doctor = app.add_subcommand(
      "doctor", "Say what this machine has, what is missing, and the command that mends it");
  doctor->add_flag("--json", *json, "One JSON object");
  doctor->footer("Exit code 1 if something is missing without which no run can start.");
  doctor->callback([json] {
    const std::vector<Finding> findings = {
        cores(),
        memory(),
        disk(),
        open_files(),
        port(static_cast<std::uint16_t>(TransportOptions{}.port)),
        gpu(),
        mpi(),
        cuda_environment(),
        ulfm_environment(),
        slurm(),
        libtorch(),
        worker_program(),
        training_text()};
    print(findings, *json);
    const bool usable = std::none_of(findings.begin(), findings.end(), [](const Finding& finding) {
      return finding.health == Health::bad;
    });
    if (!usable) throw CLI::RuntimeError(1);
  });
}

}  // namespace yumoe

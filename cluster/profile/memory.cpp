#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>

#include "cluster/error.hpp"
#include "cluster/profile.hpp"

namespace yumoe {
namespace {

// The number after `name` in a file of lines "name: 123 kB".
std::optional<std::uint64_t> kib_in(const char* file, const std::string& name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string key;
    std::uint64_t kib = 0;
    if (words >> key >> kib && key == name) return kib;
  }
  return std::nullopt;
}

// A file with one number; nothing if it is missing or says "max".
std::optional<std::uint64_t> number_in(const std::string& file) {
  std::ifstream in(file);
  std::uint64_t number = 0;
  return in >> number ? std::optional(number) : std::nullopt;
}

// "0::/a/b" of /proc/self/cgroup: the group and each above it may limit.
std::uint64_t control_group_rest() {
  std::uint64_t rest = std::numeric_limits<std::uint64_t>::max();
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with("0::")) continue;
    for (std::string path = line.substr(3); !path.empty(); path.resize(path.rfind('/'))) {
      const std::string folder = "/sys/fs/cgroup" + (path == "/" ? "" : path);
      const auto most = number_in(folder + "/memory.max");
      const auto used = number_in(folder + "/memory.current");
      if (most && used) rest = std::min(rest, *most - std::min(*most, *used));
      if (path == "/") break;
    }
  }
  return rest;
}

std::uint64_t address_space_rest() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
    return std::numeric_limits<std::uint64_t>::max();
  }
  const std::uint64_t used = kib_in("/proc/self/status", "VmSize:").value_or(0) << 10;
  return limit.rlim_cur - std::min<std::uint64_t>(limit.rlim_cur, used);
}

}  // namespace

MemoryFacts measure_memory() {
  std::uint64_t rest = std::min(control_group_rest(), address_space_rest());
  if (const auto kib = kib_in("/proc/meminfo", "MemAvailable:")) rest = std::min(rest, *kib << 10);
  if (rest == std::numeric_limits<std::uint64_t>::max()) {
    throw Error(ErrorCode::device_missing,
                "/proc/meminfo does not say how much memory is available");
  }
  return {rest >> 20, kib_in("/proc/self/status", "VmRSS:").value_or(0) >> 10};
}

}  // namespace yumoe

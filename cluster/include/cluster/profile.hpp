#pragma once
// What this machine and this process have of memory now.

#include <cstdint>

namespace yumoe {

struct MemoryFacts {
  std::uint64_t free_mib = 0;  // what this process can still fill: the least of what the system has
      // available, its control group's rest and its own address-space limit
  std::uint64_t resident_mib = 0;  // of this process
};

// Reads /proc and /sys/fs/cgroup; what is not there sets no limit. Throws Error{device_missing} if the
// system says nothing at all. Cost: some 50 us.
MemoryFacts measure_memory();

}  // namespace yumoe

#pragma once
// A child process that writes until it is killed. Kills go by the writer's progress, not by the
// clock alone, so that they fall into its writes however slow the machine is.

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <thread>

#include "cluster/random.hpp"

namespace yumoe::test {

// What the child calls after each write that was acknowledged to it.
using Acknowledge = std::function<void(std::uint64_t)>;

struct KilledWriter {
  bool by_us = false;                  // false: the writer ended by itself
  std::uint64_t waited_for = 0;        // acknowledgements waited for before the kill
  std::uint64_t acknowledgements = 0;  // all there were
  std::optional<std::uint64_t> last;
};

// Forks, runs `write` in the child, waits for 0 to 2 acknowledgements and then up to the time of
// one write more, and kills. `one_write` is how long a write takes here.
inline KilledWriter run_and_kill(const std::function<void(const Acknowledge&)>& write,
                                 std::chrono::microseconds one_write, Random& random) {
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("no pipe");
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("no child");
  if (child == 0) {
    ::close(ends[0]);
    write([&](std::uint64_t value) {
      if (::write(ends[1], &value, sizeof value) != sizeof value) ::_exit(1);
    });
    ::_exit(1);
  }
  ::close(ends[1]);
  KilledWriter result;
  const auto hear = [&] {
    std::uint64_t value;
    if (::read(ends[0], &value, sizeof value) != sizeof value) return false;
    result.last = value;
    ++result.acknowledgements;
    return true;
  };
  result.waited_for = random.below(3);
  bool alive = true;
  for (std::uint64_t i = 0; i < result.waited_for && alive; ++i) alive = hear();
  const auto longest = static_cast<std::uint64_t>(one_write.count()) + 1;
  std::this_thread::sleep_for(std::chrono::microseconds(random.below(longest)));
  ::kill(child, SIGKILL);
  int status = 0;
  ::waitpid(child, &status, 0);
  while (hear()) {
  }
  ::close(ends[0]);
  result.by_us = alive && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  return result;
}

inline std::chrono::microseconds time_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() -
                                                               begin);
}

}  // namespace yumoe::test

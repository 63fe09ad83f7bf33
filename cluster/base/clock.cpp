#include "cluster/clock.hpp"

namespace yumoe {

TimeMs SystemClock::now() {
  return wall_start_ + std::chrono::duration_cast<std::chrono::milliseconds>(
                           std::chrono::steady_clock::now() - steady_start_);
}

}  // namespace yumoe

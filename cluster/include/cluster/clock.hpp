#pragma once
// Time as the project sees it. Pure code is handed a time; only impure loops hold a Clock.

#include <chrono>
#include <cstdint>

namespace yumoe {

// Milliseconds since the Unix epoch (UTC). What the journal and the wire carry.
struct TimeMs {
  std::int64_t value = 0;
  friend constexpr auto operator<=>(const TimeMs&, const TimeMs&) = default;
  friend constexpr TimeMs operator+(TimeMs t, std::chrono::milliseconds d) {
    return {t.value + d.count()};
  }
  friend constexpr std::chrono::milliseconds operator-(TimeMs a, TimeMs b) {
    return std::chrono::milliseconds{a.value - b.value};
  }
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimeMs now() = 0;
};

// Starts at the wall clock and then follows the monotonic one, so it never runs backwards within a
// process, whatever is done to the machine's clock.
class SystemClock final : public Clock {
 public:
  TimeMs now() override;

 private:
  TimeMs wall_start_{std::chrono::duration_cast<std::chrono::milliseconds>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count()};
  std::chrono::steady_clock::time_point steady_start_ = std::chrono::steady_clock::now();
};

class ManualClock final : public Clock {
 public:
  explicit ManualClock(TimeMs start) : now_(start) {}
  TimeMs now() override { return now_; }
  void advance(std::chrono::milliseconds by) { now_ = now_ + by; }

 private:
  TimeMs now_;
};

}  // namespace yumoe

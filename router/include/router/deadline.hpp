#pragma once
// Deadlines from what was observed: median + factor * median absolute deviation, bounded, never a
// constant. Pure.

#include <chrono>
#include <cstddef>
#include <deque>
#include <span>

namespace yumoe {

// Remembers the newest `kept` durations. With fewer than kFewest the answer is `most`.
class ArrivalStatistics {
 public:
  static constexpr std::size_t kFewest = 8;

  explicit ArrivalStatistics(std::size_t kept = 64) : kept_(kept) {}

  void observe(std::chrono::milliseconds duration);

  // median + factor * MAD, at least `least` and at most `most`. MAD is scaled by 1.4826, so that it
  // estimates the standard deviation of normal arrivals (Rousseeuw and Croux 1993), and taken as at
  // least 10 % of the median, so that identical arrivals leave some slack.
  std::chrono::milliseconds deadline(double factor, std::chrono::milliseconds least,
                                     std::chrono::milliseconds most) const;

  std::size_t count() const noexcept { return observed_.size(); }

 private:
  std::size_t kept_;
  std::deque<std::chrono::milliseconds> observed_;
};

}  // namespace yumoe

// Placement of 1,000 random fleets of up to 1,000 workers: the predicted makespan against what no plan
// can beat (router/placement.hpp), and the time a plan takes.

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <vector>

#include "bench/row.hpp"
#include "router/random_fleet.hpp"

namespace {

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace yumoe;
  const std::uint64_t fleets = argc > 1 ? std::stoull(argv[1]) : 1'000;
  std::vector<double> ratios;
  double slowest_s = 0;
  std::size_t unplanned = 0;
  for (std::uint64_t seed = 1; seed <= fleets; ++seed) {
    const sim::Fleet fleet = sim::random_fleet(seed, 1'000);
    const Layout layout = Layout::of(fleet.model);
    const double start = cpu_seconds();
    const Plan plan =
        place(layout, fleet.batch_sequences, fleet.size, fleet.workers, fleet.options);
    const double seconds = cpu_seconds() - start;
    slowest_s = std::max(slowest_s, seconds);
    if (plan.makespan_s == 0) {
      ++unplanned;  // no worker whose speed is known can hold enough experts
      continue;
    }
    ratios.push_back(plan.makespan_s / plan.lower_bound_s);
    if (ratios.back() > 1.1 || seconds > 0.5) {
      std::fprintf(stderr,
                   "fleet %llu: %zu workers, %lld experts, makespan %.4g s, bound %.4g s, %.3g s\n",
                   static_cast<unsigned long long>(seed), fleet.workers.size(),
                   static_cast<long long>(fleet.model.experts), plan.makespan_s, plan.lower_bound_s,
                   seconds);
    }
  }
  std::sort(ratios.begin(), ratios.end());
  const auto at = [&](double share) {
    return ratios[static_cast<std::size_t>(share * static_cast<double>(ratios.size() - 1))];
  };
  std::fprintf(stderr,
               "%zu fleets planned, %zu could not be; ratio: median %.4f, 99 %% %.4f, worst %.4f\n",
               ratios.size(), unplanned, at(0.5), at(0.99), at(1));
  bench::Report report;
  report.row("placement: makespan over lower bound, median of fleets", at(0.5), 1,
             bench::Bar::at_most, 1.05);
  report.row("placement: makespan over lower bound, worst of fleets", at(1), 1, bench::Bar::at_most,
             1.20);
  report.row("placement: slowest plan, seconds of a core against 1 s", slowest_s, 1,
             bench::Bar::at_most, 1);
  return report.finish();
}

// The bars of scoring: every attack of the library at 20 and 30 % of the workers (of the stake, for lying
// validators also 40 %), and order, equality and cost among honest workers. Rows name their seeds.

#include "launch/attacks.hpp"

#include <cstdlib>

#include "row.hpp"

using namespace yumoe;

int main() {
  bench::Report report;
  const auto print = [&](const std::vector<AttackGate>& gates, const char* seeds) {
    for (const AttackGate& gate : gates) {
      report.row(gate.what, gate.reached, 1,
                 gate.at_most ? bench::Bar::at_most : bench::Bar::at_least, gate.bar,
                 seeds + std::to_string(gate.seed));
    }
  };
  for (const double share : {0.2, 0.3, 0.4}) {
    AttackScenario scenario;
    scenario.share = share;
    for (const AttackInfo& info : attacks()) {
      if (share > 0.3 && info.kind != AttackKind::validator) continue;
      scenario.attack = info.name;
      print(gates_of(simulate_attack(scenario), simulate_attack(without_attackers(scenario))),
            "seed ");
    }
  }
  print(honest_gates({}, 10, 1'000), "seeds 1 to ");
  for (const RuleComparison& row : compare_rules(1, 100)) {
    report.row(
        "aggregation by " + row.rule + " under 30 % " + row.attack + ": held-out loss against none",
        row.loss_ratio, 1, bench::Bar::none, 0, "seed 1");
  }
  return report.finish();
}

#include <algorithm>
#include <cstdio>

#include "launch/attacks.hpp"

namespace yumoe {
namespace {

std::string percent(double share) {
  char text[16];
  std::snprintf(text, sizeof text, "%.0f %%", 100 * share);
  return text;
}

// Of all pairs of a fast and a slow worker, the share that the consensus ranks rightly after `rounds`.
double ordered_rightly(const AttackScenario& rules, double ratio, std::int64_t rounds,
                       std::uint64_t seeds) {
  double right = 0, pairs = 0;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    AttackScenario scenario = rules;
    scenario.attack.clear();
    scenario.odd_ones = false;
    scenario.speeds = {1, 1 / ratio};
    scenario.rounds = rounds;
    scenario.seed = seed;
    const AttackResult result = simulate_attack(scenario);
    for (std::size_t i = 0; i < static_cast<std::size_t>(scenario.workers); i += 2) {
      for (std::size_t j = 1; j < static_cast<std::size_t>(scenario.workers); j += 2) {
        right += result.participants[i].weight.back() > result.participants[j].weight.back();
        ++pairs;
      }
    }
  }
  return right / pairs;
}

double spread_of_equals(const AttackScenario& rules, std::uint64_t seed) {
  AttackScenario scenario = rules;
  scenario.attack.clear();
  scenario.odd_ones = false;
  scenario.rounds = 30;
  scenario.seed = seed;
  const AttackResult result = simulate_attack(scenario);
  double least = 1, most = 0;
  for (const ParticipantResult& p : result.participants) {
    if (p.part != PartPlayed::honest) continue;
    least = std::min(least, p.emission);
    most = std::max(most, p.emission);
  }
  return most / least;
}

double cost_with(const AttackScenario& rules, std::int64_t workers, std::int64_t rounds,
                 std::int64_t validators = 2) {
  AttackScenario scenario = rules;
  scenario.validators = validators;
  scenario.attack.clear();
  scenario.workers = workers;
  scenario.rounds = rounds;
  return simulate_attack(scenario).evaluation_share;
}

}  // namespace

AttackScenario without_attackers(const AttackScenario& scenario) {
  AttackScenario without = scenario;
  const bool by_validators = attack_named(scenario.attack).kind == AttackKind::validator;
  const auto attackers =
      by_validators ? 2 : std::lround(scenario.share * static_cast<double>(scenario.workers));
  without.attack.clear();
  without.workers -= attackers;
  return without;
}

std::vector<AttackGate> gates_of(const AttackResult& result, const AttackResult& without) {
  const AttackScenario& scenario = result.scenario;
  const AttackInfo& info = attack_named(scenario.attack);
  const std::string name = scenario.attack + ", " + percent(scenario.share) + ": ";
  std::vector<AttackGate> gates;
  if (info.kind == AttackKind::idle) {
    gates.push_back({name + "emission of all attackers", result.attackers_share, 0.01});
  } else if (info.kind == AttackKind::partial) {
    gates.push_back({name + "pay a step of work against honest workers", result.pay_per_work, 1});
  } else {
    gates.push_back({name + "dividends of the liars against their stake",
                     result.attackers_share / scenario.share, 1});
    gates.push_back({name + "emission of their idle friends", result.friends_share, 0.01});
  }
  gates.push_back({name + "held-out loss against the run without them",
                   result.loss.back() / without.loss.back(), 1.01});
  gates.push_back({name + "least weight of slow, late and odd less the most of an attacker",
                   result.special_over_attackers, 0, false});
  for (AttackGate& gate : gates) gate.seed = scenario.seed;
  return gates;
}

std::vector<RuleComparison> compare_rules(std::uint64_t seed, std::int64_t rounds) {
  struct Rule {
    const char *name, *rule, *selection;
    bool trust;
  };
  constexpr Rule kRules[] = {{"mean", "mean", "", false},
                             {"clipped mean", "clipped_mean", "", false},
                             {"trimmed mean", "trimmed_mean", "", false},
                             {"coordinate median", "trimmed_mean", "median", false},
                             {"geometric median", "mean", "geometric_median", false},
                             {"CenteredClip", "mean", "centered_clip", false},
                             {"Krum", "mean", "krum", false},
                             {"Multi-Krum", "mean", "multi_krum", false},
                             {"ours: clipped mean with trust", "clipped_mean", "", true}};
  std::vector<RuleComparison> rows;
  for (const Rule& rule : kRules) {
    for (const char* attack :
         {"noise", "scaled", "sign_flip", "label_poison", "zeros_then_noise"}) {
      AttackScenario scenario;
      scenario.attack = attack;
      scenario.rounds = rounds;
      scenario.seed = seed;
      scenario.trust = rule.trust;
      scenario.selection = rule.selection;
      scenario.aggregate.rule = rule.rule;
      if (scenario.aggregate.rule == "trimmed_mean") scenario.aggregate.trimmed_share = 0.3;
      if (scenario.selection == "median") {  // all but the middle ones trimmed
        scenario.selection.clear();
        scenario.aggregate.trimmed_share = 0.49;
      }
      AttackScenario plain = without_attackers(scenario);
      plain.aggregate = {};
      plain.trust = true;
      plain.selection.clear();
      rows.push_back({rule.name, attack,
                      simulate_attack(scenario).loss.back() / simulate_attack(plain).loss.back()});
    }
  }
  return rows;
}

std::vector<AttackGate> honest_gates(const AttackScenario& rules, std::uint64_t seeds,
                                     std::int64_t workers_max) {
  std::vector<AttackGate> gates;
  const auto add = [&](std::string what, double reached, double bar, bool at_most) {
    gates.push_back({std::move(what), reached, bar, at_most, seeds});
  };
  const std::pair<double, std::int64_t> orders[] = {{2, 5}, {1.5, 10}, {1.25, 20}};
  for (const auto& [ratio, rounds] : orders) {
    char what[96];
    std::snprintf(what, sizeof what, "pairs ordered rightly, work %.4g times, %lld rounds", ratio,
                  static_cast<long long>(rounds));
    add(what, ordered_rightly(rules, ratio, rounds, seeds), 0.95, false);
  }
  double worst = 0;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed)
    worst = std::max(worst, spread_of_equals(rules, seed));
  add("most over least pay of equal honest workers, 30 rounds, worst seed", worst, 1.05, true);
  const double few = cost_with(rules, 20, 40);
  add("evaluation against training compute, 20 workers", few, 0.1, true);
  add("evaluation against training compute, 20 workers, 8 validators", cost_with(rules, 20, 40, 8),
      0.1, true);
  double before = few;
  for (const std::int64_t workers : {100, 400, 1'000}) {
    if (workers > workers_max) break;
    const double share = cost_with(rules, workers, 15);
    add("its growth to " + std::to_string(workers) +
            " workers against theirs (share of training, falling)",
        share / before, 1, true);
    before = share;
  }
  return gates;
}

}  // namespace yumoe

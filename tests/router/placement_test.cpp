// Random fleets against what the header promises.
#include "router/placement.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <functional>
#include <set>

#include "cluster/error.hpp"
#include "router/random_fleet.hpp"

namespace yumoe {
namespace {

using sim::Fleet;
using sim::random_fleet;

Plan plan_of(const Fleet& fleet) {
  return place(Layout::of(fleet.model), fleet.batch_sequences, fleet.size, fleet.workers,
               fleet.options);
}

Fleet any_fleet(std::size_t workers_max = 60) {
  return random_fleet(*rc::gen::arbitrary<std::uint64_t>(), workers_max);
}

bool holds(const ExpertSet& set, std::uint32_t expert) {
  return std::binary_search(set.begin(), set.end(), expert);
}

double step_s(const Fleet& fleet, const WorkerProfile& p) {
  return static_cast<double>(fleet.batch_sequences * fleet.model.context) / p.tokens_per_s;
}

// Most holders that any placement can give, counting each expert up to `replicas`: a maximum flow,
// by the simplest augmenting search.
std::uint32_t most_holders(const Fleet& fleet, const std::vector<std::uint32_t>& caps) {
  const ExpertRules rules(fleet.options, static_cast<std::uint32_t>(fleet.model.experts));
  const auto experts = static_cast<std::uint32_t>(fleet.model.experts);
  std::vector<ExpertSet> allowed;
  for (const auto& worker : fleet.workers) {
    allowed.push_back(rules.allowed(worker.profile.tier, worker.profile.region));
  }
  std::vector<std::set<std::uint32_t>> has(fleet.workers.size());
  const auto find = [&](std::uint32_t root) {
    std::set<std::uint32_t> seen;
    const std::function<bool(std::uint32_t)> seek = [&](std::uint32_t e) {
      for (std::uint32_t w = 0; w < caps.size(); ++w) {
        if (caps[w] == 0 || !holds(allowed[w], e) || has[w].contains(e)) continue;
        if (has[w].size() < caps[w]) return has[w].insert(e).second;
        for (const std::uint32_t f : std::set(has[w])) {
          if (!seen.insert(f).second || !has[w].contains(f)) continue;
          has[w].erase(f);
          has[w].insert(e);
          if (seek(f)) return true;
          has[w].erase(e);
          has[w].insert(f);
        }
      }
      return false;
    };
    seen.insert(root);
    return seek(root);
  };
  std::uint32_t total = 0;
  for (std::int64_t level = 1; level <= fleet.options.replicas_min; ++level) {
    for (std::uint32_t e = 0; e < experts; ++e) total += find(e);
  }
  return total;
}

RC_GTEST_PROP(Placement, GivesNobodyMoreThanItsMemoryItsOwnMaximumAndTheRulesAllow, ()) {
  const Fleet fleet = any_fleet();
  const Layout layout = Layout::of(fleet.model);
  const ExpertRules rules(fleet.options, static_cast<std::uint32_t>(fleet.model.experts));
  const Plan plan = plan_of(fleet);
  RC_ASSERT(plan.assignments.size() == fleet.workers.size());
  for (std::size_t i = 0; i < fleet.workers.size(); ++i) {
    const WorkerProfile& p = fleet.workers[i].profile;
    const Assignment& a = plan.assignments[i];
    RC_ASSERT(a.uid == fleet.workers[i].uid);
    if (a.experts.empty()) {
      RC_ASSERT(a.inner_steps == 0u);
      RC_ASSERT(!a.why.empty());
      continue;
    }
    RC_ASSERT(a.inner_steps > 0u);
    RC_ASSERT(std::is_sorted(a.experts.begin(), a.experts.end()));
    RC_ASSERT(std::adjacent_find(a.experts.begin(), a.experts.end()) == a.experts.end());
    RC_ASSERT(a.experts.size() >= static_cast<std::size_t>(fleet.model.experts_per_token));
    const ExpertSet allowed = rules.allowed(p.tier, p.region);
    for (const std::uint32_t e : a.experts) RC_ASSERT(holds(allowed, e));
    const auto count = static_cast<std::uint32_t>(a.experts.size());
    if (p.experts_max > 0) RC_ASSERT(count <= p.experts_max);
    if (p.memory_mib > 0) {
      RC_ASSERT(training_bytes(layout, fleet.batch_sequences, count) <= p.memory_mib << 20);
    }
    if (p.inner_steps_max > 0) RC_ASSERT(a.inner_steps <= p.inner_steps_max);
  }
}

RC_GTEST_PROP(Placement, NeverBeatsItsLowerBound, ()) {
  const Fleet fleet = any_fleet(200);
  const Plan plan = plan_of(fleet);
  double trained_s = 0, uploaded_s = 0;
  for (const Assignment& a : plan.assignments) {
    if (!a.awaited || a.predicted_s == 0) continue;
    trained_s = std::max(trained_s, a.predicted_s);
    uploaded_s = std::max(uploaded_s, a.upload_s);
  }
  RC_ASSERT(std::abs(plan.makespan_s - trained_s - uploaded_s) <= 1e-9 * plan.makespan_s);
  RC_ASSERT(plan.makespan_s >= plan.lower_bound_s * (1 - 1e-6));
}

RC_GTEST_PROP(Placement, LetsAllFinishTogether_NobodyCouldDoAnotherStepBeforeTheLast, ()) {
  const Fleet fleet = any_fleet();
  const Plan plan = plan_of(fleet);
  double last_s = 0;
  for (const Assignment& a : plan.assignments) {
    if (a.awaited) last_s = std::max(last_s, a.predicted_s);
  }
  for (std::size_t i = 0; i < fleet.workers.size(); ++i) {
    const Assignment& a = plan.assignments[i];
    if (!a.awaited || a.predicted_s == 0 || a.steps_by != Limit::none) continue;
    RC_ASSERT(a.predicted_s + step_s(fleet, fleet.workers[i].profile) > last_s * (1 - 1e-6));
  }
}

RC_GTEST_PROP(Placement, MovesFewExperts_ExceptThoseNobodyElseTakes, ()) {
  Fleet fleet = any_fleet();
  fleet.options.tiers.clear();
  fleet.options.regions.clear();
  // Nobody is left out or holds less than before, and every expert is held: nothing is exempt.
  std::set<std::uint32_t> held;
  for (PlacementWorker& worker : fleet.workers) {
    WorkerProfile& p = worker.profile;
    p.tokens_per_s = 1e6;
    p.memory_mib = 0, p.up_bytes_per_s = 0, p.experts_max = 0, p.inner_steps_max = 0;
    if (worker.held.size() < static_cast<std::size_t>(fleet.model.experts_per_token))
      worker.held.clear();
    held.insert(worker.held.begin(), worker.held.end());
  }
  RC_PRE(held.size() == static_cast<std::size_t>(fleet.model.experts));
  const Plan plan = plan_of(fleet);
  for (const Assignment& a : plan.assignments) {
    RC_ASSERT(a.moved <= static_cast<std::uint64_t>(fleet.options.moves_max));
  }
}

RC_GTEST_PROP(Placement, FindsAsManyHoldersAsAnyPlacementCan, ()) {
  Fleet fleet = any_fleet(25);
  const auto experts = static_cast<std::uint32_t>(fleet.model.experts);
  RC_PRE(experts <= 16u);
  const ExpertRules rules(fleet.options, experts);
  std::vector<std::uint32_t> caps;
  for (PlacementWorker& worker : fleet.workers) {
    worker.held.clear();
    WorkerProfile& p = worker.profile;
    p.up_bytes_per_s = 0;  // else what is on time is a question of its own
    p.experts_max = 1 + worker.uid.value % 3;
    p.memory_mib = 0;
    const auto allowed = static_cast<std::uint32_t>(rules.allowed(p.tier, p.region).size());
    const std::uint32_t cap = std::min(p.experts_max, allowed);
    caps.push_back(cap < fleet.model.experts_per_token ? 0 : cap);
  }
  const Plan plan = plan_of(fleet);
  std::vector<std::uint32_t> holders(experts);
  for (const Assignment& a : plan.assignments) {
    if (!a.awaited) continue;
    for (const std::uint32_t e : a.experts) ++holders[e];
  }
  std::uint32_t found = 0;
  for (const std::uint32_t n : holders) {
    found += std::min(n, static_cast<std::uint32_t>(fleet.options.replicas_min));
  }
  RC_ASSERT(found == most_holders(fleet, caps));
}

RC_GTEST_PROP(Placement, IsTheSameForTheSameInputs, ()) {
  const Fleet fleet = any_fleet();
  const Plan one = plan_of(fleet), two = plan_of(fleet);
  for (std::size_t i = 0; i < one.assignments.size(); ++i) {
    RC_ASSERT(one.assignments[i].experts == two.assignments[i].experts);
    RC_ASSERT(one.assignments[i].inner_steps == two.assignments[i].inner_steps);
  }
}

Fleet small_fleet(std::vector<double> speeds) {
  Fleet fleet;
  fleet.model.experts = 4;
  fleet.options.round_s = 100;
  fleet.options.inner_steps_max = 1'000'000;
  std::uint16_t uid = 0;
  for (const double speed : speeds) {
    PlacementWorker worker;
    worker.uid = {uid++};
    worker.profile.tokens_per_s = speed;
    fleet.workers.push_back(worker);
  }
  return fleet;
}

TEST(Placement, GivesFourWorkersOfSpeeds1248StepsInThatProportion) {
  const Plan plan = plan_of(small_fleet({2'048, 4'096, 8'192, 16'384}));
  EXPECT_EQ(plan.assignments[0].inner_steps, 100u);
  EXPECT_EQ(plan.assignments[1].inner_steps, 200u);
  EXPECT_EQ(plan.assignments[2].inner_steps, 400u);
  EXPECT_EQ(plan.assignments[3].inner_steps, 800u);
  EXPECT_NEAR(plan.makespan_s, plan.lower_bound_s, 1e-3);
}

TEST(Placement, DoesNotWaitForAWorkerWhoseSingleStepIsLongerThanTheRound) {
  const Plan plan = plan_of(small_fleet({2'048, 2'048, 1}));
  EXPECT_FALSE(plan.assignments[2].awaited);
  EXPECT_EQ(plan.assignments[2].inner_steps, 1u);
  EXPECT_LE(plan.makespan_s, 101);
  EXPECT_EQ(plan.replicas, 2u);
}

TEST(Placement, WaitsForASlowWorkerIfAnExpertHasNoOtherHolder) {
  Fleet fleet = small_fleet({2'048, 2'048, 10});
  fleet.options.replicas_min = 1;
  fleet.options.tiers = {"3:trusted"};
  fleet.workers[2].profile.tier = "trusted";
  const Plan plan = plan_of(fleet);
  EXPECT_TRUE(plan.assignments[2].awaited);
  EXPECT_TRUE(holds(plan.assignments[2].experts, 3));
}

TEST(Placement, KeepsExpertsToTheirTierAndRegion) {
  Fleet fleet = small_fleet({2'048, 2'048, 2'048});
  fleet.options.tiers = {"0-1:trusted"};
  fleet.options.regions = {"2:eu"};
  fleet.workers[0].profile.tier = "trusted";
  fleet.workers[1].profile.region = "eu";
  const Plan plan = plan_of(fleet);
  EXPECT_EQ(plan.assignments[0].experts, (ExpertSet{0, 1, 3}));
  EXPECT_EQ(plan.assignments[1].experts, (ExpertSet{2, 3}));
  EXPECT_TRUE(plan.assignments[2].experts.empty()) << "one expert is too few";
  EXPECT_NE(plan.assignments[2].why.find("tier open"), std::string::npos);
  EXPECT_EQ(plan.short_of, (std::vector<std::uint32_t>{0, 1, 2}));
}

TEST(Placement, PlacesAnExpertWhoseLastHolderLeftInSpiteOfMovesMax) {
  Fleet fleet = small_fleet({2'048, 2'048});
  fleet.options.moves_max = 0;
  fleet.workers[0].profile.experts_max = fleet.workers[1].profile.experts_max = 2;
  fleet.workers[0].held = {0, 1};
  fleet.workers[1].held = {0, 1};
  const Plan plan = plan_of(fleet);
  std::set<std::uint32_t> held;
  for (const Assignment& a : plan.assignments) held.insert(a.experts.begin(), a.experts.end());
  EXPECT_EQ(held, (std::set<std::uint32_t>{0, 1, 2, 3}));
}

TEST(Placement, GivesFewerExpertsToASlowUplinkInsteadOfHoldingUpTheRound) {
  Fleet fleet = small_fleet({2'048, 2'048, 2'048});
  fleet.size = {1'000, 10'000, 0};
  fleet.workers[2].profile.up_bytes_per_s = 1'000;
  const Plan plan = plan_of(fleet);
  EXPECT_EQ(plan.assignments[0].experts.size(), 4u);
  EXPECT_EQ(plan.assignments[2].experts.size(), 2u);
  EXPECT_EQ(plan.assignments[2].experts_by, Limit::uplink);
}

TEST(Placement, RefusesRulesThatMeanNothing) {
  for (const char* rule :
       {"", "x:trusted", "0-9:trusted", "3-1:known", "1:friend", "2:", "-1:open", "1"}) {
    PlacementOptions options;
    options.tiers = {rule};
    EXPECT_THROW(ExpertRules(options, 4), Error) << rule;
  }
}

}  // namespace
}  // namespace yumoe

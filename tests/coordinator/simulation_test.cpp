#include "coordinator/simulation.hpp"

#include <gtest/gtest.h>

namespace yumoe::ledger {
namespace {

constexpr std::uint64_t kTao = 1'000'000'000;

Scenario two_subnets() {
  Scenario scenario;
  scenario.ledger.tempo = 20;
  scenario.ledger.weights_set_rate_limit = 0;
  scenario.ledger.network_lock = 1000 * static_cast<std::int64_t>(kTao);
  scenario.blocks = 400;
  scenario.funds = {{"anna", 50'000 * kTao}, {"bert", 50'000 * kTao}, {"cleo", 50'000 * kTao}};
  for (const std::string name : {"text", "vision"}) {
    ScenarioSubnet subnet;
    subnet.name = name;
    subnet.owner = "anna";
    subnet.neurons = {{name + "/validator", "bert", 500 * kTao, 0, {0, 0, 3, 1}, 0},
                      {name + "/good", "cleo", 0, 0, {}, 0},
                      {name + "/poor", "cleo", 0, 0, {}, 0}};
    scenario.subnets.push_back(subnet);
  }
  scenario.events.push_back(
      {50, 50, AddStake{account_named("cleo"), account_named("text/validator"), 1, 20 * kTao, {}}});
  return scenario;
}

TEST(Simulation, IsAPureFunctionOfItsScenario) {
  const Scenario scenario = two_subnets();
  const SimulationResult first = simulate(scenario);
  EXPECT_EQ(first.ledger.digest(), simulate(scenario).ledger.digest());
  EXPECT_EQ(first.subnets.size(), 2U * 40);
  EXPECT_EQ(first.balances.size(), 3U * 40);
  first.ledger.audit();
}

TEST(Simulation, BetterMinersEarnMoreAndBuyingRaisesThePrice) {
  const SimulationResult result = simulate(two_subnets());
  ASSERT_FALSE(result.epochs.empty());
  const EpochReport& last = result.epochs.back();
  EXPECT_GT(last.payouts[2].incentive, last.payouts[3].incentive);
  Scenario quiet = two_subnets();
  quiet.events.clear();
  const auto price = [](const SimulationResult& run) {
    double found = 0;
    for (const SubnetSample& row : run.subnets) found = row.netuid == 1 ? row.price : found;
    return found;
  };
  EXPECT_GT(price(result), price(simulate(quiet)));
}

TEST(Simulation, TellsWhichEventsWereRefused) {
  Scenario scenario = two_subnets();
  scenario.events.push_back(
      {10, 0, AddStake{account_named("cleo"), account_named("nobody"), 1, kTao, {}}});
  const SimulationResult result = simulate(scenario);
  ASSERT_EQ(result.refused.size(), 1U);
  EXPECT_EQ(result.refused.front().error, LedgerError::HotKeyAccountNotExists);
}

TEST(Simulation, AScenarioThatCannotBeSetUpSaysWhy) {
  Scenario scenario = two_subnets();
  scenario.subnets[1].parameters["no_such_thing"] = 1;
  EXPECT_THROW(simulate(scenario), Error);
  scenario = two_subnets();
  scenario.subnets[0].owner = "nobody";
  EXPECT_THROW(simulate(scenario), Error);
}

}  // namespace
}  // namespace yumoe::ledger

// Scoring's gates, reduced: every attack at 30 % with a seed of its own, fewer rounds. The whole table is
// tests/bench/run attacks. A rule that lets an attack through fails here.

#include "launch/attacks.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

class EveryAttack : public ::testing::TestWithParam<AttackInfo> {};

TEST_P(EveryAttack, FailsItsGates) {
  AttackScenario scenario;
  scenario.attack = GetParam().name;
  scenario.rounds = 80;
  scenario.seed = 2;
  const AttackResult result = simulate_attack(scenario);
  for (const AttackGate& gate : gates_of(result, simulate_attack(without_attackers(scenario)))) {
    EXPECT_TRUE(gate.met()) << gate.what << ": " << gate.reached << ", bar " << gate.bar
                            << ", seed " << gate.seed;
  }
}

INSTANTIATE_TEST_SUITE_P(Library, EveryAttack,
                         ::testing::ValuesIn(attacks().begin(), attacks().end()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(HonestWorkers, AreOrderedByTheirWorkAndPaidAlikeForTheSame) {
  for (const AttackGate& gate : honest_gates({}, 3, 100)) {
    EXPECT_TRUE(gate.met()) << gate.what << ": " << gate.reached << ", bar " << gate.bar;
  }
}

TEST(Attacks, AreTheSameForTheSameSeedAndOthersForAnother) {
  AttackScenario scenario;
  scenario.attack = "noise";
  scenario.rounds = 15;
  const AttackResult one = simulate_attack(scenario), two = simulate_attack(scenario);
  EXPECT_EQ(one.loss, two.loss);
  EXPECT_EQ(one.participants[5].by_round, two.participants[5].by_round);
  scenario.seed = 9;
  EXPECT_NE(simulate_attack(scenario).loss, one.loss);
}

// The gates can fail: rules that trust everybody let noise through.
TEST(Attacks, GetThroughARuleThatPaysOnRanksAlone) {
  AttackScenario scenario;
  scenario.attack = "fewer_steps";
  scenario.rounds = 40;
  scenario.audit_share = 0;
  scenario.scoring.weight_power = 0.1;
  EXPECT_GT(simulate_attack(scenario).pay_per_work, 1);
}

TEST(AttackReport, HasARowForEachParticipantAndAPictureForEachAttack) {
  AttackScenario scenario;
  scenario.attack = "zero";
  scenario.rounds = 5;
  const std::vector<AttackResult> results{simulate_attack(scenario)};
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / "yumoe-attack-report";
  write_attack_report(results, folder);
  std::ifstream csv(folder / "report.csv");
  int lines = 0;
  for (std::string line; std::getline(csv, line);) ++lines;
  EXPECT_EQ(lines, 1 + 20 + 2);
  EXPECT_TRUE(std::filesystem::exists(folder / "report.json"));
  std::ifstream svg(folder / "zero-30.svg");
  const std::string text((std::istreambuf_iterator<char>(svg)), std::istreambuf_iterator<char>());
  EXPECT_THAT(text, ::testing::HasSubstr("</svg>"));
  std::filesystem::remove_all(folder);
}

TEST(Attacks, AreNamedWhenAnUnknownOneIsAsked) {
  try {
    attack_named("nois");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("sign_flip"));
  }
}

}  // namespace
}  // namespace yumoe

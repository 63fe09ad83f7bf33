// Our Plackett-Luce against the openskill package: recorded games, and new ones where Python is there.

#include "coordinator/rating.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "scoring/exact_math.hpp"

namespace yumoe {
namespace {

// Largest difference to the oracle over all games of a text, and how many games there were.
std::pair<double, int> compare(std::istream& games) {
  double worst = 0;
  int count = 0;
  for (std::string line; std::getline(games, line); ++count) {
    const nlohmann::json game = nlohmann::json::parse(line);
    std::vector<Rating> players;
    for (const auto& p : game["before"]) players.push_back({p[0], p[1]});
    play(players, game["ranks"].get<std::vector<std::int64_t>>(), {});
    for (std::size_t i = 0; i < players.size(); ++i) {
      worst = std::max({worst, std::abs(players[i].mu - game["after"][i][0].get<double>()),
                        std::abs(players[i].sigma - game["after"][i][1].get<double>())});
    }
  }
  return {worst, count};
}

TEST(PlackettLuce, RatesRecordedGamesAsOpenskillDoes) {
  std::ifstream games(YUMOE_SOURCE_DIR "/tests/coordinator/data/ratings.jsonl");
  const auto [worst, count] = compare(games);
  EXPECT_EQ(count, 40);
  EXPECT_LT(worst, 1e-9);
}

TEST(PlackettLuce, RatesNewGamesAsTheInstalledOpenskillDoes) {
  const std::string python = YUMOE_PYTHON;
  if (!std::filesystem::exists(python) ||
      std::system((python + " -c 'import openskill' 2>/dev/null").c_str()) != 0) {
    GTEST_SKIP() << "no openskill at YUMOE_PYTHON_ENV: run launch/setup";
  }
  const std::string command =
      python + " " YUMOE_SOURCE_DIR "/tests/coordinator/rating_vectors.py 100 20261124";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  std::string text;
  char buffer[1 << 16];
  for (std::size_t read; (read = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;)
    text.append(buffer, read);
  ASSERT_EQ(::pclose(pipe), 0);
  std::istringstream games(text);
  const auto [worst, count] = compare(games);
  EXPECT_EQ(count, 100);
  EXPECT_LT(worst, 1e-9);
}

TEST(PlackettLuce, LiftsWhoWinsAndBecomesSurerOfBoth) {
  std::vector<Rating> players(2);
  for (int game = 0; game < 10; ++game) play(players, std::vector<std::int64_t>{0, 1}, {});
  EXPECT_GT(players[0].mu, players[1].mu + 5);
  EXPECT_LT(players[0].sigma, Rating().sigma);
}

TEST(PlackettLuce, LeavesASinglePlayerItsMu) {
  std::vector<Rating> players(1);
  play(players, std::vector<std::int64_t>{0}, {});
  EXPECT_EQ(players[0].mu, 25);
}

TEST(ExactMath, AgreesWithTheLibrary) {
  for (double x = -30; x <= 30; x += 0.0371) {
    EXPECT_NEAR(exact::exp(x) / std::exp(x), 1, 1e-15) << x;
    EXPECT_NEAR(exact::log(std::exp(x)), x, 1e-13) << x;
    EXPECT_NEAR(exact::pow(std::abs(x) + 0.01, 1.7) / std::pow(std::abs(x) + 0.01, 1.7), 1, 1e-13);
  }
  EXPECT_EQ(exact::pow(0, 2), 0);
}

}  // namespace
}  // namespace yumoe

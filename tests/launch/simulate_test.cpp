#include "launch/simulate.hpp"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kTao = 1'000'000'000;

// Line 1 is empty, so that [ledger] stands in line 4.
const std::string kSmall = R"(
blocks = 200
sample_every = 10
[ledger]
tempo = 20
kappa = 0.6
owner_cut = 0.1
tao_weight = 0.3
pool = "constant_product"
weights_set_rate_limit = 0
network_lock = 1_000_000_000_000
[funds_tao]
anna = 10_000
bert = 5000.5
[[subnets]]
name = "text"
owner = "anna"
lock_tao = 1500
[subnets.parameters]
bonds_penalty = 100
liquid_alpha_on = true
[[subnets.neurons]]
hotkey = "bert/text"
coldkey = "bert"
stake_tao = 100
root_stake_tao = 0.250000001
weights = [0, 0, 1]
[[subnets.neurons]]
hotkey = "anna/miner"
coldkey = "anna"
)";

std::string with_event(const std::string& keys) {
  return kSmall + "[[events]]\nblock = 5\nevery = 50\n" + keys;
}

ledger::Operation operation_of(const std::string& keys) {
  return parse_scenario(with_event(keys), "s.toml").events.at(0).operation;
}

std::string refusal_of(const std::string& toml) {
  try {
    parse_scenario(toml, "s.toml");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::config_invalid);
    return error.what();
  }
  return "taken";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  if (at == std::string::npos) ADD_FAILURE() << from << " is not in the scenario";
  return text.replace(at, from.size(), to);
}

std::string content_of(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
    ++count;
  return count;
}

TEST(Scenario, TakesParametersByNameAndMoneyAsDecimals) {
  const ledger::Scenario scenario = parse_scenario(kSmall, "s.toml");
  EXPECT_EQ(scenario.blocks, 200U);
  EXPECT_EQ(scenario.ledger.tempo, 20);
  EXPECT_EQ(scenario.ledger.kappa, 0.6);
  EXPECT_EQ(scenario.ledger.owner_cut, 0.1);
  EXPECT_EQ(scenario.ledger.tao_weight, 0.3);
  EXPECT_EQ(scenario.ledger.pool, "constant_product");
  EXPECT_EQ(scenario.funds.at("bert"), 5000 * kTao + kTao / 2);
  const ledger::ScenarioSubnet& subnet = scenario.subnets.at(0);
  EXPECT_EQ(subnet.lock, 1500 * kTao);
  EXPECT_EQ(subnet.parameters.at("bonds_penalty"), 100U);
  EXPECT_EQ(subnet.parameters.at("liquid_alpha_on"), 1U);
  EXPECT_EQ(subnet.neurons.at(0).stake, 100 * kTao);
  EXPECT_EQ(subnet.neurons.at(0).root_stake, 250'000'001U);
  EXPECT_EQ(subnet.neurons.at(0).weights, (std::vector<std::uint16_t>{0, 0, 1}));
}

TEST(Scenario, TakesOperationsByNameAndSubnetsByNameOrNumber) {
  const auto add = std::get<ledger::AddStake>(operation_of(
      "operation = 'AddStake'\ncoldkey = 'anna'\nhotkey = 'bert/text'\nsubnet = 'text'\n"
      "amount_tao = 1.5\nlimit_price_tao = 2\nlimit_partial = true"));
  EXPECT_EQ(add,
            (ledger::AddStake{ledger::account_named("anna"), ledger::account_named("bert/text"), 1,
                              3 * kTao / 2, ledger::Limit{2 * kTao, true}}));
  const auto swap = std::get<ledger::SwapStake>(operation_of(
      "operation = 'SwapStake'\ncoldkey = 'anna'\nhotkey = 'bert/text'\norigin_subnet = 'root'\n"
      "destination_subnet = 1\namount_alpha = 7"));
  EXPECT_EQ(swap.origin_netuid, 0);
  EXPECT_EQ(swap.destination_netuid, 1);
  EXPECT_EQ(swap.alpha, 7 * kTao);
  EXPECT_FALSE(swap.limit);
  const auto children = std::get<ledger::SetChildren>(
      operation_of("operation = 'SetChildren'\ncoldkey = 'bert'\nhotkey = 'bert/text'\nsubnet = 1\n"
                   "children = [{share = 1, hotkey = 'anna/miner'}]"));
  EXPECT_EQ(children.children.at(0).proportion, ~std::uint64_t{0});
  const auto claim = std::get<ledger::SetClaimKind>(
      operation_of("operation = 'SetClaimKind'\ncoldkey = 'bert'\nkind = "
                   "'keep_subnets'\nkeep_subnets = ['text']"));
  EXPECT_EQ(claim.keep, std::set<std::uint16_t>{1});
  EXPECT_EQ(std::get<ledger::RegisterNetwork>(
                operation_of("operation = 'RegisterNetwork'\ncoldkey = 'bert'\nhotkey = 'b'"))
                .mechanism,
            1);
}

TEST(Scenario, AMistakeIsNamedByFileLineKeyAndRule) {
  EXPECT_THAT(refusal_of(replaced(kSmall, "kappa = 0.6", "kappa = 1.5")),
              HasSubstr("s.toml:6: ledger.kappa = 1.5 must be between 0 and 1 share"));
  EXPECT_THAT(refusal_of(replaced(kSmall, "kappa", "kapa")),
              HasSubstr("s.toml:6: ledger.kapa is no key here; did you mean kappa?"));
  EXPECT_THAT(refusal_of(replaced(kSmall, "\"constant_product\"", "\"curve\"")),
              HasSubstr("ledger.pool = 'curve' must be one of balancer|constant_product"));
  EXPECT_THAT(
      refusal_of(replaced(kSmall, "bonds_penalty = 100", "bonds_penalty = 65536")),
      HasSubstr(
          "s.toml:20: subnets.0.parameters.bonds_penalty = 65536 must be between 0 and 65535"));
  EXPECT_THAT(refusal_of(replaced(kSmall, "coldkey = \"bert\"", "coldkey = \"carl\"")),
              HasSubstr("subnets.0.neurons.0.coldkey = 'carl' must be one of [funds_tao]"));
  EXPECT_THAT(
      refusal_of(replaced(kSmall, "stake_tao = 100", "stake_tao = -1")),
      HasSubstr("subnets.0.neurons.0.stake_tao = -1 must be a number between 0 and 21000000"));
  EXPECT_THAT(refusal_of(replaced(kSmall, "stake_tao = 100", "stake_tao = nan")),
              HasSubstr("must be"));
  EXPECT_THAT(refusal_of(replaced(kSmall, "[0, 0, 1]", "[0, 0, 1, 1]")),
              HasSubstr("subnets.0.neurons.0.weights = [...] must be one a uid, at most 3"));
  EXPECT_THAT(refusal_of(replaced(kSmall, "[0, 0, 1]", "[0, 70000]")), HasSubstr("0 and 65535"));
  EXPECT_THAT(refusal_of(replaced(kSmall, "\"anna/miner\"", "\"anna/owner\"")),
              HasSubstr("must be there once a subnet"));
  EXPECT_THAT(refusal_of(replaced(kSmall, "\"text\"", "\"a<b\"")), HasSubstr("must be 1 to 64 of"));
  EXPECT_THAT(refusal_of(replaced(kSmall, "name = \"text\"\n", "")),
              HasSubstr("subnets.0.name is missing"));
  EXPECT_THAT(refusal_of(replaced(kSmall, "sample_every = 10", "sample_every = 0")),
              HasSubstr("s.toml:3: sample_every = 0 must be between 1 and"));
  EXPECT_THAT(refusal_of(replaced(kSmall, "blocks = 200", "blocks = 10_000_000")),
              HasSubstr("sample_every = 10 must be larger"));
  EXPECT_THAT(refusal_of("blocks = ["), HasSubstr("s.toml:1: "));
  EXPECT_THAT(refusal_of("blocks = 5"), HasSubstr("funds_tao is missing"));
  EXPECT_THAT(refusal_of(std::string(kScenarioBytesMax + 1, ' ')), HasSubstr("larger than 1 MiB"));
}

TEST(Scenario, AMistakenEventIsNamedToo) {
  EXPECT_THAT(refusal_of(with_event("operation = 'Mint'")),
              HasSubstr("events.0.operation = 'Mint' must be one of TransferBalance|"));
  EXPECT_THAT(refusal_of(with_event("operation = 'StartCall'\ncoldkey = 'anna'")),
              HasSubstr("events.0.subnet is missing"));
  EXPECT_THAT(refusal_of(with_event("operation = 'StartCall'\ncoldkey = 'anna'\nsubnet = 'txt'")),
              HasSubstr("events.0.subnet = 'txt' must name one of [[subnets]]"));
  EXPECT_THAT(
      refusal_of(with_event("operation = 'UnstakeAll'\ncoldkey = 'anna'\nhotkey = 'b'\nall = 1")),
      HasSubstr("events.0.all is no key here"));
}

TEST(Scenario, AFileThatIsNotThereIsNamed) {
  try {
    read_scenario("/no/such.toml");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::file_missing);
    EXPECT_THAT(error.what(), HasSubstr("/no/such.toml"));
  }
}

TEST(Simulation, TheExampleRunsWithoutARefusalAndPaysTheBetterMinerMore) {
  const ledger::Scenario scenario =
      read_scenario(YUMOE_SOURCE_DIR "/launch/examples/economy/two-subnets.toml");
  const ledger::SimulationResult result = ledger::simulate(scenario);
  for (const ledger::RefusedEvent& event : result.refused) {
    // The buyer's limit is meant to stop it.
    EXPECT_THAT(name_of(event.error), testing::AnyOf("PriceLimitExceeded", "SlippageTooHigh"))
        << event.block << " " << event.operation;
  }
  const std::vector<double> worths = worths_tao(result);
  ASSERT_EQ(worths.size(), result.balances.size());
  std::map<std::string, double> last;
  for (std::size_t i = 0; i < worths.size(); ++i) last[result.balances[i].account] = worths[i];
  EXPECT_GT(last["dora"], last["emil"]);
}

TEST(Simulation, WritesTablesWithARowForEverySampleAndTheSameBytesAgain) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "yumoe-simulate-test";
  const ledger::Scenario scenario = parse_scenario(kSmall, "s.toml");
  const ledger::SimulationResult result = ledger::simulate(scenario);
  write_simulation(scenario, result, folder);
  const std::string subnets = content_of(folder / "subnets.csv");
  EXPECT_EQ(count_of(subnets, "\n"), 1 + result.subnets.size());
  EXPECT_THAT(subnets, HasSubstr("\n200,1,text,"));
  EXPECT_THAT(content_of(folder / "balances.csv"), HasSubstr("\n10,anna,,,"));
  EXPECT_THAT(content_of(folder / "epochs.csv"), HasSubstr(",bert/text,"));
  std::map<std::string, std::string> first;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    first[entry.path().filename()] = content_of(entry.path());
  }
  EXPECT_EQ(first.size(), 4U);
  write_simulation(scenario, ledger::simulate(scenario), folder);
  for (const auto& [name, text] : first) EXPECT_EQ(content_of(folder / name), text) << name;
  std::filesystem::remove_all(folder);
}

// h5py finds in the file what the tables as CSV say, column by column, with units.
TEST(Simulation, TheHdf5FileHoldsTheSameNumbersWithTheirUnits) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "yumoe-simulate-hdf5-test";
  const ledger::Scenario scenario = parse_scenario(kSmall, "s.toml");
  const ledger::SimulationResult result = ledger::simulate(scenario);
  write_simulation(scenario, result, folder);
  write_simulation_hdf5(scenario, result, folder / "all.h5");
  EXPECT_EQ(content_of(folder / "all.svg"), content_of(folder / "plot.svg"));
  const std::string command = std::string(YUMOE_PYTHON) + " " + YUMOE_SOURCE_DIR +
                              "/tests/launch/read_simulation.py " + folder.string();
  EXPECT_EQ(std::system(command.c_str()), 0);
  try {
    write_simulation_hdf5(scenario, result, "/dev/null/all.h5");
    ADD_FAILURE() << "written below /dev/null";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("/dev/null"));
  }
  std::filesystem::remove_all(folder);
}

TEST(Simulation, ThePlotHasThreePanelsWithALegendForEveryLine) {
  const ledger::Scenario scenario = parse_scenario(kSmall, "s.toml");
  const std::string svg = simulation_svg(scenario, ledger::simulate(scenario));
  EXPECT_EQ(count_of(svg, "class=\"title\""), 3U);
  EXPECT_EQ(count_of(svg, "<polyline"), 1U + 1 + 2);
  EXPECT_EQ(count_of(svg, ">text</text>"), 2U);
  EXPECT_EQ(count_of(svg, ">anna</text>"), 1U);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
}

TEST(Simulation, ThePlotStaysReadableWithoutSamplesAndWithManyLines) {
  ledger::Scenario scenario = parse_scenario(kSmall, "s.toml");
  scenario.sample_every = 1000;
  EXPECT_EQ(count_of(simulation_svg(scenario, ledger::simulate(scenario)), "<polyline"), 0U);
  scenario.sample_every = 10;
  for (int i = 0; i < 20; ++i) scenario.funds["<idle" + std::to_string(i)] = 5;
  const std::string svg = simulation_svg(scenario, ledger::simulate(scenario));
  EXPECT_EQ(count_of(svg, "<polyline"), 1U + 1 + 12);
  EXPECT_THAT(svg, HasSubstr(">and 10 more<"));
  EXPECT_EQ(svg.find("<idle"), std::string::npos);
}

TEST(Simulation, AFolderThatCannotBeWrittenIsNamed) {
  const ledger::Scenario scenario = parse_scenario(kSmall, "s.toml");
  try {
    write_simulation(scenario, ledger::simulate(scenario), "/dev/null/economy");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::file_io);
    EXPECT_THAT(error.what(), HasSubstr("/dev/null/economy"));
  }
}

}  // namespace
}  // namespace yumoe

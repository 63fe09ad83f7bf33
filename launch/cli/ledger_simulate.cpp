// `yumoe ledger simulate`: an invented economy from a file, as tables and a picture.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cluster/error.hpp"
#include "launch/simulate.hpp"

namespace yumoe {
namespace {

struct SimulateChoice {
  std::string scenario, out;
  bool json = false;
};

// The ledger's refusal to begin names the part of the scenario; here also the file.
ledger::SimulationResult run_scenario(const ledger::Scenario& scenario, const std::string& file) {
  try {
    return ledger::simulate(scenario);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::config_invalid) throw;
    const std::string what = error.what();  // begins with the code's description, as ours will
    throw Error(error.code(), file + what.substr(description_of(error.code()).size()));
  }
}

struct AccountEnd {
  const ledger::BalanceSample* row = nullptr;
  double worth_tao = 0;
};

struct Summary {
  std::vector<const ledger::SubnetSample*> subnets;                      // at the last sample
  std::vector<AccountEnd> accounts;                                      // at the last sample
  std::map<std::uint16_t, std::uint64_t> epochs;                         // run, by netuid
  std::map<std::pair<std::string, std::string>, std::uint64_t> refused;  // operation and reason
};

Summary summary_of(const ledger::SimulationResult& result) {
  Summary summary;
  for (const ledger::SubnetSample& row : result.subnets) {
    if (row.block == result.subnets.back().block) summary.subnets.push_back(&row);
  }
  const std::vector<double> worths = worths_tao(result);
  for (std::size_t i = 0; i < result.balances.size(); ++i) {
    const ledger::BalanceSample& row = result.balances[i];
    if (row.block == result.balances.back().block) summary.accounts.push_back({&row, worths[i]});
  }
  for (const ledger::EpochReport& epoch : result.epochs) {
    if (!epoch.skipped && !epoch.deferred) ++summary.epochs[epoch.netuid];
  }
  for (const ledger::RefusedEvent& event : result.refused) {
    ++summary.refused[{event.operation, std::string(name_of(event.error))}];
  }
  return summary;
}

std::string name_of_subnet(const ledger::Scenario& scenario, std::uint16_t netuid) {
  if (netuid >= 1 && netuid <= scenario.subnets.size()) return scenario.subnets[netuid - 1U].name;
  return "subnet-" + std::to_string(netuid);
}

double tao(std::uint64_t rao) { return static_cast<double>(rao) / 1e9; }

void print_table(const ledger::Scenario& scenario, const ledger::SimulationResult& result) {
  const Summary summary = summary_of(result);
  std::printf("%-20s %12s %14s %14s %14s %8s\n", "subnet", "price TAO", "pool TAO", "alpha out",
              "TAO a block", "epochs");
  for (const ledger::SubnetSample* row : summary.subnets) {
    const auto epochs = summary.epochs.find(row->netuid);
    std::printf(
        "%-20s %12.6f %14.3f %14.3f %14.6f %8llu\n", name_of_subnet(scenario, row->netuid).c_str(),
        row->price, tao(row->tao_reserve), tao(row->alpha_out), tao(row->tao_emission),
        static_cast<unsigned long long>(epochs == summary.epochs.end() ? 0 : epochs->second));
  }
  std::printf("\n%-20s %14s %14s %14s\n", "account", "began TAO", "free TAO", "worth TAO");
  for (const AccountEnd& end : summary.accounts) {
    std::printf("%-20s %14.3f %14.3f %14.3f\n", end.row->account.c_str(),
                tao(scenario.funds.at(end.row->account)), tao(end.row->free), end.worth_tao);
  }
  for (const auto& [what, count] : summary.refused) {
    std::printf("\nrefused %llu times: %s, %s", static_cast<unsigned long long>(count),
                what.first.c_str(), what.second.c_str());
  }
  if (!summary.refused.empty()) std::printf("\n");
}

void print_json(const ledger::Scenario& scenario, const ledger::SimulationResult& result) {
  const Summary summary = summary_of(result);
  nlohmann::ordered_json json{{"blocks", scenario.blocks},
                              {"digest", result.ledger.digest().hex()},
                              {"subnets", nlohmann::ordered_json::array()},
                              {"accounts", nlohmann::ordered_json::array()},
                              {"refused", nlohmann::ordered_json::array()}};
  for (const ledger::SubnetSample* row : summary.subnets) {
    const auto epochs = summary.epochs.find(row->netuid);
    json["subnets"].push_back({{"netuid", row->netuid},
                               {"name", name_of_subnet(scenario, row->netuid)},
                               {"price_tao", row->price},
                               {"tao_reserve_rao", row->tao_reserve},
                               {"alpha_reserve_rao", row->alpha_reserve},
                               {"alpha_out_rao", row->alpha_out},
                               {"tao_emission_rao", row->tao_emission},
                               {"epochs", epochs == summary.epochs.end() ? 0 : epochs->second}});
  }
  for (const AccountEnd& end : summary.accounts) {
    json["accounts"].push_back({{"name", end.row->account},
                                {"began_rao", scenario.funds.at(end.row->account)},
                                {"free_rao", end.row->free},
                                {"worth_tao", end.worth_tao}});
  }
  for (const auto& [what, count] : summary.refused) {
    json["refused"].push_back(
        {{"operation", what.first}, {"error", what.second}, {"count", count}});
  }
  std::cout << json.dump() << std::endl;
}

void simulate_economy(const SimulateChoice& choice) {
  const ledger::Scenario scenario = read_scenario(choice.scenario);
  const ledger::SimulationResult result = run_scenario(scenario, choice.scenario);
  const bool hdf5 = choice.out.ends_with(".h5");
  if (hdf5) {
    write_simulation_hdf5(scenario, result, choice.out);
  } else if (!choice.out.empty()) {
    write_simulation(scenario, result, choice.out);
  }
  if (choice.json) return print_json(scenario, result);
  print_table(scenario, result);
  if (hdf5) {
    std::printf("\nwrote %s, and the plot as .svg beside it\n", choice.out.c_str());
  } else if (!choice.out.empty()) {
    std::printf("\nwrote subnets.csv, balances.csv, epochs.csv and plot.svg to %s\n",
                choice.out.c_str());
  }
}

}  // namespace

void add_ledger_simulate(CLI::App& ledger_group) {
  auto choice = std::make_shared<SimulateChoice>();
  CLI::App* command = ledger_group.add_subcommand(
      "simulate", "Run an invented economy for some blocks: prices, emission, balances");
  command->add_option("scenario", choice->scenario, "TOML file: who is there and what they do")
      ->required();
  command->add_option("-o,--out", choice->out,
                      "FILE.h5 for the tables as HDF5 with FILE.svg, or a folder for CSV and SVG");
  command->add_flag("--json", choice->json, "One JSON object");
  command->footer("yumoe ledger simulate launch/examples/economy/two-subnets.toml --out economy");
  command->callback([choice] { simulate_economy(*choice); });
}

}  // namespace yumoe

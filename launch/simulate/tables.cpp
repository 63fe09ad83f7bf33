#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <sstream>

#include "cluster/error.hpp"
#include "launch/simulate.hpp"
#include "simulate/names.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

std::string decimal(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9f", value);
  return text;
}

std::string subnets_csv(const ledger::Scenario& scenario, const ledger::SimulationResult& result) {
  std::ostringstream out;
  out << "block,netuid,subnet,price_tao,moving_price_tao,tao_reserve_rao,alpha_reserve_rao,"
         "alpha_out_rao,tao_emission_rao\n";
  for (const ledger::SubnetSample& row : result.subnets) {
    out << row.block << ',' << row.netuid << ',' << subnet_name(scenario, row.netuid) << ','
        << decimal(row.price) << ',' << decimal(row.moving_price) << ',' << row.tao_reserve << ','
        << row.alpha_reserve << ',' << row.alpha_out << ',' << row.tao_emission << '\n';
  }
  return std::move(out).str();
}

// One row a place where money is; the free money's subnet is empty.
std::string balances_csv(const ledger::Scenario& scenario, const ledger::SimulationResult& result) {
  std::ostringstream out;
  out << "block,account,netuid,subnet,free_rao,alpha_rao\n";
  for (const ledger::BalanceSample& row : result.balances) {
    out << row.block << ',' << row.account << ",,," << row.free << ",\n";
    for (const auto& [netuid, alpha] : row.alpha) {
      out << row.block << ',' << row.account << ',' << netuid << ','
          << subnet_name(scenario, netuid) << ",," << alpha << '\n';
    }
  }
  return std::move(out).str();
}

// One row a payout; an epoch that paid nobody has one row without a uid.
std::string epochs_csv(const ledger::Scenario& scenario, const ledger::SimulationResult& result) {
  const HotkeyNames hotkeys(scenario);
  std::ostringstream out;
  out << "block,netuid,subnet,state,owner_cut_rao,uid,hotkey,incentive_rao,withheld,"
         "dividend_alpha_rao,dividend_root_rao,take_rao,emission_rao\n";
  for (const ledger::EpochReport& epoch : result.epochs) {
    const std::string start = std::to_string(epoch.block) + ',' + std::to_string(epoch.netuid) +
                              ',' + subnet_name(scenario, epoch.netuid) + ',' + state_of(epoch) +
                              ',' + std::to_string(epoch.owner_cut) + ',';
    if (epoch.payouts.empty()) out << start << ",,,,,,,\n";
    for (const ledger::Payout& payout : epoch.payouts) {
      out << start << payout.uid << ',' << hotkeys.name_of(payout.hotkey) << ',' << payout.incentive
          << ',' << (payout.withheld ? 1 : 0) << ',' << payout.dividend_alpha << ','
          << payout.dividend_root << ',' << payout.take << ',' << payout.emission << '\n';
    }
  }
  return std::move(out).str();
}

}  // namespace

void write_whole(const fs::path& path, const std::string& text) {
  fs::path part = path;
  part += ".part";
  std::ofstream out(part, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  std::error_code error;
  if (out) fs::rename(part, path, error);
  if (!out || error) {
    throw Error(ErrorCode::file_io,
                "write " + path.string() + ": check the folder and its free space");
  }
}

std::vector<double> worths_tao(const ledger::SimulationResult& result) {
  std::map<std::pair<std::uint64_t, std::uint16_t>, double> prices;
  for (const ledger::SubnetSample& row : result.subnets)
    prices[{row.block, row.netuid}] = row.price;
  std::vector<double> worths;
  for (const ledger::BalanceSample& row : result.balances) {
    double rao = static_cast<double>(row.free);
    for (const auto& [netuid, alpha] : row.alpha) {
      const double price = netuid == ledger::kRootNetuid ? 1.0 : prices.at({row.block, netuid});
      rao += static_cast<double>(alpha) * price;
    }
    worths.push_back(rao / 1e9);
  }
  return worths;
}

void write_simulation(const ledger::Scenario& scenario, const ledger::SimulationResult& result,
                      const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(ErrorCode::file_io, "make " + folder.string() + ": " + error.message());
  write_whole(folder / "subnets.csv", subnets_csv(scenario, result));
  write_whole(folder / "balances.csv", balances_csv(scenario, result));
  write_whole(folder / "epochs.csv", epochs_csv(scenario, result));
  write_whole(folder / "plot.svg", simulation_svg(scenario, result));
}

}  // namespace yumoe

#pragma once
// Invented economies from a file: what `yumoe ledger simulate` reads and writes.
//
// A scenario is TOML (launch/examples/economy/two-subnets.toml shows every section). Amounts of money
// have `_tao` or `_alpha` at the end of their key and are decimals, rounded to the billionth; options
// of [ledger] are those of LedgerOptions, [subnets.parameters] those of SubnetParameters. The same
// file gives the same bytes everywhere.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/simulation.hpp"

namespace yumoe {

inline constexpr std::size_t kScenarioBytesMax = std::size_t{1} << 20;

// Throws Error{config_invalid}: "FILE:LINE: KEY = VALUE must ..."; `name` is FILE in it.
ledger::Scenario parse_scenario(std::string_view toml, std::string_view name);
// As parse_scenario, and Error{file_missing}.
ledger::Scenario read_scenario(const std::filesystem::path& file);

// What each row of result.balances is worth in TAO: free money and stake at the row's block's price,
// which a sale of all of it would not reach. For people to look at.
std::vector<double> worths_tao(const ledger::SimulationResult& result);

// One picture: prices, emission and balances over the blocks, each in a panel of its own with a
// legend. At most twelve lines a panel, the subnets and accounts that end highest (by price, by
// worth); the legend counts the others.
std::string simulation_svg(const ledger::Scenario& scenario,
                           const ledger::SimulationResult& result);

// Writes subnets.csv, balances.csv, epochs.csv and plot.svg, each whole or not at all, and replaces
// those of an earlier simulation. The scenario gives the names. Throws Error{file_io}.
void write_simulation(const ledger::Scenario& scenario, const ledger::SimulationResult& result,
                      const std::filesystem::path& folder);

// The same tables as one HDF5 file of groups subnets, balances, epochs and payouts, and FILE.svg beside
// FILE.h5 for the plot. Throws Error{file_io}, Error{disk_full}.
void write_simulation_hdf5(const ledger::Scenario& scenario, const ledger::SimulationResult& result,
                           const std::filesystem::path& file);

}  // namespace yumoe

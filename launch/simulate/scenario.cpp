#include <fstream>
#include <set>

#include "cluster/error.hpp"
#include "launch/simulate.hpp"
#include "simulate/event.hpp"
#include "simulate/table_reader.hpp"

namespace yumoe {
namespace {

using ledger::Scenario;
using ledger::ScenarioNeuron;
using ledger::ScenarioSubnet;

constexpr std::uint64_t kBlocksMax = 10'000'000;
constexpr std::uint64_t kRowsMax = 2'000'000;  // about 200 MB of samples
constexpr std::uint64_t kSubnetsMax = 128;
constexpr std::uint64_t kNeuronsMax = 4095;  // beside the owner's

class ScenarioReader {
 public:
  explicit ScenarioReader(const std::string& file) : file_(file) {}

  Scenario read(const toml::table& root) {
    TableReader table(file_, "", root);
    scenario_.blocks = table.whole("blocks", 1000, 1, kBlocksMax);
    scenario_.sample_every = table.whole("sample_every", 10, 1, kBlocksMax);
    if (auto options = table.table("ledger")) {
      auto read_option = [&](std::string_view name, auto& value, const OptionInfo& info) {
        options->option(name, value, info);
      };
      scenario_.ledger.visit(read_option);
      options->finish();
    }
    read_funds(table);
    for (TableReader& subnet : table.tables("subnets")) read_subnet(subnet);
    for (TableReader& event : table.tables("events")) {
      scenario_.events.push_back(read_event(event, netuids_));
    }
    table.finish();
    check_size(table);
    return std::move(scenario_);
  }

 private:
  void read_funds(TableReader& table) {
    auto funds = table.table("funds_tao");
    if (!funds)
      table.fail("funds_tao", "is missing: a section of names and the TAO each begins with");
    for (const std::string& name : funds->names()) {
      scenario_.funds[name] = funds->amount(name, std::nullopt);
    }
  }

  // Who pays needs money to begin with.
  std::string coldkey(TableReader& table, std::string_view key) const {
    std::string name = table.name(key);
    if (!scenario_.funds.contains(name)) table.fail(key, "must be one of [funds_tao]");
    return name;
  }

  void read_subnet(TableReader& table) {
    ScenarioSubnet subnet;
    subnet.name = table.name("name");
    const auto netuid = static_cast<std::uint16_t>(scenario_.subnets.size() + 1);
    if (netuid > kSubnetsMax) table.fail("name", "is one subnet too many: at most 128");
    if (!netuids_.emplace(subnet.name, netuid).second) {
      table.fail("name", "must differ from \"root\" and every other subnet's");
    }
    subnet.owner = coldkey(table, "owner");
    subnet.lock = table.amount("lock_tao", 0);
    if (auto parameters = table.table("parameters")) read_parameters(*parameters, subnet);
    std::vector<TableReader> neurons = table.tables("neurons");
    if (neurons.size() > kNeuronsMax) table.fail("neurons", "must be at most 4095");
    std::set<std::string> hotkeys{subnet.owner + "/owner"};
    for (TableReader& neuron : neurons) {
      subnet.neurons.push_back(read_neuron(neuron, neurons.size()));
      if (!hotkeys.insert(subnet.neurons.back().hotkey).second) {
        neuron.fail("hotkey",
                    "must be there once a subnet; \"" + subnet.owner + "/owner\" is uid 0");
      }
    }
    table.finish();
    scenario_.subnets.push_back(std::move(subnet));
  }

  static void read_parameters(TableReader& table, ScenarioSubnet& subnet) {
    ledger::SubnetParameters known;
    known.visit_named([&](std::string_view name, auto& field, const ledger::Bounds& bounds) {
      const toml::node* node = table.find(name);
      if (node == nullptr) return;
      using Field = std::remove_reference_t<decltype(field)>;
      if constexpr (std::is_same_v<Field, bool>) {
        subnet.parameters[std::string(name)] = table.flag(name, std::nullopt) ? 1 : 0;
      } else {
        const std::uint64_t widest = std::numeric_limits<Field>::max();
        subnet.parameters[std::string(name)] =
            table.whole(name, std::nullopt, bounds.min, std::min(bounds.max, widest));
      }
    });
    table.finish();
  }

  ScenarioNeuron read_neuron(TableReader& table, std::size_t neurons) const {
    ScenarioNeuron neuron;
    neuron.hotkey = table.name("hotkey");
    neuron.coldkey = coldkey(table, "coldkey");
    neuron.stake = table.amount("stake_tao", 0);
    neuron.root_stake = table.amount("root_stake_tao", 0);
    neuron.weights = table.numbers("weights");
    if (neuron.weights.size() > neurons + 1) {
      table.fail("weights", "must be one a uid, at most " + std::to_string(neurons + 1) +
                                ": the owner's first, then [[subnets.neurons]] in order");
    }
    neuron.weights_every = table.whole("weights_every", 0, 0, kBlocksMax);
    table.finish();
    return neuron;
  }

  void check_size(const TableReader& table) const {
    const std::uint64_t lines = scenario_.subnets.size() + scenario_.funds.size();
    if (scenario_.blocks / scenario_.sample_every * lines > kRowsMax) {
      table.fail("sample_every", "must be larger: this would be more than 2000000 rows");
    }
  }

  const std::string& file_;
  Scenario scenario_;
  SubnetNames netuids_{{"root", ledger::kRootNetuid}};
};

}  // namespace

ledger::Scenario parse_scenario(std::string_view toml, std::string_view name) {
  const std::string file(name);
  if (toml.size() > kScenarioBytesMax) {
    throw Error(ErrorCode::config_invalid, file + " is larger than 1 MiB");
  }
  toml::table root;
  try {
    root = toml::parse(toml, file);
  } catch (const toml::parse_error& error) {
    throw Error(ErrorCode::config_invalid, file + ":" + std::to_string(error.source().begin.line) +
                                               ": " + std::string(error.description()));
  }
  return ScenarioReader(file).read(root);
}

ledger::Scenario read_scenario(const std::filesystem::path& file) {
  std::error_code error;
  std::ifstream in(file, std::ios::binary);
  if (std::filesystem::is_directory(file, error) || !in) {
    throw Error(ErrorCode::file_missing,
                file.string() +
                    " cannot be read; launch/examples/economy/two-subnets.toml is a "
                    "scenario to start from");
  }
  std::string text(kScenarioBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  return parse_scenario(text, file.string());
}

}  // namespace yumoe

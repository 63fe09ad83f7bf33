// yumoe chain metagraph, hyperparameters, pools.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/chain_choice.hpp"
#include "cluster/error.hpp"
#include "coordinator/table_file.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

struct ReadChoice : ChainChoice {
  std::string at, out;
};

// A block's number or hash; nothing: the newest finalized one.
ChainReader reader_at(ChainNode& node, const std::string& at) {
  if (at.empty()) return ChainReader(node);
  if (at.starts_with("0x")) {
    const Bytes bytes = from_hex(at);
    Digest block;
    if (bytes.size() != block.bytes.size()) {
      throw Error(ErrorCode::usage, "--at " + at + ": a block's hash has 64 hexadecimal digits");
    }
    std::ranges::copy(bytes, block.bytes.begin());
    return ChainReader(node, block);
  }
  std::uint32_t number = 0;
  if (!option_detail::parse_number(at, number)) {
    throw Error(ErrorCode::usage, "--at " + at + ": must be a block's number or its 0x hash");
  }
  return ChainReader::at(node, number);
}

// Throws Error{usage} if there is no such subnet in that block.
void require_subnet(ChainReader& reader, Netuid netuid) {
  const std::vector<Netuid> subnets = reader.subnets();
  if (std::ranges::find(subnets, netuid) != subnets.end()) return;
  std::string all;
  for (const Netuid known : subnets) all += (all.empty() ? "" : ", ") + std::to_string(known.value);
  throw Error(ErrorCode::usage, "subnet " + std::to_string(netuid.value) +
                                    " does not exist in block " + std::to_string(reader.block()) +
                                    "; there are " + all);
}

// --- metagraph -------------------------------------------------------------------------------------------

template <typename Value>
nlohmann::json json_or_null(const std::optional<Value>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

nlohmann::json json_of(const ChainNeuron& n) {
  return {{"uid", n.uid.value},
          {"hotkey", n.hotkey},
          {"coldkey", n.coldkey},
          {"active", json_or_null(n.active)},
          {"validator_permit", json_or_null(n.validator_permit)},
          {"incentive", json_or_null(n.incentive)},
          {"dividends", json_or_null(n.dividends)},
          {"consensus", json_or_null(n.consensus)},
          {"validator_trust", json_or_null(n.validator_trust)},
          {"trust", json_or_null(n.trust)},
          {"rank", json_or_null(n.rank)},
          {"emission", json_or_null(n.emission)},
          {"stake", json_or_null(n.stake)},
          {"last_update", json_or_null(n.last_update)},
          {"registered_at", json_or_null(n.registered_at)},
          {"axon", n.axon.ip.empty() ? nlohmann::json()
                                     : nlohmann::json{{"ip", n.axon.ip}, {"port", n.axon.port}}}};
}

nlohmann::json json_of(const Metagraph& graph) {
  nlohmann::json neurons = nlohmann::json::array();
  for (const ChainNeuron& neuron : graph.neurons) neurons.push_back(json_of(neuron));
  return {{"netuid", graph.netuid.value},
          {"block", graph.block},
          {"block_hash", "0x" + graph.block_hash.hex()},
          {"spec_version", graph.spec_version},
          {"neurons", neurons},
          {"weights", graph.weights},
          {"bonds", graph.bonds}};
}

std::string csv_of(const Metagraph& graph) {
  std::string text =
      "uid,hotkey,coldkey,active,validator_permit,incentive,dividends,consensus,validator_trust,"
      "trust,"
      "rank,emission,stake,last_update,registered_at,ip,port\n";
  const auto put = [&](const auto& value) { text += value ? std::to_string(*value) : ""; };
  for (const ChainNeuron& n : graph.neurons) {
    text += std::to_string(n.uid.value) + "," + n.hotkey + "," + n.coldkey;
    for (const auto& flag : {n.active, n.validator_permit}) text += ",", put(flag);
    for (const auto& share :
         {n.incentive, n.dividends, n.consensus, n.validator_trust, n.trust, n.rank}) {
      text += ",", put(share);
    }
    for (const auto& amount : {n.emission, n.stake, n.last_update, n.registered_at}) {
      text += ",", put(amount);
    }
    text += "," + n.axon.ip + "," + (n.axon.ip.empty() ? "" : std::to_string(n.axon.port)) + "\n";
  }
  return text;
}

// -1 where the runtime does not have the item.
template <typename Get>
Column integers(const Metagraph& graph, std::string name, std::string units, std::string meaning,
                Get get) {
  std::vector<std::int64_t> values;
  for (const ChainNeuron& neuron : graph.neurons) {
    const auto value = get(neuron);
    values.push_back(value ? static_cast<std::int64_t>(*value) : -1);
  }
  return {std::move(name), std::move(units), meaning + "; -1: not in this runtime",
          std::move(values)};
}

Table pairs_table(const std::vector<WeightRow>& rows, std::string name, std::string meaning) {
  std::vector<std::int64_t> from, to, value;
  for (std::size_t uid = 0; uid < rows.size(); ++uid) {
    for (const auto& [target, amount] : rows[uid]) {
      from.push_back(static_cast<std::int64_t>(uid));
      to.push_back(target);
      value.push_back(amount);
    }
  }
  return {std::move(name),
          std::move(meaning),
          {{"validator", "1", "uid that set it", std::move(from)},
           {"uid", "1", "uid it is for", std::move(to)},
           {"value", "1/65535", "as stored", std::move(value)}}};
}

void write_hdf5(const Metagraph& graph, const fs::path& out) {
  std::vector<std::string> hotkeys, coldkeys, ips;
  std::vector<std::int64_t> uids, ports;
  for (const ChainNeuron& n : graph.neurons) {
    uids.push_back(n.uid.value);
    hotkeys.push_back(n.hotkey);
    coldkeys.push_back(n.coldkey);
    ips.push_back(n.axon.ip);
    ports.push_back(n.axon.port);
  }
  using N = ChainNeuron;
  Table neurons{"neurons", "one row a uid, ascending", {}};
  const auto share = [&](const char* name, const char* meaning, auto member) {
    neurons.columns.push_back(
        integers(graph, name, "1/65535", meaning, [=](const N& n) { return n.*member; }));
  };
  const auto amount = [&](const char* name, const char* units, const char* meaning, auto member) {
    neurons.columns.push_back(
        integers(graph, name, units, meaning, [=](const N& n) { return n.*member; }));
  };
  neurons.columns.push_back({"uid", "1", "place in the subnet", uids});
  neurons.columns.push_back({"hotkey", "", "SS58 address", hotkeys});
  neurons.columns.push_back({"coldkey", "", "SS58 address of the hotkey's owner", coldkeys});
  amount("active", "1", "1 if it set weights lately", &N::active);
  amount("validator_permit", "1", "1 if its weights count", &N::validator_permit);
  share("incentive", "share of the miners' reward", &N::incentive);
  share("dividends", "share of the validators' reward", &N::dividends);
  share("consensus", "weight the stake agrees on", &N::consensus);
  share("validator_trust", "part of its weights within consensus", &N::validator_trust);
  share("trust", "of older runtimes", &N::trust);
  share("rank", "of older runtimes", &N::rank);
  amount("emission", "rao", "in the last epoch", &N::emission);
  amount("stake", "rao", "on the hotkey", &N::stake);
  amount("last_update", "block", "of its newest weights", &N::last_update);
  amount("registered_at", "block", "of its registration", &N::registered_at);
  neurons.columns.push_back({"ip", "", "served address; empty: none", ips});
  neurons.columns.push_back({"port", "1", "served port", ports});
  write_table_file(out,
                   {{"format", "yumoe metagraph"},
                    {"version", "1"},
                    {"netuid", std::to_string(graph.netuid.value)},
                    {"block", std::to_string(graph.block)},
                    {"block_hash", "0x" + graph.block_hash.hex()},
                    {"spec_version", std::to_string(graph.spec_version)}},
                   {neurons, pairs_table(graph.weights, "weights", "one row a weight that is set"),
                    pairs_table(graph.bonds, "bonds", "one row a bond that is kept")});
}

void write_text(const fs::path& out, const std::string& text) {
  const fs::path partial = out.string() + ".partial";
  std::ofstream file(partial, std::ios::binary);
  file << text;
  file.close();
  std::error_code failed;
  if (file) fs::rename(partial, out, failed);
  if (!file || failed) throw Error(ErrorCode::file_io, "write " + out.string());
}

void write_metagraph(const Metagraph& graph, const fs::path& out) {
  const std::string kind = out.extension().string();
  if (kind == ".json") return write_text(out, json_of(graph).dump() + "\n");
  if (kind == ".csv") return write_text(out, csv_of(graph));
  write_hdf5(graph, out);
}

void print_metagraph(const Metagraph& graph) {
  std::printf("subnet %u at block %u, runtime %u\n%4s %-48s %18s %9s %9s %18s %6s %11s %s\n",
              graph.netuid.value, graph.block, graph.spec_version, "uid", "hotkey", "stake",
              "incentive", "dividends", "emission", "permit", "last update", "axon");
  const auto share = [](const std::optional<std::uint16_t>& value) {
    char text[16];
    std::snprintf(text, sizeof text, "%.5f", value.value_or(0) / 65535.0);
    return value ? std::string(text) : "-";
  };
  for (const ChainNeuron& n : graph.neurons) {
    const std::string axon =
        n.axon.ip.empty() ? "-" : n.axon.ip + ":" + std::to_string(n.axon.port);
    std::printf("%4u %-48s %18s %9s %9s %18s %6s %11s %s\n", n.uid.value, n.hotkey.c_str(),
                n.stake ? tao_text(*n.stake).c_str() : "-", share(n.incentive).c_str(),
                share(n.dividends).c_str(), n.emission ? tao_text(*n.emission).c_str() : "-",
                !n.validator_permit   ? "-"
                : *n.validator_permit ? "yes"
                                      : "no",
                n.last_update ? std::to_string(*n.last_update).c_str() : "-", axon.c_str());
  }
}

void metagraph(const ReadChoice& choice) {
  require_netuid(choice);
  const fs::path out = choice.out;
  const std::string kind = out.extension().string();
  if (!choice.out.empty() && kind != ".h5" && kind != ".csv" && kind != ".json") {
    throw Error(ErrorCode::usage, "--out " + choice.out + ": must end in .h5, .csv or .json");
  }
  const ChainOptions options = choice.options();
  ChainLine line(options, chain_progress);
  ChainReader reader = reader_at(line.node(), choice.at);
  const Netuid netuid{static_cast<std::uint16_t>(options.netuid)};
  require_subnet(reader, netuid);
  const Metagraph graph = reader.metagraph(netuid);
  if (!choice.out.empty()) {
    write_metagraph(graph, out);
    if (!choice.json) {
      std::printf("%zu neurons of subnet %u at block %u: %s\n", graph.neurons.size(),
                  graph.netuid.value, graph.block, choice.out.c_str());
    }
  } else if (!choice.json) {
    print_metagraph(graph);
  }
  if (choice.json) std::cout << json_of(graph).dump() << std::endl;
}

// --- hyperparameters, pools ------------------------------------------------------------------------------

void hyperparameters(const ReadChoice& choice) {
  require_netuid(choice);
  const ChainOptions options = choice.options();
  ChainLine line(options, chain_progress);
  ChainReader reader = reader_at(line.node(), choice.at);
  const Netuid netuid{static_cast<std::uint16_t>(options.netuid)};
  require_subnet(reader, netuid);
  const auto values = reader.hyperparameters(netuid);
  if (choice.json) {
    nlohmann::ordered_json out;
    out["netuid"] = netuid.value;
    out["block"] = reader.block();
    for (const auto& [name, value] : values) {
      out["hyperparameters"][name] = nlohmann::ordered_json::parse(value);
    }
    std::cout << out.dump() << std::endl;
    return;
  }
  std::printf("subnet %u at block %u, runtime %u\n", netuid.value, reader.block(),
              reader.runtime().spec_version);
  for (const auto& [name, value] : values) std::printf("%-36s %s\n", name.c_str(), value.c_str());
}

void pools(const ReadChoice& choice) {
  const ChainOptions options = choice.options();
  ChainLine line(options, chain_progress);
  ChainReader reader = reader_at(line.node(), choice.at);
  std::vector<Netuid> netuids = reader.subnets();
  const bool one =
      std::ranges::any_of(choice.given, [](const auto& flag) { return flag.first == "netuid"; });
  if (one) {
    netuids = {Netuid{static_cast<std::uint16_t>(options.netuid)}};
    require_subnet(reader, netuids[0]);
  }
  nlohmann::json rows = nlohmann::json::array();
  if (!choice.json) {
    std::printf("block %u, runtime %u\n%6s %14s %14s %20s %20s %20s  %s\n", reader.block(),
                reader.runtime().spec_version, "netuid", "price TAO", "moving price", "pool TAO",
                "pool alpha", "alpha outside", "formula");
  }
  for (const Netuid netuid : netuids) {
    const SubnetPool pool = reader.pool(netuid);
    if (choice.json) {
      rows.push_back({{"netuid", netuid.value},
                      {"tao", json_or_null(pool.tao)},
                      {"alpha_in", json_or_null(pool.alpha_in)},
                      {"alpha_out", json_or_null(pool.alpha_out)},
                      {"price", json_or_null(pool.price)},
                      {"moving_price", json_or_null(pool.moving_price)},
                      {"formula", pool.formula},
                      {"quote_weight", json_or_null(pool.quote_weight)}});
      continue;
    }
    const auto number = [](const std::optional<double>& value) {
      char text[32];
      std::snprintf(text, sizeof text, "%.9f", value.value_or(0));
      return value ? std::string(text) : "-";
    };
    const auto amount = [](const auto& rao) { return rao ? tao_text(*rao) : std::string("-"); };
    std::printf("%6u %14s %14s %20s %20s %20s  %s\n", netuid.value, number(pool.price).c_str(),
                number(pool.moving_price).c_str(), amount(pool.tao).c_str(),
                amount(pool.alpha_in).c_str(), amount(pool.alpha_out).c_str(),
                pool.formula.c_str());
  }
  if (choice.json) {
    std::cout << nlohmann::json{{"block", reader.block()}, {"pools", rows}}.dump() << std::endl;
  }
}

void add(CLI::App& group, const char* name, const char* help, const char* example,
         void (*run)(const ReadChoice&), bool with_out) {
  const auto choice = std::make_shared<ReadChoice>();
  CLI::App* command = group.add_subcommand(name, help);
  command->add_option("--at", choice->at,
                      "Block: number or 0x hash; the newest finalized if not given");
  if (with_out) command->add_option("-o,--out", choice->out, "File to write: .h5, .csv or .json");
  add_chain_flags(*command, *choice, ChainKey::none);
  command->footer(example);
  command->callback([choice, run] { run(*choice); });
}

}  // namespace

void add_chain_read_commands(CLI::App& group) {
  add(group, "metagraph", "A subnet's neurons, weights and bonds in one finalized block",
      "yumoe chain metagraph --endpoints ws://127.0.0.1:9944 --netuid 2 -o metagraph.h5", metagraph,
      true);
  add(group, "hyperparameters", "What the runtime keeps for a subnet, by its own names",
      "yumoe chain hyperparameters --endpoints ws://127.0.0.1:9944 --netuid 2", hyperparameters,
      false);
  add(group, "pools", "Reserves and prices of all subnets, or of one",
      "yumoe chain pools --endpoints ws://127.0.0.1:9944", pools, false);
}

}  // namespace yumoe

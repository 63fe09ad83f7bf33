// yumoe chain: the group, its flags and its words.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cli/chain_choice.hpp"
#include "cli/commands.hpp"
#include "cluster/error.hpp"
#include "config/nearest_name.hpp"
#include "coordinator/extrinsic.hpp"
#include "launch/config.hpp"

namespace yumoe {
namespace {

// Options that only a run reads.
bool is_for_runs(std::string_view name) { return name == "target"; }
bool is_for_keys(std::string_view name) {
  return name == "wallet" || name == "hotkey" || name == "coldkey" || name == "wallets" ||
         name == "password_fd";
}
bool is_for_sending(std::string_view name) {
  return name == "era_blocks" || name == "tries_max" || name == "pause_blocks";
}
bool is_usual(std::string_view name) {
  return name == "netuid" || name == "endpoints" || name == "genesis";
}

std::string flag_of(std::string_view name) {
  std::string flag = "--" + std::string(name);
  std::ranges::replace(flag, '_', '-');
  return flag;
}

std::string help_of(const std::string& value, const OptionInfo& info) {
  std::string help(info.help);
  if (!info.unit.empty()) help += ", " + std::string(info.unit);
  if (!value.empty() && value != "-1") help += " [" + value + "]";
  return help;
}

// A list is given by commas and kept by lines.
std::string value_text(const std::vector<std::string>&, const std::string& typed) {
  std::string text;
  std::size_t from = 0;
  while (from <= typed.size()) {
    const std::size_t comma = std::min(typed.find(',', from), typed.size());
    if (comma > from) text += typed.substr(from, comma - from) + "\n";
    from = comma + 1;
  }
  return text;
}
template <typename Value>
std::string value_text(const Value&, const std::string& typed) {
  return typed;
}

}  // namespace

ChainOptions ChainChoice::options() const {
  ChainOptions options = config.empty() ? ChainOptions{} : read_config(config).chain;
  const auto take = [&](std::string_view name, auto& value, const OptionInfo& info) {
    for (const auto& [key, typed] : given) {
      if (key != name) continue;
      if (!option_detail::parse(value_text(value, typed), value)) {
        throw Error(ErrorCode::usage, flag_of(name) + " " + typed + ": must be a whole number");
      }
      if (const std::string rule = broken_rule(value, info); !rule.empty()) {
        throw Error(ErrorCode::usage, flag_of(name) + " " + typed + ": " + rule);
      }
    }
  };
  options.visit(take);
  return options;
}

void add_chain_flags(CLI::App& command, ChainChoice& choice, ChainKey key) {
  command.add_option("--config", choice.config,
                     "A run's file: its section [chain] is taken, flags win");
  command.add_flag("--json", choice.json, "JSON; amounts in rao");
  ChainOptions defaults;
  const auto add = [&](std::string_view name, auto& value, const OptionInfo& info) {
    if (is_for_runs(name)) return;
    if (is_for_keys(name) && key == ChainKey::none) return;
    if (name == "coldkey" && key != ChainKey::coldkey) return;
    if (is_for_sending(name) && key == ChainKey::none) return;
    CLI::Option* option = command.add_option_function<std::string>(
        flag_of(name),
        [&choice, name = std::string(name)](const std::string& typed) {
          choice.given.emplace_back(name, typed);
        },
        help_of(option_detail::text_of(value), info));
    if (!is_usual(name)) option->group(is_for_keys(name) ? "Keys" : "Patience");
  };
  defaults.visit(add);
}

void require_netuid(const ChainChoice& choice) {
  const bool is_given =
      std::ranges::any_of(choice.given, [](const auto& flag) { return flag.first == "netuid"; });
  if (!is_given && choice.config.empty()) {
    throw Error(ErrorCode::usage, "which subnet: give --netuid N, or --config FILE");
  }
}

void chain_progress(std::string_view line) { std::cerr << "chain: " << line << std::endl; }

std::string tao_text(std::uint64_t rao) {
  char text[48];
  std::snprintf(text, sizeof text, "%llu.%09llu",
                static_cast<unsigned long long>(rao / 1'000'000'000),
                static_cast<unsigned long long>(rao % 1'000'000'000));
  return text;
}

std::string tao_text(const std::string& rao) {
  std::uint64_t number = 0;
  return option_detail::parse_number(rao, number) ? tao_text(number) : rao + " rao";
}

const Pallet& find_pallet(const Metadata& metadata, std::uint32_t spec_version,
                          const std::string& name) {
  std::vector<std::string> names;
  for (const Pallet& pallet : metadata.pallets()) {
    if (pallet.name == name) return pallet;
    names.push_back(pallet.name);
  }
  std::string nearest = nearest_name(name, names);
  std::string all;
  for (const std::string& known : names) all += (all.empty() ? "" : ", ") + known;
  throw Error(ErrorCode::usage,
              "runtime " + std::to_string(spec_version) + " has no pallet '" + name + "'" +
                  (nearest.empty() ? "; it has " + all : ", did you mean '" + nearest + "'?"));
}

const TypeVariant& find_call(const Metadata& metadata, const Pallet& pallet,
                             const std::string& name) {
  std::vector<std::string> names;
  if (pallet.calls) {
    for (const TypeVariant& variant : metadata.types().at(*pallet.calls).variants) {
      if (variant.name == name) return variant;
      names.push_back(variant.name);
    }
  }
  const std::string nearest = nearest_name(name, names);
  std::string all;
  for (const std::string& known : names) all += (all.empty() ? "" : ", ") + known;
  throw Error(ErrorCode::usage, "pallet " + pallet.name + " has no call '" + name + "'" +
                                    (!nearest.empty() ? ", did you mean '" + nearest + "'?"
                                     : all.empty()    ? "; it has none"
                                                      : "; it has " + all));
}

void add_chain_commands(CLI::App& app) {
  CLI::App* group =
      app.add_subcommand("chain", "Bittensor's chain: read it, call it, settle a run with it");
  group->require_subcommand(1);
  add_chain_settle_commands(*group);
  add_chain_call_commands(*group);
  add_chain_read_commands(*group);
}

}  // namespace yumoe

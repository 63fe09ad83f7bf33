#pragma once
// What all `yumoe chain` commands share: the options that find a chain and a key, and how they are given.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "coordinator/chain_reader.hpp"
#include "launch/chain.hpp"

namespace yumoe {

struct ChainChoice {
  std::string config;  // a run's file whose [chain] section is taken first
  OptionTexts given;   // flags, which win
  bool json = false;

  // Throws Error{usage} naming the flag and the rule it breaks.
  ChainOptions options() const;
};

enum class ChainKey { none, hotkey, coldkey };

// Adds --config, --json and the flags of the line; those of a key unless it is none.
void add_chain_flags(CLI::App& command, ChainChoice& choice, ChainKey key);
void require_netuid(const ChainChoice& choice);

// To standard error, so that --json stays clean.
void chain_progress(std::string_view line);

// "12.345678901": rao as TAO or alpha.
std::string tao_text(std::uint64_t rao);
std::string tao_text(const std::string& rao);

// Throw Error{usage} naming the nearest pallet or call that this runtime has.
const Pallet& find_pallet(const Metadata& metadata, std::uint32_t spec_version,
                          const std::string& name);
const TypeVariant& find_call(const Metadata& metadata, const Pallet& pallet,
                             const std::string& name);

void add_chain_read_commands(CLI::App& group);
void add_chain_call_commands(CLI::App& group);
void add_chain_settle_commands(CLI::App& group);

}  // namespace yumoe

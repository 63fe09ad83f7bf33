#pragma once
// What a coordinator, or a replay, must know of a run before its first event.

#include <map>
#include <string>

#include "coordinator/aggregate.hpp"
#include "coordinator/run.hpp"
#include "coordinator/run_ledger.hpp"
#include "router/codec.hpp"
#include "router/outer_step.hpp"

namespace yumoe {

struct RunSetup {
  std::string run;            // the run's id, 1 to 64 bytes
  OptionTexts configuration;  // shared: "section.key" -> value
  Digest token_set;
  std::map<std::string, double> stakes;  // of validators, by SS58 address; others have none
  // From the configuration:
  ModelOptions model;
  InnerOptions training;
  OuterOptions outer;
  CodecOptions codec;
  AggregateOptions aggregate;
  RunSettings settings;
  ledger::LedgerOptions ledger;
  EconomyOptions economy;

  // Throws Error{config_invalid} naming the option.
  static RunSetup from(std::string run, OptionTexts configuration, const Digest& token_set,
                       std::map<std::string, double> stakes);

  // The tier a worker is taken to be of: what it claims, as far as placement.hotkeys_trusted and
  // placement.hotkeys_known let it. A run on one machine adds the keys of its own workers.
  std::string granted_tier(const PublicKey& hotkey, const std::string& claimed) const;
  std::map<std::string, std::string> tiers;  // of local workers, by SS58 address

  // What the journal keeps beside its records, and back.
  std::vector<std::pair<std::string, std::string>> journal_metadata() const;
  static RunSetup from_journal(std::string run,
                               const std::vector<std::pair<std::string, std::string>>& metadata);

  // BLAKE2b over the sorted lines "section.key=value\n": what participants agree on.
  Digest configuration_digest() const;
};

}  // namespace yumoe

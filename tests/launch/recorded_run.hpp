#pragma once
// The setup of a run whose journal a test writes itself: all defaults but what its ledger is about.

#include "coordinator/run_ledger.hpp"
#include "coordinator/setup.hpp"

namespace yumoe::test {

inline RunSetup setup_of(const std::string& run, const ledger::LedgerOptions& rules,
                         const EconomyOptions& economy, const RunOptions& options = {}) {
  OptionTexts texts;
  const auto add = [&](const std::string& section, const auto& options) {
    for (const auto& [name, value] : texts_of(options)) {
      texts.emplace_back(section + "." + name, value);
    }
  };
  add("model", ModelOptions{}), add("training", InnerOptions{}), add("outer", OuterOptions{});
  add("codec", CodecOptions{}), add("aggregate", AggregateOptions{});
  add("ledger", rules), add("economy", economy), add("run", options);
  add("placement", PlacementOptions{}), add("scoring", ScoringOptions{});
  return RunSetup::from(run, texts, Digest{}, {});
}

}  // namespace yumoe::test

#include "config/relations.hpp"

#include <set>

#include "cluster/error.hpp"
#include "cluster/identity.hpp"
#include "router/token_manifest.hpp"

namespace yumoe {
namespace {

constexpr std::int64_t kExpertsOfAllLayersMax = 65'536;
constexpr std::size_t kProcessesMax = 1'024;

using Broken = std::optional<BrokenRelation>;

Broken of_model(const ModelOptions& model) {
  if (model.layers * model.experts > kExpertsOfAllLayersMax) {
    return BrokenRelation{
        "model.experts",
        "model.layers * model.experts = " + std::to_string(model.layers * model.experts) +
            " must not exceed " + std::to_string(kExpertsOfAllLayersMax)};
  }
  try {
    Layout::of(model);
    return std::nullopt;
  } catch (const Error& error) {
    // The layout knows its own rules; only their place in the file is ours to add.
    std::string rule = error.what();
    rule.erase(0, description_of(error.code()).size() + 2);
    return BrokenRelation{rule.substr(0, rule.find(' ')), rule};
  }
}

// Pairs of options of which the first must not exceed the second.
Broken of_limits(const RunConfig& config) {
  const struct {
    const char* key;
    std::int64_t value;
    const char* other;
    std::int64_t limit;
  } limits[] = {
      {"data.vocabulary", config.data.vocabulary, "model.vocabulary", config.model.vocabulary},
      {"training.warmup_steps", config.training.warmup_steps, "training.total_steps",
       config.training.total_steps},
      {"codec.kept_per_block", config.codec.kept_per_block, "codec.block_elements",
       config.codec.block_elements},
      {"placement.inner_steps_min", config.placement.inner_steps_min, "placement.inner_steps_max",
       config.placement.inner_steps_max},
      {"placement.inner_steps_first", config.placement.inner_steps_first,
       "placement.inner_steps_max", config.placement.inner_steps_max},
      {"run.commit_wait_min_ms", config.run.commit_wait_min_ms, "run.commit_wait_max_ms",
       config.run.commit_wait_max_ms},
      {"transport.heartbeat_interval_ms", config.transport.heartbeat_interval_ms,
       "half of transport.lease_ms", config.transport.lease_ms / 2},
  };
  if (config.store.contributions_kept_rounds > 0 &&
      config.store.contributions_kept_rounds < config.scoring.duplicate_rounds) {
    return BrokenRelation{"store.contributions_kept_rounds",
                          "store.contributions_kept_rounds must be 0 or at least "
                          "scoring.duplicate_rounds = " +
                              std::to_string(config.scoring.duplicate_rounds) +
                              ": a restarted coordinator must know what it accepted"};
  }
  for (const auto& [key, value, other, limit] : limits) {
    if (value <= limit) continue;
    return BrokenRelation{key, std::string(key) + " = " + std::to_string(value) +
                                   " must not exceed " + other + " = " + std::to_string(limit)};
  }
  return std::nullopt;
}

// The economy is founded once, on trial: what the ledger refuses is known before a run begins.
Broken of_economy(const RunConfig& config) {
  try {
    RunLedger trial(config.ledger, config.economy);
    return std::nullopt;
  } catch (const Error& error) {
    std::string rule = error.what();
    rule.erase(0, description_of(error.code()).size() + 2);
    const bool names_option = rule.starts_with("economy.");
    return BrokenRelation{names_option ? rule.substr(0, rule.find_first_of(" :")) : "economy",
                          rule};
  }
}

Broken of_placement(const RunConfig& config) {
  try {
    ExpertRules(config.placement, static_cast<std::uint32_t>(config.model.experts));
    return std::nullopt;
  } catch (const Error& error) {
    std::string rule = error.what();
    rule.erase(0, description_of(error.code()).size() + 2);
    return BrokenRelation{rule.substr(0, rule.find(' ')), rule};
  }
}

Broken of_processes(const RunConfig& config) {
  if (config.workers.size() > kProcessesMax || config.validators.size() > kProcessesMax) {
    return BrokenRelation{"worker", "a machine starts at most 1024 workers and 1024 validators"};
  }
  std::set<std::string> names;
  std::set<std::string> hotkeys;
  const auto check = [&](const std::string& key, const auto& process) -> Broken {
    if (!is_domain_name(process.name)) {
      return BrokenRelation{
          key, key + ".name = '" + process.name + "' must be 1 to 64 of a-z, 0-9, _ and -"};
    }
    if (!names.insert(process.name).second) {
      return BrokenRelation{key, key + ".name = '" + process.name + "' is taken already"};
    }
    if (!process.hotkey.empty() && !hotkeys.insert(process.hotkey).second) {
      return BrokenRelation{key, key +
                                     ".hotkey is another process's already; two processes with "
                                     "one identity would contradict each other"};
    }
    return std::nullopt;
  };
  for (std::size_t i = 0; i < config.workers.size(); ++i) {
    const std::string key = "worker." + std::to_string(i);
    const WorkerOptions& worker = config.workers[i];
    if (auto broken = check(key, worker)) return broken;
    if (worker.experts_max > 0 && worker.experts_max < config.model.experts_per_token) {
      return BrokenRelation{key, key + ".experts_max = " + std::to_string(worker.experts_max) +
                                     " must be 0 or at least model.experts_per_token = " +
                                     std::to_string(config.model.experts_per_token)};
    }
  }
  for (std::size_t i = 0; i < config.validators.size(); ++i) {
    const std::string key = "validator." + std::to_string(i);
    const ValidatorOptions& validator = config.validators[i];
    if (auto broken = check(key, validator)) return broken;
    if (validator.address.empty()) continue;
    if (!validator.hotkey.empty()) {
      return BrokenRelation{key, key +
                                     " has an address, so it runs elsewhere, and a hotkey to start "
                                     "it here with: keep one of them"};
    }
    try {
      from_ss58(validator.address);
    } catch (const Error& error) {
      return BrokenRelation{key, key + ".address: " + error.what()};
    }
  }
  return std::nullopt;
}

// A chain needs to be found, and its weights a key.
Broken of_chain(const RunConfig& config) {
  const ChainOptions& chain = config.chain;
  if (chain.target == "local") return std::nullopt;
  if (chain.rpc.endpoints.empty()) {
    return BrokenRelation{"chain.endpoints",
                          "chain.endpoints must name a node, such as "
                          "ws://127.0.0.1:9944, where chain.target is substrate"};
  }
  if (config.scoring.burn_share > 0) {
    return BrokenRelation{
        "scoring.burn_share",
        "scoring.burn_share must be 0 where chain.target is substrate: what is burnt goes to "
        "the owner's neuron of the run's own ledger, which the chain does not know"};
  }
  if (chain.wallet.empty() && chain.hotkey.find('/') == std::string::npos) {
    return BrokenRelation{"chain.wallet",
                          "chain.wallet must be named (or chain.hotkey be a key file) "
                          "where chain.target is substrate"};
  }
  return std::nullopt;
}

}  // namespace

std::optional<BrokenRelation> broken_relation(const RunConfig& config) {
  if (auto broken = of_model(config.model)) return broken;
  if (auto broken = of_limits(config)) return broken;
  if (auto broken = of_placement(config)) return broken;
  if (config.data.path.empty()) {
    return BrokenRelation{"data.path", "data.path must name a folder"};
  }
  if (auto broken = of_processes(config)) return broken;
  if (auto broken = of_chain(config)) return broken;
  return of_economy(config);
}

}  // namespace yumoe

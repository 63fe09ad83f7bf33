#include "config/relations.hpp"

#include <set>

#include "cluster/error.hpp"
#include "router/token_manifest.hpp"

namespace yumoe {
namespace {

constexpr std::int64_t kExpertsOfAllLayersMax = 65'536;
constexpr std::size_t kProcessesMax = 1'024;

using Broken = std::optional<BrokenRelation>;

// `key` = `value` must not exceed `other` = `limit`.
Broken exceeds(const std::string& key, std::int64_t value, const std::string& other,
               std::int64_t limit) {
  if (value <= limit) return std::nullopt;
  return BrokenRelation{key, key + " = " + std::to_string(value) + " must not exceed " + other +
                                 " = " + std::to_string(limit)};
}

Broken of_model(const ModelOptions& model) {
  if (model.layers * model.experts > kExpertsOfAllLayersMax) {
    return BrokenRelation{"model.experts",
                          "model.layers * model.experts = " +
                              std::to_string(model.layers * model.experts) +
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

Broken of_processes(const RunConfig& config) {
  if (config.workers.size() > kProcessesMax || config.validators.size() > kProcessesMax) {
    return BrokenRelation{"worker", "a machine starts at most 1024 workers and 1024 validators"};
  }
  std::set<std::string> names;
  std::set<std::string> hotkeys;
  const auto check = [&](const std::string& key, const auto& process) -> Broken {
    if (!is_domain_name(process.name)) {
      return BrokenRelation{key, key + ".name = '" + process.name +
                                     "' must be 1 to 64 of a-z, 0-9, _ and -"};
    }
    if (!names.insert(process.name).second) {
      return BrokenRelation{key, key + ".name = '" + process.name + "' is taken already"};
    }
    if (!process.hotkey.empty() && !hotkeys.insert(process.hotkey).second) {
      return BrokenRelation{key, key + ".hotkey is another process's already; two processes with "
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
    if (auto broken = check("validator." + std::to_string(i), config.validators[i])) return broken;
  }
  return std::nullopt;
}

}  // namespace

std::optional<BrokenRelation> broken_relation(const RunConfig& config) {
  if (auto broken = of_model(config.model)) return broken;
  if (auto broken = exceeds("data.vocabulary", config.data.vocabulary, "model.vocabulary",
                            config.model.vocabulary)) {
    return broken;
  }
  if (auto broken = exceeds("training.warmup_steps", config.training.warmup_steps,
                            "training.total_steps", config.training.total_steps)) {
    return broken;
  }
  if (auto broken = exceeds("codec.kept_per_block", config.codec.kept_per_block,
                            "codec.block_elements", config.codec.block_elements)) {
    return broken;
  }
  if (auto broken = exceeds("transport.heartbeat_interval_ms",
                            config.transport.heartbeat_interval_ms,
                            "half of transport.lease_ms", config.transport.lease_ms / 2)) {
    return broken;
  }
  if (config.data.path.empty()) {
    return BrokenRelation{"data.path", "data.path must name a folder"};
  }
  return of_processes(config);
}

}  // namespace yumoe

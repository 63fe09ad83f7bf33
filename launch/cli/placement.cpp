// `yumoe placement show`: why each worker has its experts and its steps, from the run's record.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cluster/error.hpp"
#include "coordinator/history.hpp"

namespace yumoe {
namespace {

// What the core knew when it planned a round, and what it decided.
struct Planned {
  RoundState round;
  std::map<Uid, Participant> participants;
};

struct Choice {
  std::string run;
  std::uint64_t round = 0;
  bool json = false;
};

// Drives the record through a core and keeps the plan of the wanted round: the newest one by default.
std::optional<Planned> plan_from(const RunRecord& record, Run& core, std::uint64_t wanted) {
  std::optional<Planned> kept;
  std::uint64_t seen = 0;
  drive(record, core, [&](const Record&, const Event&) {
    const std::uint64_t now = core.round().value;
    const RoundState* round = core.round_state(core.round());
    if (round == nullptr || round->shards.empty() || core.phase() != Phase::training) return;
    if (now == seen && kept && kept->round.started == round->started) return;
    seen = now;
    if (wanted == 0 || now == wanted) kept = Planned{*round, core.participants()};
  });
  return kept;
}

Assignment assignment_of(const Participant& participant, const ShardState* shard) {
  Assignment a;
  a.uid = participant.uid;
  if (shard == nullptr) {
    a.why = !participant.active             ? "is not there: " + participant.reason
            : participant.profile.measuring ? "measures its machine"
                                            : participant.reason;
    return a;
  }
  a.experts = shard->shard.experts;
  a.inner_steps = shard->shard.inner_steps;
  a.predicted_s = shard->predicted_s;
  a.upload_s = shard->upload_s;
  a.awaited = shard->awaited;
  a.moved = shard->moved;
  a.experts_by = shard->experts_by;
  a.steps_by = shard->steps_by;
  return a;
}

std::string list_of(const std::vector<std::uint32_t>& experts) {
  std::string text;
  for (std::size_t i = 0; i < experts.size(); ++i) {
    std::size_t last = i;
    while (last + 1 < experts.size() && experts[last + 1] == experts[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text += std::to_string(experts[i]);
    if (last > i) text += '-' + std::to_string(experts[last]);
    i = last;
  }
  return text.empty() ? "-" : text;
}

// Holders of each expert, and the share of the round's expert work it gets, 1 being an even share.
struct Coverage {
  std::vector<std::uint32_t> holders;
  std::vector<double> share;
};

Coverage coverage_of(const RoundState& round, std::size_t experts) {
  Coverage coverage{std::vector<std::uint32_t>(experts), std::vector<double>(experts)};
  double all = 0;
  for (const auto& [uid, shard] : round.shards) {
    const double each = shard.shard.inner_steps / static_cast<double>(shard.shard.experts.size());
    for (const std::uint32_t e : shard.shard.experts) {
      coverage.holders[e] += shard.awaited ? 1 : 0;
      coverage.share[e] += each;
    }
    all += shard.shard.inner_steps;
  }
  for (double& share : coverage.share) share *= static_cast<double>(experts) / std::max(1.0, all);
  return coverage;
}

nlohmann::json json_of(const Planned& plan, const RunHistory& history, const std::string& run) {
  const auto& placement = history.setup().settings.placement;
  const auto experts = static_cast<std::uint32_t>(history.setup().model.experts);
  const Coverage coverage = coverage_of(plan.round, experts);
  nlohmann::json out{{"run", run},
                     {"round", plan.round.id.value},
                     {"makespan_s", plan.round.makespan_s},
                     {"lower_bound_s", plan.round.lower_bound_s},
                     {"replicas", plan.round.replicas},
                     {"replicas_min", placement.replicas_min},
                     {"experts_short_of_replicas", plan.round.short_of},
                     {"experts_placed_anew", plan.round.replaced},
                     {"holders", coverage.holders},
                     {"training_share", coverage.share},
                     {"workers", nlohmann::json::array()}};
  for (const auto& [uid, p] : plan.participants) {
    if (p.role != Role::worker) continue;
    const auto shard = plan.round.shards.find(uid);
    const Assignment a =
        assignment_of(p, shard == plan.round.shards.end() ? nullptr : &shard->second);
    out["workers"].push_back({{"uid", uid.value},
                              {"name", p.name},
                              {"tokens_per_s", p.profile.tokens_per_s},
                              {"memory_mib", p.profile.memory_mib},
                              {"up_bytes_per_s", p.profile.up_bytes_per_s},
                              {"down_bytes_per_s", p.profile.down_bytes_per_s},
                              {"round_trip_ms", p.profile.round_trip_ms},
                              {"tier", p.profile.tier},
                              {"region", p.profile.region},
                              {"experts", a.experts},
                              {"inner_steps", a.inner_steps},
                              {"predicted_s", a.predicted_s},
                              {"upload_s", a.upload_s},
                              {"awaited", a.awaited},
                              {"moved", a.moved},
                              {"why", explain(a, p.profile, placement, experts)}});
  }
  return out;
}

void print_table(const Planned& plan, const RunHistory& history, const std::string& run) {
  const auto& placement = history.setup().settings.placement;
  const auto experts = static_cast<std::uint32_t>(history.setup().model.experts);
  std::printf("run %s, round %llu: %zu workers", run.c_str(),
              static_cast<unsigned long long>(plan.round.id.value), plan.round.shards.size());
  if (plan.round.makespan_s > 0) {
    std::printf(", predicted %.4g s; no plan can be shorter than %.4g s (ratio %.3f)",
                plan.round.makespan_s, plan.round.lower_bound_s,
                plan.round.makespan_s / std::max(1e-12, plan.round.lower_bound_s));
  } else {
    std::printf(", no speed is known yet");
  }
  std::printf("\n\n%4s %-12s %10s %9s %9s %8s %-8s %-14s %6s %8s  %s\n", "uid", "name", "tokens/s",
              "MiB", "up kB/s", "trip ms", "tier", "experts", "steps", "seconds", "why");
  for (const auto& [uid, p] : plan.participants) {
    if (p.role != Role::worker) continue;
    const auto shard = plan.round.shards.find(uid);
    const Assignment a =
        assignment_of(p, shard == plan.round.shards.end() ? nullptr : &shard->second);
    const WorkerProfile& w = p.profile;
    std::printf("%4u %-12.12s %10.4g %9llu %9.4g %8.3g %-8s %-14s %6u %8.3g  %s\n", uid.value,
                p.name.c_str(), w.tokens_per_s, static_cast<unsigned long long>(w.memory_mib),
                w.up_bytes_per_s / 1e3, w.round_trip_ms, w.tier.c_str(), list_of(a.experts).c_str(),
                a.inner_steps, a.predicted_s, explain(a, w, placement, experts).c_str());
  }
  const Coverage coverage = coverage_of(plan.round, experts);
  const auto [least, most] = std::minmax_element(coverage.holders.begin(), coverage.holders.end());
  const auto [rare, much] = std::minmax_element(coverage.share.begin(), coverage.share.end());
  std::printf(
      "\nEach expert has %u to %u holders (placement.replicas_min = %lld) and %.2f to %.2f of an "
      "even share of the training.\n",
      *least, *most, static_cast<long long>(placement.replicas_min), *rare, *much);
  if (!plan.round.short_of.empty()) {
    std::printf(
        "Fewer holders than replicas_min: experts %s. Nobody else may (placement.tiers, "
        "placement.regions) or can (memory, experts_max, moves_max) hold them.\n",
        list_of(plan.round.short_of).c_str());
  }
  if (!plan.round.replaced.empty()) {
    std::printf(
        "Placed anew, because the last holder had left: experts %s, from the base version.\n",
        list_of(plan.round.replaced).c_str());
  }
  std::fflush(stdout);
}

void show(const Choice& choice) {
  const auto record = open_run_record(choice.run);
  const RunHistory history(*record);
  Run core(history.layout(), history.setup().settings);
  const auto plan = plan_from(*record, core, choice.round);
  if (!plan) {
    throw Error(ErrorCode::usage,
                choice.round == 0
                    ? choice.run + " has no round yet: it waits for run.workers_min workers"
                    : choice.run + " has no round " + std::to_string(choice.round) +
                          "; the newest is " + std::to_string(history.core().version().value));
  }
  if (choice.json) {
    std::cout << json_of(*plan, history, record->run()).dump() << std::endl;
  } else {
    print_table(*plan, history, record->run());
  }
}

}  // namespace

void add_placement_commands(CLI::App& app) {
  CLI::App* group =
      app.add_subcommand("placement", "Which worker has which experts and how much work");
  group->require_subcommand(1);
  auto choice = std::make_shared<Choice>();
  CLI::App* command = group->add_subcommand(
      "show", "Say why each worker has its experts and its steps, and what bound it");
  command->add_option("run", choice->run, "A run's folder, or an exported .h5 file")->required();
  command->add_option("--round", choice->round, "Round to explain; default: the newest")
      ->check(CLI::PositiveNumber);
  command->add_flag("--json", choice->json, "One JSON object");
  command->footer("yumoe placement show runs/mine\nyumoe placement show run.h5 --round 3 --json");
  command->callback([choice] { show(*choice); });
}

}  // namespace yumoe

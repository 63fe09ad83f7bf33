#pragma once
// Everything that can be set about a run, from a TOML file and then from flags. Each module declares
// its options beside the code that reads them (cluster/option.hpp); this file only gathers them.
// What is not reachable from here cannot be configured.
//
//   [model]                         a section: one struct of options
//   width = 128
//   [[worker]]                      one local process each; likewise [[validator]]
//   name = "slow"
//
// Flags come after the file and win: --model.width=192, --worker.slow.threads=2 (or by place,
// --worker.0.threads=2), lists with commas: --data.sources=apt,novels.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/option.hpp"
#include "cluster/transport.hpp"
#include "coordinator/aggregate.hpp"
#include "coordinator/chain_options.hpp"
#include "coordinator/run.hpp"
#include "coordinator/run_ledger.hpp"
#include "coordinator/scoring.hpp"
#include "coordinator/store_options.hpp"
#include "launch/data.hpp"
#include "router/codec.hpp"
#include "router/evaluation.hpp"
#include "router/layout.hpp"
#include "router/outer_step.hpp"
#include "router/placement.hpp"
#include "router/shard.hpp"

namespace yumoe {

// A worker that `yumoe run` starts on this machine.
struct WorkerOptions {
  std::string name;
  std::string hotkey;
  std::string device = "auto";
  std::int64_t threads = 1;
  double speed_share = 1;
  std::int64_t experts_max = 0;
  std::int64_t memory_mib_max = 0;
  std::int64_t inner_steps_max = 0;
  std::string tier = "trusted";
  std::string region;
  std::string data;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("name", name, {.help = "shown in logs and tables; empty: worker-1, worker-2, ..."});
    option("hotkey", hotkey,
           {.help = "wallet file, or a secret URI such as //Alice for tests; "
                    "empty: a key of its own, made once and kept in the run"});
    option(
        "device", device,
        {.choices = "auto|cpu|cuda", .help = "where it computes; auto takes CUDA if it is there"});
    option("threads", threads,
           {.unit = "threads", .min = 1, .max = 1'024, .help = "for computing on the CPU"});
    option("speed_share", speed_share,
           {.unit = "share",
            .min = 0.01,
            .max = 1,
            .help = "of its full speed; below 1 it pauses, to imitate a slower machine"});
    option("experts_max", experts_max,
           {.unit = "experts",
            .min = 0,
            .max = 4'096,
            .help = "most experts it holds; 0: as many as fit"});
    option("memory_mib_max", memory_mib_max,
           {.unit = "MiB",
            .min = 0,
            .max = 1e9,
            .help = "memory it may fill; 0: its share of what the machine has free at the start"});
    option("inner_steps_max", inner_steps_max,
           {.unit = "steps",
            .min = 0,
            .max = 1e6,
            .help = "most inner steps it does in a round; 0: placement.inner_steps_max"});
    option("tier", tier,
           {.choices = "open|known|trusted",
            .help = "how far it is trusted with experts (placement.tiers)"});
    option("region", region, {.help = "where it stands (placement.regions)"});
    option("data", data, {.help = "token set of its own that never leaves it; empty: data.path"});
  }
};

// A validator that `yumoe run` starts on this machine, or, if its address is given, one that joins from
// elsewhere with its own key and is only given its stake.
struct ValidatorOptions {
  std::string name;
  std::string hotkey;
  std::string address;
  std::string device = "auto";
  std::int64_t threads = 1;
  double stake = 1'000;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("name", name, {.help = "shown in logs and tables; empty: validator-1, ..."});
    option("hotkey", hotkey, {.help = "as a worker's"});
    option(
        "address", address,
        {.help = "SS58 address of a validator that joins from elsewhere: it is not started here"});
    option("device", device, {.choices = "auto|cpu|cuda", .help = "as a worker's"});
    option("threads", threads,
           {.unit = "threads", .min = 1, .max = 1'024, .help = "for computing on the CPU"});
    option("stake", stake,
           {.unit = "alpha",
            .min = 0,
            .max = 1e9,
            .help = "weight of its measurements beside other validators'"});
  }
};

// Shared options must be equal for all participants of a run and enter its digest; those of a
// process may differ from one to the next and between restarts.
enum class OptionScope { shared, process };

struct RunConfig {
  RunOptions run;
  ModelOptions model;
  InnerOptions training;
  OuterOptions outer;
  CodecOptions codec;
  AggregateOptions aggregate;
  EvaluationOptions evaluation;
  PlacementOptions placement;
  ScoringOptions scoring;
  ledger::LedgerOptions ledger;
  EconomyOptions economy;
  ChainOptions chain;
  DataOptions data;
  TransportOptions transport;
  StoreOptions store;
  std::vector<WorkerOptions> workers;
  std::vector<ValidatorOptions> validators;

  // Calls section(name, scope, options, help) for each. A new section is one member and one line.
  template <typename Visitor>
  void visit_sections(Visitor& section) {
    using enum OptionScope;
    section("run", shared, run, "Rounds: how many, and how long each waits for what.");
    section("model", shared, model, "The transformer that is trained.");
    section("training", shared, training, "How a worker trains between two synchronisations.");
    section("outer", shared, outer, "How a round's aggregate changes the base version.");
    section("codec", shared, codec, "How updates are compressed.");
    section("aggregate", shared, aggregate, "How contributions become one aggregate.");
    section("evaluation", shared, evaluation, "How validators measure.");
    section("placement", shared, placement, "Which experts and how much work each worker gets.");
    section("scoring", shared, scoring, "How measurements become ratings and weights.");
    section("ledger", shared, ledger, "The rules of the embedded ledger, which pays the run.");
    section("economy", shared, economy, "How the run's time and participants enter the ledger.");
    section("chain", process, chain,
            "Whether weights go to a chain too, to which one, and as whom.");
    section("data", process, data, "The token set, and how it is built if it is missing.");
    section("transport", process, transport, "Addresses, sizes and times on the network.");
    section("store", process, store, "What is kept on disk, and where.");
  }

  // Calls list(name, entries, help) for each kind of local process.
  template <typename Visitor>
  void visit_lists(Visitor& list) {
    list("worker", workers, "A worker that is started on this machine.");
    list("validator", validators, "A validator that is started on this machine.");
  }
};

inline constexpr std::size_t kConfigBytesMax = 1u << 20;

// Reads a file, then flags ("--section.key=value"). Names of local processes are filled in.
//
// Throws Error{config_invalid} for the first rule broken, naming file, line, key, value, rule and,
// for an unknown name, the nearest one there is; Error{file_missing}.
RunConfig read_config(const std::filesystem::path& file, std::span<const std::string> flags = {});

// As read_config, from text; `name` stands for the file in errors. Total: any bytes give a
// configuration that check_config accepts, or an Error.
RunConfig parse_config(std::string_view toml, std::string_view name,
                       std::span<const std::string> flags = {});

// Rules between options. Throws Error{config_invalid}.
void check_config(const RunConfig& config);

// What participants agree on: "section.key" and value of all shared options, sorted; and BLAKE2b over
// their lines "section.key=value\n".
OptionTexts shared_texts(const RunConfig& config);
Digest shared_digest(const RunConfig& config);

// The configuration in force, as TOML that reads back to the same; options that have their default
// value are marked.
std::string toml_of(const RunConfig& config);

// One JSON object: {"shared_digest": ..., "<section>": {"<key>": value}, "worker": [...],
// "defaults": ["<section>.<key>", ...]}.
std::string json_of(const RunConfig& config);

// The commented file of `yumoe config init`: launch/examples/<name>.toml, built in.
// Throws Error{usage} naming the templates there are.
std::string_view config_template(std::string_view name);
std::vector<std::string> config_templates();

// docs/configuration.md.
std::string config_reference();

}  // namespace yumoe

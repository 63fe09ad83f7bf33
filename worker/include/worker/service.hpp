#pragma once
// The loops of a worker and of a validator: follow the coordinator's directives until the run is over.

#include <atomic>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/identity.hpp"
#include "cluster/ids.hpp"
#include "cluster/transport.hpp"
#include "worker/device_options.hpp"
#include "worker/generator.hpp"
#include "worker/remote_experts.hpp"

namespace yumoe {

class Island;  // worker/trainer.hpp

// Who may call experts here, and what callers may fill of this machine's memory, each and all together:
// calls that wait, answers that are not sent, and rows kept for backward.
struct CallerLimits {
  std::vector<std::string> allow;  // CURVE keys, 64 hex digits each; none: whoever comes
  std::uint64_t callers_mib = 2'048, caller_mib = 1'024;
};

struct ParticipantSetup {
  CoordinatorAddress coordinator;
  std::string name;
  std::filesystem::path data;   // the run's token set, or the worker's own
  bool own_data = false;        // then its digest need not be the run's
  std::filesystem::path state;  // what must survive a restart; made if missing
  DeviceOptions device;
  TransportOptions transport;
  std::uint32_t experts_max = 0;
  std::uint64_t memory_mib_max = 0;
  std::uint32_t inner_steps_max = 0;
  std::string tier = "open";
  std::string region;
  std::chrono::milliseconds join_wait{60'000};
  bool serves = false;        // whether other machines may call experts here
  std::string serve_experts;  // which; "": all
  TransportOptions serve;
  std::filesystem::path serve_key;  // as in ExpertServiceSetup
  CallerLimits callers{.allow = {}, .callers_mib = 512, .caller_mib = 256};
  std::vector<std::string> remote;  // EXPERTS@ADDRESS, called beside those it holds
  std::filesystem::path
      remote_key;  // its CURVE key as a caller, made if missing; "": another each time
  // Not null: who started this process starts another in its place if the island breaks. Then it says no
  // goodbye, and the coordinator sees a worker that is late. Set: it is being ended for that reason.
  const std::atomic<bool>* replaced = nullptr;
  Island* island = nullptr;  // of which this process is rank 0; the other ranks follow
  // For tests of the run's defences alone: how it misbehaves, a name of the attack library; "": not.
  std::string behaviour;
  std::filesystem::path pool;  // folder that its accomplices share
};

// The behaviours there are.
std::span<const std::string_view> worker_behaviours();
std::span<const std::string_view> validator_behaviours();

// Both return when the run is finished or `stop` is set. They throw Error if the coordinator refuses or
// stays silent, if the data is another set than the run's, or if the device fails.
void run_worker(ParticipantSetup setup, Keypair keys, const std::atomic<bool>& stop);
// Trains the last of some shards again. JOB holds, as `yumoe replay` writes them, `welcome`, `base` of the
// first shard, `shard-0` (a directive), and for each further one `aggregate-0`, which leads to the next
// base, and `shard-1`. The digest of the last pseudo-gradient goes to JOB/delta, and after it a line with the
// fp32 bits of each of its steps' losses. Throws Error.
void recompute_shard(const std::filesystem::path& job, const std::filesystem::path& data,
                     const DeviceOptions& device);

// Serves a model file's experts to whoever connects until `stop`. Prints one line with what callers have to
// say to reach it. Backward gives dx and changes nothing.
struct ExpertServiceSetup {
  std::filesystem::path model;
  std::string experts;        // "0-3,6"; "": all
  std::filesystem::path key;  // its CURVE key, made if missing; "": another at each start
  CallerLimits callers;
  TransportOptions transport;
  DeviceOptions device;
};
void serve_experts(const ExpertServiceSetup& setup, const std::atomic<bool>& stop);

// Held-out loss of a model file, its experts here or elsewhere.
struct EvaluationSetup {
  std::filesystem::path model, data;
  std::vector<std::string> remote;         // EXPERTS@ADDRESS
  std::filesystem::path remote_key;        // as in ParticipantSetup
  std::uint64_t windows = 0;               // 0: as many as the run's validators use
  std::chrono::milliseconds wait{10'000};  // for servers to answer
  DeviceOptions device;
};
struct EvaluationReport {
  std::string run;
  RoundId version;
  std::uint64_t windows = 0;
  double loss = 0, bits_per_byte = 0;  // nats a token
  ExpertSet here, elsewhere;
  RemoteCounts calls;
  double seconds = 0;
};
// Throws Error{usage} if some expert is neither here nor answered for, and what TokenSet::open throws.
EvaluationReport evaluate_model(const EvaluationSetup& setup);
// For people, or one JSON object.
void print_evaluation(const EvaluationReport& report, bool json);

// Text written by a model file, its experts here or elsewhere.
struct GenerationSetup {
  std::filesystem::path model, data;
  std::vector<std::string> prompts;  // continued together
  std::vector<std::string> remote;   // EXPERTS@ADDRESS
  std::filesystem::path remote_key;  // as in ParticipantSetup
  std::chrono::milliseconds wait{10'000};
  DeviceOptions device;
  SamplingOptions sampling;  // each prompt has a stream of its own, of this seed and its position
  std::uint64_t tokens_max = 256;
  std::string stop;
};
struct Generation {
  std::string text;
  std::uint64_t prompt_tokens = 0, tokens = 0;
  std::string ended_by;  // "end token", "stop text", "tokens_max" or "interrupted"
};
struct GenerationReport {
  std::string run;
  RoundId version;
  std::vector<Generation> texts;  // [prompts]
  ExpertSet here, elsewhere;
  RemoteCounts calls;
  std::uint64_t slides = 0;
  double prompt_seconds = 0, seconds = 0;  // reading the prompts; all
};
// `show` is given each piece of text, whole characters, as soon as it is certain; `prompt` is its position.
// Throws Error{usage} for a prompt that is empty, not UTF-8 or longer than the model's context, and what
// evaluate_model throws.
GenerationReport generate_text(
    const GenerationSetup& setup, const std::atomic<bool>& stop,
    const std::function<void(std::size_t prompt, const std::string& text)>& show);

// Prompts as the command line gives them: --prompt, or --prompt-file ("-": stdin), one a line if `batch`.
std::vector<std::string> read_prompts(const std::string& text, bool has_text,
                                      const std::string& file, bool batch,
                                      const std::atomic<bool>& stop);
// Runs and prints: text to stdout as it comes and a line of counts to stderr, or one JSON object a prompt.
void print_generation(const GenerationSetup& setup, const std::atomic<bool>& stop, bool json);

// Starts `ranks` processes of `command` by mpirun and, when one is lost, the rest of them again: the island
// goes on with one rank less from the round it was in, and to the coordinator it is one worker that was late.
// Returns mpirun's exit status of the last time, 0 when `stop` was set.
struct IslandSetup {
  std::string mpirun = "mpirun";
  std::vector<std::string> mpirun_options;
  int ranks = 2;
  std::vector<std::string> command;  // program and arguments
};
int run_island(const IslandSetup& setup, const std::atomic<bool>& stop);
// To be called by a rank that ends with kIslandBroken: tells run_island, if that is on this machine.
void say_island_broken();

void run_validator(ParticipantSetup setup, Keypair keys, const std::atomic<bool>& stop);

}  // namespace yumoe

// yumoe-worker: the process that trains (worker) or measures (validator).

#include <sodium.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <iostream>

#include "cluster/collective.hpp"
#include "cluster/error.hpp"
#include "cluster/launched_ranks.hpp"
#include "cluster/log.hpp"
#include "cluster/wallet.hpp"
#include "worker/link.hpp"
#include "worker/service.hpp"
#include "worker/trainer.hpp"

namespace yumoe {
namespace {

std::atomic<bool> g_stop{false};
std::atomic<bool> g_terminated{false};  // by SIGTERM, as mpirun ends the ranks beside a lost one

// Ranks of one launch start within seconds of one another; loading LibTorch from a slow disk takes more.
constexpr std::chrono::milliseconds kIslandStartWait{120'000};

constexpr std::int64_t kExpertPort = 48'160;  // where a server of experts listens unless told

struct Choice {
  std::string coordinator, hotkey, name, data = "token-set", state, device = "auto", tier = "open",
                                         region, behaviour, pool;
  std::string serve_experts, serve_key;
  std::filesystem::path remote_key;
  CallerLimits callers = ParticipantSetup().callers;
  TransportOptions serve{.address = "0.0.0.0", .port = kExpertPort};
  std::vector<std::string> remote;
  bool own_data = false, comes_back = false;
  std::int64_t threads = 1, experts_max = 0, memory_mib_max = 0, inner_steps_max = 0,
               heartbeat_interval_ms = 1'000;
  double speed_share = 1;
};

Keypair open_key(const std::string& source) {
  if (source.starts_with("//")) return Keypair::from_uri(KeyType::sr25519, source);
  return read_key(source, first_password_of(password_from_environment(), password_from_prompt()))
      .take_pair();
}

ParticipantSetup setup_of(const Choice& choice) {
  ParticipantSetup setup;
  setup.coordinator = CoordinatorAddress::parse(choice.coordinator);
  setup.name = choice.name;
  setup.data = choice.data;
  setup.own_data = choice.own_data;
  setup.state = choice.state.empty() ? "state-" + choice.name : choice.state;
  setup.device = {choice.device, choice.threads, choice.speed_share};
  setup.transport.heartbeat_interval_ms = choice.heartbeat_interval_ms;
  setup.experts_max = static_cast<std::uint32_t>(choice.experts_max);
  setup.memory_mib_max = static_cast<std::uint64_t>(choice.memory_mib_max);
  setup.inner_steps_max = static_cast<std::uint32_t>(choice.inner_steps_max);
  setup.tier = choice.tier;
  setup.region = choice.region;
  setup.behaviour = choice.behaviour;
  setup.serve_experts = choice.serve_experts == "all" ? "" : choice.serve_experts;
  setup.serves = !choice.serve_experts.empty();
  setup.serve = choice.serve;
  setup.serve_key = choice.serve_key;
  setup.callers = choice.callers;
  setup.remote = choice.remote;
  if (!setup.remote.empty() && setup.device.device == "auto") setup.device.device = "cpu";
  if (!setup.remote.empty() && setup.device.device != "cpu") {
    throw Error(ErrorCode::usage,
                "--remote computes on the CPU: say --device cpu with it, or leave "
                "it out to train on " +
                    setup.device.device);
  }
  setup.remote_key = choice.remote_key;
  setup.pool = choice.pool;
  return setup;
}

// Before anything is started or joined.
void check_remote(bool is_island) {
  if (!is_island) return;
  throw Error(ErrorCode::usage,
              "--remote is for a worker of one process, not for an island: start it without mpirun "
              "or srun, or leave --remote out (an island shares its own experts)");
}

// One process, or the rank of an island that mpirun started it as: rank 0 speaks for all.
void start_worker(const Choice& choice) {
  ParticipantSetup setup = setup_of(choice);
  if (choice.comes_back) setup.replaced = &g_terminated;
  if (!setup.remote.empty()) check_remote(launched_ranks() > 1);
  if (launched_ranks() == 1) {
    run_worker(setup, open_key(choice.hotkey), g_stop);
    return;
  }
  Island island = join_island(setup.device, kIslandStartWait);
  if (island.group().rank() != 0) {
    follow_trainer(island, setup.device);
    return;
  }
  setup.island = &island;
  try {
    run_worker(setup, open_key(choice.hotkey), g_stop);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::collective_failed) end_followers(island);
    throw;
  }
  end_followers(island);
}

void start_validator(const Choice& choice) {
  if (launched_ranks() > 1) {
    throw Error(ErrorCode::usage, "a validator is one process: start it without mpirun or srun");
  }
  run_validator(setup_of(choice), open_key(choice.hotkey), g_stop);
}

// `rank_command`: what each rank is to run, from the word `worker` on.
void add_island(CLI::App& app, std::vector<std::string> rank_command) {
  auto setup = std::make_shared<IslandSetup>();
  const std::vector<std::string> launcher = mpi_launcher();
  setup->mpirun = launcher.front();
  const std::vector<std::string> needed(launcher.begin() + 1, launcher.end());
  CLI::App* command = app.add_subcommand(
      "island",
      "Start a worker of several processes by mpirun, and again without a rank that is lost:\n"
      "yumoe-worker island -n 4 worker --coordinator ... (with the worker's own options)");
  command->add_option("-n,--ranks", setup->ranks, "processes")
      ->check(CLI::Range(1, 4'096))
      ->capture_default_str();
  command
      ->add_option("--mpirun", setup->mpirun,
                   "program that starts them, of the MPI this program was built with")
      ->capture_default_str();
  command
      ->add_option("--mpirun-option", setup->mpirun_options,
                   "passed to mpirun, such as --mpirun-option=--oversubscribe; may be repeated")
      ->take_all()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->callback([setup, needed, rest = std::move(rank_command)] {
    open_log("island", LogLevel::info);
    setup->mpirun_options.insert(setup->mpirun_options.begin(), needed.begin(), needed.end());
    if (rest.empty()) {
      throw Error(ErrorCode::usage,
                  "after its own options `island` wants: worker --coordinator ...");
    }
    check_remote(std::ranges::any_of(rest, [](const std::string& word) {
      return word == "--remote" || word.starts_with("--remote=");
    }));
    setup->command = {std::filesystem::read_symlink("/proc/self/exe").string()};
    setup->command.insert(setup->command.end(), rest.begin(), rest.end());
    setup->command.push_back("--comes-back");
    if (const int status = run_island(*setup, g_stop); status != 0) throw CLI::RuntimeError(status);
  });
}

// Where a server of experts listens: --PREFIXport and so on.
void add_listening(CLI::App& command, TransportOptions& options, std::string& key,
                   CallerLimits& callers, const std::string& prefix) {
  command.add_option(prefix + "address", options.address, "interface that callers come by")
      ->capture_default_str();
  command
      .add_option(prefix + "port", options.port, "TCP port for callers; 0 lets the system choose")
      ->check(CLI::Range(0, 65'535))
      ->capture_default_str();
  command.add_option(prefix + "key", key,
                     "file of its CURVE key, made if missing, so that callers know it again after "
                     "a restart; without it another key at each start");
  command
      .add_option(prefix + "allow", callers.allow,
                  "key of a caller, as its --remote-key prints it; may be repeated. Others are not "
                  "let in. Default: whoever comes")
      ->take_all()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command
      .add_option(prefix + "callers-mib", callers.callers_mib,
                  "memory that all callers' calls, answers and kept rows may fill; more is refused "
                  "as busy")
      ->check(CLI::Range(512, 1 << 20))
      ->capture_default_str();
  command
      .add_option(prefix + "caller-mib", callers.caller_mib,
                  "the same, of one caller; half of all at most")
      ->check(CLI::Range(256, 1 << 20))
      ->capture_default_str();
}

void add_remote(CLI::App& command, std::vector<std::string>& remote, std::filesystem::path& key) {
  command.add_option("--remote-key", key,
                     "file of this caller's CURVE key, made if missing and said at the start, for "
                     "servers that let in known callers only");
  command
      .add_option("--remote", remote,
                  "experts elsewhere, EXPERTS@ADDRESS as their server prints it; may be repeated, "
                  "also for replicas of the same experts")
      ->take_all()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_device(CLI::App& command, DeviceOptions& device) {
  command.add_option("--threads", device.threads, "threads for computing on the CPU")
      ->check(CLI::Range(1, 1'024))
      ->capture_default_str();
}

void add_model(CLI::App& command, std::filesystem::path& model) {
  command
      .add_option(
          "model", model,
          "a model file, as `yumoe export RUN --model` writes it; `yumoe` itself also takes a "
          "run's folder or .h5 file here")
      ->required();
}

void add_serve_experts(CLI::App& app) {
  struct Serving {
    ExpertServiceSetup setup;
    std::string key;
  };
  auto choice = std::make_shared<Serving>();
  choice->setup.transport = {.address = "0.0.0.0", .port = kExpertPort};
  CLI::App* command = app.add_subcommand(
      "serve-experts", "Compute a model's experts for other machines (docs/remote-experts.md)");
  add_model(*command, choice->setup.model);
  command->add_option("--experts", choice->setup.experts, "such as 0-3,6; default: all");
  add_listening(*command, choice->setup.transport, choice->key, choice->setup.callers, "--");
  add_device(*command, choice->setup.device);
  command->footer("yumoe serve-experts runs/mine --experts 0-3 --key server.key");
  command->callback([choice] {
    open_log("experts", LogLevel::info);
    choice->setup.key = choice->key;
    serve_experts(choice->setup, g_stop);
  });
}

void add_evaluate(CLI::App& app) {
  struct Evaluating {
    EvaluationSetup setup;
    std::string data = "token-set";
    std::int64_t wait_ms = 10'000;
    bool json = false;
  };
  auto choice = std::make_shared<Evaluating>();
  CLI::App* command = app.add_subcommand(
      "evaluate", "Held-out loss of a model, its experts here or on other machines");
  add_model(*command, choice->setup.model);
  command->add_option("--data", choice->data, "folder of the run's token set")
      ->capture_default_str();
  add_remote(*command, choice->setup.remote, choice->setup.remote_key);
  command
      ->add_option("--windows", choice->setup.windows,
                   "how many to read; 0: as many as the run's validators")
      ->capture_default_str();
  command->add_option("--wait-ms", choice->wait_ms, "for servers of experts to answer at first")
      ->check(CLI::Range(100, 600'000))
      ->capture_default_str();
  add_device(*command, choice->setup.device);
  command->add_flag("--json", choice->json, "One JSON object");
  command->footer(
      "yumoe evaluate runs/mine --data token-set --remote '4-7@tcp://HOST:48160?key=HEX'");
  command->callback([choice] {
    open_log("evaluate", choice->json ? LogLevel::error : LogLevel::warning);
    choice->setup.data = choice->data;
    choice->setup.wait = std::chrono::milliseconds(choice->wait_ms);
    print_evaluation(evaluate_model(choice->setup), choice->json);
  });
}

void add_generate(CLI::App& app) {
  struct Generating {
    GenerationSetup setup;
    std::string data = "token-set", prompt, file;
    std::int64_t wait_ms = 10'000;
    bool batch = false, json = false;
  };
  auto choice = std::make_shared<Generating>();
  GenerationSetup& setup = choice->setup;
  CLI::App* command = app.add_subcommand(
      "generate", "Text that a model writes, its experts here or on other machines");
  add_model(*command, choice->setup.model);
  CLI::Option* prompt = command->add_option("--prompt", choice->prompt, "text to continue");
  command->add_option("--prompt-file", choice->file, "file with it; - or none: standard input")
      ->excludes(prompt);
  command->add_flag("--batch", choice->batch,
                    "each line of the file is a prompt; all are continued together and shown in "
                    "their order at the end");
  command->add_option("--data", choice->data, "folder of the run's token set")
      ->capture_default_str();
  add_remote(*command, setup.remote, setup.remote_key);
  command->add_option("--tokens-max", setup.tokens_max, "most tokens to write for a prompt")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command
      ->add_option("--temperature", setup.sampling.temperature,
                   "above 1 evens out what is likely, below 1 sharpens it; 0: always the likeliest")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command->add_option("--top-k", setup.sampling.top_k, "of the K likeliest alone; 0: of all")
      ->check(CLI::Range(0, 65'535))
      ->capture_default_str();
  command
      ->add_option("--top-p", setup.sampling.top_p,
                   "of the fewest likeliest that have this probability together")
      ->check(CLI::Range(0.000001, 1.0))
      ->capture_default_str();
  command->add_option("--seed", setup.sampling.seed, "the same one draws the same text")
      ->capture_default_str();
  command->add_option("--stop", setup.stop, "end before this text");
  command->add_option("--wait-ms", choice->wait_ms, "for servers of experts to answer at first")
      ->check(CLI::Range(100, 600'000))
      ->capture_default_str();
  add_device(*command, setup.device);
  command->add_flag("--json", choice->json, "One JSON object for each prompt, at the end");
  command->footer(
      "yumoe generate runs/mine --data token-set --prompt 'Once upon a time' --temperature 0\n"
      "yumoe generate mine.model --remote '4-7@tcp://HOST:48160?key=HEX' < prompt.txt");
  command->callback([choice, prompt] {
    open_log("generate", choice->json ? LogLevel::error : LogLevel::warning);
    GenerationSetup& setup = choice->setup;
    setup.data = choice->data;
    setup.wait = std::chrono::milliseconds(choice->wait_ms);
    setup.prompts =
        read_prompts(choice->prompt, prompt->count() > 0, choice->file, choice->batch, g_stop);
    print_generation(setup, g_stop, choice->json);
  });
}

void add_role(CLI::App& app, const std::string& role, const char* help,
              void (*run)(const Choice&)) {
  auto choice = std::make_shared<Choice>();
  CLI::App* command = app.add_subcommand(role, help);
  command
      ->add_option("--coordinator", choice->coordinator,
                   "tcp://HOST:PORT?key=HEX, as `yumoe coordinator` prints it")
      ->required();
  command
      ->add_option(
          "--hotkey", choice->hotkey,
          "wallet file, or a secret URI such as //Alice for tests; `yumoe keys new` makes one")
      ->required();
  command->add_option("--name", choice->name, "what this machine is called in tables")
      ->default_val(role);
  command->add_option("--data", choice->data, "folder of the run's token set")
      ->capture_default_str();
  command->add_option("--state", choice->state, "folder for what must survive a restart");
  command
      ->add_option("--device", choice->device,
                   "auto, cpu, cuda or cuda:N; of an island cuda: each rank its own GPU")
      ->capture_default_str();
  command->add_option("--threads", choice->threads, "threads for computing on the CPU")
      ->check(CLI::Range(1, 1'024))
      ->capture_default_str();
  command
      ->add_option("--heartbeat-interval-ms", choice->heartbeat_interval_ms,
                   "how often to say it lives")
      ->check(CLI::Range(10, 60'000))
      ->capture_default_str();
  const auto behaviours = role == "worker" ? worker_behaviours() : validator_behaviours();
  command
      ->add_option("--behaviour", choice->behaviour,
                   "how it misbehaves, for tests of a run's defences")
      ->check(CLI::IsMember(std::vector<std::string>(behaviours.begin(), behaviours.end())))
      ->group("");
  command->add_option("--pool", choice->pool, "folder that accomplices share, for the same")
      ->group("");
  if (role == "worker") {
    command->add_flag("--own-data", choice->own_data,
                      "--data is this worker's own set, which never leaves it");
    command
        ->add_option("--speed-share", choice->speed_share,
                     "share of its full speed, to imitate a slower machine")
        ->check(CLI::Range(0.01, 1.0))
        ->capture_default_str();
    command
        ->add_option("--experts-max", choice->experts_max,
                     "most experts it holds; 0: as many as fit")
        ->check(CLI::Range(0, 4'096))
        ->capture_default_str();
    command
        ->add_option("--memory-mib-max", choice->memory_mib_max,
                     "memory it may fill; 0: what the machine has free")
        ->check(CLI::Range(0, 1 << 30))
        ->capture_default_str();
    command
        ->add_option("--inner-steps-max", choice->inner_steps_max,
                     "most inner steps it does in a round; 0: what the run allows")
        ->check(CLI::Range(0, 1'000'000))
        ->capture_default_str();
    command
        ->add_option("--tier", choice->tier,
                     "trusted, known or open; counts as far as the run knows the hotkey")
        ->check(CLI::IsMember({"trusted", "known", "open"}))
        ->capture_default_str();
    command->add_flag("--comes-back", choice->comes_back)->group("");  // of `island`
    command->add_option("--region", choice->region,
                        "where it stands, as the run's placement knows it");
    command->add_option("--serve-experts", choice->serve_experts,
                        "experts that other machines may call here, such as 0-3,6, or all "
                        "(docs/remote-experts.md)");
    add_listening(*command, choice->serve, choice->serve_key, choice->callers, "--serve-");
    add_remote(*command, choice->remote, choice->remote_key);
  }
  command->callback([choice, role, run] {
    open_log(role + " " + choice->name, LogLevel::info);
    run(*choice);
  });
}

void add_recompute(CLI::App& app) {
  struct Job {
    std::string job, data = "token-set", device = "cpu";
  };
  auto choice = std::make_shared<Job>();
  CLI::App* command =
      app.add_subcommand("recompute", "Train one recorded shard again (yumoe replay)");
  command->add_option("--job", choice->job, "folder that yumoe replay wrote")->required();
  command->add_option("--data", choice->data, "folder of the run's token set")
      ->capture_default_str();
  command->add_option("--device", choice->device, "auto, cpu, cuda or cuda:N")
      ->capture_default_str();
  command->callback([choice] {
    open_log("recompute", LogLevel::info);
    recompute_shard(choice->job, choice->data, {choice->device, 1, 1});
  });
}

int run_program(int argc, char** argv) {
  CLI::App app("Trains or measures for a Yumoe run.", "yumoe-worker");
  app.require_subcommand(1);
  add_recompute(app);
  add_serve_experts(app);
  add_evaluate(app);
  add_generate(app);
  add_role(app, "worker", "Train shards of a run; under mpirun, as one worker of all its ranks",
           start_worker);
  add_role(app, "validator", "Measure what workers contribute", start_validator);
  // What follows `worker` is the ranks' to read.
  std::vector<std::string> rank_command;
  if (argc > 1 && std::string_view(argv[1]) == "island") {
    char** const own_end = std::find_if(argv + 2, argv + argc, [](const char* argument) {
      return std::string_view(argument) == "worker";
    });
    rank_command.assign(own_end, argv + argc);
    argc = static_cast<int>(own_end - argv);
  }
  add_island(app, std::move(rank_command));
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::RuntimeError& status) {
    return status.get_exit_code();
  } catch (const Stopped&) {
    return 0;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "yumoe-worker: " << error.what() << ". Try --help" << std::endl;
    return 2;
  } catch (const Error& error) {
    std::cerr << "yumoe-worker: " << error.what() << std::endl;
    const bool usage = error.code() == ErrorCode::usage || error.code() == ErrorCode::key_invalid ||
                       error.code() == ErrorCode::file_missing ||
                       error.code() == ErrorCode::memory_exceeded ||
                       error.code() == ErrorCode::data_invalid;
    if (error.code() == ErrorCode::collective_failed) {
      if (given_up_by_others()) return 0;  // the island goes on without this rank
      say_island_broken();
      end_launched_ranks(kIslandBroken);
      return kIslandBroken;
    }
    return usage ? 2 : 1;
  } catch (const std::exception& error) {
    std::cerr << "yumoe-worker: failed: " << error.what() << std::endl;
    return 1;
  }
}

}  // namespace
}  // namespace yumoe

int main(int argc, char** argv) {
  if (sodium_init() < 0) {
    std::cerr << "yumoe-worker: the system's random source does not work\n";
    return 1;
  }
  std::signal(SIGINT, [](int) { yumoe::g_stop = true; });
  std::signal(SIGTERM, [](int) { yumoe::g_terminated = yumoe::g_stop = true; });
  std::signal(SIGUSR1,
              [](int) { yumoe::g_stop = true; });  // `island` asks its ranks by way of mpirun
  return yumoe::run_program(argc, argv);
}

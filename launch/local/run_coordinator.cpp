#include <algorithm>
#include <deque>
#include <fstream>

#include "cluster/clock.hpp"
#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "cluster/profile.hpp"
#include "launch/local.hpp"
#include "launch/settle_run.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;
using Monotonic = std::chrono::steady_clock;

constexpr int kRestartsMax = 20;  // of one child; more often is no accident

std::string number(double value) { return option_detail::text_of(value); }

// One local process that is kept alive.
class Supervised {
 public:
  Supervised(std::string name, std::vector<std::string> arguments, std::filesystem::path log_file)
      : name_(std::move(name)), arguments_(std::move(arguments)), log_file_(std::move(log_file)) {
    start();
  }

  // Starts it again if it died, at most once a second.
  void look_after() {
    const auto status = child_->poll();
    if (!status || *status == 0 || given_up_) return;
    const auto now = Monotonic::now();
    if (now - started_ < std::chrono::seconds(1)) return;
    if (*status == 2 || ++restarts_ > kRestartsMax) {
      given_up_ = true;
      log_error(name_ + " ended with status " + std::to_string(*status) +
                " and is not started again; "
                "its last words are in " +
                log_file_.string());
      return;
    }
    log_warning(name_ + " ended with status " + std::to_string(*status) + ": started again");
    start();
  }

  bool given_up() const { return given_up_; }
  bool ended() { return child_->poll().has_value(); }
  void terminate() { child_->terminate(); }

 private:
  void start() {
    started_ = Monotonic::now();
    child_ = std::make_unique<ChildProcess>(worker_program(), arguments_, log_file_);
  }

  std::string name_;
  std::vector<std::string> arguments_;
  std::filesystem::path log_file_;
  std::unique_ptr<ChildProcess> child_;
  Monotonic::time_point started_;
  int restarts_ = 0;
  bool given_up_ = false;
};

template <typename Options>
std::vector<std::string> common_flags(const Options& options) {
  std::vector<std::string> flags{"--name",       options.name, "--device",
                                 options.device, "--threads",  std::to_string(options.threads)};
  if (!options.hotkey.empty()) flags.insert(flags.end(), {"--hotkey", options.hotkey});
  return flags;
}

std::deque<Supervised> start_local(const RunConfig& config, const CoordinatorAddress& address,
                                   const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder / "logs");
  std::deque<Supervised> children;
  // Each could find all the memory free and plan with it, so they get a share each.
  const auto processes =
      static_cast<std::int64_t>(config.workers.size() + config.validators.size());
  const std::int64_t fair_mib =
      static_cast<std::int64_t>(measure_memory().free_mib) / std::max<std::int64_t>(1, processes);
  const auto start = [&](const char* role, auto options) {
    if (options.hotkey.empty()) options.hotkey = (folder / "keys" / options.name).string();
    std::vector<std::string> arguments{role,
                                       "--coordinator",
                                       address.text(),
                                       "--state",
                                       (folder / "state" / options.name).string(),
                                       "--heartbeat-interval-ms",
                                       std::to_string(config.transport.heartbeat_interval_ms)};
    for (std::string& flag : flags_of(options, config.data)) arguments.push_back(std::move(flag));
    children.emplace_back(options.name, std::move(arguments),
                          folder / "logs" / (options.name + ".log"));
  };
  for (WorkerOptions worker : config.workers) {
    if (worker.memory_mib_max == 0) worker.memory_mib_max = fair_mib;
    start("worker", worker);
  }
  for (const ValidatorOptions& validator : config.validators) {
    if (validator.address.empty()) start("validator", validator);
  }
  return children;
}

// Says where the ledger's blocks come from whenever that changes.
class BlockSourceNews {
 public:
  explicit BlockSourceNews(std::int64_t block_ms) : block_ms_(block_ms) {}

  void look(const Progress& now) {
    if (now.chain_followed == followed_) return;
    followed_ = now.chain_followed;
    if (followed_) {
      log_info("ledger: blocks pass as the chain's do from its block " +
               std::to_string(now.chain_block) + " on, which is block " +
               std::to_string(now.ledger_block) + " of the run");
    } else {
      log_warning("ledger: no new block of the chain is seen; from block " +
                  std::to_string(now.ledger_block) +
                  " on they pass with the run's own time, one every " + std::to_string(block_ms_) +
                  " ms, until the chain is back");
    }
  }

 private:
  std::int64_t block_ms_;
  bool followed_ = false;
};

}  // namespace

std::vector<std::string> flags_of(const WorkerOptions& worker, const DataOptions& data) {
  auto flags = common_flags(worker);
  const auto add = [&](const char* flag, const std::string& value) {
    flags.insert(flags.end(), {flag, value});
  };
  add("--data", worker.data.empty() ? data.path : worker.data);
  if (!worker.data.empty()) flags.push_back("--own-data");
  add("--speed-share", number(worker.speed_share));
  add("--experts-max", std::to_string(worker.experts_max));
  add("--memory-mib-max", std::to_string(worker.memory_mib_max));
  add("--inner-steps-max", std::to_string(worker.inner_steps_max));
  add("--tier", worker.tier);
  if (!worker.region.empty()) add("--region", worker.region);
  return flags;
}

std::vector<std::string> flags_of(const ValidatorOptions& validator, const DataOptions& data) {
  auto flags = common_flags(validator);
  flags.insert(flags.end(), {"--data", data.path});
  return flags;
}

RunSetup setup_of(const RunConfig& config, const std::string& run, const Digest& token_set,
                  const std::filesystem::path& folder) {
  std::map<std::string, double> stakes;
  for (const ValidatorOptions& validator : config.validators) {
    const PublicKey hotkey =
        validator.address.empty()
            ? open_hotkey(validator.hotkey, folder, validator.name).public_key()
            : from_ss58(validator.address);
    stakes[to_ss58(hotkey)] = validator.stake;
  }
  // A run with a chain counts its blocks, told by the hotkey that settles.
  RunConfig shared = config;
  const bool has_chain = config.chain.target == "substrate";
  if (shared.economy.time == "auto") shared.economy.time = has_chain ? "chain" : "simulated";
  if (shared.economy.time == "chain" && has_chain && shared.economy.teller.empty()) {
    shared.economy.teller = to_ss58(chain_hotkey(config.chain));
  }
  return RunSetup::from(run, shared_texts(shared), token_set, std::move(stakes));
}

Progress run_coordinator(const RunConfig& config, const std::filesystem::path& folder,
                         bool with_local_processes,
                         const std::function<void(const CoordinatorAddress&)>& address,
                         const RunHooks& hooks) {
  const TokenSet tokens = build_default(config.data, [](std::string_view line) { log_info(line); });
  if (static_cast<std::int64_t>(tokens.vocabulary()) > config.model.vocabulary) {
    throw Error(ErrorCode::config_invalid,
                "model.vocabulary = " + std::to_string(config.model.vocabulary) +
                    " is smaller than the token set's " + std::to_string(tokens.vocabulary()));
  }
  Keypair keys = open_hotkey("", folder, "coordinator");
  std::optional<Keypair> settling_key;  // opened here: it may ask for a password
  if (config.chain.target == "substrate") settling_key = open_chain_hotkey(config.chain);
  std::map<std::string, std::string> tiers;
  if (with_local_processes) {
    for (const WorkerOptions& worker : config.workers) {
      const Keypair own = open_hotkey(worker.hotkey, folder, worker.name);
      tiers[to_ss58(own.public_key())] = worker.tier;
    }
  }
  const std::string run = folder.filename().empty() ? folder.parent_path().filename().string()
                                                    : folder.filename().string();
  RunSetup setup = setup_of(config, run.substr(0, 64), tokens.digest(), folder);
  setup.tiers = std::move(tiers);
  SystemClock clock;
  const auto transport = listen_zeromq(config.transport, run_curve_keys(folder));
  Coordinator coordinator(std::move(setup), config.store, config.transport, folder, std::move(keys),
                          *transport, clock);
  // For commands on this machine that find the run by its folder.
  std::ofstream(folder / "address") << transport->address().text() << "\n";
  address(transport->address());
  // Only reads the run's record, so it can hold up nothing here.
  std::optional<SettlementThread> settling;
  if (settling_key) settling.emplace(folder, config.chain, *settling_key);
  std::deque<Supervised> children;
  if (with_local_processes) children = start_local(config, transport->address(), folder);

  auto shown = Monotonic::time_point{};
  BlockSourceNews block_source(config.economy.block_ms);
  std::uint32_t told_block = 0;
  bool running = true;
  const auto stopped = [&] { return hooks.stop != nullptr && hooks.stop->load(); };
  while (running && !stopped()) {
    running = coordinator.step(milliseconds(50));
    for (Supervised& child : children) child.look_after();
    if (!children.empty() &&
        std::all_of(children.begin(), children.end(),
                    [](const Supervised& child) { return child.given_up(); })) {
      throw Error(ErrorCode::device_missing,
                  "every local process ended; see the logs in " + (folder / "logs").string());
    }
    if (settling && settling->head() > told_block) {
      told_block = settling->head();
      coordinator.tell_chain_block(told_block, *settling_key);
    }
    if ((hooks.progress || settling) && Monotonic::now() - shown > milliseconds(100)) {
      const Progress progress = coordinator.progress();
      if (settling) block_source.look(progress);
      if (hooks.progress) hooks.progress(progress);
      shown = Monotonic::now();
    }
  }
  // Whoever is still there learns that the run is finished.
  for (Supervised& child : children) {
    if (stopped()) child.terminate();
  }
  const auto until = Monotonic::now() + std::chrono::seconds(10);
  while (!stopped() && Monotonic::now() < until &&
         std::any_of(children.begin(), children.end(),
                     [](Supervised& child) { return !child.ended(); })) {
    coordinator.step(milliseconds(50));
  }
  return coordinator.progress();
}

}  // namespace yumoe

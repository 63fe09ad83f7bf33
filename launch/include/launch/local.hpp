#pragma once
// A run on this machine: keys and folders of a run, the coordinator in this process, and workers and
// validators as child processes that are started again when they die.

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/identity.hpp"
#include "cluster/transport.hpp"
#include "coordinator/service.hpp"
#include "launch/config.hpp"

namespace yumoe {

// Keys of a run, made once and kept under FOLDER/keys with mode 0600.
CurveKeypair run_curve_keys(const std::filesystem::path& folder);
// `source` is a wallet file, a secret URI ("//Alice") or empty: then FOLDER/keys/NAME is used and made
// if it is missing. Throws Error{key_invalid} or Error{file_missing}.
Keypair open_hotkey(const std::string& source, const std::filesystem::path& folder,
                    const std::string& name);

// A child process whose output goes to a log file; ends when this process ends, however that ends.
class ChildProcess {
 public:
  // Throws Error{file_missing} if the program is not there.
  ChildProcess(std::filesystem::path program, std::vector<std::string> arguments,
               std::filesystem::path log_file);
  ~ChildProcess();  // terminates it, kills it after 5 s
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Exit status once it has ended: 0 to 255, 128 + signal if it was killed.
  std::optional<int> poll();
  int pid() const noexcept { return pid_; }
  void terminate();

 private:
  std::filesystem::path program_;
  int pid_ = -1;
  std::optional<int> status_;
};

// yumoe-worker beside this program. Throws Error{file_missing} saying how to build it.
std::filesystem::path worker_program();

struct RunHooks {
  std::function<void(const Progress&)> progress;  // at most ten times a second
  const std::atomic<bool>* stop = nullptr;        // set by Ctrl-C: ends the run in good order
};

// What yumoe-worker is to be told of a section, as its flags; no coordinator, no state.
std::vector<std::string> flags_of(const WorkerOptions& worker, const DataOptions& data);
std::vector<std::string> flags_of(const ValidatorOptions& validator, const DataOptions& data);

// A setup from a configuration: what `RunSetup::from` wants, stakes of the validators included. Throws
// Error{key_invalid} for an address that is none.
RunSetup setup_of(const RunConfig& config, const std::string& run, const Digest& token_set,
                  const std::filesystem::path& folder);

// Runs the coordinator in this process until the run is finished, with the configuration's local
// workers and validators if `with_local_processes`. Goes on with the run in `folder` if there is one.
// `address` hears where others can join. Returns the final state of affairs.
Progress run_coordinator(const RunConfig& config, const std::filesystem::path& folder,
                         bool with_local_processes,
                         const std::function<void(const CoordinatorAddress&)>& address,
                         const RunHooks& hooks);

}  // namespace yumoe

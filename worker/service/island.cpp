// Keeps an island going where it cannot form again by itself (MPI without ULFM, rank 0 lost, a rank that hangs):
// starts what is left of it again. What rank 0 committed to is in its state folder, so nothing is lost but the shard
// that was being trained.

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "cluster/error.hpp"
#include "cluster/launched_ranks.hpp"
#include "cluster/log.hpp"
#include "worker/service.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

std::vector<std::string> command_of(const IslandSetup& setup, int ranks) {
  std::vector<std::string> command = {setup.mpirun};
  command.insert(command.end(), setup.mpirun_options.begin(), setup.mpirun_options.end());
  command.insert(command.end(), {"-n", std::to_string(ranks)});
  command.insert(command.end(), setup.command.begin(), setup.command.end());
  return command;
}

// How a rank on this machine tells `yumoe-worker island` that the island broke: by making the file that this
// names. mpirun of Open MPI 5 may end with 0 after a rank was killed and the others were ended.
constexpr const char* kBrokenFile = "YUMOE_ISLAND_BROKEN";

// A folder that is nobody else's, for that file: its name in the shared folder cannot be foreseen.
class OwnFolder {
 public:
  OwnFolder() {
    std::string path = (std::filesystem::temp_directory_path() / "yumoe-island-XXXXXX").string();
    if (mkdtemp(path.data()) == nullptr) {
      throw Error(ErrorCode::file_io, "make a folder " + path + ": " + std::strerror(errno));
    }
    path_ = path;
  }
  ~OwnFolder() {
    std::error_code left_behind;
    std::filesystem::remove_all(path_, left_behind);
  }
  OwnFolder(const OwnFolder&) = delete;
  OwnFolder& operator=(const OwnFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

pid_t start(std::vector<std::string> command, const std::filesystem::path& broken) {
  std::vector<char*> argv;
  for (std::string& argument : command) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child < 0) {
    throw Error(ErrorCode::file_io, "start " + command.front() + ": " + std::strerror(errno));
  }
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // mpirun ends its ranks then
    setenv(kBrokenFile, broken.c_str(), 1);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  return child;
}

// Ranks asked to end have this long before mpirun is told to end them.
constexpr milliseconds kEndWait{10'000};

// Its exit status as a shell sees it. A stop is passed on: by SIGUSR1, which mpirun hands to the ranks, so that
// they end by themselves and say goodbye; then by SIGTERM.
int wait_for(pid_t child, const std::atomic<bool>& stop) {
  bool terminated = false;
  std::optional<std::chrono::steady_clock::time_point> told;
  while (true) {
    int status = 0;
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (ended == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (ended < 0 && errno != EINTR) {
      throw Error(ErrorCode::file_io, std::string("wait for mpirun: ") + std::strerror(errno));
    }
    const auto now = std::chrono::steady_clock::now();
    if (stop && !told) {
      kill(child, SIGUSR1);
      told = now;
    }
    if (told && !terminated && now - *told >= kEndWait) {
      kill(child, SIGTERM);
      terminated = true;
    }
    std::this_thread::sleep_for(milliseconds(50));
  }
}

}  // namespace

void say_island_broken() {
  const char* file = std::getenv(kBrokenFile);
  if (file != nullptr && *file != '\0') std::ofstream(file) << "a rank is lost\n";
}

int run_island(const IslandSetup& setup, const std::atomic<bool>& stop) {
  const OwnFolder folder;
  const std::filesystem::path broken = folder.path() / "broken";
  int status = 0;
  for (int ranks = setup.ranks; ranks >= 1; --ranks) {
    status = wait_for(start(command_of(setup, ranks), broken), stop);
    const bool said = std::filesystem::remove(broken);
    if (status == 127) {
      throw Error(
          ErrorCode::file_missing,
          "run " + setup.mpirun +
              ": is it there? apt-get install openmpi-bin or launch/setup ulfm, or --mpirun PATH");
    }
    if (stop) return 0;  // mpirun's own status then depends on which rank was first to end
    if (!said && status != kIslandBroken && status <= 128) return status;
    if (status == 0) status = kIslandBroken;
    log_error("the island of " + std::to_string(ranks) + " ranks lost one (mpirun ended with " +
              std::to_string(status) + ")" +
              (ranks > 1 ? ": starting again with " + std::to_string(ranks - 1) : ""));
  }
  return status;
}

}  // namespace yumoe

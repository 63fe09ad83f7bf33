#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "cluster/error.hpp"
#include "launch/local.hpp"

namespace yumoe {

ChildProcess::ChildProcess(std::filesystem::path program, std::vector<std::string> arguments,
                           std::filesystem::path log_file)
    : program_(std::move(program)) {
  if (access(program_.c_str(), X_OK) != 0) {
    throw Error(ErrorCode::file_missing,
                program_.string() + " cannot be run: " + std::strerror(errno));
  }
  const int log = open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log < 0) {
    throw Error(ErrorCode::file_io, "open " + log_file.string() + ": " + std::strerror(errno));
  }
  std::vector<char*> argv{program_.string().empty() ? nullptr
                                                    : const_cast<char*>(program_.c_str())};
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0) {
    close(log);
    throw Error(ErrorCode::file_io, "start " + program_.string() + ": " + std::strerror(errno));
  }
  if (pid_ == 0) {
    // Only async-signal-safe calls from here on.
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127);  // the parent died before prctl
    setpgid(0, 0);                        // Ctrl-C is the parent's to handle
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execv(program_.c_str(), argv.data());
    _exit(127);
  }
  close(log);
}

std::optional<int> ChildProcess::poll() {
  if (status_) return status_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return status_;
}

void ChildProcess::terminate() {
  if (!poll()) kill(pid_, SIGTERM);
}

ChildProcess::~ChildProcess() {
  terminate();
  for (int i = 0; i < 500 && !poll(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  if (!poll()) {
    kill(pid_, SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
  }
}

std::filesystem::path worker_program() {
  const std::filesystem::path here = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  const std::filesystem::path program = here / "yumoe-worker";
  if (access(program.c_str(), X_OK) != 0) {
    throw Error(ErrorCode::file_missing,
                program.string() +
                    ": build it with `cmake --build --preset release`, or install "
                    "LibTorch first with launch/setup");
  }
  return program;
}

}  // namespace yumoe

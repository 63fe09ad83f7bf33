#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <ctime>
#include <iostream>
#include <memory>

#include "cli/commands.hpp"
#include "cli/config_flags.hpp"
#include "cli/display.hpp"
#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "launch/config.hpp"
#include "launch/local.hpp"

namespace yumoe {
namespace {

std::atomic<bool> g_stop{false};

void stop_on_signal() {
  std::signal(SIGINT, [](int) { g_stop = true; });
  std::signal(SIGTERM, [](int) { g_stop = true; });
}

struct Choice {
  std::string file;
  std::string out;
  bool json = false;
};

// runs/demo-20261124-063312
std::filesystem::path run_folder(const Choice& choice, const RunConfig& config) {
  if (!choice.out.empty()) return choice.out;
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char stamp[32];
  std::strftime(stamp, sizeof stamp, "-%Y%m%d-%H%M%S", &utc);
  return std::filesystem::path(config.store.folder) /
         (std::filesystem::path(choice.file).stem().string() + stamp);
}

void run(const Choice& choice, const RunConfig& config, bool with_local_processes) {
  stop_on_signal();
  const std::filesystem::path folder = run_folder(choice, config);
  RunDisplay display(choice.json             ? RunDisplay::Style::json
                     : isatty(STDOUT_FILENO) ? RunDisplay::Style::table
                                             : RunDisplay::Style::lines);
  const Progress last = run_coordinator(
      config, folder, with_local_processes,
      [&](const CoordinatorAddress& address) {
        if (choice.json) return;
        std::cout << "run      " << folder.string() << "\njoin at  " << address.text() << "\n"
                  << std::endl;
      },
      {[&](const Progress& progress) { display.show(progress); }, &g_stop});
  display.finish(last, folder.string());
}

void add_run(CLI::App& app, const char* name, const char* help, const char* example,
             bool with_local_processes) {
  auto choice = std::make_shared<Choice>();
  CLI::App* command = app.add_subcommand(name, help);
  command->add_option("file", choice->file, "TOML file; `yumoe config init` writes one")
      ->required();
  command->add_option("--out", choice->out,
                      "Folder of the run; goes on with the run that is there. Default: a new one "
                      "under store.folder");
  command->add_flag("--json", choice->json, "One JSON object a line; the last is the summary");
  allow_config_flags(*command);
  command->footer(example);
  command->callback([choice, command, with_local_processes] {
    run(*choice, read_config(choice->file, config_flags(*command)), with_local_processes);
  });
}

// `yumoe worker ...` is yumoe-worker beside it, under the name people look for.
void add_forwarded(CLI::App& app, const std::string& role, const char* help) {
  CLI::App* command = app.add_subcommand(role, help);
  command->allow_extras();
  command->set_help_flag();  // its own --help knows more
  command->callback([command, role] {
    const std::string program = worker_program().string();
    std::vector<std::string> arguments{program, role};
    for (const std::string& argument : command->remaining()) arguments.push_back(argument);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    execv(program.c_str(), argv.data());
    throw Error(ErrorCode::file_io, "start " + program);
  });
}

}  // namespace

void add_launch_local(CLI::App& group) {
  add_run(group, "local", "Train on this machine, as `yumoe run` does",
          "yumoe launch local launch/examples/demo.toml", true);
}

void add_run_commands(CLI::App& app) {
  add_run(app, "run", "Train on this machine: coordinator, workers and validators",
          "yumoe run launch/examples/demo.toml\n"
          "yumoe run demo.toml --out runs/mine --run.rounds=30 --json",
          true);
  add_run(app, "coordinator", "Coordinate a run; workers join from elsewhere",
          "yumoe coordinator lab.toml --transport.address=0.0.0.0", false);
  add_forwarded(app, "worker", "Join a run as a worker: yumoe worker --coordinator ADDRESS");
  add_forwarded(app, "validator",
                "Join a run as a validator: yumoe validator --coordinator ADDRESS");
}

}  // namespace yumoe

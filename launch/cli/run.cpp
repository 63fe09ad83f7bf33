#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
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

// What others can call this machine; "" if it has only a loopback.
std::string own_addresses() {
  ifaddrs* first = nullptr;
  if (getifaddrs(&first) != 0) return "";
  std::string found;
  for (const ifaddrs* entry = first; entry != nullptr; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
    if ((entry->ifa_flags & IFF_LOOPBACK) != 0) continue;
    char text[INET_ADDRSTRLEN];
    const auto* address = reinterpret_cast<const sockaddr_in*>(entry->ifa_addr);
    if (inet_ntop(AF_INET, &address->sin_addr, text, sizeof text) == nullptr) continue;
    found += (found.empty() ? "" : ", ") + std::string(text);
  }
  freeifaddrs(first);
  return found;
}

void show_start(const std::filesystem::path& folder, const CoordinatorAddress& address) {
  std::string text = address.text();
  const std::string_view anywhere = "0.0.0.0";
  std::string hint;
  if (const std::size_t at = text.find(anywhere); at != std::string::npos) {
    text.replace(at, anywhere.size(), "HOST");
    const std::string own = own_addresses();
    hint = "         HOST is this machine as the others reach it" +
           (own.empty() ? "" : ": " + own) + "\n";
  }
  std::cout << "run      " << folder.string() << "\njoin at  " << text << "\n" << hint << std::endl;
}

void run(const Choice& choice, const RunConfig& config, bool with_local_processes) {
  stop_on_signal();
  const std::filesystem::path folder = run_folder(choice, config);
  RunDisplay display(choice.json             ? RunDisplay::Style::json
                     : isatty(STDOUT_FILENO) ? RunDisplay::Style::table
                                             : RunDisplay::Style::lines);
  const Progress last =
      run_coordinator(config, folder, with_local_processes,
                      [&](const CoordinatorAddress& address) {
                        if (!choice.json) show_start(folder, address);
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

// The section that describes this machine: the only one, or the one that is named.
template <typename Options>
const Options& own_section(const std::vector<Options>& sections, const std::string& name,
                           const std::string& file, const std::string& list) {
  for (const Options& options : sections) {
    if (sections.size() == 1 || options.name == name) return options;
  }
  throw Error(ErrorCode::usage, sections.empty()
                                    ? file + " has no [[" + list + "]] to describe this machine"
                                    : file + " has " + std::to_string(sections.size()) + " [[" +
                                          list + "]]: say which one this is with --name");
}

// Puts what a TOML file among the arguments says in its place; flags given beside it come first.
std::vector<std::string> with_file(const std::string& role, std::vector<std::string> given) {
  const auto file = std::find_if(given.begin(), given.end(),
                                 [](const std::string& text) { return text.ends_with(".toml"); });
  if (file == given.end()) return given;
  const RunConfig config = read_config(*file, {});
  const auto named = std::find(given.begin(), given.end(), "--name");
  const std::string name = named < given.end() - 1 ? *(named + 1) : "";
  const auto flags =
      role == "worker"
          ? flags_of(own_section(config.workers, name, *file, "worker"), config.data)
          : flags_of(own_section(config.validators, name, *file, "validator"), config.data);
  given.erase(file);
  const auto is_given = [&](const std::string& flag) {
    return std::any_of(given.begin(), given.end(), [&](const std::string& text) {
      return text == flag || text.starts_with(flag + "=");
    });
  };
  std::vector<std::string> all = given;
  for (std::size_t i = 0; i < flags.size();) {
    const std::size_t next =
        i + 1 < flags.size() && !flags[i + 1].starts_with("--") ? i + 2 : i + 1;
    if (!is_given(flags[i])) all.insert(all.end(), flags.begin() + i, flags.begin() + next);
    i = next;
  }
  return all;
}

// `yumoe worker ...` is yumoe-worker beside it, under the name people look for.
void add_forwarded(CLI::App& app, const std::string& role, const char* help) {
  CLI::App* command = app.add_subcommand(role, help);
  command->allow_extras();
  command->set_help_flag();  // its own --help knows more
  command->callback([command, role] {
    const std::string program = worker_program().string();
    std::vector<std::string> arguments{program, role};
    for (const std::string& argument : with_file(role, command->remaining())) {
      arguments.push_back(argument);
    }
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
  add_forwarded(app, "worker",
                "Join a run as a worker: yumoe worker --coordinator ADDRESS [miner.toml]");
  add_forwarded(app, "validator",
                "Join a run as a validator: yumoe validator --coordinator ADDRESS [FILE.toml]");
}

}  // namespace yumoe

#include "launch/config.hpp"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>

#include "cli/commands.hpp"
#include "cli/config_flags.hpp"
#include "cluster/error.hpp"

namespace yumoe {
namespace {

// A new file and nothing else: never overwrites.
void write_new_file(const std::string& path, std::string_view text) {
  std::FILE* file = std::fopen(path.c_str(), "wxe");
  if (file == nullptr) {
    throw Error(errno == EEXIST ? ErrorCode::usage : ErrorCode::file_io,
                "write " + path + ": " + std::strerror(errno));
  }
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (std::fclose(file) != 0 || !written) throw Error(ErrorCode::file_io, "write " + path);
}

struct FileChoice {
  std::string file;
  bool json = false;
};

void add_check(CLI::App& group) {
  auto choice = std::make_shared<FileChoice>();
  CLI::App* check = group.add_subcommand("check", "Say whether a configuration is usable");
  check->add_option("file", choice->file, "TOML file")->required();
  allow_config_flags(*check);
  check->footer("yumoe config check run.toml --model.width=192");
  check->callback([choice, check] {
    const RunConfig config = read_config(choice->file, config_flags(*check));
    std::cout << choice->file << " is usable; shared digest " << shared_digest(config).hex()
              << std::endl;
  });
}

void add_print(CLI::App& group) {
  auto choice = std::make_shared<FileChoice>();
  CLI::App* print = group.add_subcommand("print", "Print what is in force, defaults marked");
  print->add_option("file", choice->file, "TOML file")->required();
  print->add_flag("--json", choice->json, "One JSON object");
  allow_config_flags(*print);
  print->footer("yumoe config print run.toml --training.learning_rate=1e-3");
  print->callback([choice, print] {
    const RunConfig config = read_config(choice->file, config_flags(*print));
    std::cout << (choice->json ? json_of(config) + "\n" : toml_of(config)) << std::flush;
  });
}

void add_init(CLI::App& group) {
  struct Choice {
    std::string name = "demo";
    std::string out;
  };
  auto choice = std::make_shared<Choice>();
  std::string names;
  for (const std::string& name : config_templates()) names += (names.empty() ? "" : "|") + name;
  CLI::App* init = group.add_subcommand("init", "Write a commented configuration to start from");
  init->add_option("--template", choice->name, names)->capture_default_str();
  init->add_option("--out", choice->out, "File to write; the terminal if not given");
  init->footer("yumoe config init --template lab --out lab.toml");
  init->callback([choice] {
    const std::string_view text = config_template(choice->name);
    if (choice->out.empty()) {
      std::cout << text << std::flush;
    } else {
      write_new_file(choice->out, text);
    }
  });
}

}  // namespace

void allow_config_flags(CLI::App& command) {
  command.allow_extras();
  command.description(command.get_description() +
                      ".\nEvery option of the file is a flag too: --section.key=value, such as "
                      "--run.rounds=30; `yumoe config reference` lists them");
}

std::vector<std::string> config_flags(const CLI::App& command) {
  std::vector<std::string> flags = command.remaining();
  for (const std::string& flag : flags) {
    if (flag.starts_with("--") && flag.substr(0, flag.find('=')).find('.') != std::string::npos) {
      continue;
    }
    throw Error(ErrorCode::usage, "unknown argument '" + flag +
                                      "'; options of the configuration "
                                      "have the form --section.key=value");
  }
  return flags;
}

void add_config_commands(CLI::App& app) {
  CLI::App* group = app.add_subcommand("config", "Check, print and start configurations");
  group->require_subcommand(1);
  add_check(*group);
  add_print(*group);
  add_init(*group);
  group->add_subcommand("reference", "Print docs/configuration.md")->callback([] {
    std::cout << config_reference() << std::flush;
  });
}

}  // namespace yumoe

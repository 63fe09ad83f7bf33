#include <sodium.h>

#include <iostream>

#include "cli/command_line.hpp"
#include "cli/commands.hpp"
#include "cluster/log.hpp"

int main(int argc, char** argv) {
  if (sodium_init() < 0) {
    std::cerr << "yumoe: the system's random source does not work\n";
    return 1;
  }
  yumoe::open_log("yumoe", yumoe::LogLevel::info);

  CLI::App app("Trains and serves mixture-of-experts models over machines that do not trust each other.",
               "yumoe");
  app.set_version_flag("--version", "yumoe " YUMOE_VERSION);
  app.require_subcommand(1);
  app.footer("Start: yumoe run launch/examples/demo.toml\n"
             "What this machine has and lacks: yumoe doctor");
  yumoe::add_data_commands(app);
  yumoe::add_config_commands(app);
  return yumoe::run_command_line(app, argc, argv);
}

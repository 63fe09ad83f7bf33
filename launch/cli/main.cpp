#include <iostream>

#include "cli/command_line.hpp"
#include "cli/commands.hpp"
#include "cluster/locked.hpp"
#include "cluster/log.hpp"

int main(int argc, char** argv) {
  yumoe::require_sodium();
  yumoe::open_log("yumoe", yumoe::LogLevel::info);

  CLI::App app(
      "Trains and serves mixture-of-experts models over machines that do not trust "
      "each other.",
      "yumoe");
  app.set_version_flag("--version", "yumoe " YUMOE_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Start: yumoe run launch/examples/demo.toml\n"
      "What this machine has and lacks: yumoe doctor");
  yumoe::add_run_commands(app);
  yumoe::add_record_commands(app);
  yumoe::add_scoring_commands(app);
  yumoe::add_ledger_commands(app);
  yumoe::add_chain_commands(app);
  yumoe::add_data_commands(app);
  yumoe::add_config_commands(app);
  yumoe::add_keys_commands(app);
  yumoe::add_doctor_command(app);
  yumoe::add_placement_commands(app);
  yumoe::add_launch_commands(app);
  app.add_subcommand("version", "Print the version")->callback([] {
    std::cout << "yumoe " YUMOE_VERSION << std::endl;
  });
  return yumoe::run_command_line(app, argc, argv);
}

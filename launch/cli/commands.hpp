#pragma once
// The command groups of `yumoe`. Each function adds its commands to the application; a command's
// callback does the work and throws Error, which main() turns into one line and an exit code.

namespace CLI {
class App;
}

namespace yumoe {

void add_run_commands(CLI::App& app);
void add_record_commands(CLI::App& app);
void add_scoring_commands(CLI::App& app);
void add_ledger_commands(CLI::App& app);
void add_data_commands(CLI::App& app);
void add_config_commands(CLI::App& app);
void add_keys_commands(CLI::App& app);
void add_doctor_command(CLI::App& app);
void add_chain_commands(CLI::App& app);
void add_placement_commands(CLI::App& app);
void add_launch_commands(CLI::App& app);

// Adds `local` to the group `launch`.
void add_launch_local(CLI::App& launch_group);

// Adds `simulate` to the group `ledger`.
void add_ledger_simulate(CLI::App& ledger_group);
// Adds what accounts ask of a run's ledger, `stake` and the like, to the group `ledger`.
void add_ledger_calls(CLI::App& ledger_group);

}  // namespace yumoe

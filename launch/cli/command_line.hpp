#pragma once
// Parses a command line, runs the command and turns every failure into one line and an exit code.

#include <CLI/CLI.hpp>

namespace yumoe {

// Exit codes: 0; 2 if the user's input is at fault (usage, configuration, files, keys); 1 otherwise.
// A command that has said its piece ends with another code by throwing CLI::RuntimeError(code).
int run_command_line(CLI::App& app, int argc, const char* const* argv);

}  // namespace yumoe

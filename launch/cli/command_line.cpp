#include "cli/command_line.hpp"

#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "cluster/error.hpp"
#include "config/nearest_name.hpp"

namespace yumoe {
namespace {

int exit_code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::config_invalid:
    case ErrorCode::usage:
    case ErrorCode::file_missing:
    case ErrorCode::data_invalid:
    case ErrorCode::key_invalid:
    case ErrorCode::password_wrong: return 2;
    default: return 1;
  }
}

int complain(const std::string& what, int code) {
  std::cerr << "yumoe: " << what << std::endl;
  return code;
}

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string suggestion(const std::string& typed, const std::vector<std::string>& candidates) {
  const std::string nearest = nearest_name(typed, candidates);
  return nearest.empty() ? "" : ", did you mean '" + nearest + "'";
}

// Follows the words of a command line down the tree of commands. Gives the complaint about the
// first word that should have been a command and is none.
std::optional<std::string> unknown_command(const CLI::App& app, int argc, const char* const* argv) {
  const CLI::App* group = &app;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const CLI::App* next = nullptr;
    std::vector<std::string> names;
    for (const CLI::App* command : commands_of(*group)) {
      names.push_back(command->get_name());
      if (names.back() == word) next = command;
    }
    if (names.empty() || word.empty() || word.starts_with('-')) return std::nullopt;
    if (next == nullptr) {
      return "unknown command '" + word + "'" + suggestion(word, names) + ". Try `" +
             (group == &app ? "yumoe" : "yumoe " + group->get_name()) + " --help`";
    }
    group = next;
  }
  return std::nullopt;
}

std::string usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* command = &app;
  std::string path = app.get_name();
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    path += " " + command->get_name();
  }
  std::string what = error.what();
  if (what.ends_with('\n') || what.ends_with('.')) what.pop_back();
  for (const std::string& extra : app.remaining(true)) {
    const std::string name = extra.substr(0, extra.find('='));
    what = "unknown argument '" + name + "'" + suggestion(name, option_names(*command));
    break;
  }
  return what + ". Try `" + path + " --help`";
}

}  // namespace

int run_command_line(CLI::App& app, int argc, const char* const* argv) {
  if (const auto complaint = unknown_command(app, argc, argv)) return complain(*complaint, 2);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);                // --help and --version
    if (error.get_name() == "RuntimeError") return error.get_exit_code();  // said its piece
    return complain(usage_error(app, error), 2);
  } catch (const Error& error) {
    return complain(error.what(), exit_code_of(error.code()));
  } catch (const std::exception& error) {
    return complain(std::string("failed: ") + error.what(), 1);
  }
}

}  // namespace yumoe

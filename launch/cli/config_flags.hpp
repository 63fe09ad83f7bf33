#pragma once
// How a command takes a configuration: a TOML file and flags "--section.key=value".

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace yumoe {

// Lets `command` take configuration flags; read them in its callback with config_flags().
void allow_config_flags(CLI::App& command);

// The flags given to `command`. Throws Error{usage} for any other leftover argument.
std::vector<std::string> config_flags(const CLI::App& command);

}  // namespace yumoe

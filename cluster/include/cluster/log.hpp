#pragma once
// One logger for a process, to stderr, so that stdout stays free for answers and --json.
// Each line is one sentence with its values at the end. Keys and passwords are never logged.

#include <string_view>

namespace yumoe {

enum class LogLevel { debug, info, warning, error };

// Names this process in its log lines ("coordinator", "worker 5F3s..."). Call once, from main().
void open_log(std::string_view process, LogLevel least);

void log(LogLevel level, std::string_view message);

inline void log_debug(std::string_view message) { log(LogLevel::debug, message); }
inline void log_info(std::string_view message) { log(LogLevel::info, message); }
inline void log_warning(std::string_view message) { log(LogLevel::warning, message); }
inline void log_error(std::string_view message) { log(LogLevel::error, message); }

}  // namespace yumoe

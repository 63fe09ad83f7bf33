#pragma once
// What a running run looks like: a live table on a terminal, one line a round elsewhere, JSON lines
// with --json.

#include <cstdint>
#include <string>

#include "coordinator/service.hpp"

namespace yumoe {

class RunDisplay {
 public:
  enum class Style { table, lines, json };
  explicit RunDisplay(Style style) : style_(style) {}
  ~RunDisplay();

  void show(const Progress& progress);
  // The summary: people's, or the last JSON line.
  void finish(const Progress& progress, const std::string& folder);

 private:
  Style style_;
  std::uint64_t rounds_shown_ = 0;
  int table_lines_ = 0;
};

// "12.3 kB", "4.56 MB".
std::string bytes_text(double bytes);
// "1:05", "2:00:10".
std::string time_text(double seconds);
// One JSON object on one line: what `yumoe run --json` ends with.
std::string summary_json(const Progress& progress, const std::string& folder);

}  // namespace yumoe

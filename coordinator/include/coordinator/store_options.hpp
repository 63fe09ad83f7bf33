#pragma once
// Where a coordinator keeps its runs, and for how long it keeps what only replay needs.

#include <cstdint>
#include <string>

#include "cluster/option.hpp"

namespace yumoe {

struct StoreOptions {
  std::string folder = "runs";
  std::int64_t checkpoints_kept = 3;
  std::int64_t contributions_kept_rounds = 0;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("folder", folder, {.help = "each run has a folder of its own in it"});
    option("checkpoints_kept", checkpoints_kept,
           {.unit = "checkpoints", .min = 1, .max = 1e6, .help = "how many of the newest"});
    option("contributions_kept_rounds", contributions_kept_rounds,
           {.unit = "rounds",
            .min = 0,
            .max = 1e9,
            .help = "newest rounds whose contributions are kept for replay; 0 for all"});
  }
};

}  // namespace yumoe

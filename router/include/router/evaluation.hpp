#pragma once
// How validators measure: part of the shared configuration, so that they measure the same.

#include <cstdint>

#include "cluster/option.hpp"

namespace yumoe {

struct EvaluationOptions {
  std::int64_t private_windows = 24;
  std::int64_t assigned_windows = 6;
  std::int64_t heldout_windows = 96;
  double step_share = 0;
  std::int64_t given_sampled = 1;
  std::int64_t experts_sampled = 1;
  double audit_tolerance = 0.02;
  bool own_data_allowed = false;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("private_windows", private_windows,
           {.unit = "windows",
            .min = 1,
            .max = 65'536,
            .help = "drawn with the round's private seed, the same for all contributions"});
    option("assigned_windows", assigned_windows,
           {.unit = "windows", .min = 0, .max = 65'536, .help = "of the data a worker was given"});
    option("heldout_windows", heldout_windows,
           {.unit = "windows",
            .min = 0,
            .max = 1e6,
            .help = "of the held-out split, for the loss that is shown"});
    option("step_share", step_share,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "of the outer step with which one contribution alone is tried; 0: the share "
                    "that each of the round's contributions has in their mean"});
    option("given_sampled", given_sampled,
           {.unit = "contributions",
            .min = 0,
            .max = 65'536,
            .help = "of a round, drawn by each validator, which are also measured given the others "
                    "and expert by expert"});
    option("experts_sampled", experts_sampled,
           {.unit = "experts",
            .min = 0,
            .max = 4'096,
            .help = "of each of those, left out one at a time to see what they are worth"});
    option("audit_tolerance", audit_tolerance,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "of its loss by which the 20th step and later ones may differ on another "
                    "device; less before"});
    option(
        "own_data_allowed", own_data_allowed,
        {.help = "whether workers may train on data of their own, which nobody can train again"});
  }

  // Of the outer step, with which one of `answered` contributions is tried.
  double step_share_of(std::uint32_t answered) const {
    if (step_share > 0) return step_share;
    return 1.0 / static_cast<double>(answered > 0 ? answered : 1);
  }
};

}  // namespace yumoe

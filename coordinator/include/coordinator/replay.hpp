#pragma once
// From a record back to the state it describes: what recovery, `yumoe replay` and audit have in common.
// The core is driven by every event; every aggregation after the starting checkpoint is done again and
// must reach the recorded digests.

#include <functional>
#include <limits>
#include <memory>
#include <optional>

#include "coordinator/journal.hpp"
#include "coordinator/model_state.hpp"
#include "coordinator/run.hpp"
#include "coordinator/setup.hpp"

namespace yumoe {

// Visits a run's records in order until told to stop; JournalReader and exported files have one.
using ForEachRecord = std::function<void(const std::function<bool(const Record&)>& visit)>;

struct Replayed {
  std::unique_ptr<Run> core;
  std::unique_ptr<ModelState> model;
  std::uint64_t records = 0;
  TimeMs last_time;
};

struct ReplayWatcher {
  // The model before the first event; it changes in place as the replay goes.
  std::function<void(const ModelState&)> model;
  // After each event was applied.
  std::function<void(const Record&, const Event&, const Run&)> event;
  // After each aggregation was done again, with what it reached.
  std::function<void(RoundId, const ModelState::Result&)> aggregated;
};

// Replays all records. The model starts at `checkpoint`, or at version 0 without one; aggregations up
// to the checkpoint, and after `last_round`, are believed, those between done again.
// Throws Error{replay_differs} naming round and digests where the record is not reached, and
// Error{journal_corrupt} naming the record where it cannot be read.
Replayed replay(const Layout& layout, const RunSetup& setup, const ForEachRecord& records,
                const FindBlob& find_blob, std::optional<Checkpoint> checkpoint,
                const ReplayWatcher& watcher = {},
                std::uint64_t last_round = std::numeric_limits<std::uint64_t>::max());

}  // namespace yumoe

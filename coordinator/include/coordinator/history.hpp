#pragma once
// What a record says, for people: rounds, contributions, scores, participants, as the core went through
// them. Needs no tensors: the model is not rebuilt.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/run.hpp"
#include "coordinator/run_export.hpp"
#include "coordinator/run_record.hpp"
#include "coordinator/setup.hpp"

namespace yumoe {

// Applies every recorded event to `core` and then hands it to `visit`. Throws what the record throws, and
// Error{journal_corrupt} naming a record that cannot be.
void drive(const RunRecord& record, Run& core,
           const std::function<void(const Record&, const Event&)>& visit);

struct RoundHistory {
  RoundId round;
  TimeMs started, aggregated;  // aggregated: 0 while the round runs
  std::uint64_t up_bytes = 0, down_bytes = 0;
  Digest version;
  double heldout_loss = 0;  // of the base version this round made; NaN if not measured
  double heldout_bits_per_byte = 0;
};

struct ContributionHistory {
  RoundId round;
  Uid uid;
  std::uint32_t steps_assigned = 0, steps = 0;
  std::uint64_t tokens = 0, bytes = 0;
  double seconds = 0, loss_last = 0;
  Digest blob;
  std::string filter, evidence;  // "" if it passed
  TimeMs committed, revealed;
  bool in_time = false;
};

struct ScoreHistory {
  RoundId round;
  Uid validator, uid;
  ScoreEntry entry;
};

// The core's state at the end, and the way there.
class RunHistory {
 public:
  // Throws what drive() throws.
  explicit RunHistory(const RunRecord& record);

  const RunSetup& setup() const { return setup_; }
  const Layout& layout() const { return layout_; }
  const Run& core() const { return *core_; }
  const std::vector<RoundHistory>& rounds() const { return rounds_; }
  const std::vector<ContributionHistory>& contributions() const { return contributions_; }
  const std::vector<ScoreHistory>& scores() const { return scores_; }
  TimeMs last_time() const { return last_time_; }

  // For export: rounds, contributions, scores, participants.
  std::vector<Table> tables() const;

 private:
  void note(const Record& record, const Event& event);
  RoundHistory& round(RoundId id);

  RunSetup setup_;
  Layout layout_;
  std::unique_ptr<Run> core_;
  std::vector<RoundHistory> rounds_;
  std::vector<ContributionHistory> contributions_;
  std::vector<ScoreHistory> scores_;
  TimeMs last_time_;
};

}  // namespace yumoe

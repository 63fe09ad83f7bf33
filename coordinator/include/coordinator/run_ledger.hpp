#pragma once
// What a run pays: the embedded ledger, driven by the run's own events. A pure reading of the record, so
// a crash can lose nothing, a replay reaches the same balances, and a what-if is the same reading under
// another rule.
//
// Genesis funds a treasury, which registers the run's subnet (netuid 1, neuron 0 is the coordinator's)
// and pays each participant's registration. Of a validator's stake a tenth buys the subnet's alpha and the rest is put
// behind it on root. When scores arrive, that validator's weights are set; blocks pass with the run's own time.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cluster/option.hpp"
#include "coordinator/ledger.hpp"
#include "coordinator/run.hpp"

namespace yumoe {

struct EconomyOptions {
  std::int64_t block_ms = 12'000;
  double participant_funds = 10;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("block_ms", block_ms, {.unit = "ms", .min = 1, .max = 3'600'000,
           .help = "time of a block of the embedded ledger; the chain's is 12000"});
    option("participant_funds", participant_funds, {.unit = "TAO", .min = 0, .max = 1e6,
           .help = "what the treasury gives a participant for its registration"});
  }
};

class RunLedger {
 public:
  RunLedger(const ledger::LedgerOptions& rules, const EconomyOptions& economy);

  // Takes the event that `core` has just applied. Throws Error{invariant_broken}.
  void apply(const Event& event, const Run& core, TimeMs now);

  // One epoch of the run's subnet, with the rounds whose scores went into its weights.
  struct Epoch {
    ledger::EpochReport report;
    RoundId first_round, last_round;    // 0: none since the epoch before
  };
  struct Refusal {
    std::uint64_t block = 0;
    std::string operation;
    ledger::LedgerError error{};
    std::string who;                    // SS58
  };

  const ledger::Ledger& ledger() const noexcept { return ledger_; }
  const std::vector<Epoch>& epochs() const noexcept { return epochs_; }
  const std::vector<Refusal>& refusals() const noexcept { return refusals_; }
  static constexpr std::uint16_t kNetuid = 1;

  // Neuron of a participant, if it could be registered.
  std::optional<std::uint16_t> neuron_of(const PublicKey& hotkey) const;
  // Alpha behind a hotkey, all stakers together.
  std::uint64_t alpha_of(const PublicKey& hotkey) const;

  // What the next epoch would pay, with `weights` (by neuron) set by every validator if given.
  ledger::EpochReport preview(const std::optional<std::vector<std::pair<std::uint16_t, std::uint16_t>>>&
                                  weights) const;

  // Sets a rule past its owner, for a what-if: of the run's subnet, or of the network.
  // Throws Error{usage} if there is no rule of that name.
  void override_rule(const std::string& name, std::uint64_t value);

 private:
  bool attempt(const ledger::Operation& operation, const PublicKey& who);
  void pass_time(TimeMs now);
  void enrol(const Joined& event);
  void set_weights(Uid validator, const Run& core);

  ledger::Ledger ledger_;
  EconomyOptions economy_;
  std::optional<TimeMs> start_;
  std::vector<Epoch> epochs_;
  std::vector<Refusal> refusals_;
  RoundId first_round_, last_round_;    // of scores since the last epoch
};

}  // namespace yumoe

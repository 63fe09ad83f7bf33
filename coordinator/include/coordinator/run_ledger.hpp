#pragma once
// What a run pays: the embedded ledger, driven by the run's own events. A pure reading of the record, so
// a crash can lose nothing, a replay reaches the same balances, and a what-if is the same reading under
// another rule.
//
// Genesis funds a treasury, which registers the run's subnet (netuid 1, neuron 0 is its owner's) and the
// other subnets of EconomyOptions, pays out the balances given there and each participant's registration.
// Of a validator's stake a tenth buys the subnet's alpha and the rest is put behind it on root. When
// scores arrive, that validator's weights are set; blocks pass with the run's own time.
//
// With time = chain, blocks are counted on from where the ledger stands when the chain's first one is told,
// one for one; when none was told for a while, they pass with the run's time again until the next is.
//
// Everything else an account does by calls it signs: staking, takes, children, an owner's
// hyperparameters, proposals and votes. A call carries the number of the account's calls before it, so
// each is taken once, whatever is repeated or restarted.

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cluster/option.hpp"
#include "coordinator/ledger.hpp"
#include "coordinator/run.hpp"

namespace yumoe {

struct EconomyOptions {
  std::int64_t block_ms = 12'000;
  double participant_funds = 10;
  std::string time = "auto";
  std::string teller;
  std::string owner;
  std::vector<std::string> balances;
  std::vector<std::string> subnets;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("block_ms", block_ms,
           {.unit = "ms",
            .min = 1,
            .max = 3'600'000,
            .help = "time of a block of the embedded ledger; the chain's is 12000"});
    option("participant_funds", participant_funds,
           {.unit = "TAO",
            .min = 0,
            .max = 1e6,
            .help = "what the treasury gives a participant for its registration"});
    option(
        "time", time,
        {.choices = "auto|simulated|followed|chain",
         .help = "blocks pass with the run's time; as a chain's do, told by economy.owner (yumoe "
                 "ledger follow); or as those of [chain], and with the run's time while it is "
                 "away. auto: chain where chain.target is substrate, else simulated"});
    option("teller", teller,
           {.help = "time = chain: address that tells the chain's blocks; empty: the hotkey of "
                    "[chain]"});
    option("owner", owner,
           {.help = "address whose calls change the run's subnet; empty: nobody's"});
    option("balances", balances,
           {.help = "free TAO at the start, beside what participants get: ADDRESS=TAO"});
    option("subnets", subnets,
           {.help = "other subnets to share the emission with: NAME, then any of "
                    "lock=TAO stake=TAO root=TAO miners=N PARAMETER=VALUE"});
  }
};

class RunLedger {
 public:
  // Throws Error{config_invalid} naming the part of the economy that cannot be.
  RunLedger(const ledger::LedgerOptions& rules, const EconomyOptions& economy);

  // Takes the event that `core` has just applied. Throws Error{invariant_broken}.
  void apply(const Event& event, const Run& core, TimeMs now);

  // One epoch of the run's subnet, with the rounds whose scores went into its weights.
  struct Epoch {
    ledger::EpochReport report;
    RoundId first_round, last_round;  // 0: none since the epoch before
  };
  struct Refusal {
    std::uint64_t block = 0;
    std::string operation;
    ledger::LedgerError error{};
    std::string who;  // SS58
  };

  const ledger::Ledger& ledger() const noexcept { return ledger_; }
  const std::vector<Epoch>& epochs() const noexcept { return epochs_; }
  const std::vector<Refusal>& refusals() const noexcept { return refusals_; }
  // `look` is called right after each epoch of the run's subnet, before anything else changes: what the
  // report leaves out (shares, stakes, the weights it went by) is then in ledger(). A run that was away
  // catches up over several epochs in one apply().
  void watch_epochs(std::function<void(const Epoch&)> look) { epoch_watch_ = std::move(look); }
  static constexpr std::uint16_t kNetuid = 1;

  // Why a call that comes `now` is not taken, or nothing: another number than the account's next, an
  // operation that is not the account's to ask, an account that has nothing here, or the ledger's refusal
  // by its name on the chain and what can be done about it.
  // Cost: one copy of the ledger.
  std::optional<std::string> refusal_of(const Called& call, TimeMs now) const;
  // True if exactly this call was the account's newest: its answer was lost on the way.
  bool has_taken(const Called& call) const;
  std::uint64_t next_nonce(const PublicKey& account) const;
  std::uint64_t free_of(const PublicKey& account) const;

  // Everything that decides the future, for a checkpoint; epochs() and refusals() are in the record.
  Bytes snapshot() const;
  // Goes on from a snapshot of the same rules and economy. Throws Error{checkpoint_corrupt}.
  void restore(ByteView snapshot);
  // The ledger within a snapshot. Throws Error{checkpoint_corrupt}.
  static ledger::Ledger ledger_in(ByteView snapshot);

  // "run", the name of one of EconomyOptions::subnets, or "subnet-N".
  std::string subnet_name(std::uint16_t netuid) const;

  // Neuron of a participant, if it could be registered.
  std::optional<std::uint16_t> neuron_of(const PublicKey& hotkey) const;
  // Alpha behind a hotkey, all stakers together.
  std::uint64_t alpha_of(const PublicKey& hotkey) const;

  // Where this ledger's blocks come from at that time.
  enum class BlockSource { own_time, chain };
  BlockSource block_source(TimeMs now) const;
  // Newest block of the chain that was told, 0 before the first.
  std::uint64_t chain_block() const { return chain_first_ ? chain_newest_ : 0; }
  // True if `account` may tell the block `number` now.
  bool may_tell(const PublicKey& account, std::uint64_t number) const;

  // What the next epoch would pay, with `weights` (by neuron) set by every validator if given, whatever
  // rate limit or commit-reveal would make them wait for.
  struct Preview {
    ledger::EpochReport report;
    // Neurons with a permit whose weights would be refused, so that what they set before counts; if
    // none has a permit, every neuron.
    std::vector<std::pair<std::uint16_t, ledger::LedgerError>> refused;
    std::size_t taken = 0;  // neurons with a permit that would have set them
  };
  Preview preview(
      const std::optional<std::vector<std::pair<std::uint16_t, std::uint16_t>>>& weights) const;

  // What an account is called in this run beside its address: "owner", "treasury", "vision validator";
  // "" for those of people.
  std::string account_name(const ledger::AccountId& account) const;

  // Sets a rule, named as on the chain, past its owner, for a what-if: of the run's subnet, or of the
  // network. Throws Error{usage} if there is no such rule, or if it does not go with the others.
  void override_rule(const std::string& name, std::uint64_t value);

 private:
  // A subnet that is not the run's: its validator weighs its miners alike, once a tempo.
  struct Other {
    std::string name;
    std::uint64_t lock = 0, stake = 0, root = 0;  // rao
    std::uint16_t miners = 4;
    std::vector<std::pair<std::string, std::uint64_t>> parameters;
    std::uint16_t netuid = 0;
  };
  struct Caller {
    std::uint64_t nonce = 0;
    std::uint64_t block = 0;  // of the newest call
    std::uint64_t calls_in_block = 0;
    std::array<std::uint8_t, 32> newest{};  // digest of its operation
    template <typename Archive>
    void visit(Archive& archive) {
      archive(nonce, block, calls_in_block, newest);
    }
  };

  // A participant's way into the subnet: paid its money once, registered when it can pay the price.
  struct Enrolment {
    bool waits = true;        // for the price to fall, or for a place
    std::uint64_t stake = 0;  // rao, to be put behind it once it is registered
    template <typename Archive>
    void visit(Archive& archive) {
      archive(waits, stake);
    }
  };

  static Other other_from(const std::string& text);
  void found(const ledger::LedgerOptions& rules);
  void found_other(Other other);
  void fund(const ledger::AccountId& account, std::uint64_t amount);
  bool attempt(const ledger::Operation& operation, const PublicKey& who);
  void pass_time(TimeMs now);
  void enrol(const Joined& event);
  std::optional<ledger::LedgerError> finish_enrolment(const ledger::AccountId& account,
                                                      Enrolment& enrolment);
  void set_weights(Uid validator, const Run& core);
  void weigh_others();
  ledger::Operation weight_call(const ledger::AccountId& hotkey, std::uint16_t netuid,
                                std::vector<std::uint16_t> uids,
                                std::vector<std::uint16_t> values) const;
  void take(const Called& call, TimeMs now);
  void take_chain_block(std::uint64_t number, TimeMs now);
  std::optional<std::string> why_not_told(const ledger::AccountId& account,
                                          std::uint64_t number) const;
  bool has_means(const ledger::AccountId& account) const;
  std::uint64_t block_due(TimeMs now) const;
  template <typename Archive>
  void visit(Archive& archive, Bytes& ledger_bytes);

  ledger::Ledger ledger_;
  EconomyOptions economy_;
  std::optional<TimeMs> start_;
  std::optional<std::uint64_t> chain_first_;  // of a followed chain's blocks that were told
  std::uint64_t chain_newest_ = 0;
  TimeMs chain_told_;  // when that was
  ledger::AccountId owner_{};
  std::optional<ledger::AccountId> teller_;  // who tells the chain's blocks, if anybody may
  std::vector<Epoch> epochs_;
  std::vector<Refusal> refusals_;
  std::function<void(const Epoch&)> epoch_watch_;
  RoundId first_round_, last_round_;  // of scores since the last epoch
  std::vector<Other> others_;
  std::map<ledger::AccountId, Caller> callers_;
  std::map<ledger::AccountId, Enrolment> enrolments_;  // of every hotkey that was paid to join
};

// The bytes of a call that is no operation of the ledger: the followed chain has this many blocks now.
Bytes chain_block_call(std::uint64_t number);

// Who asks for an operation; nothing for those that no account can ask for.
std::optional<ledger::AccountId> caller_of(const ledger::Operation& operation);

// Throws Error{signature_invalid} unless the call's evidence is its account's signature under exactly
// this call to exactly this run.
void check_evidence(const Called& call, std::string_view run);

}  // namespace yumoe

#pragma once
// The embedded ledger: Bittensor's chain rules in memory, to the last unit. Deterministic: the same
// options, operations and blocks give the same state on every machine, and the same digest.
//
//   Ledger ledger(options);
//   ledger.apply(Register{...});       // refused with the chain's error name, or wholly applied
//   BlockReport report = ledger.step_block();
//
// Money is kept as double entry: every rao and every unit of alpha has a place, and after every block
// the places are added up again. Not modelled: locks and conviction (docs/ledger.md says why).
// Cost: a block without epochs about 1 us a subnet; an epoch is linear in its nonzero weights.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/option.hpp"
#include "coordinator/ledger_state.hpp"
#include "coordinator/operation.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger {

// What a run's file says about its ledger: which rules, and the parameters of its subnets and network.
struct LedgerOptions {
  std::string blocks = "newest";
  std::string pool = "balancer";
  std::string shares = "price_burn";
  std::string schedule = "stateful";
  std::int64_t tempo = 360;
  std::int64_t yuma = 3;
  double kappa = 0.5;
  double bonds_moving_average = 0.9;
  double bonds_penalty = 1.0;
  bool liquid_alpha = false;
  double alpha_low = 0.7;
  double alpha_high = 0.9;
  bool commit_reveal = false;
  std::int64_t max_allowed_validators = 64;
  std::int64_t max_allowed_uids = 256;
  std::int64_t immunity_period = 5000;
  std::int64_t weights_set_rate_limit = 100;
  std::int64_t min_allowed_weights = 1;
  double owner_cut = 0.18;
  double tao_weight = 0.18;
  double take = 0.18;
  std::int64_t stake_threshold = 0;
  std::int64_t min_burn = 500'000;
  std::int64_t network_lock = 1'000'000'000'000;
  std::int64_t network_rate_limit = 7'200;
  std::int64_t epochs_per_block = 2;
  std::int64_t proposal_delay = 7'200;
  bool emission_enabled = true;

  template <typename Visitor>
  void visit(Visitor& option) {
    constexpr double kRaoMax = 21e15;
    option("blocks", blocks,
           {.choices = "newest|spec233", .help = "which release's block rules to follow"});
    option("pool", pool, {.choices = "balancer|constant_product", .help = "how swaps are priced"});
    option("shares", shares,
           {.choices = "price|price_burn|flow",
            .help = "what a subnet's part of the emission follows"});
    option("schedule", schedule,
           {.choices = "stateful|modular",
            .help = "when epochs fall: a period of tempo or tempo + 1"});
    option("tempo", tempo, {.unit = "blocks", .min = 0, .max = 50'400, .help = "between epochs"});
    option("yuma", yuma, {.min = 2, .max = 3, .help = "version of Yuma consensus"});
    option("kappa", kappa,
           {.unit = "share", .min = 0, .max = 1, .help = "stake a consensus needs"});
    option("bonds_moving_average", bonds_moving_average,
           {.unit = "share",
            .min = 0,
            .max = 0.975,
            .help = "how much of the old bonds an epoch keeps"});
    option("bonds_penalty", bonds_penalty,
           {.unit = "share",
            .min = 0,
            .max = 1,
            .help = "1: bonds follow clipped weights; 0: unclipped"});
    option("liquid_alpha", liquid_alpha, {.help = "let the bonds' rate vary by cell"});
    option("alpha_low", alpha_low,
           {.unit = "share", .min = 0, .max = 1, .help = "least rate of liquid alpha"});
    option("alpha_high", alpha_high,
           {.unit = "share", .min = 0, .max = 1, .help = "largest rate of liquid alpha"});
    option("commit_reveal", commit_reveal,
           {.help = "weights are committed first and revealed later"});
    option("max_allowed_validators", max_allowed_validators,
           {.min = 1, .max = 4096, .help = "permits a subnet gives"});
    option("max_allowed_uids", max_allowed_uids,
           {.min = 1, .max = 4096, .help = "neurons a subnet holds"});
    option("immunity_period", immunity_period,
           {.unit = "blocks",
            .min = 0,
            .max = 65'535,
            .help = "in which a new neuron is not replaced"});
    option("weights_set_rate_limit", weights_set_rate_limit,
           {.unit = "blocks",
            .min = 0,
            .max = 1'000'000,
            .help = "between two weight calls of one hotkey"});
    option("min_allowed_weights", min_allowed_weights,
           {.min = 0, .max = 65'535, .help = "entries a weight call needs"});
    option("owner_cut", owner_cut,
           {.unit = "share", .min = 0, .max = 1, .help = "of the alpha, to the owner"});
    option("tao_weight", tao_weight,
           {.unit = "share", .min = 0, .max = 1, .help = "of root stake against alpha"});
    option("take", take,
           {.unit = "share", .min = 0, .max = 1, .help = "of dividends, kept by a new delegate"});
    option("stake_threshold", stake_threshold,
           {.unit = "rao", .min = 0, .max = kRaoMax, .help = "stake needed to set weights"});
    option("min_burn", min_burn,
           {.unit = "rao", .min = 0, .max = kRaoMax, .help = "least price of a registration"});
    option("network_lock", network_lock,
           {.unit = "rao", .min = 0, .max = kRaoMax, .help = "least price of a subnet"});
    option("network_rate_limit", network_rate_limit,
           {.unit = "blocks",
            .min = 0,
            .max = 10'000'000,
            .help = "between two registrations of subnets"});
    option("epochs_per_block", epochs_per_block,
           {.min = 1, .max = 65'535, .help = "the others wait a block"});
    option("proposal_delay", proposal_delay,
           {.unit = "blocks",
            .min = 1,
            .max = 10'000'000,
            .help = "from a proposal to its vote's count"});
    option(
        "emission_enabled", emission_enabled,
        {.help = "a started subnet gets TAO at once; the chain's new subnets wait for its root"});
  }
};

// Parameters as the rules read them. A share is floored to the chain's integer.
NetworkParameters network_parameters(const LedgerOptions& options);
SubnetParameters subnet_parameters(const LedgerOptions& options);

// One neuron's part of an epoch, rao of alpha. A validator's dividends are what its own account
// gets (take, own stake's part excepted) and what all stakers behind it get.
struct Payout {
  std::uint16_t uid = 0;
  AccountId hotkey{};
  std::uint64_t incentive = 0;       // paid or withheld
  bool withheld = false;             // the owner's own miner: not paid
  std::uint64_t dividend_alpha = 0;  // to all stakers of the hotkey, take included
  std::uint64_t dividend_root = 0;   // alpha for root stakers, to be claimed, take included
  std::uint64_t take = 0;            // of both, to the hotkey's owner
  std::uint64_t emission = 0;        // what the metagraph shows
};

struct EpochReport {
  std::uint16_t netuid = 0;
  std::uint64_t block = 0;
  bool skipped = false;   // duplicate hotkeys: the money waits
  bool deferred = false;  // too many epochs in this block: tried again in the next
  std::uint64_t owner_cut = 0;
  std::vector<Payout> payouts;  // by uid
};

struct BlockReport {
  std::uint64_t block = 0;
  std::uint64_t tao_emission = 0;  // minted and kept, rao
  std::vector<EpochReport> epochs;
};

class Ledger {
 public:
  explicit Ledger(const LedgerOptions& options = {});

  const LedgerState& state() const { return state_; }
  const SubnetParameters& new_subnet_parameters() const { return new_subnet_; }

  // Applies an operation between two blocks. A refusal changes nothing and is named as on the chain.
  Outcome<Done> apply(const Operation& operation);

  // Advances one block. Throws Error{invariant_broken}, naming the account that does not add up.
  BlockReport step_block();

  // What the next epoch of a subnet would pay if it ran after the next block; applies nothing. With
  // `operations`, as if they were applied first (refused ones are left out).
  EpochReport preview(std::uint16_t netuid, const std::vector<Operation>& operations = {}) const;

  // Adds every account up again, also those no block has touched. Throws Error{invariant_broken}.
  void audit() const;

  // The whole state as bytes: version, state, digest. Equal states give equal bytes.
  Bytes snapshot() const;
  // Throws Error{checkpoint_corrupt} on a wrong digest or malformed bytes and Error{version_mismatch}.
  static Ledger restore(ByteView bytes);
  Digest digest() const;

  // For replaying a recorded run under another rule: sets a parameter of a subnet (or, without
  // netuid, of the network and of new subnets) past its owner. False if there is no such value.
  bool override_parameter(std::optional<std::uint16_t> netuid, const std::string& name,
                          std::uint64_t value);

  // For vectors and simulations that start from a given state. The state is audited.
  static Ledger from_state(LedgerState state, const SubnetParameters& new_subnet = {});

 private:
  LedgerState state_;
  SubnetParameters new_subnet_;
};

// The first place where two states differ, in words, with both values where they are numbers; "" if they
// are equal. Accounts are named by the hex digits of their keys.
std::string first_difference(const LedgerState& recorded, const LedgerState& computed);

}  // namespace yumoe::ledger

#pragma once
// Everything the ledger knows, as plain data. Ledger (ledger.hpp) is the only one to change it;
// readers, previews and simulations look at it. Names follow the chain's storage.
//
// Amounts are rao, times are blocks. Each struct lists its fields once, in visit(): snapshots, their
// digest and their decoder are all that list.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "coordinator/coinbase.hpp"
#include "coordinator/epoch.hpp"
#include "coordinator/fixed.hpp"
#include "coordinator/ledger_parameters.hpp"
#include "coordinator/pool.hpp"
#include "coordinator/share_pool.hpp"
#include "coordinator/weights.hpp"

namespace yumoe::ledger {

inline constexpr std::uint16_t kRootNetuid = 0;

// One registered hotkey of a subnet; its uid is its index. What the last epoch said of it.
struct Neuron {
  AccountId hotkey{};
  std::uint64_t registered_at = 0;
  bool active = true;
  bool permit = false;
  std::uint16_t stake_weight = 0;
  std::uint16_t consensus = 0;
  std::uint16_t dividends = 0;
  std::uint16_t validator_trust = 0;
  std::uint64_t emission = 0;

  friend bool operator==(const Neuron&, const Neuron&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(hotkey, registered_at, active, permit, stake_weight, consensus, dividends,
            validator_trust, emission);
  }
};

// What is kept apart for each mechanism of a subnet; vectors have one entry a uid.
struct Mechanism {
  std::vector<std::uint16_t> incentive;
  std::vector<std::uint64_t> last_update;
  std::vector<Row> weights;
  std::vector<Row> bonds;
  WeightCommits commits;

  friend bool operator==(const Mechanism&, const Mechanism&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(incentive, last_update, weights, bonds, commits);
  }
};

// A key one delegates stake to, or receives it from.
struct Relation {
  std::uint64_t proportion = 0;  // / (2^64-1)
  AccountId key{};
  friend bool operator==(const Relation&, const Relation&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(proportion, key);
  }
};

struct PendingChildren {
  std::uint64_t due_block = 0;
  std::vector<Relation> children;
  friend bool operator==(const PendingChildren&, const PendingChildren&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(due_block, children);
  }
};

// What one hotkey did on one subnet beside being staked to.
struct Family {
  std::vector<Relation> children;
  std::vector<Relation> parents;
  std::optional<PendingChildren> pending;
  std::optional<std::uint16_t> childkey_take;
  std::uint64_t childkey_take_block = 0;
  std::uint64_t children_block = 0;

  bool empty() const {
    return children.empty() && parents.empty() && !pending && !childkey_take && children_block == 0;
  }
  friend bool operator==(const Family&, const Family&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(children, parents, pending, childkey_take, childkey_take_block, children_block);
  }
};

// Root dividends of one hotkey on one subnet: alpha owed a rao of root stake, and what each
// nominator has had.
struct RootClaim {
  I96F32 rate;
  std::map<AccountId, UInt128> claimed;
  friend bool operator==(const RootClaim&, const RootClaim&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(rate, claimed);
  }
};

// Alpha that is issued but not staked.
struct PendingAlpha {
  std::uint64_t server = 0;
  std::uint64_t validator = 0;
  std::uint64_t root = 0;
  std::uint64_t owner_cut = 0;
  friend bool operator==(const PendingAlpha&, const PendingAlpha&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(server, validator, root, owner_cut);
  }
};

struct Subnet {
  std::uint16_t netuid = 0;
  SubnetParameters parameters;
  AccountId owner_coldkey{};
  AccountId owner_hotkey{};
  std::uint64_t registered_at = 0;
  std::uint64_t locked = 0;  // TAO given for the registration

  // Pool and alpha.
  bool dynamic = true;  // mechanism 1; false: alpha is TAO, price 1
  Reserves reserves;
  std::uint64_t alpha_out = 0;
  std::uint64_t protocol_alpha = 0;  // bought with excess emission: outstanding, without an owner
  std::uint64_t volume = 0;
  PendingAlpha pending;
  std::int64_t alpha_root_owed = 0;  // behind all root claims; dust may leave it below 0
  std::int64_t alpha_adrift = 0;     // what the payout rules leave to nobody (or overpay)
  I96F32 moving_price;
  U96F32 miner_burned;
  U96F32 root_proportion;
  std::int64_t user_flow = 0;
  std::int64_t protocol_flow = 0;
  I64F64 user_flow_average;
  I64F64 protocol_flow_average;
  std::uint64_t tao_in_emission = 0;
  std::uint64_t alpha_in_emission = 0;
  std::uint64_t alpha_out_emission = 0;

  // Schedule.
  std::optional<std::uint64_t> first_emission_block;
  bool subtoken_enabled = false;
  std::uint64_t last_epoch_block = 0;
  std::uint64_t pending_epoch_at = 0;  // 0: none
  std::uint64_t epoch_index = 0;
  std::uint64_t blocks_since_last_step = 0;
  std::uint64_t last_step_block = 0;

  // Registration.
  std::uint64_t burn = 0;
  std::uint16_t registrations_this_block = 0;
  std::uint16_t registrations_this_interval = 0;
  std::uint64_t registration_recycled = 0;  // rao

  std::vector<Neuron> neurons;
  std::map<AccountId, std::uint16_t> uids;
  std::vector<Mechanism> mechanisms{1};
  std::vector<std::uint16_t> emission_split;
  std::map<AccountId, SharePool> stakes;                  // by hotkey
  std::map<AccountId, Family> families;                   // by hotkey
  std::map<AccountId, RootClaim> claims;                  // by hotkey
  std::map<AccountId, std::uint64_t> alpha_dividends;     // of the last epoch
  std::map<std::string, std::uint64_t> parameter_blocks;  // when the owner last set it

  // Spec 233 only.
  std::uint64_t pending_emission = 0;
  std::uint64_t pending_root_tao = 0;
  std::uint64_t pending_alpha_swapped = 0;
  std::map<AccountId, std::uint64_t> tao_dividends;  // of the last epoch

  friend bool operator==(const Subnet&, const Subnet&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(netuid, parameters, owner_coldkey, owner_hotkey, registered_at, locked);
    archive(dynamic, reserves.alpha, reserves.tao, reserves.quote_weight, alpha_out, protocol_alpha,
            volume, pending, alpha_root_owed, alpha_adrift, moving_price, miner_burned,
            root_proportion, user_flow, protocol_flow, user_flow_average, protocol_flow_average,
            tao_in_emission, alpha_in_emission, alpha_out_emission);
    archive(first_emission_block, subtoken_enabled, last_epoch_block, pending_epoch_at, epoch_index,
            blocks_since_last_step, last_step_block);
    archive(burn, registrations_this_block, registrations_this_interval, registration_recycled);
    archive(neurons, uids, mechanisms, emission_split, stakes, families, claims, alpha_dividends,
            parameter_blocks);
    archive(pending_emission, pending_root_tao, pending_alpha_swapped, tao_dividends);
  }
};

struct Hotkey {
  AccountId coldkey{};  // owner, for good
  std::optional<std::uint16_t> take;
  std::uint64_t take_block = 0;  // of the last increase
  friend bool operator==(const Hotkey&, const Hotkey&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(coldkey, take, take_block);
  }
};

enum class ClaimKind : std::uint8_t { swap, keep, keep_subnets };

struct Coldkey {
  std::uint64_t free = 0;
  ClaimKind claim = ClaimKind::swap;
  std::set<std::uint16_t> keep;  // for keep_subnets
  std::set<AccountId> staking_hotkeys;
  std::map<std::uint16_t, AccountId> autostake;  // netuid -> hotkey
  friend bool operator==(const Coldkey&, const Coldkey&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(free, claim, keep, staking_hotkeys, autostake);
  }
};

// A change of a network parameter, decided by root stake and enacted after a delay.
struct Proposal {
  std::string name;
  std::uint64_t value = 0;
  std::uint64_t proposed_at = 0;
  std::map<AccountId, bool> votes;  // coldkey -> for or against
  friend bool operator==(const Proposal&, const Proposal&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(name, value, proposed_at, votes);
  }
};

struct LedgerState {
  NetworkParameters parameters;
  std::uint64_t block = 0;
  std::uint64_t issuance = 0;  // rao in existence
  std::uint64_t total_stake = 0;
  std::uint64_t burned = 0;  // rao nobody can spend, still counted in issuance
  std::uint64_t last_lock = 0;
  std::uint64_t last_lock_block = 0;
  std::uint64_t last_network_block = 0;
  bool network_registered = false;
  std::uint64_t next_proposal = 1;
  std::optional<AccountId> author;  // who is paid swap fees
  std::uint64_t pulse_round = 0;    // newest round of the public beacon that is known

  std::map<std::uint16_t, Subnet> subnets;
  std::map<AccountId, Hotkey> hotkeys;
  std::map<AccountId, Coldkey> coldkeys;
  std::vector<AccountId> root_nominators;  // in order of first root stake
  std::map<std::uint64_t, Proposal> proposals;

  friend bool operator==(const LedgerState&, const LedgerState&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(parameters, block, issuance, total_stake, burned, last_lock, last_lock_block,
            last_network_block, network_registered, next_proposal, author, pulse_round);
    archive(subnets, hotkeys, coldkeys, root_nominators, proposals);
  }
};

// The last enumerator of each choice, for whoever reads one from bytes.
constexpr ClaimKind last_of(ClaimKind) { return ClaimKind::keep_subnets; }
constexpr BlockRule last_of(BlockRule) { return BlockRule::spec233; }
constexpr PoolRule last_of(PoolRule) { return PoolRule::constant_product; }
constexpr EmissionRule last_of(EmissionRule) { return EmissionRule::flow; }
constexpr ScheduleRule last_of(ScheduleRule) { return ScheduleRule::modular; }

}  // namespace yumoe::ledger

#pragma once
// What a block mints and where it goes, as pure functions of plain numbers: the emission curve, the
// subnets' shares, pool terms, pending buckets, moving prices, registration prices and the split of
// dividends. Source: the chain's coinbase, newest rules; all rounding is that of fixed.hpp.

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "coordinator/fixed.hpp"
#include "coordinator/share_pool.hpp"

namespace yumoe::ledger {

// TAO (of issuance) or alpha (of alpha_in + alpha_out) minted in a block: 10^9 rao, halved with
// every half of the remaining supply, 0 from 21*10^15 on.
std::uint64_t block_emission(std::uint64_t issuance);

// (root_tao*w) / (root_tao*w + alpha_in + alpha_out); 0 if the denominator is.
U96F32 root_proportion(std::uint64_t root_tao, U96F32 tao_weight, std::uint64_t alpha_in,
                       std::uint64_t alpha_out);

struct ShareInput {
  I96F32 moving_price;  // 1 for a stable pool
  U96F32 miner_burned;  // withheld / total incentive of the last epoch
  bool enabled = true;  // the subnet's emission switch
};

// Shares of the block's TAO by moving price, optionally times (1 - miner_burned). They sum to at
// most 1; all 0 when no price is above 0 or all are disabled.
std::vector<U64F64> emission_shares(std::span<const ShareInput> subnets, bool weigh_by_burn);
// The emission switch alone: the disabled ones' part goes to the others in proportion.
void redistribute_disabled(std::vector<U64F64>& shares, const std::vector<bool>& enabled);

struct Flow {
  I64F64 user;  // moving averages of rao a block
  I64F64 protocol;
};

// Next moving average of a flow. Half-life 216,000 blocks.
I64F64 flow_average(I64F64 old, std::int64_t flow);
// Shares by net flow: negative flows and those under the cutoff get nothing.
std::vector<U64F64> flow_shares(std::span<const Flow> flows, I64F64 cutoff, U64F64 exponent);
// Scales to a largest value of 1, raises to `exponent` and normalises. Leaves zeros as they are.
void pow_normalise(std::vector<U64F64>& values, U64F64 exponent);

struct PoolTerms {
  U96F32 tao_in;
  U96F32 alpha_in;
  U96F32 excess;  // TAO that buys alpha instead of being injected
};

// How a subnet's TAO emission enters its pool, with the injected alpha capped at
// root_proportion * alpha_emission.
PoolTerms pool_terms(U96F32 tao_emission, U64F64 price, U96F32 root_proportion,
                     std::uint64_t alpha_emission);

struct PendingSplit {
  std::uint64_t owner_cut = 0;
  std::uint64_t server = 0;
  std::uint64_t validator = 0;
  std::uint64_t root = 0;
};

// Splits a block's alpha into what owner, miners, validators and root are due; each part floored.
PendingSplit split_alpha(std::uint64_t alpha_out, bool owner_cut_enabled, std::uint16_t owner_cut,
                         U96F32 root_proportion);

// Moving price after a block with the given spot price, fed at most 1.
I96F32 moving_price_after(I96F32 old, U64F64 spot, I96F32 alpha, std::uint64_t block,
                          std::uint64_t first_emission_block, std::uint64_t halving_blocks);

// Factor / 2^32 a registration price is multiplied with each block; 2^32 for half_life 0.
std::uint64_t decay_factor(std::uint16_t half_life);
std::uint64_t decayed_price(std::uint64_t burn, std::uint16_t half_life, std::uint64_t burn_min,
                            std::uint64_t burn_max);
std::uint64_t raised_price(std::uint64_t burn, U64F64 factor, std::uint64_t burn_min,
                           std::uint64_t burn_max);

// Own stake of a hotkey on one subnet and on root.
struct OwnStake {
  std::uint64_t alpha = 0;
  std::uint64_t tao = 0;
};

struct ParentShare {
  std::uint64_t proportion = 0;  // / (2^64-1)
  OwnStake stake;
  bool same_owner = false;  // as the child's coldkey: no take and no burn between them
};

struct ParentDividends {
  std::uint64_t own = 0;               // with the takes
  std::vector<std::uint64_t> parents;  // in the order given
  std::uint64_t burned = 0;            // childkey burn, recycled
};

// Shares one hotkey's dividend with its parents by what they contributed to its stake.
ParentDividends divide_among_parents(std::uint64_t dividend, const OwnStake& own,
                                     std::span<const std::uint64_t> children,
                                     std::span<const ParentShare> parents, U96F32 tao_weight,
                                     U96F32 childkey_take, U96F32 childkey_burn);

// Splits the validators' and the root bucket among hotkeys by dividend and own stake.
struct DividendSplit {
  std::map<AccountId, U96F32> alpha;
  std::map<AccountId, U96F32> root;
};
DividendSplit split_dividends(const std::map<AccountId, U96F32>& dividends,
                              const std::map<AccountId, OwnStake>& stakes,
                              std::uint64_t pending_alpha, std::uint64_t pending_root,
                              U96F32 tao_weight);

// Lock cost of the next network. `tao_emission` is the block's.
std::uint64_t network_lock_cost(std::uint64_t last_lock, std::uint64_t last_block,
                                std::uint64_t min_lock, std::uint64_t reduction_interval,
                                std::uint64_t tao_emission, std::uint64_t block);

}  // namespace yumoe::ledger

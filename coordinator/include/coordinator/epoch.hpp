#pragma once
// Yuma consensus: one epoch turns the validators' weights into incentives, dividends and emission,
// exactly as the chain does, to the last unit.
//
// run_epoch is a pure function. uid is the index of every vector; all vectors have length n.
// Amounts are rao, times are blocks, u16 numbers mean v / 65535. Nothing is rounded but by the
// chain's own floors, so two machines agree. Ties: among equal stakes the higher uid gets the
// permit. Source: ledger specification, sections 4, 5 and 6; older rules by its section 18. Cost:
// linear in the stored weights and bonds; dense matrices go through vector kernels
// (docs/ledger.md).

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "coordinator/fixed.hpp"

namespace yumoe::ledger {

// One stored weight or bond, in the order of the call that set it. A row names a uid at most once.
struct Entry {
  std::uint16_t uid = 0;
  std::uint16_t value = 0;
  friend constexpr bool operator==(const Entry&, const Entry&) = default;
};
using Row = std::vector<Entry>;

// What the liquid-alpha switch turns on: a rate a column from quantiles of the consensus (with Yuma
// 2, until spec 273), or a rate a cell by a sigmoid (with Yuma 3).
enum class LiquidAlpha { quantile, cell };

// The rules that changed over the chain's life. newest() is spec 425.
struct EpochRules {
  LiquidAlpha liquid = LiquidAlpha::cell;
  bool owner_exempt = true;  // owner: no stake threshold, always a permit, own weight counts
  bool stake_threshold_in_epoch = true;   // stake under the threshold counts as 0
  bool permit_needs_stake = true;         // else the top k hold permits even with zero stake
  bool bonds_masked_by_last_step = true;  // else by the validator's own last update
  bool commits_mask_weights =
      true;                 // weights to uids younger than the oldest open commit are dropped
  bool old_scores = false;  // fill MechanismOutput's trust and pruning_scores

  static constexpr EpochRules newest() { return {}; }
  static constexpr EpochRules spec233() {
    return {LiquidAlpha::quantile, false, false, false, false, false, true};
  }
  static constexpr EpochRules spec148() { return spec233(); }
};

struct EpochParameters {
  int yuma = 3;  // 2 or 3
  std::uint16_t kappa = 32767;
  std::uint16_t bonds_penalty = 65535;  // 65535: bonds follow clipped weights; 0: unclipped
  std::uint64_t bonds_moving_average = 900'000;  // memory in millionths, at most 1'000'000
  bool liquid_alpha = false;
  std::uint16_t alpha_low = 45875;
  std::uint16_t alpha_high = 58982;
  std::int16_t alpha_sigmoid_steepness = 1000;
  std::uint16_t max_allowed_validators = 64;
  std::uint64_t activity_cutoff = 5000;  // blocks: max(1, factor_milli * tempo / 1000)
  std::uint16_t tempo = 360;
  std::uint64_t stake_threshold = 0;
  bool commit_reveal = false;
};

inline constexpr std::uint64_t kNoCommit = ~std::uint64_t{0};

// What is kept apart for each mechanism of a subnet.
struct MechanismInput {
  std::vector<std::uint64_t> last_update;  // shorter than n: padded with 0
  std::vector<Row> weights;                // n rows; uids >= n are ignored
  std::vector<Row> bonds;                  // n rows
  std::vector<std::uint64_t>
      first_commit;  // block of the oldest open commit or kNoCommit; empty: none
};

struct EpochInput {
  EpochRules rules;
  EpochParameters parameters;
  std::uint64_t block = 0;
  std::uint64_t last_step_block = 0;  // 0: never
  std::uint64_t emission = 0;         // rao to hand out
  std::optional<std::uint16_t> owner_uid;
  std::vector<I64F64> stake;  // total_stake(); its length is n
  std::vector<std::uint64_t> registered_at;
  std::vector<std::uint8_t> permit;  // stored permits: new ones take effect in the next epoch
  std::vector<std::uint16_t> emission_split;  // over mechanisms, sums to 65535; empty: even
  std::vector<MechanismInput> mechanisms;     // at least one
};

struct MechanismOutput {
  std::vector<std::uint16_t> incentive;
  std::vector<Row> bonds;
  // Stored until spec 365 and filled only by rules with old_scores. The old Rank equals the
  // incentive.
  std::vector<std::uint16_t> trust;
  std::vector<std::uint16_t> pruning_scores;
};

struct EpochOutput {
  std::vector<std::uint8_t> active;
  std::vector<std::uint8_t> permit;
  std::vector<std::uint16_t> stake_weight;
  std::vector<std::uint16_t> consensus;
  std::vector<std::uint16_t> dividends;
  std::vector<std::uint16_t> validator_trust;
  std::vector<std::uint64_t> emission;            // combined
  std::vector<std::uint64_t> server_emission;     // paid to miners as it is
  std::vector<std::uint64_t> validator_emission;  // proportions for the validators' buckets
  std::vector<std::uint64_t> stake;
  std::vector<MechanismOutput> mechanisms;
};

// Throws Error{config_invalid} when vectors disagree in length, a row names a uid twice, n exceeds
// 65535 or a parameter is out of its range. Deterministic; never reads anything but its input.
EpochOutput run_epoch(const EpochInput& input);

// As run_epoch, keeping its working memory from epoch to epoch and reusing that of `out`: for
// whoever runs many. About 10 bytes a cell of the largest dense weight matrix. The results never
// depend on earlier runs, not even failed ones.
class EpochRunner {
 public:
  EpochRunner();
  ~EpochRunner();
  EpochRunner(EpochRunner&&) noexcept;
  EpochRunner& operator=(EpochRunner&&) noexcept;
  void run(const EpochInput& input, EpochOutput& out);

 private:
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
};

// Stake entering the epoch (section 4).

struct ParentStake {
  std::uint64_t proportion = 0;  // of 2^64 - 1
  std::uint64_t stake = 0;       // the parent's own, rao
};

// own - what the children take + what the parents lend; children first, every product floored at
// 2^-32.
std::uint64_t inherited_stake(std::uint64_t own, std::span<const std::uint64_t> child_proportions,
                              std::span<const ParentStake> parents);

// alpha + tao * weight, where tao_weight is a share of 2^64 - 1 with 32 fraction bits.
I64F64 total_stake(std::uint64_t alpha, std::uint64_t tao, std::uint64_t tao_weight);

// Mechanisms (section 6).

inline constexpr std::uint16_t kMechanismStride = 4096;
constexpr std::uint16_t mechanism_index(std::uint16_t netuid, std::uint8_t mechanism) {
  return static_cast<std::uint16_t>(mechanism * kMechanismStride + netuid);
}

// floor(emission * split / 65535), or equal parts when split is empty; the remainder goes to the
// first.
std::vector<std::uint64_t> split_emission(std::uint64_t emission, std::size_t count,
                                          std::span<const std::uint16_t> split);

// Parts of the epoch that other rules and readers share.

// Marks the k largest, equal ones in favour of the higher index.
std::vector<std::uint8_t> largest_k(std::span<const I32F32> values, std::size_t k);

// The bonds' learning rate of one cell (Yuma 3 liquid alpha).
I32F32 liquid_rate(I32F32 consensus, I32F32 weight, I32F32 bond, I32F32 low, I32F32 high,
                   std::int16_t steepness);

// u16 of a share: floor, never rounded.
constexpr std::uint16_t share_to_u16(I32F32 share) {
  return share.saturating_mul(I32F32::from_integer(65535)).to_u16();
}

// Scales so that the largest is 65535, rounding halves away from zero; all zeros stay zeros.
std::vector<std::uint16_t> upscale_to_u16(std::span<const I32F32> values);

// Blocks until the next epoch by the clock alone; the maximum of u64 when tempo is 0 (never).
constexpr std::uint64_t blocks_until_next_auto_epoch(std::uint16_t tempo,
                                                     std::uint64_t last_epoch_block,
                                                     std::uint64_t block) {
  if (tempo == 0) return ~std::uint64_t{0};
  const std::uint64_t next = last_epoch_block + tempo;
  return next > block ? next - block : 0;
}

// The schedule until spec 403, whose period is tempo + 1.
constexpr std::uint64_t legacy_first_block_of_epoch(std::uint16_t netuid, std::uint16_t tempo,
                                                    std::uint64_t epoch) {
  const std::uint64_t start = epoch * (std::uint64_t{tempo} + 1);
  return start > netuid ? start - netuid - 1 : 0;
}

}  // namespace yumoe::ledger

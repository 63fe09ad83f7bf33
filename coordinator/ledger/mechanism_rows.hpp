#pragma once
// What a mechanism's epoch knows before it looks at a single weight, and what its sparse and dense
// tables share.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "coordinator/epoch.hpp"
#include "ledger/mechanism.hpp"
#include "ledger/row_kernels.hpp"

namespace yumoe::ledger {

constexpr std::uint64_t bits_of(I32F32 share) { return static_cast<std::uint64_t>(share.bits()); }
constexpr I32F32 share_of(std::uint64_t bits) {
  return I32F32::from_bits(static_cast<std::int64_t>(bits));
}

// Column sums with their reciprocals.
struct ColumnDivisors {
  void reset(std::size_t columns) {
    by.assign(columns, 0);
    reciprocal.resize(columns);
  }
  void finish() { finish(0, by.size()); }
  void finish(std::size_t first, std::size_t width) {
    for (std::size_t j = first; j < first + width; ++j) {
      if (by[j] == 0) by[j] = 1;
      reciprocal[j] = 0x1p32 / static_cast<double>(by[j]);
    }
  }
  Divisors from(std::size_t first) const { return {by.data() + first, reciprocal.data() + first}; }

  std::vector<std::uint64_t> by;
  std::vector<double> reciprocal;
};

// Memory for numbers that are written before they are read.
template <typename T>
class Buffer {
 public:
  void resize(std::size_t size) {
    if (size <= capacity_) return;
    data_ = std::make_unique_for_overwrite<T[]>(size);
    capacity_ = size;
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }

 private:
  std::unique_ptr<T[]> data_;
  std::size_t capacity_ = 0;
};

// The rows with active stake: they vote in every column.
struct Voters {
  static constexpr std::uint32_t kNoRow = ~std::uint32_t{0};
  std::vector<std::uint32_t> row;    // live row, or kNoRow: votes 0 everywhere
  std::vector<std::uint32_t> stake;  // share of all voters' stake; with one voter not a share but 0
  std::int64_t threshold = 0;        // stake above the median stays under this
};

// The rows of one mechanism. Live rows are those with a weight that counts or a bond.
class MechanismRows {
 public:
  // Forgets the mechanism before; keeps its memory.
  void begin(const EpochInput& input, const MechanismInput& mechanism, const EpochStake& shared,
             std::vector<Row> bonds);

  const EpochParameters& parameters() const { return input->parameters; }
  bool is_exempt_owner(std::size_t uid) const {
    return input->rules.owner_exempt && input->owner_uid && *input->owner_uid == uid;
  }
  // The column of itself that a validator may not weigh, or n.
  std::size_t self_column(std::uint32_t uid) const { return is_exempt_owner(uid) ? n : uid; }
  // Columns registered from this block on are dropped from the row.
  std::uint64_t weights_registered_before(std::uint32_t uid) const;
  std::uint64_t bonds_registered_before(std::uint32_t uid) const;
  std::uint32_t penalty() const {
    return pack_share(bits_of(share_of_u16(parameters().bonds_penalty)));
  }
  std::uint64_t stake_of(std::size_t live_row) const {
    return bits_of(out.active_stake[live[live_row]]);
  }
  // A learning rate a column: the constant one, or by quantiles of the consensus.
  std::vector<std::uint64_t> column_rates() const;

  // consensus (packed) and rank sums to shares.
  void store_consensus(std::span<const std::uint32_t> consensus);
  void store_incentive(std::span<const std::uint64_t> rank,
                       std::span<const std::uint64_t> unclipped_rank);
  void store_dividends(std::span<const std::uint64_t> sums);  // by live row

  const EpochInput* input = nullptr;
  const MechanismInput* mechanism = nullptr;
  const EpochStake* shared = nullptr;
  std::size_t n = 0;
  std::uint64_t newest_registration = 0;
  std::vector<std::uint32_t> live;  // uids
  std::size_t stored = 0;           // entries in live rows
  Voters voters;
  std::vector<std::uint64_t> incentive;
  MechanismShares out;

 private:
  std::uint64_t last_update(std::size_t uid) const;
  void find_active();
  void find_live();
  void find_voters();
};

[[noreturn]] void refuse_repeated_uid();

}  // namespace yumoe::ledger

#include "ledger/mechanism.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "cluster/error.hpp"
#include "ledger/consensus.hpp"
#include "ledger/liquid.hpp"
#include "ledger/row_kernels.hpp"

namespace yumoe::ledger {
namespace {

constexpr std::uint64_t bits_of(I32F32 share) { return static_cast<std::uint64_t>(share.bits()); }
constexpr I32F32 share_of(std::uint64_t bits) { return I32F32::from_bits(static_cast<std::int64_t>(bits)); }

// Column sums with their reciprocals.
class ColumnDivisors {
 public:
  void reset(std::size_t n) {
    by.assign(n, 0);
    reciprocal.resize(n);
  }
  void finish() { finish(0, by.size()); }
  void finish(std::size_t first, std::size_t width) {
    for (std::size_t j = first; j < first + width; ++j) {
      if (by[j] == 0) by[j] = 1;
      reciprocal[j] = 0x1p32 / static_cast<double>(by[j]);
    }
  }
  std::vector<std::uint64_t> by;
  std::vector<double> reciprocal;
  Divisors from(std::size_t first) const { return {by.data() + first, reciprocal.data() + first}; }
};

// The rows of a table with their columns (sparse) or with a cell for every column (dense).
struct Span {
  std::size_t first = 0;
  std::size_t count = 0;
};

// As the kernels read and write entries: one word of 32 bits, the uid in its low half.
static_assert(sizeof(Entry) == 4 && std::endian::native == std::endian::little);

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

 private:
  std::unique_ptr<T[]> data_;
  std::size_t capacity_ = 0;
};

}  // namespace

class MechanismRun {
 public:
  MechanismShares run(const EpochInput& input, const MechanismInput& mechanism, const EpochStake& shared,
                      std::vector<Row> bonds) {
    in_ = &input;
    m_ = &mechanism;
    shared_ = &shared;
    n_ = input.stake.size();
    out_ = {};
    out_.bonds = std::move(bonds);
    out_.bonds.resize(n_);
    for (Row& row : out_.bonds) row.clear();
    find_active();
    choose_layout();
    read_weights();
    find_consensus();
    rank();
    read_bonds();
    if (dense_) {
      dense_bonds();
    } else if (in_->parameters.yuma == 3) {
      is_liquid_ ? liquid_bonds() : absolute_bonds();
      absolute_dividends();
    } else {
      relative_bonds();
    }
    return std::move(out_);
  }

 private:
  std::uint64_t last_update(std::size_t i) const { return i < m_->last_update.size() ? m_->last_update[i] : 0; }
  bool is_exempt_owner(std::size_t i) const {
    return in_->rules.owner_exempt && in_->owner_uid && *in_->owner_uid == i;
  }

  void find_active();
  void choose_layout();
  void read_weights();
  void read_weight_row(std::uint32_t i);
  std::uint64_t weights_registered_before(std::uint32_t i) const;
  void fill_cells(const Row& stored, std::uint64_t registered_before, std::size_t self);
  [[noreturn]] static void refuse_twice();
  void read_bonds();
  void read_bond_row(std::uint32_t i);
  std::span<const Entry> kept(const Row& stored, std::uint64_t registered_before, std::size_t self);
  void find_consensus();
  void sparse_medians(std::span<const std::uint32_t> rows, std::span<const std::uint32_t> stake,
                      std::int64_t threshold);
  void rank();
  void dense_bonds();
  void dense_tile(std::size_t first, std::size_t width, const std::vector<std::uint64_t>& rates);
  void relative_bonds();
  void absolute_bonds();
  void liquid_bonds();
  void liquid_row(std::size_t row);
  void absolute_dividends();
  std::vector<std::uint64_t> column_rates() const;
  const std::uint32_t* weight_row(Span row) { return (dense_ ? dense_weights_.data() : weights_.data()) + row.first; }
  void store_bonds(std::size_t row, std::span<const std::uint64_t> bonds, std::span<const std::uint16_t> u16);

  // Puts the weights for bonds and the raw bonds of a live row side by side, over the columns that either names.
  void align(std::size_t row);
  // A column vector over the columns of the aligned row.
  template <typename T>
  const T* over(const std::vector<T>& all, std::vector<T>& scratch) const {
    if (dense_) return all.data();
    scratch.resize(std::max(scratch.size(), columns_.size()));
    for (std::size_t k = 0; k < columns_.size(); ++k) scratch[k] = all[columns_[k]];
    return scratch.data();
  }
  Divisors over(const ColumnDivisors& all, std::size_t slot) {
    return {over(all.by, scratch64_[slot]), over(all.reciprocal, scratch_double_[slot])};
  }
  template <typename Change>
  void change_columns(std::vector<std::uint64_t>& all, Change change) {
    if (dense_) {
      change(all.data());
      return;
    }
    std::vector<std::uint64_t>& part = scratch64_[7];
    part.resize(std::max(part.size(), columns_.size()));
    for (std::size_t k = 0; k < columns_.size(); ++k) part[k] = all[columns_[k]];
    change(part.data());
    for (std::size_t k = 0; k < columns_.size(); ++k) all[columns_[k]] = part[k];
  }

  const EpochInput* in_ = nullptr;
  const MechanismInput* m_ = nullptr;
  const EpochStake* shared_ = nullptr;
  std::size_t n_ = 0;
  const RowKernels& kernels_ = row_kernels();
  MechanismShares out_;
  bool is_liquid_ = false;

  bool dense_ = false;
  std::vector<std::uint32_t> live_;      // uids with a weight or a bond
  std::vector<Span> weight_rows_;        // by live row
  std::vector<std::uint16_t> weight_columns_;  // sparse only
  std::vector<std::uint32_t> weights_;   // row-normalised, packed; sparse
  Buffer<std::uint32_t> dense_weights_;  // a cell for every column; rows without weights are not written
  Buffer<std::uint16_t> dense_raw_;
  std::vector<std::uint32_t> cells_;
  std::vector<std::uint64_t> dividend_sums_;
  Buffer<std::uint64_t> tile_;
  DenseMedians medians_;
  std::vector<Span> bond_rows_;
  std::vector<std::uint16_t> bond_columns_;
  std::vector<std::uint16_t> raw_bonds_;
  std::vector<std::uint32_t> consensus_;  // packed
  std::vector<std::uint64_t> incentive_;

  ColumnDivisors fresh_sum_;  // of stake times weight for bonds
  ColumnDivisors raw_sum_;
  ColumnDivisors new_sum_;
  ColumnDivisors largest_;

  std::uint64_t newest_registration_ = 0;
  std::vector<std::uint32_t> seen_;
  std::uint32_t seen_row_ = 0;
  std::vector<Entry> kept_;

  // New bonds of all live rows.
  std::vector<Span> new_rows_;
  std::vector<std::uint16_t> new_columns_;
  std::vector<std::uint64_t> new_bonds_;

  // The aligned row.
  std::span<const std::uint16_t> columns_;  // empty when dense
  std::size_t width_ = 0;
  const std::uint32_t* row_weights_ = nullptr;
  const std::uint16_t* row_raw_ = nullptr;
  std::vector<std::uint16_t> union_;
  std::vector<std::uint64_t> present_;  // bit set of columns
  std::vector<std::uint32_t> weight_scratch_, weight_cells_, limit_scratch_, row_weight_scratch_;
  std::vector<std::uint16_t> raw_cells_, row_raw_scratch_, u16_;
  std::array<std::vector<std::uint64_t>, 8> scratch64_;
  std::array<std::vector<double>, 8> scratch_double_;
};

void MechanismRun::find_active() {
  out_.active.resize(n_);
  out_.active_stake = shared_->stake;
  for (std::size_t i = 0; i < n_; ++i) {
    const std::uint64_t updated = last_update(i);
    out_.active[i] = in_->block <= updated || in_->block - updated <= in_->parameters.activity_cutoff;
    if (!out_.active[i] || !shared_->old_permit[i]) out_.active_stake[i] = I32F32::zero();
  }
  normalize(out_.active_stake);
  newest_registration_ = 0;
  for (const std::uint64_t block : in_->registered_at) newest_registration_ = std::max(newest_registration_, block);
  seen_.assign(n_, 0);
  seen_row_ = 0;
}

void MechanismRun::choose_layout() {
  is_liquid_ = in_->parameters.yuma == 3 && in_->parameters.liquid_alpha && in_->rules.liquid == LiquidAlpha::cell;
  std::size_t stored = 0;
  live_.clear();
  weight_rows_.clear();
  weight_columns_.clear();
  weights_.clear();
  bond_rows_.clear();
  bond_columns_.clear();
  raw_bonds_.clear();
  new_rows_.clear();
  new_columns_.clear();
  new_bonds_.clear();
  for (std::uint32_t i = 0; i < n_; ++i) {
    const std::size_t weights = shared_->old_permit[i] ? m_->weights[i].size() : 0;
    if (weights + m_->bonds[i].size() == 0) continue;
    live_.push_back(i);
    stored += weights + m_->bonds[i].size();
  }
  // Liquid rates depend on which weights are stored, so they keep the stored rows. Elsewhere a cell that is absent
  // and a cell of 0 give the same.
  dense_ = !is_liquid_ && stored * 3 >= live_.size() * n_ && n_ >= 16;
  if (dense_) {
    cells_.resize(n_);
    dense_weights_.resize(live_.size() * n_);
    dense_raw_.resize(live_.size() * n_);
  }
}

std::span<const Entry> MechanismRun::kept(const Row& stored, std::uint64_t registered_before, std::size_t self) {
  ++seen_row_;
  kept_.clear();
  const bool all_old = newest_registration_ < registered_before;
  for (const Entry& e : stored) {
    if (e.uid >= n_) continue;
    if (seen_[e.uid] == seen_row_) refuse_twice();
    seen_[e.uid] = seen_row_;
    if (e.uid == self || (!all_old && in_->registered_at[e.uid] >= registered_before)) continue;
    kept_.push_back(e);
  }
  return kept_;
}

// Scatters a stored row over cells_, what the mask drops as a seen 0.
void MechanismRun::fill_cells(const Row& stored, std::uint64_t registered_before, std::size_t self) {
  std::fill(cells_.begin(), cells_.end(), 0U);
  std::uint32_t seen = 0;
  const bool all_old = newest_registration_ < registered_before;
  for (std::size_t k = 0; k < stored.size();) {
    const Entry e = stored[k];
    if (all_old && e.uid + std::size_t{16} <= n_) {
      // Rows mostly name uids in order, so most of them is copied in blocks.
      const std::size_t count = std::min(stored.size() - k, n_ - e.uid);
      const std::size_t done = kernels_.take_run(stored.data() + k, count, cells_.data() + e.uid, seen);
      k += done;
      if (done > 0) continue;
    }
    ++k;
    if (e.uid >= n_) continue;
    std::uint32_t& cell = cells_[e.uid];
    seen |= cell;
    cell = kSeen | (all_old || in_->registered_at[e.uid] < registered_before ? e.value : 0U);
  }
  if (self < n_) cells_[self] = 0;
  if (seen != 0) refuse_twice();
}

void MechanismRun::refuse_twice() {
  throw Error(ErrorCode::config_invalid, "running an epoch: a uid stands twice in one row of weights or bonds");
}

// Columns registered from this block on are dropped from the validator's weights.
std::uint64_t MechanismRun::weights_registered_before(std::uint32_t i) const {
  const std::uint64_t before = last_update(i);
  if (!in_->rules.commits_mask_weights || !in_->parameters.commit_reveal || m_->first_commit.empty()) return before;
  // Registered after the oldest commit is dropped, registered with it is kept: `<` where the other mask has `<=`.
  const std::uint64_t commit = m_->first_commit[i];
  return std::min(before, commit == kNoCommit ? commit : commit + 1);
}

void MechanismRun::read_weight_row(std::uint32_t i) {
  if (!shared_->old_permit[i]) {
    weight_rows_.push_back({dense_ ? (weight_rows_.size() * n_) : weights_.size(), 0});
    if (dense_) std::fill_n(dense_weights_.data() + weight_rows_.back().first, n_, 0U);
    return;
  }
  const std::size_t self = is_exempt_owner(i) ? n_ : i;
  if (dense_) {
    weight_rows_.push_back({weight_rows_.size() * n_, n_});
    fill_cells(m_->weights[i], weights_registered_before(i), self);
    kernels_.normalize(cells_.data(), dense_weights_.data() + weight_rows_.back().first, n_);
    return;
  }
  const auto entries = kept(m_->weights[i], weights_registered_before(i), self);
  weight_rows_.push_back({weights_.size(), entries.size()});
  weight_scratch_.resize(std::max(weight_scratch_.size(), entries.size()));
  for (std::size_t k = 0; k < entries.size(); ++k) {
    weight_scratch_[k] = entries[k].value;
    weight_columns_.push_back(entries[k].uid);
  }
  weights_.resize(weights_.size() + entries.size());
  kernels_.normalize(weight_scratch_.data(), weights_.data() + weight_rows_.back().first, entries.size());
}

void MechanismRun::read_weights() {
  for (const std::uint32_t i : live_) read_weight_row(i);
}

void MechanismRun::read_bond_row(std::uint32_t i) {
  const std::uint64_t after_last_step = in_->last_step_block == 0
                                            ? (in_->block > in_->parameters.tempo ? in_->block - in_->parameters.tempo : 0)
                                            : in_->last_step_block + 1;
  const std::uint64_t before = in_->rules.bonds_masked_by_last_step ? after_last_step : last_update(i);
  if (dense_) {
    bond_rows_.push_back({bond_rows_.size() * n_, n_});
    fill_cells(m_->bonds[i], before, n_);
    kernels_.take_raw(cells_.data(), dense_raw_.data() + bond_rows_.back().first, raw_sum_.by.data(), n_);
    return;
  }
  const auto entries = kept(m_->bonds[i], before, n_);
  bond_rows_.push_back({raw_bonds_.size(), entries.size()});
  for (const Entry& e : entries) {
    raw_bonds_.push_back(e.value);
    bond_columns_.push_back(e.uid);
    raw_sum_.by[e.uid] += e.value;
  }
}

void MechanismRun::read_bonds() {
  raw_sum_.reset(n_);
  for (const std::uint32_t i : live_) read_bond_row(i);
  raw_sum_.finish();
}

// The median of the votes of rows with active stake, each column with a vote (0 where absent) of every such row.
void MechanismRun::find_consensus() {
  consensus_.assign(n_, 0);
  std::vector<I32F32> held;
  std::vector<std::uint32_t> voters;  // live rows
  std::size_t silent = 0;             // voters without a row
  std::size_t live = 0;
  for (std::uint32_t i = 0; i < n_; ++i) {
    while (live < live_.size() && live_[live] < i) ++live;
    if (out_.active_stake[i] == I32F32::zero()) continue;
    held.push_back(out_.active_stake[i]);
    const bool has_row = live < live_.size() && live_[live] == i;
    voters.push_back(has_row ? static_cast<std::uint32_t>(live) : ~0U);
    silent += !has_row;
  }
  out_.consensus.assign(n_, I32F32::zero());
  if (held.empty()) return;
  normalize(held);
  const I32F32 total = std::accumulate(held.begin(), held.end(), I32F32::zero());
  const I32F32 minority = total.saturating_sub(share_of_u16(in_->parameters.kappa));
  const std::int64_t threshold = (total - minority).bits();
  if (held.size() == 1) {
    // One vote decides whatever its stake; its share, 1.0, would not fit the packed form.
    if (silent == 1) return;
    const Span row = weight_rows_[voters[0]];
    for (std::size_t k = 0; k < row.count; ++k) {
      const std::size_t j = dense_ ? k : weight_columns_[row.first + k];
      consensus_[j] = weight_row(row)[k];
    }
  } else {
    std::vector<std::uint32_t> stake;
    for (const I32F32 share : held) stake.push_back(static_cast<std::uint32_t>(share.bits()));
    if (dense_) {
      const std::vector<std::uint32_t> zeros(silent > 0 ? n_ : 0, 0);
      std::vector<const std::uint32_t*> rows;
      for (const std::uint32_t v : voters) {
        rows.push_back(v == ~0U ? zeros.data() : weight_row(weight_rows_[v]));
      }
      medians_.find(kernels_, rows, stake, n_, threshold, consensus_.data());
    } else {
      sparse_medians(voters, stake, threshold);
    }
  }
  for (std::size_t j = 0; j < n_; ++j) out_.consensus[j] = share_of(unpack_share(consensus_[j]));
}

void MechanismRun::sparse_medians(std::span<const std::uint32_t> rows, std::span<const std::uint32_t> stake,
                                  std::int64_t threshold) {
  std::vector<std::size_t> first(n_ + 1, 0);
  const auto each_vote = [&](const auto& use) {
    for (std::size_t v = 0; v < rows.size(); ++v) {
      if (rows[v] == ~0U) continue;
      const Span row = weight_rows_[rows[v]];
      for (std::size_t k = row.first; k < row.first + row.count; ++k) {
        if (weights_[k] != 0) use(weight_columns_[k], Vote{weights_[k], stake[v]});
      }
    }
  };
  each_vote([&](std::uint16_t j, Vote) { ++first[j + 1U]; });
  std::partial_sum(first.begin(), first.end(), first.begin());
  std::vector<Vote> votes(first.back());
  std::vector<std::size_t> next(first.begin(), first.end() - 1);
  std::vector<std::uint64_t> voting(n_, 0);
  each_vote([&](std::uint16_t j, Vote vote) {
    votes[next[j]++] = vote;
    voting[j] += vote.stake;
  });
  for (std::size_t j = 0; j < n_; ++j) {
    const std::size_t count = first[j + 1] - first[j];
    const bool some_absent = count < rows.size();
    if (count == 0 || (some_absent && static_cast<std::int64_t>(voting[j]) < threshold)) continue;  // median 0
    consensus_[j] = median_of({votes.data() + first[j], count}, 0, threshold);
  }
}

void MechanismRun::rank() {
  std::vector<std::uint64_t> rank(n_, 0);
  std::vector<std::uint64_t> before(n_, 0);
  fresh_sum_.reset(n_);
  out_.validator_trust.assign(n_, I32F32::zero());
  const std::uint16_t penalty = in_->parameters.bonds_penalty;
  const bool needs_fresh = in_->parameters.yuma == 2 && penalty != 65535;
  for (std::size_t r = 0; r < live_.size(); ++r) {
    const Span row = weight_rows_[r];
    if (row.count == 0) continue;
    const std::uint64_t stake = bits_of(out_.active_stake[live_[r]]);
    const std::uint32_t* const weights = weight_row(row);
    columns_ = dense_ ? std::span<const std::uint16_t>() : std::span(weight_columns_).subspan(row.first, row.count);
    const std::uint32_t* const limit = over(consensus_, limit_scratch_);
    std::uint64_t trust = 0;
    change_columns(rank, [&](std::uint64_t* sum) {
      trust = kernels_.clip_and_rank(weights, limit, stake, sum, row.count);
    });
    out_.validator_trust[live_[r]] = share_of(trust);
    if (in_->rules.old_scores) {
      change_columns(before, [&](std::uint64_t* sum) { kernels_.add_scaled(weights, stake, sum, row.count); });
    }
    if (needs_fresh) {
      weight_scratch_.resize(std::max(weight_scratch_.size(), row.count));
      kernels_.bond_weights(weights, {limit, pack_share(bits_of(share_of_u16(penalty)))}, weight_scratch_.data(),
                            row.count);
      change_columns(fresh_sum_.by, [&](std::uint64_t* sum) {
        kernels_.add_scaled(weight_scratch_.data(), stake, sum, row.count);
      });
    }
  }
  if (!needs_fresh) fresh_sum_.by = rank;
  fresh_sum_.finish();
  for (std::size_t j = 0; j < n_; ++j) {
    out_.incentive.push_back(share_of(rank[j]));
    if (in_->rules.old_scores) out_.trust.push_back(share_of(rank[j]).safe_div(share_of(before[j])));
  }
  normalize(out_.incentive);
  incentive_.clear();
  for (const I32F32 share : out_.incentive) incentive_.push_back(bits_of(share));
}

void MechanismRun::align(std::size_t r) {
  const Span w = weight_rows_[r];
  const Span b = bond_rows_[r];
  const std::uint32_t penalty = pack_share(bits_of(share_of_u16(in_->parameters.bonds_penalty)));
  present_.assign((n_ + 63) / 64, 0);
  weight_cells_.resize(n_);
  raw_cells_.resize(n_);
  const auto mark = [&](std::uint16_t j) { present_[j / 64] |= std::uint64_t{1} << (j % 64); };
  columns_ = std::span(weight_columns_).subspan(w.first, w.count);
  const std::uint32_t* const limit = over(consensus_, limit_scratch_);
  weight_scratch_.resize(std::max(weight_scratch_.size(), w.count));
  kernels_.bond_weights(weights_.data() + w.first, {limit, penalty}, weight_scratch_.data(), w.count);
  for (std::size_t k = 0; k < w.count; ++k) {
    mark(columns_[k]);
    weight_cells_[columns_[k]] = weight_scratch_[k];
  }
  for (std::size_t k = b.first; k < b.first + b.count; ++k) {
    mark(bond_columns_[k]);
    raw_cells_[bond_columns_[k]] = raw_bonds_[k];
  }
  union_.clear();
  row_weight_scratch_.clear();
  row_raw_scratch_.clear();
  for (std::size_t word = 0; word < present_.size(); ++word) {
    for (std::uint64_t rest = present_[word]; rest != 0; rest &= rest - 1) {
      const std::size_t j = word * 64 + static_cast<std::size_t>(std::countr_zero(rest));
      union_.push_back(static_cast<std::uint16_t>(j));
      row_weight_scratch_.push_back(weight_cells_[j]);
      row_raw_scratch_.push_back(raw_cells_[j]);
      weight_cells_[j] = 0;
      raw_cells_[j] = 0;
    }
  }
  columns_ = union_;
  width_ = union_.size();
  row_weights_ = row_weight_scratch_.data();
  row_raw_ = row_raw_scratch_.data();
}

std::vector<std::uint64_t> MechanismRun::column_rates() const {
  const EpochParameters& p = in_->parameters;
  const std::uint64_t memory = p.bonds_moving_average * kShareOne / 1'000'000;
  std::vector<std::uint64_t> rates(n_, kShareOne - memory);
  if (p.yuma == 2 && p.liquid_alpha && in_->rules.liquid == LiquidAlpha::quantile) {
    if (const auto liquid = quantile_rates(p, out_.consensus)) {
      for (std::size_t j = 0; j < n_; ++j) rates[j] = bits_of((*liquid)[j]);
    }
  }
  return rates;
}

// Bonds of a dense table, a few columns at a time: sums, shares and u16 forms of the new bonds concern one column each,
// so a tile's bonds never leave the cache and are not kept.
void MechanismRun::dense_bonds() {
  const std::vector<std::uint64_t> rates = column_rates();
  new_sum_.reset(n_);
  largest_.reset(n_);
  dividend_sums_.assign(live_.size(), 0);
  weight_scratch_.resize(std::max(weight_scratch_.size(), n_));
  u16_.resize(std::max(u16_.size(), n_));
  constexpr std::size_t kTileCells = 48 * 1024;
  const std::size_t width = std::max<std::size_t>(64, kTileCells / std::max<std::size_t>(1, live_.size()) / 64 * 64);
  tile_.resize(live_.size() * std::min(width, n_));
  for (std::size_t first = 0; first < n_; first += width) dense_tile(first, std::min(width, n_ - first), rates);
  out_.dividends.assign(n_, I32F32::zero());
  for (std::size_t r = 0; r < live_.size(); ++r) {
    const std::uint32_t i = live_[r];
    out_.dividends[i] = share_of(dividend_sums_[r]);
    if (in_->parameters.yuma == 3) {
      out_.dividends[i] = out_.dividends[i].checked_mul(out_.active_stake[i]).value_or(I32F32::zero());
    }
  }
  normalize(out_.dividends);
}

void MechanismRun::dense_tile(std::size_t first, std::size_t width, const std::vector<std::uint64_t>& rates) {
  const bool relative = in_->parameters.yuma == 2;
  const BondWeights rule{consensus_.data() + first, pack_share(bits_of(share_of_u16(in_->parameters.bonds_penalty)))};
  for (std::size_t r = 0; r < live_.size(); ++r) {
    kernels_.bond_weights(dense_weights_.data() + r * n_ + first, rule, weight_scratch_.data(), width);
    const std::uint16_t* const raw = dense_raw_.data() + r * n_ + first;
    std::uint64_t* const bonds = tile_.data() + r * width;
    std::uint64_t* const sum = new_sum_.by.data() + first;
    if (relative) {
      kernels_.relative_bonds(weight_scratch_.data(), bits_of(out_.active_stake[live_[r]]), fresh_sum_.from(first),
                              raw, raw_sum_.from(first), rates.data() + first, bonds, sum, width);
    } else {
      kernels_.absolute_bonds(weight_scratch_.data(), raw, rates[0], bonds, sum, width);
    }
  }
  new_sum_.finish(first, width);
  for (std::size_t r = 0; r < live_.size(); ++r) {
    std::uint64_t* const bonds = tile_.data() + r * width;
    const std::uint64_t* const incentive = incentive_.data() + first;
    dividend_sums_[r] += relative ? kernels_.dividend_and_share(bonds, new_sum_.from(first), incentive,
                                                                largest_.by.data() + first, width)
                                  : kernels_.dividend(bonds, new_sum_.from(first), incentive, width);
  }
  if (relative) largest_.finish(first, width);
  for (std::size_t r = 0; r < live_.size(); ++r) {
    if (!shared_->new_permit[live_[r]]) continue;
    const std::uint64_t* const bonds = tile_.data() + r * width;
    if (relative) {
      kernels_.quantize_relative(bonds, largest_.from(first), u16_.data(), width);
    } else {
      kernels_.quantize(bonds, u16_.data(), width);
    }
    Row& row = out_.bonds[live_[r]];
    const std::size_t start = row.size();
    row.resize(start + width);
    if (kernels_.make_entries(bonds, u16_.data(), static_cast<std::uint32_t>(first), row.data() + start, width)) {
      continue;
    }
    std::size_t count = start;
    for (std::size_t k = 0; k < width; ++k) {
      row[count] = row[start + k];
      count += bonds[k] > 0;
    }
    row.resize(count);
  }
}

void MechanismRun::relative_bonds() {
  const std::vector<std::uint64_t> rates = column_rates();
  ColumnDivisors& sum = new_sum_;
  sum.reset(n_);
  for (std::size_t r = 0; r < live_.size(); ++r) {
    align(r);
    new_rows_.push_back({new_bonds_.size(), width_});
    new_columns_.insert(new_columns_.end(), columns_.begin(), columns_.end());
    new_bonds_.resize(new_bonds_.size() + width_);
    const Divisors fresh = over(fresh_sum_, 0);
    const Divisors raw = over(raw_sum_, 1);
    const std::uint64_t* const rate = over(rates, scratch64_[2]);
    change_columns(sum.by, [&](std::uint64_t* bond_sum) {
      kernels_.relative_bonds(row_weights_, bits_of(out_.active_stake[live_[r]]), fresh, row_raw_, raw, rate,
                              new_bonds_.data() + new_rows_[r].first, bond_sum, width_);
    });
  }
  sum.finish();
  out_.dividends.assign(n_, I32F32::zero());
  ColumnDivisors& largest = largest_;
  largest.reset(n_);
  for (std::size_t r = 0; r < live_.size(); ++r) {
    const Span row = new_rows_[r];
    columns_ = std::span(new_columns_).subspan(row.first, row.count);
    const Divisors by = over(sum, 0);
    const std::uint64_t* const incentive = over(incentive_, scratch64_[1]);
    change_columns(largest.by, [&](std::uint64_t* top) {
      out_.dividends[live_[r]] = share_of(
          kernels_.dividend_and_share(new_bonds_.data() + row.first, by, incentive, top, row.count));
    });
  }
  normalize(out_.dividends);
  largest.finish();
  for (std::size_t r = 0; r < live_.size(); ++r) {
    if (!shared_->new_permit[live_[r]]) continue;
    const Span row = new_rows_[r];
    columns_ = std::span(new_columns_).subspan(row.first, row.count);
    const Divisors by = over(largest, 0);
    u16_.resize(std::max(u16_.size(), row.count));
    kernels_.quantize_relative(new_bonds_.data() + row.first, by, u16_.data(), row.count);
    store_bonds(r, std::span(new_bonds_).subspan(row.first, row.count), u16_);
  }
}

void MechanismRun::absolute_bonds() {
  const std::uint64_t rate = kShareOne - in_->parameters.bonds_moving_average * kShareOne / 1'000'000;
  fresh_sum_.reset(n_);
  ColumnDivisors& sum = fresh_sum_;
  for (std::size_t r = 0; r < live_.size(); ++r) {
    align(r);
    new_rows_.push_back({new_bonds_.size(), width_});
    new_columns_.insert(new_columns_.end(), columns_.begin(), columns_.end());
    new_bonds_.resize(new_bonds_.size() + width_);
    change_columns(sum.by, [&](std::uint64_t* bond_sum) {
      kernels_.absolute_bonds(row_weights_, row_raw_, rate, new_bonds_.data() + new_rows_[r].first, bond_sum, width_);
    });
  }
}

void MechanismRun::liquid_bonds() {
  if (std::all_of(consensus_.begin(), consensus_.end(), [](std::uint32_t c) { return c == 0; })) {
    absolute_bonds();
    return;
  }
  fresh_sum_.reset(n_);
  raw_cells_.resize(n_);
  for (std::size_t r = 0; r < live_.size(); ++r) liquid_row(r);
}

// Only columns among the weights for bonds get a bond, in their order. A weight that is clipped to a consensus of 0
// is no longer among them; a stored weight of 0 is.
void MechanismRun::liquid_row(std::size_t r) {
  const Span w = weight_rows_[r];
  const Span b = bond_rows_[r];
  const EpochParameters& p = in_->parameters;
  const LiquidRate rate(share_of_u16(p.alpha_low), share_of_u16(p.alpha_high), p.alpha_sigmoid_steepness);
  columns_ = std::span(weight_columns_).subspan(w.first, w.count);
  const std::uint32_t* const limit = over(consensus_, limit_scratch_);
  weight_scratch_.resize(std::max(weight_scratch_.size(), w.count));
  kernels_.bond_weights(weights_.data() + w.first, {limit, pack_share(bits_of(share_of_u16(p.bonds_penalty)))},
                        weight_scratch_.data(), w.count);
  for (std::size_t k = b.first; k < b.first + b.count; ++k) raw_cells_[bond_columns_[k]] = raw_bonds_[k];
  new_rows_.push_back({new_bonds_.size(), 0});
  const bool blended = p.bonds_penalty != 0 && p.bonds_penalty != 65535;
  std::vector<std::pair<std::uint16_t, std::uint64_t>> row;
  for (std::size_t k = 0; k < w.count; ++k) {
    const std::uint32_t weight = weight_scratch_[k];
    const bool dropped = weight == 0 && (blended || weights_[w.first + k] != 0);
    if (dropped) continue;
    const std::uint16_t raw = raw_cells_[columns_[k]];
    const std::uint64_t bond = std::uint64_t{raw} * 65537 + (raw == 65535);
    const std::uint64_t al = rate.at(unpack_share(limit[k]), unpack_share(weight), bond);
    const std::uint64_t value = std::min(
        kShareOne, multiply_shares(bond, kShareOne - al) + multiply_shares(unpack_share(weight), al));
    if (value > 0) row.emplace_back(columns_[k], value);
  }
  if (blended) std::sort(row.begin(), row.end());
  for (const auto& [column, value] : row) {
    new_columns_.push_back(column);
    new_bonds_.push_back(value);
    fresh_sum_.by[column] += value;
  }
  new_rows_.back().count = row.size();
  for (std::size_t k = b.first; k < b.first + b.count; ++k) raw_cells_[bond_columns_[k]] = 0;
}

void MechanismRun::absolute_dividends() {
  ColumnDivisors& sum = fresh_sum_;
  sum.finish();
  out_.dividends.assign(n_, I32F32::zero());
  for (std::size_t r = 0; r < live_.size(); ++r) {
    const std::uint32_t i = live_[r];
    const Span row = new_rows_[r];
    columns_ = std::span(new_columns_).subspan(row.first, row.count);
    const std::uint64_t* const bonds = new_bonds_.data() + row.first;
    const Divisors by = over(sum, 0);
    const std::uint64_t total = kernels_.dividend(bonds, by, over(incentive_, scratch64_[1]), row.count);
    out_.dividends[i] = share_of(total).checked_mul(out_.active_stake[i]).value_or(I32F32::zero());
    if (!shared_->new_permit[i]) continue;
    u16_.resize(std::max(u16_.size(), row.count));
    kernels_.quantize(bonds, u16_.data(), row.count);
    store_bonds(r, {bonds, row.count}, u16_);
  }
  normalize(out_.dividends);
}

// A bond is kept if it is more than 0 before it is cut to u16.
void MechanismRun::store_bonds(std::size_t r, std::span<const std::uint64_t> bonds,
                               std::span<const std::uint16_t> u16) {
  Row& row = out_.bonds[live_[r]];
  row.resize(bonds.size());
  std::size_t count = 0;
  for (std::size_t k = 0; k < bonds.size(); ++k) {
    row[count] = {columns_[k], u16[k]};
    count += bonds[k] > 0;
  }
  row.resize(count);
}

void normalize(std::vector<I32F32>& values) {
  const I32F32 total = std::accumulate(values.begin(), values.end(), I32F32::zero());
  if (total == I32F32::zero()) return;
  for (I32F32& value : values) value = value.safe_div(total);
}

MechanismRunner::MechanismRunner() : run_(std::make_unique<MechanismRun>()) {}
MechanismRunner::~MechanismRunner() = default;

MechanismShares MechanismRunner::run(const EpochInput& input, const MechanismInput& mechanism,
                                     const EpochStake& shared, std::vector<Row> bonds) {
  return run_->run(input, mechanism, shared, std::move(bonds));
}

}  // namespace yumoe::ledger

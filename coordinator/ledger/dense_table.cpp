#include "ledger/dense_table.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace yumoe::ledger {

// The kernels read and write entries as words of 32 bits, the uid in the low half.
static_assert(sizeof(Entry) == 4 && std::endian::native == std::endian::little);

void DenseTable::run(MechanismRows& rows) {
  rows_ = &rows;
  live_count_ = rows.live.size();
  tiles_ = (rows.n + kTile - 1) / kTile;
  relative_ = rows.parameters().yuma == 2;
  const std::size_t padded = tiles_ * kTile;
  weights_.resize(live_count_ * padded);
  raw_.resize(live_count_ * padded);
  bonds_.resize(live_count_ * kTile);
  cells_.resize(padded);
  row_weights_.resize(padded);
  row_raw_.resize(padded);
  consensus_.assign(padded, 0);
  rank_.assign(padded, 0);
  unclipped_rank_.assign(padded, 0);
  for (ColumnDivisors* sum : {&fresh_sum_, &raw_sum_, &bond_sum_, &largest_}) sum->reset(padded);
  trust_.assign(live_count_, 0);
  dividends_.assign(live_count_, 0);

  for (std::uint32_t r = 0; r < live_count_; ++r) read(r);
  raw_sum_.finish();
  for (std::size_t tile = 0; tile < tiles_; ++tile) {
    find_medians(tile);
    rank(tile);
  }
  rows.store_consensus(consensus_);
  rows.store_incentive(rank_, unclipped_rank_);
  for (std::size_t r = 0; r < live_count_; ++r)
    rows.out.validator_trust[rows.live[r]] = share_of(trust_[r]);
  fresh_sum_.finish();
  rates_ = rows.column_rates();
  rates_.resize(padded, 0);
  incentive_ = rows.incentive;
  incentive_.resize(padded, 0);
  for (std::size_t tile = 0; tile < tiles_; ++tile) {
    new_bonds(tile);
    dividends(tile);
    store_bonds(tile);
  }
  rows.store_dividends(dividends_);
}

// Scatters a stored row over cells_; what the mask drops becomes a 0.
void DenseTable::fill_cells(const Row& stored, std::uint64_t registered_before, std::size_t self) {
  const std::size_t n = rows_->n;
  std::fill(cells_.begin(), cells_.end(), 0U);
  std::uint32_t seen = 0;
  const bool all_old = rows_->newest_registration < registered_before;
  for (std::size_t k = 0; k < stored.size();) {
    const Entry e = stored[k];
    if (all_old && e.uid + kRunBlock <= n) {
      // Rows mostly name uids in order, so most of them is copied in blocks.
      const std::size_t count = std::min(stored.size() - k, n - e.uid);
      const std::size_t done =
          kernels_.take_run(stored.data() + k, count, cells_.data() + e.uid, seen);
      k += done;
      if (done > 0) continue;
    }
    ++k;
    if (e.uid >= n) continue;
    std::uint32_t& cell = cells_[e.uid];
    seen |= cell;
    cell =
        kSeen | (all_old || rows_->input->registered_at[e.uid] < registered_before ? e.value : 0U);
  }
  if (self < n) cells_[self] = 0;
  if (seen != 0) refuse_repeated_uid();
}

void DenseTable::read(std::uint32_t r) {
  const std::uint32_t uid = rows_->live[r];
  const std::size_t padded = cells_.size();
  if (rows_->shared->old_permit[uid]) {
    fill_cells(rows_->mechanism->weights[uid], rows_->weights_registered_before(uid),
               rows_->self_column(uid));
    kernels_.normalize(cells_.data(), row_weights_.data(), padded);
  } else {
    std::fill(row_weights_.begin(), row_weights_.end(), 0U);
  }
  fill_cells(rows_->mechanism->bonds[uid], rows_->bonds_registered_before(uid), rows_->n);
  kernels_.take_raw(cells_.data(), row_raw_.data(), raw_sum_.by.data(), padded);
  for (std::size_t tile = 0; tile < tiles_; ++tile) {
    std::memcpy(weights(tile) + r * kTile, row_weights_.data() + tile * kTile,
                kTile * sizeof(std::uint32_t));
    std::memcpy(raw(tile) + r * kTile, row_raw_.data() + tile * kTile,
                kTile * sizeof(std::uint16_t));
  }
}

void DenseTable::find_medians(std::size_t tile) {
  const Voters& voters = rows_->voters;
  std::uint32_t* const medians = consensus_.data() + tile * kTile;
  if (voters.row.empty()) return;
  if (voters.row.size() == 1) {
    // One vote decides, whatever its stake.
    if (voters.row[0] != Voters::kNoRow)
      std::copy_n(weights(tile) + voters.row[0] * kTile, kTile, medians);
    return;
  }
  const std::uint32_t* votes = weights(tile);
  if (voters.row.size() != live_count_ || voters.row.back() == Voters::kNoRow ||
      std::find(voters.row.begin(), voters.row.end(), Voters::kNoRow) != voters.row.end()) {
    voting_.resize(voters.row.size() * kTile);
    for (std::size_t v = 0; v < voters.row.size(); ++v) {
      std::uint32_t* const row = voting_.data() + v * kTile;
      if (voters.row[v] == Voters::kNoRow) {
        std::fill_n(row, kTile, 0U);
      } else {
        std::copy_n(weights(tile) + voters.row[v] * kTile, kTile, row);
      }
    }
    votes = voting_.data();
  }
  const std::size_t width = std::min(kTile, rows_->n - tile * kTile);
  medians_.find(kernels_, votes, voters.stake, width, voters.threshold, medians);
}

void DenseTable::rank(std::size_t tile) {
  const std::size_t first = tile * kTile;
  const BondWeights rule{consensus_.data() + first, rows_->penalty()};
  const bool needs_fresh = relative_ && rule.penalty != kPackedOne;
  for (std::size_t r = 0; r < live_count_; ++r) {
    const std::uint32_t* const row = weights(tile) + r * kTile;
    const std::uint64_t stake = rows_->stake_of(r);
    trust_[r] += kernels_.clip_and_rank(row, rule.limit, stake, rank_.data() + first, kTile);
    if (rows_->input->rules.old_scores)
      kernels_.add_scaled(row, stake, unclipped_rank_.data() + first, kTile);
    if (!needs_fresh) continue;
    kernels_.bond_weights(row, rule, row_weights_.data(), kTile);
    kernels_.add_scaled(row_weights_.data(), stake, fresh_sum_.by.data() + first, kTile);
  }
  if (!needs_fresh) std::copy_n(rank_.data() + first, kTile, fresh_sum_.by.data() + first);
}

void DenseTable::new_bonds(std::size_t tile) {
  const std::size_t first = tile * kTile;
  const BondWeights rule{consensus_.data() + first, rows_->penalty()};
  std::uint64_t* const sum = bond_sum_.by.data() + first;
  for (std::size_t r = 0; r < live_count_; ++r) {
    kernels_.bond_weights(weights(tile) + r * kTile, rule, row_weights_.data(), kTile);
    const std::uint16_t* const old = raw(tile) + r * kTile;
    std::uint64_t* const bonds = bonds_.data() + r * kTile;
    if (relative_) {
      kernels_.relative_bonds(row_weights_.data(), rows_->stake_of(r), fresh_sum_.from(first), old,
                              raw_sum_.from(first), rates_.data() + first, bonds, sum, kTile);
    } else {
      kernels_.absolute_bonds(row_weights_.data(), old, rates_[0], bonds, sum, kTile);
    }
  }
  bond_sum_.finish(first, kTile);
}

void DenseTable::dividends(std::size_t tile) {
  const std::size_t first = tile * kTile;
  const Divisors sum = bond_sum_.from(first);
  const std::uint64_t* const incentive = incentive_.data() + first;
  for (std::size_t r = 0; r < live_count_; ++r) {
    std::uint64_t* const bonds = bonds_.data() + r * kTile;
    dividends_[r] += relative_ ? kernels_.dividend_and_share(bonds, sum, incentive,
                                                             largest_.by.data() + first, kTile)
                               : kernels_.dividend(bonds, sum, incentive, kTile);
  }
  if (relative_) largest_.finish(first, kTile);
}

// A bond is kept if it is more than 0 before it is cut to u16.
void DenseTable::store_bonds(std::size_t tile) {
  const std::size_t first = tile * kTile;
  const std::size_t width = std::min(kTile, rows_->n - first);
  for (std::size_t r = 0; r < live_count_; ++r) {
    const std::uint32_t uid = rows_->live[r];
    if (!rows_->shared->new_permit[uid]) continue;
    const std::uint64_t* const bonds = bonds_.data() + r * kTile;
    if (relative_) {
      kernels_.quantize_relative(bonds, largest_.from(first), row_raw_.data(), kTile);
    } else {
      kernels_.quantize(bonds, row_raw_.data(), kTile);
    }
    Row& row = rows_->out.bonds[uid];
    const std::size_t start = row.size();
    row.resize(start + width);
    const auto column = static_cast<std::uint32_t>(first);
    if (kernels_.make_entries(bonds, row_raw_.data(), column, row.data() + start, width)) continue;
    std::size_t count = start;
    for (std::size_t k = 0; k < width; ++k) {
      row[count] = row[start + k];
      count += bonds[k] > 0;
    }
    row.resize(count);
  }
}

}  // namespace yumoe::ledger

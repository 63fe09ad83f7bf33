#include "ledger/sparse_table.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include "ledger/consensus.hpp"
#include "ledger/liquid.hpp"

namespace yumoe::ledger {

void SparseTable::run(MechanismRows& rows) {
  rows_ = &rows;
  forget();
  for (std::uint32_t r = 0; r < rows.live.size(); ++r) {
    read_weights(r);
    read_bonds(r);
  }
  raw_sum_.finish();
  find_consensus();
  rank();
  const bool is_liquid =
      rows.parameters().liquid_alpha && rows.input->rules.liquid == LiquidAlpha::cell &&
      std::any_of(consensus_.begin(), consensus_.end(), [](std::uint32_t c) { return c != 0; });
  if (rows.parameters().yuma == 2) {
    relative_bonds();
    relative_dividends();
  } else {
    is_liquid ? liquid_bonds() : absolute_bonds();
    absolute_dividends();
  }
  rows.store_dividends(dividends_);
}

void SparseTable::forget() {
  const std::size_t n = rows_->n;
  weight_rows_.clear();
  weight_columns_.clear();
  weights_.clear();
  raw_rows_.clear();
  raw_columns_.clear();
  raw_.clear();
  bond_rows_.clear();
  bond_columns_.clear();
  bonds_.clear();
  dividends_.assign(rows_->live.size(), 0);
  for (ColumnDivisors* sum : {&fresh_sum_, &raw_sum_, &bond_sum_, &largest_}) sum->reset(n);
  seen_.assign(n, 0);
  seen_row_ = 0;
  weight_cells_.assign(n, 0);
  raw_cells_.assign(n, 0);
}

// The entries that pass the masks, in stored order; valid until the next call.
std::span<const Entry> SparseTable::kept(const Row& stored, std::uint64_t registered_before,
                                         std::size_t self) {
  ++seen_row_;
  kept_.clear();
  const bool all_old = rows_->newest_registration < registered_before;
  for (const Entry& e : stored) {
    if (e.uid >= rows_->n) continue;
    if (seen_[e.uid] == seen_row_) refuse_repeated_uid();
    seen_[e.uid] = seen_row_;
    if (e.uid == self || (!all_old && rows_->input->registered_at[e.uid] >= registered_before))
      continue;
    kept_.push_back(e);
  }
  return kept_;
}

void SparseTable::read_weights(std::uint32_t r) {
  const std::uint32_t uid = rows_->live[r];
  weight_rows_.push_back({weights_.size(), 0});
  if (!rows_->shared->old_permit[uid]) return;
  const auto entries = kept(rows_->mechanism->weights[uid], rows_->weights_registered_before(uid),
                            rows_->self_column(uid));
  weight_rows_.back().count = entries.size();
  row_weights_.clear();
  for (const Entry& e : entries) {
    row_weights_.push_back(e.value);
    weight_columns_.push_back(e.uid);
  }
  weights_.resize(weights_.size() + entries.size());
  kernels_.normalize(row_weights_.data(), weights_.data() + weight_rows_.back().first,
                     entries.size());
}

void SparseTable::read_bonds(std::uint32_t r) {
  const std::uint32_t uid = rows_->live[r];
  const auto entries =
      kept(rows_->mechanism->bonds[uid], rows_->bonds_registered_before(uid), rows_->n);
  raw_rows_.push_back({raw_.size(), entries.size()});
  for (const Entry& e : entries) {
    raw_.push_back(e.value);
    raw_columns_.push_back(e.uid);
    raw_sum_.by[e.uid] += e.value;
  }
}

void SparseTable::find_consensus() {
  consensus_.assign(rows_->n, 0);
  const Voters& voters = rows_->voters;
  if (voters.row.size() == 1 && voters.row[0] != Voters::kNoRow) {
    // One vote decides, whatever its stake.
    const Span row = weight_rows_[voters.row[0]];
    for (std::size_t k = row.first; k < row.first + row.count; ++k)
      consensus_[weight_columns_[k]] = weights_[k];
  } else if (voters.row.size() > 1) {
    find_medians();
  }
  rows_->store_consensus(consensus_);
}

void SparseTable::find_medians() {
  const Voters& voters = rows_->voters;
  const std::size_t n = rows_->n;
  const auto each_vote = [&](const auto& use) {
    for (std::size_t v = 0; v < voters.row.size(); ++v) {
      if (voters.row[v] == Voters::kNoRow) continue;
      const Span row = weight_rows_[voters.row[v]];
      for (std::size_t k = row.first; k < row.first + row.count; ++k) {
        if (weights_[k] != 0) use(weight_columns_[k], Vote{weights_[k], voters.stake[v]});
      }
    }
  };
  std::vector<std::size_t> first(n + 1, 0);
  each_vote([&](std::uint16_t j, Vote) { ++first[j + 1U]; });
  std::partial_sum(first.begin(), first.end(), first.begin());
  std::vector<Vote> votes(first.back());
  std::vector<std::size_t> next(first.begin(), first.end() - 1);
  std::vector<std::uint64_t> voting(n, 0);
  each_vote([&](std::uint16_t j, Vote vote) {
    votes[next[j]++] = vote;
    voting[j] += vote.stake;
  });
  for (std::size_t j = 0; j < n; ++j) {
    const std::size_t count = first[j + 1] - first[j];
    const bool some_vote_zero = count < voters.row.size();
    const bool median_is_zero =
        some_vote_zero && static_cast<std::int64_t>(voting[j]) < voters.threshold;
    if (count > 0 && !median_is_zero)
      consensus_[j] = median_of({votes.data() + first[j], count}, 0, voters.threshold);
  }
}

void SparseTable::rank() {
  std::vector<std::uint64_t> rank(rows_->n, 0);
  std::vector<std::uint64_t> unclipped(rows_->n, 0);
  const std::uint32_t penalty = rows_->penalty();
  const bool needs_fresh = rows_->parameters().yuma == 2 && penalty != kPackedOne;
  for (std::size_t r = 0; r < rows_->live.size(); ++r) {
    const Span row = weight_rows_[r];
    const std::uint64_t stake = rows_->stake_of(r);
    const std::uint32_t* const weights = weights_.data() + row.first;
    columns_ = std::span(weight_columns_).subspan(row.first, row.count);
    const std::uint32_t* const limit = over(consensus_, limits_);
    change(rank, [&](std::uint64_t* sum) {
      const std::uint64_t trust = kernels_.clip_and_rank(weights, limit, stake, sum, row.count);
      rows_->out.validator_trust[rows_->live[r]] = share_of(trust);
    });
    if (rows_->input->rules.old_scores) {
      change(unclipped,
             [&](std::uint64_t* sum) { kernels_.add_scaled(weights, stake, sum, row.count); });
    }
    if (!needs_fresh) continue;
    for_bonds_.resize(std::max(for_bonds_.size(), row.count));
    kernels_.bond_weights(weights, {limit, penalty}, for_bonds_.data(), row.count);
    change(fresh_sum_.by, [&](std::uint64_t* sum) {
      kernels_.add_scaled(for_bonds_.data(), stake, sum, row.count);
    });
  }
  if (!needs_fresh) fresh_sum_.by = rank;
  fresh_sum_.finish();
  rows_->store_incentive(rank, unclipped);
}

// Puts the weights for bonds and the stored bonds of a row side by side, over the columns that
// either names.
void SparseTable::align(std::size_t r) {
  const Span w = weight_rows_[r];
  const Span b = raw_rows_[r];
  present_.assign((rows_->n + 63) / 64, 0);
  const auto mark = [&](std::uint16_t j) { present_[j / 64] |= std::uint64_t{1} << (j % 64); };
  columns_ = std::span(weight_columns_).subspan(w.first, w.count);
  const std::uint32_t* const limit = over(consensus_, limits_);
  for_bonds_.resize(std::max(for_bonds_.size(), w.count));
  kernels_.bond_weights(weights_.data() + w.first, {limit, rows_->penalty()}, for_bonds_.data(),
                        w.count);
  for (std::size_t k = 0; k < w.count; ++k) {
    mark(columns_[k]);
    weight_cells_[columns_[k]] = for_bonds_[k];
  }
  for (std::size_t k = b.first; k < b.first + b.count; ++k) {
    mark(raw_columns_[k]);
    raw_cells_[raw_columns_[k]] = raw_[k];
  }
  union_.clear();
  row_weights_.clear();
  row_raw_.clear();
  for (std::size_t word = 0; word < present_.size(); ++word) {
    for (std::uint64_t rest = present_[word]; rest != 0; rest &= rest - 1) {
      const std::size_t j = word * 64 + static_cast<std::size_t>(std::countr_zero(rest));
      union_.push_back(static_cast<std::uint16_t>(j));
      row_weights_.push_back(weight_cells_[j]);
      row_raw_.push_back(raw_cells_[j]);
      weight_cells_[j] = 0;
      raw_cells_[j] = 0;
    }
  }
  columns_ = union_;
}

// Appends the new bonds' row of the aligned columns.
void SparseTable::begin_row(std::size_t r) {
  align(r);
  bond_rows_.push_back({bonds_.size(), columns_.size()});
  bond_columns_.insert(bond_columns_.end(), columns_.begin(), columns_.end());
  bonds_.resize(bonds_.size() + columns_.size());
}

void SparseTable::relative_bonds() {
  const std::vector<std::uint64_t> rates = rows_->column_rates();
  for (std::size_t r = 0; r < rows_->live.size(); ++r) {
    begin_row(r);
    const Divisors fresh = over(fresh_sum_, 0);
    const Divisors raw = over(raw_sum_, 1);
    const std::uint64_t* const rate = over(rates, numbers_[2]);
    change(bond_sum_.by, [&](std::uint64_t* sum) {
      kernels_.relative_bonds(row_weights_.data(), rows_->stake_of(r), fresh, row_raw_.data(), raw,
                              rate, bonds_.data() + bond_rows_[r].first, sum, columns_.size());
    });
  }
  bond_sum_.finish();
}

void SparseTable::relative_dividends() {
  for (std::size_t r = 0; r < rows_->live.size(); ++r) {
    const Span row = bond_rows_[r];
    columns_ = std::span(bond_columns_).subspan(row.first, row.count);
    const Divisors sum = over(bond_sum_, 0);
    const std::uint64_t* const incentive = over(rows_->incentive, numbers_[1]);
    change(largest_.by, [&](std::uint64_t* largest) {
      dividends_[r] = kernels_.dividend_and_share(bonds_.data() + row.first, sum, incentive,
                                                  largest, row.count);
    });
  }
  largest_.finish();
  for (std::size_t r = 0; r < rows_->live.size(); ++r) {
    const Span row = bond_rows_[r];
    columns_ = std::span(bond_columns_).subspan(row.first, row.count);
    const Divisors largest = over(largest_, 0);
    u16_.resize(std::max(u16_.size(), row.count));
    kernels_.quantize_relative(bonds_.data() + row.first, largest, u16_.data(), row.count);
    store_bonds(r, std::span(bonds_).subspan(row.first, row.count));
  }
}

void SparseTable::absolute_bonds() {
  const std::uint64_t rate =
      kShareOne - rows_->parameters().bonds_moving_average * kShareOne / 1'000'000;
  for (std::size_t r = 0; r < rows_->live.size(); ++r) {
    begin_row(r);
    change(bond_sum_.by, [&](std::uint64_t* sum) {
      kernels_.absolute_bonds(row_weights_.data(), row_raw_.data(), rate,
                              bonds_.data() + bond_rows_[r].first, sum, columns_.size());
    });
  }
}

void SparseTable::liquid_bonds() {
  for (std::size_t r = 0; r < rows_->live.size(); ++r) liquid_row(r);
}

// Only columns among the weights for bonds get a bond, in their order. A weight that is clipped to
// a consensus of 0 is no longer among them; a stored weight of 0 is.
void SparseTable::liquid_row(std::size_t r) {
  const Span w = weight_rows_[r];
  const Span b = raw_rows_[r];
  const EpochParameters& p = rows_->parameters();
  const LiquidRate rate(share_of_u16(p.alpha_low), share_of_u16(p.alpha_high),
                        p.alpha_sigmoid_steepness);
  columns_ = std::span(weight_columns_).subspan(w.first, w.count);
  const std::uint32_t* const limit = over(consensus_, limits_);
  for_bonds_.resize(std::max(for_bonds_.size(), w.count));
  kernels_.bond_weights(weights_.data() + w.first, {limit, rows_->penalty()}, for_bonds_.data(),
                        w.count);
  for (std::size_t k = b.first; k < b.first + b.count; ++k) raw_cells_[raw_columns_[k]] = raw_[k];
  const bool blended = p.bonds_penalty != 0 && p.bonds_penalty != 65535;
  std::vector<std::pair<std::uint16_t, std::uint64_t>> row;
  for (std::size_t k = 0; k < w.count; ++k) {
    const std::uint64_t weight = unpack_share(for_bonds_[k]);
    const bool dropped = weight == 0 && (blended || weights_[w.first + k] != 0);
    if (dropped) continue;
    const std::uint64_t old = share_of_raw(raw_cells_[columns_[k]]);
    const std::uint64_t learned = rate.at(unpack_share(limit[k]), weight, old);
    const std::uint64_t bond = std::min(
        kShareOne, multiply_shares(old, kShareOne - learned) + multiply_shares(weight, learned));
    if (bond > 0) row.emplace_back(columns_[k], bond);
  }
  // In between the rules go through a dense matrix, which sorts.
  if (blended) std::sort(row.begin(), row.end());
  bond_rows_.push_back({bonds_.size(), row.size()});
  for (const auto& [column, bond] : row) {
    bond_columns_.push_back(column);
    bonds_.push_back(bond);
    bond_sum_.by[column] += bond;
  }
  for (std::size_t k = b.first; k < b.first + b.count; ++k) raw_cells_[raw_columns_[k]] = 0;
}

void SparseTable::absolute_dividends() {
  bond_sum_.finish();
  for (std::size_t r = 0; r < rows_->live.size(); ++r) {
    const Span row = bond_rows_[r];
    columns_ = std::span(bond_columns_).subspan(row.first, row.count);
    const std::uint64_t* const bonds = bonds_.data() + row.first;
    dividends_[r] = kernels_.dividend(bonds, over(bond_sum_, 0),
                                      over(rows_->incentive, numbers_[1]), row.count);
    u16_.resize(std::max(u16_.size(), row.count));
    kernels_.quantize(bonds, u16_.data(), row.count);
    store_bonds(r, {bonds, row.count});
  }
}

// A bond is kept if it is more than 0 before it is cut to u16.
void SparseTable::store_bonds(std::size_t r, std::span<const std::uint64_t> bonds) {
  const std::uint32_t uid = rows_->live[r];
  if (!rows_->shared->new_permit[uid]) return;
  Row& row = rows_->out.bonds[uid];
  for (std::size_t k = 0; k < bonds.size(); ++k) {
    if (bonds[k] > 0) row.push_back({columns_[k], u16_[k]});
  }
}

}  // namespace yumoe::ledger

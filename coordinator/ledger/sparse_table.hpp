#pragma once
// A mechanism whose rows name few columns, or whose rules ask which columns a row names (liquid
// alpha by cell).

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "ledger/mechanism_rows.hpp"
#include "ledger/row_kernels.hpp"

namespace yumoe::ledger {

class SparseTable {
 public:
  // Fills rows.out but for what MechanismRows::begin did.
  void run(MechanismRows& rows);

 private:
  struct Span {
    std::size_t first = 0;
    std::size_t count = 0;
  };

  void forget();
  std::span<const Entry> kept(const Row& stored, std::uint64_t registered_before, std::size_t self);
  void read_weights(std::uint32_t live_row);
  void read_bonds(std::uint32_t live_row);
  void find_consensus();
  void find_medians();
  void rank();
  void align(std::size_t live_row);
  void relative_bonds();
  void relative_dividends();
  void absolute_bonds();
  void liquid_bonds();
  void liquid_row(std::size_t live_row);
  void absolute_dividends();
  void store_bonds(std::size_t live_row, std::span<const std::uint64_t> bonds);
  void begin_row(std::size_t live_row);

  // A column vector over columns_, and a change of one.
  template <typename T>
  const T* over(const std::vector<T>& all, std::vector<T>& scratch) const {
    scratch.resize(std::max(scratch.size(), columns_.size()));
    for (std::size_t k = 0; k < columns_.size(); ++k) scratch[k] = all[columns_[k]];
    return scratch.data();
  }
  Divisors over(const ColumnDivisors& all, std::size_t slot) {
    return {over(all.by, numbers_[slot]), over(all.reciprocal, reciprocals_[slot])};
  }
  template <typename Change>
  void change(std::vector<std::uint64_t>& all, Change with) {
    changed_.resize(std::max(changed_.size(), columns_.size()));
    for (std::size_t k = 0; k < columns_.size(); ++k) changed_[k] = all[columns_[k]];
    with(changed_.data());
    for (std::size_t k = 0; k < columns_.size(); ++k) all[columns_[k]] = changed_[k];
  }

  const RowKernels& kernels_ = row_kernels();
  MechanismRows* rows_ = nullptr;

  // By live row, one after another.
  std::vector<Span> weight_rows_;
  std::vector<std::uint16_t> weight_columns_;
  std::vector<std::uint32_t> weights_;  // row-normalised, packed
  std::vector<Span> raw_rows_;
  std::vector<std::uint16_t> raw_columns_;
  std::vector<std::uint16_t> raw_;
  std::vector<Span> bond_rows_;
  std::vector<std::uint16_t> bond_columns_;
  std::vector<std::uint64_t> bonds_;
  std::vector<std::uint64_t> dividends_;

  // By column.
  std::vector<std::uint32_t> consensus_;
  ColumnDivisors fresh_sum_;  // of stake times weight for bonds
  ColumnDivisors raw_sum_;
  ColumnDivisors bond_sum_;
  ColumnDivisors largest_;
  std::vector<std::uint32_t> seen_;  // the last row that named the column
  std::uint32_t seen_row_ = 0;
  std::vector<std::uint32_t> weight_cells_;  // all 0 between rows
  std::vector<std::uint16_t> raw_cells_;     // likewise

  // The row at hand.
  std::vector<Entry> kept_;
  std::span<const std::uint16_t> columns_;
  std::vector<std::uint16_t> union_;
  std::vector<std::uint64_t> present_;  // bit set of columns
  std::vector<std::uint32_t> row_weights_;
  std::vector<std::uint16_t> row_raw_;
  std::vector<std::uint32_t> for_bonds_;
  std::vector<std::uint32_t> limits_;
  std::vector<std::uint64_t> changed_;
  std::vector<std::uint16_t> u16_;
  std::array<std::vector<std::uint64_t>, 3> numbers_;
  std::array<std::vector<double>, 3> reciprocals_;
};

}  // namespace yumoe::ledger

#pragma once
// A mechanism whose rows name most columns: a cell for every column, kept in tiles of kTile columns
// by all live rows, so that whatever concerns a column (median, sums, shares) is worked out while
// its tile is in the cache.

#include <cstdint>
#include <vector>

#include "ledger/consensus.hpp"
#include "ledger/mechanism_rows.hpp"
#include "ledger/row_kernels.hpp"

namespace yumoe::ledger {

class DenseTable {
 public:
  // Fills rows.out but for what MechanismRows::begin did.
  void run(MechanismRows& rows);

 private:
  void read(std::uint32_t live_row);
  void fill_cells(const Row& stored, std::uint64_t registered_before, std::size_t self);
  void find_medians(std::size_t tile);
  void rank(std::size_t tile);
  void new_bonds(std::size_t tile);
  void dividends(std::size_t tile);
  void store_bonds(std::size_t tile);
  std::uint32_t* weights(std::size_t tile) { return weights_.data() + tile * live_count_ * kTile; }
  std::uint16_t* raw(std::size_t tile) { return raw_.data() + tile * live_count_ * kTile; }

  const RowKernels& kernels_ = row_kernels();
  MechanismRows* rows_ = nullptr;
  std::size_t live_count_ = 0;
  std::size_t tiles_ = 0;
  bool relative_ = false;

  Buffer<std::uint32_t> weights_;  // row-normalised, packed
  Buffer<std::uint16_t> raw_;      // stored bonds
  Buffer<std::uint64_t> bonds_;    // new bonds of one tile
  std::vector<std::uint32_t> cells_;
  std::vector<std::uint32_t> row_weights_;
  std::vector<std::uint16_t> row_raw_;
  std::vector<std::uint32_t> voting_;  // voters' rows of one tile
  TileMedians medians_;

  // By column, padded to whole tiles.
  std::vector<std::uint32_t> consensus_;
  std::vector<std::uint64_t> rank_;
  std::vector<std::uint64_t> unclipped_rank_;
  std::vector<std::uint64_t> rates_;
  std::vector<std::uint64_t> incentive_;
  ColumnDivisors fresh_sum_;  // of stake times weight for bonds
  ColumnDivisors raw_sum_;
  ColumnDivisors bond_sum_;
  ColumnDivisors largest_;

  // By live row.
  std::vector<std::uint64_t> trust_;
  std::vector<std::uint64_t> dividends_;
};

}  // namespace yumoe::ledger

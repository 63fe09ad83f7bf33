#include "ledger/mechanism.hpp"

#include "ledger/dense_table.hpp"
#include "ledger/mechanism_rows.hpp"
#include "ledger/sparse_table.hpp"

namespace yumoe::ledger {

struct MechanismRunner::Tables {
  MechanismRows rows;
  DenseTable dense;
  SparseTable sparse;
};

namespace {

// The choice is one of speed alone: where only sums and products matter, a cell that is absent and
// one of 0 give the same. Rates by cell depend on which columns a row names, so those keep the rows
// as stored.
bool is_dense(const MechanismRows& rows) {
  const bool asks_for_presence = rows.parameters().yuma == 3 && rows.parameters().liquid_alpha &&
                                 rows.input->rules.liquid == LiquidAlpha::cell;
  return !asks_for_presence && rows.n >= 16 && rows.stored * 3 >= rows.live.size() * rows.n;
}

}  // namespace

MechanismRunner::MechanismRunner() : tables_(std::make_unique<Tables>()) {}
MechanismRunner::~MechanismRunner() = default;

MechanismShares MechanismRunner::run(const EpochInput& input, const MechanismInput& mechanism,
                                     const EpochStake& shared, std::vector<Row> bonds) {
  MechanismRows& rows = tables_->rows;
  rows.begin(input, mechanism, shared, std::move(bonds));
  if (is_dense(rows)) {
    tables_->dense.run(rows);
  } else {
    tables_->sparse.run(rows);
  }
  return std::move(rows.out);
}

}  // namespace yumoe::ledger

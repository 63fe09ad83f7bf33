#pragma once
// The epoch written down as plainly as the rules are, on vectors of fixed-point numbers: what the
// fast epoch of coordinator/epoch.hpp is compared with, cell by cell. It also has the dense variant
// of the chain's tests (section 5.14), which the product does not need. Slow and simple on purpose.

#include <cstdint>
#include <utility>
#include <vector>

#include "coordinator/epoch.hpp"

namespace yumoe::ledger::plain {

using Vec = std::vector<I32F32>;
using Mat = std::vector<Vec>;
using SparseRow = std::vector<std::pair<std::uint16_t, I32F32>>;
using SMat = std::vector<SparseRow>;

I32F32 sum(const Vec& values);
Vec normalize(Vec values);
Mat dense(const SMat& rows, std::size_t columns);
SMat sparse(const Mat& rows);  // keeps what is > 0
Vec row_sum(const SMat& rows);
Vec matmul(const SMat& rows, const Vec& by_row);            // out_j = sum_i by_row_i * m_ij
Vec matmul_transpose(const SMat& rows, const Vec& by_col);  // out_i = sum_j m_ij * by_col_j
SMat row_hadamard(SMat rows, const Vec& by_row);
SMat mat_vec_mul(SMat rows, const Vec& by_col);
SMat col_clip(const SMat& rows, const Vec& limit);
SMat row_normalize(SMat rows);
SMat col_normalize(SMat rows, std::size_t columns);
SMat interpolate(const SMat& a, const SMat& b, std::size_t columns, I32F32 ratio);
SMat ema_alpha(const SMat& fresh, const SMat& old, const Mat& alpha);     // only columns of `fresh`
Mat ema_alpha_dense(const Mat& fresh, const Mat& old, const Mat& alpha);  // all columns
I32F32 weighted_median(const Vec& stake, const Vec& score, std::vector<std::size_t> partition,
                       I32F32 minority, I32F32 low, I32F32 high);
Vec weighted_median_columns(const Vec& stake, const SMat& rows, std::size_t columns,
                            I32F32 majority);

// As run_epoch. With `dense_variant`, no owner exemption, no commit mask, and liquid bonds outside
// the weights stay; bonds still come out sparse (zeros left out), in the order of the columns.
EpochOutput run_epoch(const EpochInput& input, bool dense_variant = false);

}  // namespace yumoe::ledger::plain

#pragma once
// Learning rates of bonds that follow the consensus instead of a constant.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "coordinator/epoch.hpp"

namespace yumoe::ledger {

// liquid_rate() with what does not change from cell to cell worked out once.
class LiquidRate {
 public:
  LiquidRate(I32F32 low, I32F32 high, std::int16_t steepness);
  // Arguments and result are bits of shares.
  std::uint64_t at(std::uint64_t consensus, std::uint64_t weight, std::uint64_t bond) const;

 private:
  I32F32 low_;
  I32F32 high_;
  I32F32 slope_;
};

// A rate a column, from the quartiles of the consensus (until spec 273); nothing when its guard
// asks for the constant rate.
std::optional<std::vector<I32F32>> quantile_rates(const EpochParameters& parameters,
                                                  std::span<const I32F32> consensus);

}  // namespace yumoe::ledger

#pragma once
// One mechanism's epoch: weights and bonds of a subnet to incentives, dividends and new bonds.

#include <cstdint>
#include <memory>
#include <vector>

#include "coordinator/epoch.hpp"

namespace yumoe::ledger {

// What all mechanisms of a subnet share in one epoch.
struct EpochStake {
  std::vector<std::uint8_t> old_permit;  // with the owner's
  std::vector<std::uint8_t> new_permit;
  std::vector<I32F32> stake;  // shares of the sum, after the threshold
};

struct MechanismShares {
  std::vector<std::uint8_t> active;
  std::vector<I32F32> active_stake;
  std::vector<I32F32> consensus;
  std::vector<I32F32> validator_trust;
  std::vector<I32F32> incentive;
  std::vector<I32F32> dividends;
  std::vector<I32F32> trust;  // only by rules with old scores
  std::vector<Row> bonds;
};

// Runs mechanisms one after another and keeps its buffers from run to run.
class MechanismRunner {
 public:
  MechanismRunner();
  ~MechanismRunner();
  // input has been checked: lengths agree, n <= 65535. `bonds` are rows whose memory may be used
  // again.
  MechanismShares run(const EpochInput& input, const MechanismInput& mechanism,
                      const EpochStake& shared, std::vector<Row> bonds);

 private:
  struct Tables;
  std::unique_ptr<Tables> tables_;
};

// a / sum(a), or a where the sum is 0.
void normalize(std::vector<I32F32>& values);

}  // namespace yumoe::ledger

#pragma once
// Everything a run's ledger says, computed again from the run's record and held against what the
// coordinator kept.

#include <cstdint>

#include "cluster/bytes.hpp"
#include "coordinator/run_record.hpp"

namespace yumoe {

struct LedgerAudit {
  std::uint64_t blocks = 0;     // every one's books were added up
  std::uint64_t epochs = 0;     // of the run's subnet
  std::uint64_t calls = 0;      // whose signatures were checked
  std::uint64_t snapshots = 0;  // of checkpoints, equal to what was computed
  std::uint64_t issuance = 0;   // rao
  Digest digest;                // of the ledger
};

// Throws the first thing that is wrong: Error{invariant_broken} naming the account that does not add up,
// Error{signature_invalid} naming the call, Error{replay_differs} naming checkpoint and place where a
// kept snapshot differs, and what the record throws.
LedgerAudit audit_ledger(const RunRecord& record);

}  // namespace yumoe

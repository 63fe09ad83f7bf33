#pragma once
// The chain of digests over a run's records, as schemas/journal.sql defines it. Private to
// coordinator/store; the journal and the exported file share it.

#include <cstdint>
#include <string>
#include <string_view>

#include "cluster/bytes.hpp"
#include "coordinator/journal.hpp"

namespace yumoe {

// chain(0). `metadata` is sorted by name and has "run" left out.
Digest first_link(const std::string& run, const JournalMetadata& metadata);

Digest next_link(const Digest& before, std::uint64_t sequence, TimeMs time, std::string_view kind,
                 ByteView payload);

// Follows a chain record by record.
class ChainCheck {
 public:
  // Begins after record `sequence`, whose digest is `chain`.
  ChainCheck(std::uint64_t sequence, const Digest& chain) : sequence_(sequence), chain_(chain) {}

  // False if `record` is not the next one, or not as it was recorded.
  bool accepts(const Record& record);

  std::uint64_t sequence() const noexcept { return sequence_; }
  const Digest& chain() const noexcept { return chain_; }

 private:
  std::uint64_t sequence_;
  Digest chain_;
};

}  // namespace yumoe

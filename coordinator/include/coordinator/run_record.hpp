#pragma once
// A run as a record to be read: its folder, or the one file that `export_run` made of it. Replay,
// audit and the dashboard's history read either without knowing which.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/ids.hpp"
#include "coordinator/checkpoint.hpp"
#include "coordinator/journal.hpp"

namespace yumoe {

// Where a run's checkpoints lie: <run>/checkpoints.
std::filesystem::path checkpoint_folder(const std::filesystem::path& run_folder);
// Where its settlement with a chain is kept: <run>/settlement.
std::filesystem::path settlement_folder(const std::filesystem::path& run_folder);

// One object, one thread. Errors are those of JournalReader and read_checkpoint.
class RunRecord {
 public:
  virtual ~RunRecord() = default;

  virtual const std::string& run() const = 0;
  virtual const JournalMetadata& metadata() const = 0;  // sorted by name
  virtual std::uint64_t size() const = 0;               // records

  // As JournalReader::for_each.
  virtual void for_each(std::uint64_t from,
                        const std::function<bool(const Record&)>& visit) const = 0;

  // As JournalReader::blob and ::blobs.
  virtual std::optional<Bytes> blob(const Digest& digest) const = 0;
  virtual std::vector<BlobInfo> blobs() const = 0;

  // A file of settlement_folder(), "journal" or "readings.jsonl", as it stood when the record was opened or
  // exported; its end may be torn. nullopt: the run has settled nothing.
  virtual std::optional<Bytes> settlement_file(std::string_view) const { return std::nullopt; }

  virtual std::vector<RoundId> checkpoints() const = 0;  // newest first
  virtual Checkpoint checkpoint(RoundId round) const = 0;
};

// Opens a run's folder (may be in use by a coordinator) or an exported file. The file is checked
// whole against its seal first: cost, one read of it.
// Throws Error{file_missing}, Error{version_mismatch}, Error{journal_corrupt}, Error{journal_io}.
std::unique_ptr<RunRecord> open_run_record(const std::filesystem::path& path);

}  // namespace yumoe

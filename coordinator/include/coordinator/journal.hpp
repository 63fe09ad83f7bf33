#pragma once
// The journal of a run: every event that changed the coordinator's state, in order, durable before
// its consequence is visible outside. SQLite in WAL mode under <run>/; layout: schemas/journal.sql.
//
// Each record's digest covers the one before it, so a changed, lost or reordered record is found.
// Large byte strings (contributions, aggregates) are blobs: named by their digest, dropped by age.
// The store does not know what events mean: kind and payload are the caller's.
//
// Files of a run: journal.sqlite (with -wal and -shm while open), journal.head (what was last
// acknowledged, so that a lost tail is noticed), journal.lock (who writes).

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/clock.hpp"
#include "cluster/ids.hpp"

namespace yumoe {

// What is to be recorded. Views are not kept.
struct Entry {
  TimeMs time;
  std::string kind;  // 1 to 64 bytes, e.g. "contribution"
  ByteView payload;  // at most kRecordBytesMax
};

struct Record {
  std::uint64_t sequence = 0;  // from 1, without gaps
  TimeMs time;
  std::string kind;
  Bytes payload;
  Digest chain;  // BLAKE2b over the previous record's chain and everything above
};

// Where a large byte string is wanted again.
struct Blob {
  RoundId round;     // last round that needs it: what retention goes by
  std::string kind;  // 1 to 64 bytes, e.g. "aggregate"
  ByteView bytes;    // at most kBlobBytesMax
};

struct BlobInfo {
  Digest digest;
  RoundId round;
  std::string kind;
  std::uint64_t bytes = 0;
};

inline constexpr std::size_t kRecordBytesMax = std::size_t{64} << 20;
inline constexpr std::size_t kBlobBytesMax = std::size_t{512} << 20;

// Names [A-Za-z0-9_.-]{1,64}, each once: the run's configuration and whatever else never changes.
using JournalMetadata = std::vector<std::pair<std::string, std::string>>;

// Reads a journal while a coordinator may be writing it (`yumoe status`, export, dashboard), also
// from a read-only folder if the run was closed. One object, one thread.
class JournalReader {
 public:
  // Throws Error{file_missing} if `folder` holds no journal, Error{version_mismatch} if it was
  // written by another layout, Error{journal_corrupt}, Error{journal_io}.
  static JournalReader open(const std::filesystem::path& folder);

  JournalReader(JournalReader&&) noexcept;
  JournalReader& operator=(JournalReader&&) noexcept;
  virtual ~JournalReader();

  const std::string& run() const;
  const JournalMetadata& metadata() const;  // sorted by name, without "run"
  std::optional<std::string> metadata(std::string_view name) const;

  // Number of records, equal to the last sequence.
  std::uint64_t size() const;

  // Visits records from sequence `from` (at least 1) to the last, as they stood when the call
  // began, until `visit` returns false. Checks sequence and chain as it goes, from 1 the whole of
  // it. Throws Error{journal_corrupt} naming the last good sequence; records before it were
  // visited.
  void for_each(std::uint64_t from, const std::function<bool(const Record&)>& visit) const;

  // The bytes whose digest is `digest`, checked; nullopt if not kept (never put, or dropped).
  // Throws Error{journal_corrupt} if they no longer match.
  std::optional<Bytes> blob(const Digest& digest) const;

  // What is kept, by round, then in the order put.
  std::vector<BlobInfo> blobs() const;

  // Everything read until the snapshot is destroyed belongs to one moment.
  class Snapshot {
   public:
    explicit Snapshot(const JournalReader& reader);
    ~Snapshot();
    Snapshot(const Snapshot&) = delete;
    Snapshot& operator=(const Snapshot&) = delete;

   private:
    const JournalReader& reader_;
  };

 protected:
  struct Impl;
  explicit JournalReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct RecoveryReport {
  std::uint64_t last_good = 0;     // records 1..last_good were kept
  std::uint64_t acknowledged = 0;  // what the damaged journal had acknowledged, 0 if unknown
  std::uint64_t blobs_kept = 0;
  std::uint64_t blobs_lost = 0;       // as far as they could be counted
  std::filesystem::path kept_beside;  // the damaged file, untouched
};

// The one writer of a run. One object, one thread.
class Journal final : public JournalReader {
 public:
  // Makes `folder` if needed and an empty journal in it, durable on return.
  // Throws Error{file_io} if it already holds one, Error{disk_full}, Error{journal_io}.
  static Journal create(const std::filesystem::path& folder, const std::string& run,
                        const JournalMetadata& metadata);

  // Opens for appending after checking the whole chain (cost: one read of all records, ~1 GB/s).
  // Throws what JournalReader::open throws, Error{run_locked} if another coordinator has it open,
  // and Error{journal_corrupt} naming the last good sequence: `recover` then mends it.
  static Journal open(const std::filesystem::path& folder);

  // Cuts a damaged journal to its last good record and keeps the damaged one beside it as
  // journal.damaged-N.sqlite. Does nothing to a sound one. May be killed and repeated.
  // Throws Error{journal_corrupt} if not even the metadata can be trusted, Error{run_locked}.
  static RecoveryReport recover(const std::filesystem::path& folder);

  Journal(Journal&&) noexcept;
  Journal& operator=(Journal&&) noexcept;
  ~Journal() override;

  // Records events and puts blobs in one transaction: all or none, and on the disk when it returns.
  // Returns the last sequence. A blob already there is kept until the later of the two rounds.
  // Cost: one fsync a call, so give many events at once.
  //
  // Throws Error{disk_full}: nothing was recorded, try again when there is room. Throws
  // Error{journal_io}: unknown whether it was recorded; every later append throws, open anew.
  std::uint64_t append(std::span<const Entry> events, std::span<const Blob> blobs = {});

  // Digest of the last record (of the metadata if there is none).
  const Digest& chain() const noexcept;

  // Drops blobs whose round is before `round`, except those for which `keep` says true.
  // Returns how many. The space is used again by later blobs.
  std::uint64_t drop_blobs(RoundId round, const std::function<bool(const BlobInfo&)>& keep = {});

 private:
  struct Writer;
  explicit Journal(std::unique_ptr<Impl> impl);
  Writer& writer() const noexcept;
};

}  // namespace yumoe

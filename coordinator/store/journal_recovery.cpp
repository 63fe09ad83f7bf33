// Cutting a damaged journal to its last good record.
//
// The good part is copied into a new file, which takes the old one's place only when complete; the
// old one, with SQLite's log, is kept under another name. Every step can be repeated after a kill.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "coordinator/journal.hpp"
#include "store/journal_impl.hpp"

namespace yumoe {
namespace {

using sqlite::Statement;
namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

fs::path free_name(const JournalFiles& files) {
  for (int n = 1;; ++n) {
    const fs::path path = files.folder / ("journal.damaged-" + std::to_string(n) + ".sqlite");
    if (!is_there(path)) return path;
  }
}

void link_beside(const fs::path& from, const fs::path& to) {
  if (::link(from.c_str(), to.c_str()) != 0 && errno != ENOENT) {
    throw_errno(errno, "keep " + from.string() + " as " + to.string(), ErrorCode::journal_io);
  }
}

// Reads as much as is sound of a journal that may be damaged anywhere.
struct Damaged : JournalReader {
  explicit Damaged(const JournalFiles& files)
      : JournalReader(
            std::make_unique<Impl>(files.folder, files.database.string(), SQLITE_OPEN_READONLY)) {}
  Impl& impl() { return *impl_; }
  using Implementation = Impl;
};

class Copier {
 public:
  Copier(const JournalFiles& files, Damaged& source)
      : source_(source.impl().database),
        target_(files.salvaging.string(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) {
    create_layout(target_, source.run(), source.metadata());
    target_.execute("BEGIN", "recover");
    record_.emplace(target_,
                    "INSERT INTO record (sequence, time_ms, kind, payload, chain) "
                    "VALUES (?, ?, ?, ?, ?)");
    blob_.emplace(target_,
                  "INSERT OR IGNORE INTO blob (digest, round, kind, bytes) VALUES (?, ?, ?, ?)");
  }

  void copy(const Record& record) {
    const sqlite::Use row(*record_);
    row->bind(1, static_cast<std::int64_t>(record.sequence));
    row->bind(2, record.time.value);
    row->bind(3, std::string_view(record.kind));
    row->bind(4, ByteView(record.payload));
    row->bind(5, ByteView(record.chain.bytes));
    row->step("recover");
  }

  // Damage ends a walk over the table, so it is walked from both ends.
  void copy_blobs(RecoveryReport& report) {
    std::int64_t last = 0;
    const bool whole = copy_blobs_in_order("ASC", 0, last, report);
    if (!whole) copy_blobs_in_order("DESC", last, last, report);
  }

  void finish() { target_.execute("COMMIT", "recover"); }

 private:
  bool copy_blobs_in_order(const char* order, std::int64_t beyond, std::int64_t& last,
                           RecoveryReport& report) {
    try {
      Statement rows(source_, std::string("SELECT rowid, digest, round, kind, bytes FROM blob ") +
                                  "NOT INDEXED WHERE rowid > ? ORDER BY rowid " + order);
      rows.bind(1, beyond);
      while (rows.step("recover")) {
        last = rows.integer(0);
        copy_blob(rows, report);
      }
      return true;
    } catch (const Error& error) {
      if (error.code() != ErrorCode::journal_corrupt) throw;
      ++report.blobs_lost;  // the one that could not be read; those behind it are not countable
      return false;
    }
  }

  void copy_blob(const Statement& row, RecoveryReport& report) {
    const ByteView name = row.bytes(1), bytes = row.bytes(4);
    const Digest digest = digest_of(bytes);
    if (!std::equal(name.begin(), name.end(), digest.bytes.begin(), digest.bytes.end())) {
      ++report.blobs_lost;
      return;
    }
    const sqlite::Use insert(*blob_);
    insert->bind(1, name);
    insert->bind(2, row.integer(2));
    insert->bind(3, row.text(3));
    insert->bind(4, bytes);
    insert->step("recover");
    ++report.blobs_kept;
  }

  sqlite::Database& source_;
  sqlite::Database target_;
  std::optional<Statement> record_;
  std::optional<Statement> blob_;
};

// The first link is part of what record 1 or the head vouches for.
void refuse_unknown_metadata(const Damaged::Implementation::Walk& found, const Digest& first,
                             const HeadReading& head, const JournalFiles& files) {
  const bool vouched =
      head.state == HeadState::good ? head.head.first == first : found.last_good > 0;
  if (vouched) return;
  throw Error(ErrorCode::journal_corrupt,
              files.database.string() +
                  ": not even the run's configuration can be trusted; restore the folder from a "
                  "copy or from an exported file");
}

void salvage(const JournalFiles& files, const HeadReading& head, Damaged& damaged,
             RecoveryReport& report) {
  fs::remove(files.salvaging);
  fs::remove(files.salvaging.string() + "-journal");
  {
    Copier copier(files, damaged);
    const auto found = damaged.impl().walk(1, [&](const Record& record) {
      copier.copy(record);
      return true;
    });
    refuse_unknown_metadata(found, damaged.impl().first, head, files);
    report.last_good = found.last_good;
    copier.copy_blobs(report);
    copier.finish();
  }
  replace_file(files.salvaging, files.recovered, ErrorCode::journal_io);
}

// Whether SQLite finds its own structure in order and every blob matches its name.
bool rest_is_sound(Damaged& damaged) {
  try {
    Statement check(damaged.impl().database, "PRAGMA integrity_check(1)");
    if (!check.step("check") || check.text(0) != "ok") return false;
    Statement rows(damaged.impl().database, "SELECT digest, bytes FROM blob");
    while (rows.step("check")) {
      const ByteView name = rows.bytes(0);
      const Digest digest = digest_of(rows.bytes(1));
      if (!std::equal(name.begin(), name.end(), digest.bytes.begin(), digest.bytes.end())) {
        return false;
      }
    }
    return true;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::journal_corrupt) throw;
    return false;
  }
}

// Leaves journal.recovered.sqlite behind if the journal needed it.
RecoveryReport examine(const JournalFiles& files) {
  RecoveryReport report;
  const HeadReading head = read_head(files);
  report.acknowledged = head.head.sequence;
  Damaged damaged(files);
  const auto found = damaged.impl().verify(head);
  report.last_good = found.last_good;
  if (!found.failure.empty() || !rest_is_sound(damaged)) salvage(files, head, damaged, report);
  return report;
}

// Puts the recovered file in the damaged one's place. The head is written anew at the next opening.
void take_place(const JournalFiles& files, RecoveryReport& report) {
  if (is_there(files.database)) {
    report.kept_beside = free_name(files);
    link_beside(files.log, report.kept_beside.string() + "-wal");
    link_beside(files.database, report.kept_beside);
    fs::remove(files.log);
    fs::remove(files.shared);
  }
  fs::remove(files.head);
  sync_folder(files.folder, ErrorCode::journal_io);
  replace_file(files.recovered, files.database, ErrorCode::journal_io);
}

}  // namespace

RecoveryReport Journal::recover(const fs::path& folder) {
  const JournalFiles files(folder);
  if (!is_there(files.database) && !is_there(files.recovered)) {
    throw Error(ErrorCode::file_missing,
                files.database.string() + ": this folder holds no run; check its name");
  }
  const File lock = lock_journal(files);
  RecoveryReport report;
  if (!is_there(files.recovered)) report = examine(files);
  if (is_there(files.recovered)) take_place(files, report);
  return report;
}

}  // namespace yumoe

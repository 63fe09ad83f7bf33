#include "coordinator/journal.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cctype>
#include <string_view>

#include "store/journal_impl.hpp"

namespace yumoe {
namespace {

using sqlite::Statement;
using sqlite::Use;

bool is_metadata_name(std::string_view name) {
  const auto allowed = [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '.' || c == '-';
  };
  return !name.empty() && name.size() <= 64 && name != "run" &&
         std::all_of(name.begin(), name.end(), allowed);
}

JournalMetadata sorted(JournalMetadata metadata) {
  std::sort(metadata.begin(), metadata.end());
  for (std::size_t i = 0; i < metadata.size(); ++i) {
    YUMOE_ASSERT(is_metadata_name(metadata[i].first));
    YUMOE_ASSERT(i == 0 || metadata[i - 1].first != metadata[i].first);
  }
  return metadata;
}

void check_kind(const std::string& kind) { YUMOE_ASSERT(!kind.empty() && kind.size() <= 64); }

}  // namespace

struct Journal::Writer final : Impl {
  Writer(const std::filesystem::path& folder, File lock)
      : Impl(folder, files_of(folder).database.string(), SQLITE_OPEN_READWRITE),
        lock(std::move(lock)) {
    database.execute(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 2000; "
        "PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY;",
        "open");
  }

  static JournalFiles files_of(const std::filesystem::path& folder) { return JournalFiles(folder); }

  // Once verified: from here on this process writes.
  void begin(const Walk& verified) {
    sequence = verified.last_good;
    chain = verified.chain;
    head.emplace(open_head(files));
    write_head(*head, {first, sequence, chain});
    head->sync();
    sqlite3_db_config(database.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, nullptr);
    insert_record.emplace(database,
                          "INSERT INTO record (sequence, time_ms, kind, payload, chain) "
                          "VALUES (?, ?, ?, ?, ?)");
    insert_blob.emplace(database,
                        "INSERT INTO blob (digest, round, kind, bytes) VALUES (?, ?, ?, ?) "
                        "ON CONFLICT (digest) DO UPDATE SET round = max(round, excluded.round)");
  }

  void put(const Blob& blob) {
    check_kind(blob.kind);
    YUMOE_ASSERT(blob.bytes.size() <= kBlobBytesMax);
    const Digest digest = digest_of(blob.bytes);
    Use row(*insert_blob);
    row->bind(1, ByteView(digest.bytes));
    row->bind(2, static_cast<std::int64_t>(blob.round.value));
    row->bind(3, std::string_view(blob.kind));
    row->bind(4, blob.bytes);
    row->step("append to");
  }

  Digest record(const Entry& event, std::uint64_t at, const Digest& before) {
    check_kind(event.kind);
    YUMOE_ASSERT(event.payload.size() <= kRecordBytesMax);
    const Digest link = next_link(before, at, event.time, event.kind, event.payload);
    Use row(*insert_record);
    row->bind(1, static_cast<std::int64_t>(at));
    row->bind(2, event.time.value);
    row->bind(3, std::string_view(event.kind));
    row->bind(4, event.payload);
    row->bind(5, ByteView(link.bytes));
    row->step("append to");
    return link;
  }

  // Undoes an open transaction. A journal that cannot say what it holds takes no more records.
  void roll_back(const Error& error) {
    if (sqlite3_get_autocommit(database.get()) == 0 &&
        sqlite3_exec(database.get(), "ROLLBACK", nullptr, nullptr, nullptr) != SQLITE_OK) {
      failed = true;
    }
    if (error.code() != ErrorCode::disk_full) failed = true;
  }

  template <typename Body>
  void transaction(Body&& body) {
    if (failed) {
      throw Error(ErrorCode::journal_io, files.folder.string() +
                                             ": an earlier write failed; close the run, look at "
                                             "the disk, then open it again");
    }
    try {
      database.execute("BEGIN IMMEDIATE", "append to");
      body();
      database.execute("COMMIT", "append to");
    } catch (const Error& error) {
      roll_back(error);
      throw;
    }
  }

  File lock;
  std::optional<File> head;
  std::optional<Statement> insert_record;
  std::optional<Statement> insert_blob;
  std::uint64_t sequence = 0;
  Digest chain;
  bool failed = false;
};

Journal::Journal(std::unique_ptr<Impl> impl) : JournalReader(std::move(impl)) {}
Journal::Journal(Journal&&) noexcept = default;
Journal& Journal::operator=(Journal&&) noexcept = default;
Journal::~Journal() = default;

Journal::Writer& Journal::writer() const noexcept { return static_cast<Writer&>(*impl_); }

Journal Journal::create(const std::filesystem::path& folder, const std::string& run,
                        const JournalMetadata& metadata) {
  make_folder(folder, ErrorCode::journal_io);
  const JournalFiles files(folder);
  File lock = lock_journal(files);
  if (std::filesystem::exists(files.database) || std::filesystem::exists(files.recovered)) {
    throw Error(ErrorCode::file_io, "create a run in " + folder.string() +
                                        ": it already holds one; resume that, or choose another "
                                        "folder");
  }
  const JournalMetadata rows = sorted(metadata);
  // Under another name until complete, so that no half-made run is ever found.
  std::filesystem::remove(files.created);
  std::filesystem::remove(files.created.string() + "-journal");
  {
    sqlite::Database database(files.created.string(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    create_layout(database, run, rows);
  }
  const Digest first = first_link(run, rows);
  File head = open_head(files);
  write_head(head, {first, 0, first});
  head.sync();
  replace_file(files.created, files.database, ErrorCode::journal_io);
  auto writer = std::make_unique<Writer>(folder, std::move(lock));
  writer->begin({.last_good = 0, .chain = first, .failure = {}});
  return Journal(std::move(writer));
}

Journal Journal::open(const std::filesystem::path& folder) {
  const JournalFiles files(folder);
  refuse_if_missing(files);
  auto writer = std::make_unique<Writer>(folder, lock_journal(files));
  const Impl::Walk found = writer->verify(read_head(files));
  if (!found.failure.empty()) {
    throw Error(ErrorCode::journal_corrupt,
                corrupt_message(folder, found.failure, found.last_good));
  }
  writer->begin(found);
  return Journal(std::move(writer));
}

std::uint64_t Journal::append(std::span<const Entry> events, std::span<const Blob> blobs) {
  Writer& self = writer();
  if (events.empty() && blobs.empty()) return self.sequence;
  std::uint64_t sequence = self.sequence;
  Digest chain = self.chain;
  self.transaction([&] {
    for (const Blob& blob : blobs) self.put(blob);
    for (const Entry& event : events) chain = self.record(event, ++sequence, chain);
  });
  self.sequence = sequence;
  self.chain = chain;
  write_head(*self.head, {self.first, sequence, chain});
  return sequence;
}

const Digest& Journal::chain() const noexcept { return writer().chain; }

std::uint64_t Journal::drop_blobs(RoundId round, const std::function<bool(const BlobInfo&)>& keep) {
  Writer& self = writer();
  std::uint64_t dropped = 0;
  const std::vector<BlobInfo> kept = blobs();
  self.transaction([&] {
    Statement remove(self.database, "DELETE FROM blob WHERE digest = ?");
    for (const BlobInfo& info : kept) {
      if (info.round >= round) break;
      if (keep && keep(info)) continue;
      Use row(remove);
      row->bind(1, ByteView(info.digest.bytes));
      row->step("drop blobs from");
      ++dropped;
    }
  });
  return dropped;
}

}  // namespace yumoe

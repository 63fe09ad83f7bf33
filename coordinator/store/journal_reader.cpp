#include <algorithm>
#include <cstring>

#include "coordinator/journal.hpp"
#include "store/journal_impl.hpp"
#include "store/journal_sql.hpp"

namespace yumoe {
namespace {

using sqlite::Statement;

// Everything that defines the layout, in one text. The automatic index of UNIQUE has no SQL.
std::string schema_of(const sqlite::Database& database) {
  Statement rows(database,
                 "SELECT type, name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name");
  std::string schema;
  while (rows.step("read the layout of")) {
    for (int column = 0; column < 3; ++column) (schema += rows.text(column)) += '\n';
  }
  return schema;
}

std::int64_t pragma_of(const sqlite::Database& database, const char* sql) {
  Statement row(database, sql);
  return row.step("read the layout of") ? row.integer(0) : 0;
}

std::string escaped_uri(const std::filesystem::path& path) {
  std::string uri = "file:";
  for (const char c : path.string()) {
    if (std::isalnum(static_cast<unsigned char>(c)) || std::strchr("/._-", c) != nullptr) {
      uri += c;
    } else {
      (uri += '%') += to_hex(as_bytes(std::string_view(&c, 1)));
    }
  }
  return uri;
}

bool is_absent_or_empty(const std::filesystem::path& path) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  return error || bytes == 0;
}

}  // namespace

void refuse_if_missing(const JournalFiles& files) {
  std::error_code error;
  if (std::filesystem::exists(files.recovered, error)) {
    throw Error(ErrorCode::journal_corrupt,
                "recovery of " + files.folder.string() + " was interrupted: recover it again");
  }
  if (!std::filesystem::exists(files.database, error)) {
    throw Error(ErrorCode::file_missing,
                files.database.string() + ": this folder holds no run; check its name");
  }
}

std::string corrupt_message(const std::filesystem::path& folder, const std::string& failure,
                            std::uint64_t last_good) {
  return folder.string() + ": " + failure + "; the last good record is " +
         std::to_string(last_good) +
         ": start the run again with the same --out; it cuts the journal there, keeps the damaged "
         "file "
         "beside it and goes on from a checkpoint";
}

void create_layout(sqlite::Database& database, const std::string& run,
                   const JournalMetadata& metadata) {
  database.execute("PRAGMA page_size = 8192; PRAGMA synchronous = FULL; BEGIN;", "create");
  database.execute(kJournalSql, "create");
  database.execute("PRAGMA application_id = " + std::to_string(kJournalApplication) +
                       "; PRAGMA user_version = " + std::to_string(kJournalVersion),
                   "create");
  Statement insert(database, "INSERT INTO metadata (name, value) VALUES (?, ?)");
  const auto add = [&](std::string_view name, std::string_view value) {
    insert.reset();
    insert.bind(1, name);
    insert.bind(2, value);
    insert.step("create");
  };
  add("run", run);
  for (const auto& [name, value] : metadata) add(name, value);
  insert.reset();
  database.execute("COMMIT", "create");
}

JournalReader::Impl::Impl(const std::filesystem::path& folder, const std::string& name, int flags)
    : files(folder), database(name, flags) {
  // Until the journal has proved sound, closing must not fold SQLite's log into it: a damaged log
  // is evidence that recovery keeps.
  sqlite3_db_config(database.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  database.execute("PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;", "open");
  check_layout();
  read_metadata();
}

void JournalReader::Impl::check_layout() {
  const std::int64_t application = pragma_of(database, "PRAGMA application_id");
  const std::int64_t version = pragma_of(database, "PRAGMA user_version");
  if (application != kJournalApplication) {
    throw Error(ErrorCode::journal_corrupt,
                files.database.string() + ": it is not a journal; restore it from a copy");
  }
  if (version != kJournalVersion) {
    throw Error(ErrorCode::version_mismatch, files.database.string() + " has layout " +
                                                 std::to_string(version) + ", this program reads " +
                                                 std::to_string(kJournalVersion) +
                                                 ": use the release that wrote it");
  }
  sqlite::Database fresh(":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  fresh.execute(kJournalSql, "create");
  if (schema_of(fresh) != schema_of(database)) {
    throw Error(ErrorCode::journal_corrupt,
                files.database.string() + ": its tables are not those of a journal");
  }
}

void JournalReader::Impl::read_metadata() {
  Statement rows(database, "SELECT name, value FROM metadata ORDER BY name");
  bool named = false;
  while (rows.step("read the metadata of")) {
    if (rows.text(0) == "run") {
      run = rows.text(1);
      named = true;
    } else {
      metadata.emplace_back(rows.text(0), rows.text(1));
    }
  }
  if (!named) {
    throw Error(ErrorCode::journal_corrupt, files.database.string() + ": the run's id is missing");
  }
  first = first_link(run, metadata);
}

std::uint64_t JournalReader::Impl::last_sequence() {
  Statement last(database, "SELECT max(sequence) FROM record");
  last.step("read");
  return static_cast<std::uint64_t>(std::max<std::int64_t>(last.integer(0), 0));
}

std::optional<Digest> JournalReader::Impl::chain_at(std::uint64_t sequence) {
  if (sequence == 0) return first;
  Statement row(database, "SELECT chain FROM record WHERE sequence = ?");
  row.bind(1, static_cast<std::int64_t>(sequence));
  if (!row.step("read")) return std::nullopt;
  const ByteView bytes = row.bytes(0);
  Digest chain;
  if (bytes.size() != chain.bytes.size()) return std::nullopt;
  std::copy(bytes.begin(), bytes.end(), chain.bytes.begin());
  return chain;
}

JournalReader::Impl::Walk JournalReader::Impl::walk(
    std::uint64_t from, const std::function<bool(const Record&)>& visit) {
  Walk walk{.last_good = from - 1, .chain = {}, .failure = {}};
  const auto fails = [&walk](const std::string& why) {
    walk.failure = "record " + std::to_string(walk.last_good + 1) + " " + why;
    return walk;
  };
  std::optional<Statement> rows;
  const auto step = [&]() -> bool {  // a row, or none and perhaps a failure
    try {
      return rows->step("read");
    } catch (const Error& error) {
      if (error.code() != ErrorCode::journal_corrupt) throw;
      fails("cannot be read");
      return false;
    }
  };
  try {
    const std::optional<Digest> before = chain_at(from - 1);
    if (!before) {
      walk.failure = "record " + std::to_string(from - 1) + " is missing";
      walk.last_good = 0;
      return walk;
    }
    walk.chain = *before;
    rows.emplace(database,
                 "SELECT sequence, time_ms, kind, payload, chain FROM record "
                 "WHERE sequence BETWEEN ? AND ? ORDER BY sequence");
    rows->bind(1, static_cast<std::int64_t>(from));
    rows->bind(2, static_cast<std::int64_t>(last_sequence()));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::journal_corrupt) throw;
    return fails("cannot be read");
  }
  ChainCheck check(from - 1, walk.chain);
  Record record;
  while (step()) {
    record.sequence = static_cast<std::uint64_t>(rows->integer(0));
    record.time.value = rows->integer(1);
    record.kind = rows->text(2);
    const ByteView payload = rows->bytes(3), chain = rows->bytes(4);
    record.payload.assign(payload.begin(), payload.end());
    if (chain.size() != record.chain.bytes.size()) return fails("has no digest");
    std::copy(chain.begin(), chain.end(), record.chain.bytes.begin());
    if (record.sequence != walk.last_good + 1) return fails("is missing");
    if (!check.accepts(record)) return fails("does not match its digest");
    walk.last_good = record.sequence;
    walk.chain = record.chain;
    if (!visit(record)) break;
  }
  return walk;
}

JournalReader::Impl::Walk JournalReader::Impl::verify(const HeadReading& reading) {
  const Head& head = reading.head;
  std::optional<Digest> at_head;
  if (head.sequence == 0) at_head = first;
  Walk found = walk(1, [&](const Record& record) {
    if (record.sequence == head.sequence) at_head = record.chain;
    return true;
  });
  if (!found.failure.empty() || reading.state == HeadState::missing) return found;
  const std::string name = files.head.filename().string();
  if (reading.state == HeadState::damaged) {
    found.failure = name + " fails its check";
  } else if (head.sequence > found.last_good) {
    found.failure = "records " + std::to_string(found.last_good + 1) + " to " +
                    std::to_string(head.sequence) + " were recorded and are gone";
  } else if (!at_head || *at_head != head.chain || first != head.first) {
    found.failure = "it is not the journal that " + name + " tells of";
  }
  return found;
}

JournalReader::JournalReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
JournalReader::JournalReader(JournalReader&&) noexcept = default;
JournalReader& JournalReader::operator=(JournalReader&&) noexcept = default;
JournalReader::~JournalReader() = default;

JournalReader JournalReader::open(const std::filesystem::path& folder) {
  const JournalFiles files(folder);
  refuse_if_missing(files);
  try {
    return JournalReader(
        std::make_unique<Impl>(folder, files.database.string(), SQLITE_OPEN_READONLY));
  } catch (const Error& error) {
    // A closed run on a medium that cannot be written has no room for SQLite's shared memory; it
    // does not need it either, as nobody can be writing.
    if (error.code() != ErrorCode::journal_io || !is_absent_or_empty(files.log)) throw;
  }
  return JournalReader(std::make_unique<Impl>(folder, escaped_uri(files.database) + "?immutable=1",
                                              SQLITE_OPEN_READONLY | SQLITE_OPEN_URI));
}

const std::string& JournalReader::run() const { return impl_->run; }
const JournalMetadata& JournalReader::metadata() const { return impl_->metadata; }

std::optional<std::string> JournalReader::metadata(std::string_view name) const {
  for (const auto& [key, value] : impl_->metadata) {
    if (key == name) return value;
  }
  return std::nullopt;
}

std::uint64_t JournalReader::size() const { return impl_->last_sequence(); }

void JournalReader::for_each(std::uint64_t from,
                             const std::function<bool(const Record&)>& visit) const {
  YUMOE_ASSERT(from >= 1);
  if (from > impl_->last_sequence()) return;
  const Impl::Walk walk = impl_->walk(from, visit);
  if (!walk.failure.empty()) {
    throw Error(ErrorCode::journal_corrupt,
                corrupt_message(impl_->files.folder, walk.failure, walk.last_good));
  }
}

std::optional<Bytes> JournalReader::blob(const Digest& digest) const {
  Statement row(impl_->database, "SELECT bytes FROM blob WHERE digest = ?");
  row.bind(1, ByteView(digest.bytes));
  if (!row.step("read a blob of")) return std::nullopt;
  const ByteView bytes = row.bytes(0);
  if (digest_of(bytes) != digest) {
    throw Error(ErrorCode::journal_corrupt, impl_->files.folder.string() + ": blob " +
                                                digest.hex() +
                                                " does not match its digest: recover the journal, "
                                                "or replay from a later checkpoint");
  }
  return Bytes(bytes.begin(), bytes.end());
}

std::vector<BlobInfo> JournalReader::blobs() const {
  Statement rows(impl_->database,
                 "SELECT digest, round, kind, length(bytes) FROM blob ORDER BY round, rowid");
  std::vector<BlobInfo> blobs;
  while (rows.step("list the blobs of")) {
    BlobInfo info;
    const ByteView digest = rows.bytes(0);
    if (digest.size() != info.digest.bytes.size()) {
      throw Error(ErrorCode::journal_corrupt,
                  impl_->files.folder.string() + ": a blob has no digest: recover the journal");
    }
    std::copy(digest.begin(), digest.end(), info.digest.bytes.begin());
    info.round.value = static_cast<std::uint64_t>(rows.integer(1));
    info.kind = rows.text(2);
    info.bytes = static_cast<std::uint64_t>(rows.integer(3));
    blobs.push_back(std::move(info));
  }
  return blobs;
}

JournalReader::Snapshot::Snapshot(const JournalReader& reader) : reader_(reader) {
  reader_.impl_->database.execute("BEGIN", "read");
}

JournalReader::Snapshot::~Snapshot() {
  sqlite3_exec(reader_.impl_->database.get(), "COMMIT", nullptr, nullptr, nullptr);
}

}  // namespace yumoe

#include "store/sqlite.hpp"

#include <cerrno>

namespace yumoe::sqlite {
namespace {

constexpr int kBusyTimeoutMs = 10'000;
constexpr int kValueBytesMax = 600 << 20;  // above kBlobBytesMax

const char* advice_for(ErrorCode code, int sqlite_code) {
  if (code == ErrorCode::disk_full) {
    return ": free some space there, then start again; what was recorded is kept";
  }
  if (code == ErrorCode::journal_corrupt) {
    return ": recover the journal (cuts it to its last good record, keeps the damaged file)";
  }
  switch (sqlite_code & 0xff) {
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM: return ": choose a folder you may write to, or change its permissions";
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return ": another program holds the journal; end it and try again";
    default: return ": look at the disk and the system's log, then open the run again";
  }
}

}  // namespace

ErrorCode error_code_of(int sqlite_code, int system_errno) {
  switch (sqlite_code & 0xff) {
    case SQLITE_FULL: return ErrorCode::disk_full;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_TOOBIG:
    case SQLITE_FORMAT:
    case SQLITE_MISMATCH: return ErrorCode::journal_corrupt;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
      if (system_errno == ENOSPC || system_errno == EDQUOT) return ErrorCode::disk_full;
      // A page that the file's own structure points at lies beyond its end.
      if (sqlite_code == SQLITE_IOERR_SHORT_READ) return ErrorCode::journal_corrupt;
      return ErrorCode::journal_io;
    default: return ErrorCode::journal_io;
  }
}

Database::Database(const std::string& name, int flags) : name_(name) {
  const int code = sqlite3_open_v2(name.c_str(), &handle_,
                                   flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, nullptr);
  if (code != SQLITE_OK) {
    const ErrorCode meaning = error_code_of(code, handle_ ? sqlite3_system_errno(handle_) : 0);
    const std::string message =
        "open " + name + ": " + sqlite3_errstr(code) + advice_for(meaning, code);
    sqlite3_close(handle_);
    throw Error(meaning, message);
  }
  sqlite3_busy_timeout(handle_, kBusyTimeoutMs);
  sqlite3_limit(handle_, SQLITE_LIMIT_LENGTH, kValueBytesMax);
  sqlite3_db_config(handle_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(handle_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(handle_, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(handle_, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
}

Database::~Database() { sqlite3_close_v2(handle_); }

void Database::fail(int code, std::string_view doing) const {
  const ErrorCode meaning = error_code_of(code, sqlite3_system_errno(handle_));
  throw Error(meaning, std::string(doing) + " " + name_ + ": " + sqlite3_errmsg(handle_) +
                           advice_for(meaning, code));
}

void Database::execute(const std::string& sql, const char* doing) {
  const int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(code, doing);
}

Statement::Statement(const Database& database, std::string_view sql) : database_(database) {
  const int code = sqlite3_prepare_v3(database.get(), sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &handle_, nullptr);
  if (code != SQLITE_OK) database.fail(code, "prepare a statement for");
}

void Statement::bind(int index, std::int64_t value) {
  const int code = sqlite3_bind_int64(handle_, index, value);
  if (code != SQLITE_OK) database_.fail(code, "give a value to");
}

void Statement::bind(int index, std::string_view text) {
  const int code =
      sqlite3_bind_text(handle_, index, text.data(), static_cast<int>(text.size()), SQLITE_STATIC);
  if (code != SQLITE_OK) database_.fail(code, "give text to");
}

void Statement::bind(int index, ByteView bytes) {
  // An empty view may have a null pointer, which SQLite would take for NULL.
  const int code = bytes.empty() ? sqlite3_bind_zeroblob(handle_, index, 0)
                                 : sqlite3_bind_blob64(handle_, index, bytes.data(), bytes.size(),
                                                       SQLITE_STATIC);
  if (code != SQLITE_OK) database_.fail(code, "give bytes to");
}

bool Statement::step(const char* doing) {
  const int code = sqlite3_step(handle_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  database_.fail(code, doing);
}

std::string_view Statement::text(int column) const {
  const auto* text = sqlite3_column_text(handle_, column);
  const int bytes = sqlite3_column_bytes(handle_, column);
  return text == nullptr ? std::string_view{}
                         : std::string_view(reinterpret_cast<const char*>(text),
                                            static_cast<std::size_t>(bytes));
}

ByteView Statement::bytes(int column) const {
  const void* bytes = sqlite3_column_blob(handle_, column);
  const int size = sqlite3_column_bytes(handle_, column);
  return bytes == nullptr
             ? ByteView{}
             : ByteView(static_cast<const std::uint8_t*>(bytes), static_cast<std::size_t>(size));
}

}  // namespace yumoe::sqlite

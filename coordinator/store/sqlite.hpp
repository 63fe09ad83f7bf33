#pragma once
// Owns SQLite's handles and turns its codes into Errors. Private to coordinator/store: no other
// folder includes sqlite3.h.

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "cluster/bytes.hpp"
#include "cluster/error.hpp"

namespace yumoe::sqlite {

class Database {
 public:
  // Opens with SQLITE_OPEN_* flags; `name` is a path, or a URI if the flags say so. Foreign schemas
  // are not trusted and a damaged page is noticed rather than followed.
  Database(const std::string& name, int flags);
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;
  ~Database();

  sqlite3* get() const noexcept { return handle_; }

  // Runs statements that return nothing we want.
  void execute(const std::string& sql, const char* doing);

  // Throws the Error that `code` means; see error_code_of.
  [[noreturn]] void fail(int code, std::string_view doing) const;

 private:
  std::string name_;
  sqlite3* handle_ = nullptr;
};

// disk_full, journal_corrupt, file_missing or journal_io.
ErrorCode error_code_of(int sqlite_code, int system_errno);

// A prepared statement, run any number of times. Views bound must outlive the step.
class Statement {
 public:
  Statement(const Database& database, std::string_view sql);
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  ~Statement() { sqlite3_finalize(handle_); }

  void bind(int index, std::int64_t value);
  void bind(int index, std::string_view text);
  void bind(int index, ByteView bytes);

  // True if there is a row. Throws as Database::fail does.
  bool step(const char* doing);
  void reset() noexcept { sqlite3_reset(handle_); }

  // Columns are 0-based. Text and bytes are valid until the next step or reset.
  std::int64_t integer(int column) const { return sqlite3_column_int64(handle_, column); }
  std::string_view text(int column) const;
  ByteView bytes(int column) const;

 private:
  const Database& database_;
  sqlite3_stmt* handle_ = nullptr;
};

// Resets a statement when the scope ends, so that its read lock does not outlive its use.
class Use {
 public:
  explicit Use(Statement& statement) : statement_(statement) { statement_.reset(); }
  ~Use() { statement_.reset(); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;
  Statement* operator->() const noexcept { return &statement_; }

 private:
  Statement& statement_;
};

}  // namespace yumoe::sqlite

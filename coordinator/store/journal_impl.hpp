#pragma once
// What stands behind a JournalReader and a Journal. Private to coordinator/store.

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "coordinator/journal.hpp"
#include "store/chain.hpp"
#include "store/journal_files.hpp"
#include "store/sqlite.hpp"

namespace yumoe {

inline constexpr std::int64_t kJournalApplication = 0x59554d4f;  // "YUMO"
inline constexpr std::int64_t kJournalVersion = 1;

struct JournalReader::Impl {
  // Opens the database with SQLITE_OPEN_* flags, checks that it is a journal of this layout and
  // reads the metadata.
  Impl(const std::filesystem::path& folder, const std::string& name, int flags);
  virtual ~Impl() = default;

  std::uint64_t last_sequence();
  std::optional<Digest> chain_at(std::uint64_t sequence);  // chain(0) for 0

  // Visits records until `visit` says false, a record fails its check (then says at which) or the
  // end. Damage that SQLite notices counts as the failure of the record that came next.
  struct Walk {
    std::uint64_t last_good = 0;
    Digest chain;
    std::string failure;  // empty: none
  };
  Walk walk(std::uint64_t from, const std::function<bool(const Record&)>& visit);

  // Walks the whole journal and holds it against its head.
  Walk verify(const HeadReading& reading);

  JournalFiles files;
  sqlite::Database database;
  std::string run;
  JournalMetadata metadata;
  Digest first;

 private:
  void check_layout();
  void read_metadata();
};

// Throws Error{file_missing} if there is no journal, Error{journal_corrupt} if one is half
// recovered.
void refuse_if_missing(const JournalFiles& files);

// What the schema of a journal must be, and how an empty one is made.
void create_layout(sqlite::Database& database, const std::string& run,
                   const JournalMetadata& metadata);

std::string corrupt_message(const std::filesystem::path& folder, const std::string& failure,
                            std::uint64_t last_good);

}  // namespace yumoe

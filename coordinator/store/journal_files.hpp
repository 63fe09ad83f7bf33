#pragma once
// The files of a run's journal and what stands in the small ones. Private to coordinator/store.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "cluster/bytes.hpp"
#include "store/file.hpp"

namespace yumoe {

struct JournalFiles {
  explicit JournalFiles(const std::filesystem::path& folder);

  std::filesystem::path folder;
  std::filesystem::path database;   // journal.sqlite
  std::filesystem::path log;        // journal.sqlite-wal, SQLite's own
  std::filesystem::path shared;     // journal.sqlite-shm, SQLite's own
  std::filesystem::path head;       // journal.head
  std::filesystem::path lock;       // journal.lock
  std::filesystem::path created;    // journal.sqlite.new: being created
  std::filesystem::path salvaging;  // journal.recovered.tmp: being recovered
  std::filesystem::path recovered;  // journal.recovered.sqlite: complete, not yet in its place
};

// Takes the lock that says who writes, and puts this process's number into it.
// Throws Error{run_locked} naming the holder.
File lock_journal(const JournalFiles& files);

// What was last acknowledged. Written after each append but not synced: it survives the death of
// the process, and after a power loss it is at most behind, never ahead of the journal. So a
// journal that ends before its head has lost records.
struct Head {
  Digest first;  // chain(0)
  std::uint64_t sequence = 0;
  Digest chain;  // chain(sequence)
};

enum class HeadState { good, missing, damaged };

struct HeadReading {
  HeadState state = HeadState::missing;
  Head head;
};

HeadReading read_head(const JournalFiles& files);
File open_head(const JournalFiles& files);
void write_head(File& file, const Head& head);

}  // namespace yumoe

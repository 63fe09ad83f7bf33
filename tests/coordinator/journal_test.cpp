// What the journal promises: durable, in order, checked, one writer, damage named and recovered.

#include "coordinator/journal.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <map>
#include <thread>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "coordinator/disks.hpp"
#include "coordinator/killed_writer.hpp"

namespace yumoe {
namespace {

using test::SmallDisk;
using test::TemporaryFolder;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

const JournalMetadata kMetadata{{"configuration", "[model]\nwidth = 8\n"}, {"shared_digest", "ab"}};

Bytes bytes_of_seed(std::uint64_t seed, std::size_t size) {
  Random random(derive_seed("journal test", {seed}));
  Bytes bytes(size);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

// Record n of every test: its payload follows from n, so that readers can check it alone.
Bytes payload_of(std::uint64_t sequence) { return bytes_of_seed(sequence, sequence * 37 % 900); }
Bytes blob_of(std::uint64_t round) { return bytes_of_seed(1'000'000 + round, 20'000 + round * 13); }

std::uint64_t append_one(Journal& journal, bool with_blob = false) {
  const std::uint64_t sequence = journal.size() + 1;
  const Bytes payload = payload_of(sequence), bytes = blob_of(sequence);
  const Entry event{TimeMs{static_cast<std::int64_t>(sequence) * 10}, "step", payload};
  const Blob blob{RoundId{sequence}, "contribution", bytes};
  return journal.append({&event, 1}, {&blob, with_blob ? 1u : 0u});
}

void fill(const fs::path& folder, std::uint64_t records, std::uint64_t blob_every = 5) {
  Journal journal = Journal::create(folder, "run-1", kMetadata);
  for (std::uint64_t i = 1; i <= records; ++i) append_one(journal, i % blob_every == 0);
}

// Reads everything there is, checking each record against what was written. Returns how many.
std::uint64_t check_all(const JournalReader& journal) {
  std::uint64_t count = 0;
  journal.for_each(1, [&](const Record& record) {
    EXPECT_EQ(record.sequence, ++count);
    EXPECT_EQ(record.payload, payload_of(record.sequence));
    EXPECT_EQ(record.kind, "step");
    return true;
  });
  return count;
}

ErrorCode code_of(const std::function<void()>& action, std::string* message = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  ADD_FAILURE() << "no error";
  return ErrorCode::usage;
}

void flip_byte(const fs::path& path, std::uint64_t offset, std::uint8_t with) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const char changed = static_cast<char>(file.get() ^ with);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(changed);
}

std::uint64_t find_in_file(const fs::path& path, ByteView needle) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto at = text.find({reinterpret_cast<const char*>(needle.data()), needle.size()});
  EXPECT_NE(at, std::string::npos);
  return at;
}

TEST(Journal, GivesBackWhatWasRecordedAfterReopening) {
  const TemporaryFolder folder;
  fill(folder.path() / "run", 40);
  const Journal journal = Journal::open(folder.path() / "run");
  EXPECT_EQ(journal.run(), "run-1");
  EXPECT_EQ(journal.metadata(), kMetadata);
  EXPECT_EQ(journal.metadata("shared_digest"), "ab");
  EXPECT_EQ(journal.metadata("absent"), std::nullopt);
  EXPECT_EQ(check_all(journal), 40u);
  EXPECT_EQ(journal.blob(digest_of(blob_of(10))), blob_of(10));
  EXPECT_EQ(journal.blob(digest_of(blob_of(11))), std::nullopt);
}

TEST(Journal, VisitsFromTheMiddleAndStopsWhenTold) {
  const TemporaryFolder folder;
  fill(folder.path(), 20);
  const Journal journal = Journal::open(folder.path());
  std::vector<std::uint64_t> seen;
  journal.for_each(7, [&](const Record& record) {
    seen.push_back(record.sequence);
    return record.sequence < 9;
  });
  EXPECT_THAT(seen, ::testing::ElementsAre(7, 8, 9));
  journal.for_each(21, [](const Record&) -> bool { throw std::logic_error("nothing is there"); });
}

TEST(Journal, ChainsEachDigestToTheOneBefore) {
  const TemporaryFolder one, two;
  fill(one.path(), 3);
  fill(two.path(), 3);
  Journal a = Journal::open(one.path()), b = Journal::open(two.path());
  EXPECT_EQ(a.chain(), b.chain());
  const Entry x{TimeMs{1}, "x", {}}, y{TimeMs{1}, "y", {}};
  a.append({&x, 1});
  b.append({&y, 1});
  const Entry same{TimeMs{2}, "same", {}};
  a.append({&same, 1});
  b.append({&same, 1});
  EXPECT_NE(a.chain(), b.chain());
}

TEST(Journal, RecordsABatchWhole) {
  const TemporaryFolder folder;
  Journal journal = Journal::create(folder.path(), "run", {});
  std::vector<Bytes> payloads;
  for (std::uint64_t i = 1; i <= 1000; ++i) payloads.push_back(payload_of(i));
  std::vector<Entry> events;
  for (const Bytes& payload : payloads) events.push_back({TimeMs{5}, "step", payload});
  EXPECT_EQ(journal.append(events), 1000u);
  EXPECT_EQ(journal.append({}), 1000u);
  EXPECT_EQ(check_all(journal), 1000u);
}

TEST(Journal, IsWrittenByOneCoordinatorAtATime) {
  const TemporaryFolder folder;
  {
    const Journal first = Journal::create(folder.path(), "run", {});
    std::string message;
    EXPECT_EQ(code_of([&] { Journal::open(folder.path()); }, &message), ErrorCode::run_locked);
    EXPECT_THAT(message, HasSubstr("process " + std::to_string(::getpid())));
    EXPECT_EQ(code_of([&] { Journal::recover(folder.path()); }), ErrorCode::run_locked);
  }
  EXPECT_NO_THROW(Journal::open(folder.path()));
}

TEST(Journal, IsReadWhileItIsWritten) {
  const TemporaryFolder folder;
  Journal journal = Journal::create(folder.path(), "run", {});
  append_one(journal);
  const JournalReader reader = JournalReader::open(folder.path());
  EXPECT_EQ(check_all(reader), 1u);
  append_one(journal, true);
  EXPECT_EQ(check_all(reader), 2u);
  {
    const JournalReader::Snapshot snapshot(reader);
    EXPECT_EQ(reader.size(), 2u);
    append_one(journal);
    EXPECT_EQ(reader.size(), 2u);
  }
  EXPECT_EQ(reader.size(), 3u);
}

TEST(Journal, RefusesToBeginWhereARunIsAndToOpenWhereNoneIs) {
  const TemporaryFolder folder;
  std::string message;
  EXPECT_EQ(code_of([&] { Journal::open(folder.path()); }, &message), ErrorCode::file_missing);
  EXPECT_THAT(message, HasSubstr("holds no run"));
  EXPECT_EQ(code_of([&] { JournalReader::open(folder.path()); }), ErrorCode::file_missing);
  Journal::create(folder.path(), "run", {});
  EXPECT_EQ(code_of([&] { Journal::create(folder.path(), "run", {}); }), ErrorCode::file_io);
}

TEST(Journal, DropsBlobsByRoundAndKeepsThoseUsedAgain) {
  const TemporaryFolder folder;
  Journal journal = Journal::create(folder.path(), "run", {});
  const Bytes old = blob_of(1), shared = blob_of(2), pinned = blob_of(3);
  const std::vector<Blob> early{{RoundId{1}, "contribution", old},
                                {RoundId{1}, "aggregate", shared},
                                {RoundId{2}, "state", pinned}};
  journal.append({}, early);
  const Blob again{RoundId{9}, "aggregate", shared};
  journal.append({}, {&again, 1});
  EXPECT_EQ(journal.blobs().size(), 3u);
  EXPECT_EQ(journal.drop_blobs(RoundId{5}, [](const BlobInfo& b) { return b.kind == "state"; }),
            1u);
  EXPECT_EQ(journal.blob(digest_of(old)), std::nullopt);
  EXPECT_EQ(journal.blob(digest_of(shared)), shared);
  EXPECT_EQ(journal.blob(digest_of(pinned)), pinned);
  EXPECT_EQ(journal.blobs().back().round, RoundId{9});
}

TEST(Journal, NamesAChangedRecordAndRecoversThoseBeforeIt) {
  const TemporaryFolder folder;
  fill(folder.path(), 40);
  const fs::path file = folder.path() / "journal.sqlite";
  flip_byte(file, find_in_file(file, payload_of(24)) + 5, 0x40);
  std::string message;
  EXPECT_EQ(code_of([&] { Journal::open(folder.path()); }, &message), ErrorCode::journal_corrupt);
  EXPECT_THAT(message, HasSubstr("record 24 does not match its digest"));
  EXPECT_THAT(message, HasSubstr("last good record is 23"));

  const RecoveryReport report = Journal::recover(folder.path());
  EXPECT_EQ(report.last_good, 23u);
  EXPECT_EQ(report.acknowledged, 40u);
  EXPECT_EQ(report.blobs_kept, 8u);
  EXPECT_TRUE(fs::exists(report.kept_beside));
  Journal journal = Journal::open(folder.path());
  EXPECT_EQ(check_all(journal), 23u);
  EXPECT_EQ(append_one(journal), 24u);
}

TEST(Journal, NamesAChangedBlobAndRecoversTheOthers) {
  const TemporaryFolder folder;
  fill(folder.path(), 20);
  const fs::path file = folder.path() / "journal.sqlite";
  flip_byte(file, find_in_file(file, ByteView(blob_of(10)).first(64)) + 9, 1);
  {
    const Journal journal = Journal::open(folder.path());
    EXPECT_EQ(code_of([&] { journal.blob(digest_of(blob_of(10))); }), ErrorCode::journal_corrupt);
  }
  const RecoveryReport report = Journal::recover(folder.path());
  EXPECT_EQ(report.last_good, 20u);
  EXPECT_EQ(report.blobs_kept, 3u);
  EXPECT_EQ(report.blobs_lost, 1u);
  EXPECT_EQ(Journal::open(folder.path()).blob(digest_of(blob_of(10))), std::nullopt);
}

TEST(Journal, LeavesASoundJournalAloneWhenToldToRecover) {
  const TemporaryFolder folder;
  fill(folder.path(), 12);
  const RecoveryReport report = Journal::recover(folder.path());
  EXPECT_EQ(report.last_good, 12u);
  EXPECT_TRUE(report.kept_beside.empty());
  EXPECT_EQ(check_all(Journal::open(folder.path())), 12u);
}

TEST(Journal, NoticesThatItsTailIsGone) {
  const TemporaryFolder folder;
  fill(folder.path(), 10);
  fs::copy_file(folder.path() / "journal.sqlite", folder.path() / "copy");
  {
    Journal journal = Journal::open(folder.path());
    for (int i = 0; i < 5; ++i) append_one(journal);
  }
  fs::rename(folder.path() / "copy", folder.path() / "journal.sqlite");
  std::string message;
  EXPECT_EQ(code_of([&] { Journal::open(folder.path()); }, &message), ErrorCode::journal_corrupt);
  EXPECT_THAT(message, HasSubstr("records 11 to 15 were recorded and are gone"));
  EXPECT_EQ(Journal::recover(folder.path()).last_good, 10u);
  EXPECT_EQ(check_all(Journal::open(folder.path())), 10u);
}

TEST(Journal, FinishesARecoveryThatWasInterrupted) {
  const TemporaryFolder folder;
  fill(folder.path(), 10);
  // As left by a kill between completing the recovered file and putting it in place.
  fs::copy_file(folder.path() / "journal.sqlite", folder.path() / "journal.recovered.sqlite");
  EXPECT_EQ(code_of([&] { Journal::open(folder.path()); }), ErrorCode::journal_corrupt);
  Journal::recover(folder.path());
  EXPECT_EQ(check_all(Journal::open(folder.path())), 10u);
}

TEST(Journal, RefusesAnotherLayoutAndAnotherProgramsFile) {
  const TemporaryFolder folder;
  fill(folder.path(), 3);
  const fs::path file = folder.path() / "journal.sqlite";
  flip_byte(file, 63, 2);  // user_version, big-endian at 60: 1 becomes 3
  EXPECT_EQ(code_of([&] { Journal::open(folder.path()); }), ErrorCode::version_mismatch);
  flip_byte(file, 63, 2);
  flip_byte(file, 68, 0xff);  // application_id
  EXPECT_EQ(code_of([&] { Journal::open(folder.path()); }), ErrorCode::journal_corrupt);
  std::ofstream(file) << "this is no database at all, not even a short one";
  EXPECT_EQ(code_of([&] { Journal::open(folder.path()); }), ErrorCode::journal_corrupt);
  EXPECT_EQ(code_of([&] { JournalReader::open(folder.path()); }), ErrorCode::journal_corrupt);
}

// Whatever byte is changed: the journal opens and holds what was recorded, or says what is wrong;
// and after recovery it opens with a prefix of it.
TEST(Journal, IsNeverWrongWhateverByteIsChanged) {
  const TemporaryFolder original(TemporaryFolder::On::memory);
  {
    fill(original.path(), 60);
    Journal journal = Journal::open(original.path());
    // A copy made while open has a log with records in it.
    for (int i = 0; i < 30; ++i) append_one(journal, i % 7 == 0);
    for (const char* name : {"journal.sqlite", "journal.sqlite-wal", "journal.head"}) {
      fs::copy_file(original.path() / name, original.path() / (std::string("copy.") + name));
    }
  }
  int named = 0, sound = 0, beyond_recovery = 0;
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(derive_seed("flip", {seed}));
    const TemporaryFolder folder(TemporaryFolder::On::memory);
    for (const char* name : {"journal.sqlite", "journal.sqlite-wal", "journal.head"}) {
      fs::copy_file(original.path() / (std::string("copy.") + name), folder.path() / name);
    }
    const std::uint64_t pick = random.below(10);
    const fs::path file = folder.path() / (pick < 5   ? "journal.sqlite"
                                           : pick < 9 ? "journal.sqlite-wal"
                                                      : "journal.head");
    // The first page and page headers are few bytes and matter most, so half the flips go there.
    const std::uint64_t size = fs::file_size(file);
    const std::uint64_t flips = 1 + random.below(3);
    for (std::uint64_t i = 0; i < flips; ++i) {
      const std::uint64_t page = random.below(size / 8192 + 1) * 8192;
      const std::uint64_t offset =
          random.below(2) ? random.below(size) : std::min(page + random.below(120), size - 1);
      flip_byte(file, offset, static_cast<std::uint8_t>(1 + random.below(255)));
    }
    try {
      const Journal journal = Journal::open(folder.path());
      EXPECT_EQ(check_all(journal), 90u);
      ++sound;
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::journal_corrupt ||
                  error.code() == ErrorCode::version_mismatch)
          << error.what();
      ++named;
    }
    try {
      const RecoveryReport report = Journal::recover(folder.path());
      Journal journal = Journal::open(folder.path());
      EXPECT_EQ(check_all(journal), report.last_good);
      for (const BlobInfo& blob : journal.blobs()) {
        EXPECT_EQ(digest_of(*journal.blob(blob.digest)), blob.digest);
      }
      append_one(journal);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::journal_corrupt ||
                  error.code() == ErrorCode::version_mismatch)
          << error.what();
      ++beyond_recovery;
    }
  }
  std::printf("sound %d, named %d, not recoverable %d of 120\n", sound, named, beyond_recovery);
  EXPECT_GT(named, 20);
  EXPECT_LT(beyond_recovery, 60);
}

// Appends one to four records and a blob. Returns the last sequence.
std::uint64_t append_some(Journal& journal) {
  const std::uint64_t sequence = journal.size(), count = 1 + sequence % 4;
  std::vector<Bytes> payloads;
  std::vector<Entry> events;
  for (std::uint64_t i = 1; i <= count; ++i) payloads.push_back(payload_of(sequence + i));
  for (const Bytes& payload : payloads) events.push_back({TimeMs{1}, "step", payload});
  const Bytes bytes = blob_of(sequence + count);
  const Blob blob{RoundId{sequence + count}, "contribution", bytes};
  return journal.append(events, {&blob, 1});
}

TEST(Journal, LosesNothingAcknowledgedToSixtyKillsAtRandomMoments) {
  const TemporaryFolder folder;
  std::uint64_t acknowledged = 0, waited_for = 0, acknowledgements = 0;
  std::chrono::microseconds one_write;
  {
    Journal journal = Journal::create(folder.path(), "run", kMetadata);
    append_some(journal);
    one_write = test::time_of([&] { acknowledged = append_some(journal); });
  }
  Random random(derive_seed("kill", {1}));
  for (int kill_number = 0; kill_number < 60; ++kill_number) {
    const auto killed = test::run_and_kill(
        [&](const test::Acknowledge& acknowledge) {
          Journal journal = Journal::open(folder.path());
          while (true) acknowledge(append_some(journal));
        },
        one_write, random);
    ASSERT_TRUE(killed.by_us) << "the writer ended by itself at kill " << kill_number;
    acknowledged = killed.last.value_or(acknowledged);
    waited_for += killed.waited_for;
    acknowledgements += killed.acknowledgements;
    const Journal journal = Journal::open(folder.path());
    ASSERT_GE(journal.size(), acknowledged) << "kill " << kill_number;
    ASSERT_EQ(check_all(journal), journal.size());
    ASSERT_EQ(journal.blob(digest_of(blob_of(acknowledged))), blob_of(acknowledged));
  }
  EXPECT_GE(acknowledgements, waited_for);
  EXPECT_GT(waited_for, 30u);  // follows from the seed, whatever the machine does
}

TEST(Journal, SaysThatTheDiskIsFullAndGoesOnWhenThereIsRoom) {
  const SmallDisk disk("3m");
  if (!disk.is_there()) GTEST_SKIP() << "mounting a tmpfs is not permitted here";
  const fs::path folder = disk.path() / "run";
  Journal journal = Journal::create(folder, "run", {});
  const fs::path ballast = disk.path() / "ballast";
  std::ofstream(ballast) << std::string(900'000, 'x');
  std::string message;
  const ErrorCode code = code_of(
      [&] {
        for (int i = 0; i < 10'000; ++i) append_one(journal, true);
      },
      &message);
  EXPECT_EQ(code, ErrorCode::disk_full) << message;
  EXPECT_THAT(message, HasSubstr("free some space"));
  const std::uint64_t kept = journal.size();
  EXPECT_EQ(check_all(journal), kept);
  fs::remove(ballast);
  EXPECT_EQ(append_one(journal), kept + 1);
  EXPECT_EQ(check_all(JournalReader::open(folder)), kept + 1);
}

TEST(Journal, SaysThatAFolderCannotBeWrittenAndReadsAClosedRunThere) {
  SmallDisk disk("3m");
  if (!disk.is_there()) GTEST_SKIP() << "mounting a tmpfs is not permitted here";
  fill(disk.path() / "run", 9);
  ASSERT_TRUE(disk.make_read_only());
  std::string message;
  EXPECT_EQ(code_of([&] { Journal::create(disk.path() / "new", "run", {}); }, &message),
            ErrorCode::journal_io);
  EXPECT_THAT(message, HasSubstr("choose a folder you may write to"));
  EXPECT_EQ(code_of([&] { Journal::open(disk.path() / "run"); }, &message), ErrorCode::journal_io);
  EXPECT_THAT(message, HasSubstr("choose a folder you may write to"));
  EXPECT_EQ(check_all(JournalReader::open(disk.path() / "run")), 9u);
}

}  // namespace
}  // namespace yumoe

// What an exported run promises: the same record as its folder, for us and for h5py.

#include "coordinator/run_record.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "cluster/random.hpp"
#include "coordinator/disks.hpp"
#include "coordinator/run_export.hpp"

namespace yumoe {
namespace {

using test::SmallDisk;
using test::TemporaryFolder;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr std::uint64_t kRecords = 30;

Bytes bytes_of(std::uint64_t seed) {
  Random random(derive_seed("run record test", {seed}));
  Bytes bytes(seed * 7919 % 3'000);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

Layout small_layout() {
  ModelOptions model;
  model.vocabulary = 100;
  model.width = 16;
  model.layers = 1;
  model.heads = 2;
  model.key_value_heads = 1;
  model.experts = 2;
  model.expert_width = 8;
  return Layout::of(model);
}

void write_one_checkpoint(const fs::path& run, std::uint64_t round, std::uint64_t sequence) {
  const Layout layout = small_layout();
  std::vector<float> parameters(layout.parameters(), static_cast<float>(round) + 0.5f);
  const Bytes core{1, 2, 3};
  write_checkpoint(checkpoint_path(checkpoint_folder(run), RoundId{round}),
                   {RoundId{round},
                    "run-7",
                    layout,
                    parameters,
                    parameters,
                    {},
                    {},
                    core,
                    {},
                    digest_of_parameters(layout, parameters),
                    sequence});
}

// A run with records, updates and three checkpoints, one of which is ahead of the journal.
void make_run(const fs::path& folder) {
  Journal journal = Journal::create(
      folder, "run-7",
      {{"configuration", "[run]\nseed = 1\n# \xC3\xA4\n"}, {"shared_digest", "00ff"}});
  for (std::uint64_t i = 1; i <= kRecords; ++i) {
    const Bytes payload = bytes_of(i), bytes = bytes_of(1'000 + i);
    const Entry event{TimeMs{1'700'000'000'000 + static_cast<std::int64_t>(i)},
                      i % 3 ? "contribution" : "round_over", payload};
    const Blob blob{RoundId{i / 3 + 1}, i % 2 ? "contribution" : "aggregate", bytes};
    journal.append({&event, 1}, {&blob, 1});
  }
  write_one_checkpoint(folder, 2, 10);
  write_one_checkpoint(folder, 4, 20);
  write_one_checkpoint(folder, 9, 99);
}

std::vector<Table> sample_tables() {
  return {
      {"scores",
       "one measurement a row",
       {{"round", "1", "when it was measured", std::vector<std::int64_t>{1, 1, 2}},
        {"loss_reduction", "nats/token", "on assigned data", std::vector<double>{0.5, -0.25, 1e-3}},
        {"hotkey", "", "whose contribution",
         std::vector<std::string>{"5Alice", "5Bob", "5Zo\xC3\xAB"}}}},
      {"empty", "nothing happened", {{"round", "1", "none", std::vector<std::int64_t>{}}}}};
}

ExportReport export_sample(const fs::path& run, const fs::path& out) {
  return export_run(run, out, sample_tables(), [](const fs::path& path, const Error&) {
    ADD_FAILURE() << path << " was passed over";
  });
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

void flip_byte(const fs::path& path, std::uint64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const char changed = static_cast<char>(file.get() ^ 0x10);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(changed);
}

std::vector<Record> records_of(const RunRecord& run, std::uint64_t from = 1) {
  std::vector<Record> records;
  run.for_each(from, [&](const Record& record) {
    records.push_back(record);
    return true;
  });
  return records;
}

TEST(RunRecord, IsTheSameFromTheFolderAndFromTheFile) {
  const TemporaryFolder folder;
  make_run(folder.path() / "run");
  const ExportReport report = export_sample(folder.path() / "run", folder.path() / "run.h5");
  EXPECT_EQ(report.records, kRecords);
  EXPECT_EQ(report.blobs, kRecords);
  EXPECT_EQ(report.checkpoints, 2u);
  EXPECT_EQ(report.bytes, fs::file_size(folder.path() / "run.h5"));

  const auto ours = open_run_record(folder.path() / "run");
  const auto file = open_run_record(folder.path() / "run.h5");
  EXPECT_EQ(file->run(), "run-7");
  EXPECT_EQ(file->metadata(), ours->metadata());
  EXPECT_EQ(file->size(), kRecords);
  const std::vector<Record> a = records_of(*ours), b = records_of(*file);
  ASSERT_EQ(b.size(), kRecords);
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(b[i].sequence, a[i].sequence);
    EXPECT_EQ(b[i].time, a[i].time);
    EXPECT_EQ(b[i].kind, a[i].kind);
    EXPECT_EQ(b[i].payload, a[i].payload);
    EXPECT_EQ(b[i].chain, a[i].chain);
  }
  EXPECT_EQ(records_of(*file, 28).size(), 3u);
  const std::vector<BlobInfo> blobs = file->blobs(), expected = ours->blobs();
  ASSERT_EQ(blobs.size(), expected.size());
  for (std::size_t i = 0; i < blobs.size(); ++i) {
    EXPECT_EQ(blobs[i].digest, expected[i].digest);
    EXPECT_EQ(blobs[i].round, expected[i].round);
    EXPECT_EQ(blobs[i].kind, expected[i].kind);
    EXPECT_EQ(file->blob(blobs[i].digest), ours->blob(blobs[i].digest));
  }
  EXPECT_EQ(file->blob(Digest{}), std::nullopt);
  EXPECT_THAT(file->checkpoints(), ::testing::ElementsAre(RoundId{4}, RoundId{2}));
  const Checkpoint checkpoint = file->checkpoint(RoundId{4});
  EXPECT_EQ(checkpoint.parameters, ours->checkpoint(RoundId{4}).parameters);
  EXPECT_EQ(checkpoint.core_state, (Bytes{1, 2, 3}));
  EXPECT_EQ(checkpoint.version_digest,
            digest_of_parameters(checkpoint.layout, checkpoint.parameters));
  EXPECT_EQ(code_of([&] { file->checkpoint(RoundId{9}); }), ErrorCode::file_missing);
}

TEST(RunRecord, IsExportedFromARunWithoutEvents) {
  const TemporaryFolder folder;
  Journal::create(folder.path() / "run", "run-0", {});
  export_run(folder.path() / "run", folder.path() / "run.h5", {}, [](const auto&, const auto&) {});
  const auto file = open_run_record(folder.path() / "run.h5");
  EXPECT_EQ(file->size(), 0u);
  EXPECT_TRUE(records_of(*file).empty());
  EXPECT_TRUE(file->blobs().empty());
  EXPECT_TRUE(file->checkpoints().empty());
}

TEST(RunRecord, IsExportedWhileTheCoordinatorWrites) {
  const TemporaryFolder folder;
  make_run(folder.path() / "run");
  const Journal writer = Journal::open(folder.path() / "run");
  EXPECT_EQ(export_sample(folder.path() / "run", folder.path() / "run.h5").records, kRecords);
}

TEST(RunRecord, LeavesOutABadCheckpointAndSaysSo) {
  const TemporaryFolder folder;
  make_run(folder.path() / "run");
  const fs::path bad = checkpoint_path(checkpoint_folder(folder.path() / "run"), RoundId{4});
  flip_byte(bad, fs::file_size(bad) / 2);
  std::vector<fs::path> passed;
  const ExportReport report =
      export_run(folder.path() / "run", folder.path() / "run.h5", {},
                 [&](const fs::path& path, const Error&) { passed.push_back(path); });
  EXPECT_THAT(passed, ::testing::ElementsAre(bad));
  EXPECT_EQ(report.checkpoints, 1u);
}

TEST(RunRecord, FindsEveryChangedByteOfAnExportedFile) {
  const TemporaryFolder folder(TemporaryFolder::On::memory);
  make_run(folder.path() / "run");
  const fs::path file = folder.path() / "run.h5", copy = folder.path() / "copy.h5";
  export_sample(folder.path() / "run", file);
  Random random(derive_seed("damage", {3}));
  for (int i = 0; i < 150; ++i) {
    fs::copy_file(file, copy, fs::copy_options::overwrite_existing);
    flip_byte(copy, random.below(fs::file_size(file)));
    const ErrorCode code = code_of([&] { open_run_record(copy); });
    EXPECT_TRUE(code == ErrorCode::journal_corrupt || code == ErrorCode::version_mismatch);
  }
  std::string message;
  fs::resize_file(copy, fs::file_size(file) / 3);
  EXPECT_EQ(code_of([&] { open_run_record(copy); }, &message), ErrorCode::journal_corrupt);
  EXPECT_THAT(message, HasSubstr("cut short or never completed"));
}

TEST(RunRecord, IsNotTakenFromACheckpointOrFromNothing) {
  const TemporaryFolder folder;
  make_run(folder.path() / "run");
  std::string message;
  EXPECT_EQ(
      code_of(
          [&] {
            open_run_record(checkpoint_path(checkpoint_folder(folder.path() / "run"), RoundId{2}));
          },
          &message),
      ErrorCode::journal_corrupt);
  EXPECT_THAT(message, HasSubstr("not an exported run"));
  EXPECT_EQ(code_of([&] { open_run_record(folder.path() / "absent"); }), ErrorCode::file_missing);
}

TEST(RunRecord, LeavesNothingBehindWhenTheDiskIsFull) {
  const TemporaryFolder folder;
  make_run(folder.path() / "run");
  const SmallDisk disk("64k");
  if (!disk.is_there()) GTEST_SKIP() << "mounting a tmpfs is not permitted here";
  EXPECT_EQ(code_of([&] { export_sample(folder.path() / "run", disk.path() / "run.h5"); }),
            ErrorCode::disk_full);
  EXPECT_TRUE(fs::is_empty(disk.path()));
}

TEST(RunRecord, IsReadByH5pyWithNamesUnitsAndValues) {
  const std::string python = YUMOE_PYTHON;
  if (!fs::exists(python)) GTEST_SKIP() << "no Python at YUMOE_PYTHON_ENV: run launch/setup";
  const TemporaryFolder folder;
  make_run(folder.path() / "run");
  export_sample(folder.path() / "run", folder.path() / "run.h5");
  std::ofstream expected(folder.path() / "expected");
  const auto run = open_run_record(folder.path() / "run");
  for (const Record& record : records_of(*run)) {
    expected << record.sequence << " " << record.time.value << " " << record.kind << " "
             << record.chain.hex() << " x" << to_hex(record.payload) << "\n";
  }
  expected.close();
  const std::string command =
      python + " " + YUMOE_SOURCE_DIR + "/tests/coordinator/read_run.py " + folder.path().string();
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace yumoe

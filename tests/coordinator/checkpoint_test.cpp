// What checkpoints promise: read back bit for bit, whole or not there, damage named.

#include "coordinator/checkpoint.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "cluster/random.hpp"
#include "coordinator/disks.hpp"
#include "coordinator/killed_writer.hpp"

namespace yumoe {
namespace {

using test::SmallDisk;
using test::TemporaryFolder;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

ModelOptions small_model() {
  ModelOptions model;
  model.vocabulary = 300;
  model.width = 24;
  model.layers = 2;
  model.heads = 3;
  model.key_value_heads = 1;
  model.experts = 3;
  model.expert_width = 20;
  model.rope_base = 12'345.678;
  return model;
}

// A state that follows from its round, so that it can be checked alone.
struct Sample {
  explicit Sample(std::uint64_t round, ModelOptions model = small_model())
      : round{round}, layout(Layout::of(model)) {
    Random random(derive_seed("checkpoint test", {round}));
    for (std::vector<float>* values : {&parameters, &momentum, &residual}) {
      values->resize(layout.parameters());
      for (float& value : *values) value = static_cast<float>(random.normal());
    }
    gate_bias.assign(static_cast<std::size_t>(model.layers * model.experts), 0.25f);
    core.assign(5'000 + round, static_cast<std::uint8_t>(round));
    ledger.assign(round, 7);
    digest = digest_of_parameters(layout, parameters);
  }
  CheckpointView view() const {
    return {round,     "run-1", layout, parameters, momentum,        residual,
            gate_bias, core,    ledger, digest,     round.value * 10};
  }

  RoundId round;
  Layout layout;
  std::vector<float> parameters, momentum, residual, gate_bias;
  Bytes core, ledger;
  Digest digest;
};

bool holds(const Checkpoint& read, const Sample& sample) {
  const auto same = [](const auto& a, const auto& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end());
  };
  return read.round == sample.round && read.run == "run-1" &&
         read.layout.digest() == sample.layout.digest() &&
         same(read.parameters, sample.parameters) && same(read.momentum, sample.momentum) &&
         same(read.residual, sample.residual) && same(read.gate_bias, sample.gate_bias) &&
         read.core_state == sample.core && read.ledger_state == sample.ledger &&
         read.version_digest == sample.digest && read.journal_sequence == sample.round.value * 10;
}

std::string error_of(const std::function<void()>& action, ErrorCode expected) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), expected) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

Bytes content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return Bytes{std::istreambuf_iterator<char>(file), {}};
}

void write_content(const fs::path& path, ByteView bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

std::uint64_t place_of(const Bytes& content, ByteView needle) {
  const auto at = std::search(content.begin(), content.end(), needle.begin(), needle.end());
  EXPECT_NE(at, content.end());
  return static_cast<std::uint64_t>(at - content.begin());
}

TEST(Checkpoint, ReadsBackBitForBit) {
  const TemporaryFolder folder;
  const Sample sample(12);
  const fs::path path = checkpoint_path(folder.path() / "new", RoundId{12});
  EXPECT_EQ(path.filename(), "checkpoint-0000000012.h5");
  write_checkpoint(path, sample.view());
  EXPECT_TRUE(holds(read_checkpoint(path), sample));
}

TEST(Checkpoint, MayLeaveOutWhatARunDoesNotHave) {
  const TemporaryFolder folder;
  Sample sample(1);
  sample.momentum.clear();
  sample.residual.clear();
  sample.gate_bias.clear();
  sample.core.clear();
  sample.ledger.clear();
  write_checkpoint(folder.path() / "c.h5", sample.view());
  EXPECT_TRUE(holds(read_checkpoint(folder.path() / "c.h5"), sample));
}

TEST(Checkpoint, TakesThePlaceOfAnOlderOne) {
  const TemporaryFolder folder;
  write_checkpoint(folder.path() / "c.h5", Sample(1).view());
  write_checkpoint(folder.path() / "c.h5", Sample(2).view());
  EXPECT_TRUE(holds(read_checkpoint(folder.path() / "c.h5"), Sample(2)));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(Checkpoint, NamesTheDatasetThatWasChanged) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "c.h5";
  const Sample sample(3);
  write_checkpoint(path, sample.view());
  const Bytes content = content_of(path);
  const auto message_with_flip_in = [&](ByteView data) {
    Bytes changed = content;
    changed[place_of(content, data) + data.size() / 2] ^= 1;
    write_content(path, changed);
    return error_of([&] { read_checkpoint(path); }, ErrorCode::checkpoint_corrupt);
  };
  EXPECT_THAT(message_with_flip_in(as_bytes(std::span<const float>(sample.parameters))),
              HasSubstr("dataset state/parameters fails its check"));
  EXPECT_THAT(message_with_flip_in(as_bytes(std::span<const float>(sample.momentum))),
              HasSubstr("dataset state/momentum fails its check"));
  EXPECT_THAT(message_with_flip_in(sample.core), HasSubstr("dataset state/core fails its check"));
  EXPECT_THAT(message_with_flip_in(as_bytes("layout_digest")), HasSubstr("structure"));
}

TEST(Checkpoint, FindsEveryChangedByteAndEveryCut) {
  const TemporaryFolder folder(TemporaryFolder::On::memory);
  const fs::path path = folder.path() / "c.h5";
  write_checkpoint(path, Sample(4).view());
  const Bytes content = content_of(path);
  Random random(derive_seed("damage", {1}));
  for (int i = 0; i < 300; ++i) {
    Bytes changed = content;
    // Half of them in the seal, which is small.
    const std::uint64_t near_end = content.size() - 1 - random.below(600);
    changed[i % 2 ? near_end : random.below(content.size())] ^=
        static_cast<std::uint8_t>(1 + random.below(255));
    write_content(path, changed);
    try {
      read_checkpoint(path);
      ADD_FAILURE() << "change " << i << " was not found";
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::checkpoint_corrupt ||
                  error.code() == ErrorCode::version_mismatch)
          << error.what();
    }
    changed = content;
    changed.resize(random.below(content.size()));
    write_content(path, changed);
    error_of([&] { read_checkpoint(path); }, ErrorCode::checkpoint_corrupt);
  }
}

TEST(Checkpoint, PassesOverBadOnesToTheNewestGoodOne) {
  const TemporaryFolder folder;
  for (const std::uint64_t round : {5, 6, 7, 8}) {
    write_checkpoint(checkpoint_path(folder.path(), RoundId{round}), Sample(round).view());
  }
  write_content(folder.path() / "checkpoint-x.h5", as_bytes("not one of ours"));
  Bytes cut = content_of(checkpoint_path(folder.path(), RoundId{7}));
  cut.resize(cut.size() / 2);
  write_content(checkpoint_path(folder.path(), RoundId{7}), cut);
  const auto files = list_checkpoints(folder.path());
  ASSERT_EQ(files.size(), 4u);
  EXPECT_EQ(files[0].round, RoundId{8});

  std::vector<std::uint64_t> passed;
  const auto note = [&](const CheckpointFile& file, const Error&) {
    passed.push_back(file.round.value);
  };
  // The journal was cut to record 75: round 8 stands after record 80.
  const auto found = newest_good_checkpoint(folder.path(), note, 75);
  ASSERT_TRUE(found.has_value());
  EXPECT_TRUE(holds(*found, Sample(6)));
  EXPECT_THAT(passed, ::testing::ElementsAre(8, 7));
  EXPECT_FALSE(newest_good_checkpoint(folder.path() / "absent", note).has_value());
}

TEST(Checkpoint, KeepsTheNewestAndThoseSpared) {
  const TemporaryFolder folder;
  for (std::uint64_t round = 1; round <= 5; ++round) {
    write_checkpoint(checkpoint_path(folder.path(), RoundId{round}), Sample(round).view());
  }
  write_content(folder.path() / "checkpoint-0000000009.h5.partial", as_bytes("left by a kill"));
  EXPECT_EQ(drop_checkpoints(folder.path(), 2, [](RoundId round) { return round.value == 1; }), 2u);
  const auto left = list_checkpoints(folder.path());
  ASSERT_EQ(left.size(), 3u);
  EXPECT_EQ(left[1].round, RoundId{4});
  EXPECT_EQ(left[2].round, RoundId{1});
  EXPECT_FALSE(fs::exists(folder.path() / "checkpoint-0000000009.h5.partial"));
}

TEST(Checkpoint, IsWholeOrAbsentAfterFiftyKillsAtRandomMoments) {
  const TemporaryFolder folder;
  ModelOptions model = small_model();
  model.vocabulary = 8'000;
  std::vector<Sample> samples;
  for (std::uint64_t round = 1; round <= 3; ++round) samples.emplace_back(round, model);
  const auto write_one = [&](const Sample& sample) {
    write_checkpoint(checkpoint_path(folder.path(), sample.round), sample.view());
  };
  const auto one_write = test::time_of([&] { write_one(samples[0]); });
  Random random(derive_seed("kill", {2}));
  std::uint64_t acknowledged = 1, in_the_midst = 0;
  for (int kill_number = 0; kill_number < 50; ++kill_number) {
    const auto killed = test::run_and_kill(
        [&](const test::Acknowledge& acknowledge) {
          for (std::uint64_t n = acknowledged;; ++n) {
            write_one(samples[n % samples.size()]);
            acknowledge(n + 1);
          }
        },
        one_write, random);
    ASSERT_TRUE(killed.by_us) << "the writer ended by itself at kill " << kill_number;
    acknowledged = killed.last.value_or(acknowledged);
    for (const auto& entry : fs::directory_iterator(folder.path())) {
      in_the_midst += entry.path().extension() == ".partial" ? 1 : 0;
    }
    // Those acknowledged are there, and none is ever half there.
    for (const Sample& sample : samples) {
      const fs::path path = checkpoint_path(folder.path(), sample.round);
      if (acknowledged >= sample.round.value || fs::exists(path)) {
        ASSERT_TRUE(holds(read_checkpoint(path), sample)) << "kill " << kill_number;
      }
    }
    drop_checkpoints(folder.path(), samples.size());
  }
  EXPECT_GT(acknowledged, samples.size());
  EXPECT_GT(in_the_midst, 0u) << "no kill fell into a write";
  std::printf("%llu of 50 kills fell into a write\n",
              static_cast<unsigned long long>(in_the_midst));
}

TEST(Checkpoint, SaysThatTheDiskIsFullAndLeavesTheOldOne) {
  const SmallDisk disk("2m");
  if (!disk.is_there()) GTEST_SKIP() << "mounting a tmpfs is not permitted here";
  const fs::path path = disk.path() / "c.h5";
  write_checkpoint(path, Sample(1).view());
  ModelOptions large = small_model();
  large.vocabulary = 20'000;
  const Sample sample(2, large);
  EXPECT_THAT(error_of([&] { write_checkpoint(path, sample.view()); }, ErrorCode::disk_full),
              HasSubstr("free some space"));
  EXPECT_TRUE(holds(read_checkpoint(path), Sample(1)));
  EXPECT_EQ(std::distance(fs::directory_iterator(disk.path()), {}), 1);
}

TEST(Checkpoint, SaysThatAFolderCannotBeWritten) {
  SmallDisk disk("2m");
  if (!disk.is_there()) GTEST_SKIP() << "mounting a tmpfs is not permitted here";
  write_checkpoint(disk.path() / "c.h5", Sample(1).view());
  ASSERT_TRUE(disk.make_read_only());
  error_of([&] { write_checkpoint(disk.path() / "d.h5", Sample(1).view()); }, ErrorCode::file_io);
  EXPECT_TRUE(holds(read_checkpoint(disk.path() / "c.h5"), Sample(1)));
}

TEST(Checkpoint, SaysThatAFileIsMissingOrNotACheckpoint) {
  const TemporaryFolder folder;
  error_of([&] { read_checkpoint(folder.path() / "absent.h5"); }, ErrorCode::file_missing);
  write_content(folder.path() / "c.h5", {});
  error_of([&] { read_checkpoint(folder.path() / "c.h5"); }, ErrorCode::checkpoint_corrupt);
  write_content(folder.path() / "c.h5", Bytes(10'000, 0));
  error_of([&] { read_checkpoint(folder.path() / "c.h5"); }, ErrorCode::checkpoint_corrupt);
}

// h5py is what people read these files with.
TEST(Checkpoint, IsReadByH5pyWithNamesUnitsAndValues) {
  const std::string python = YUMOE_PYTHON;
  if (python.empty() || !fs::exists(python)) {
    GTEST_SKIP() << "no Python at YUMOE_PYTHON_ENV: run launch/setup";
  }
  const TemporaryFolder folder;
  const Sample sample(12);
  write_checkpoint(folder.path() / "c.h5", sample.view());
  write_content(folder.path() / "parameters.f32",
                as_bytes(std::span<const float>(sample.parameters)));
  std::ofstream(folder.path() / "names") << [&] {
    std::string names;
    for (const TensorSpec& tensor : sample.layout.tensors()) {
      names += tensor.name + " " + std::to_string(tensor.offset);
      for (const std::int64_t size : tensor.shape) names += " " + std::to_string(size);
      names += "\n";
    }
    return names;
  }();
  const std::string command = python + " " + YUMOE_SOURCE_DIR +
                              "/tests/coordinator/read_checkpoint.py " + folder.path().string();
  EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace yumoe

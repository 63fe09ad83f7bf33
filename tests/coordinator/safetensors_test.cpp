// What the safetensors file promises: read by the format's own library, hostile headers refused.

#include "coordinator/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "coordinator/disks.hpp"

namespace yumoe {
namespace {

using test::SmallDisk;
using test::TemporaryFolder;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

Layout small_layout() {
  ModelOptions model;
  model.vocabulary = 50;
  model.width = 16;
  model.layers = 1;
  model.heads = 2;
  model.key_value_heads = 1;
  model.experts = 2;
  model.expert_width = 8;
  return Layout::of(model);
}

std::vector<float> sample(const Layout& layout) {
  std::vector<float> values(layout.parameters());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) / 3.0f;
  return values;
}

void write_file(const fs::path& path, const std::string& header, std::size_t data_bytes) {
  std::ofstream file(path, std::ios::binary);
  const std::uint64_t length = header.size();
  file.write(reinterpret_cast<const char*>(&length), 8);
  file << header << std::string(data_bytes, '\0');
}

std::string refusal_of(const fs::path& path) {
  try {
    const SafetensorsReader reader(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::data_invalid) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

TEST(Safetensors, GivesBackNamesShapesAndBits) {
  const TemporaryFolder folder;
  const Layout layout = small_layout();
  const std::vector<float> values = sample(layout);
  write_safetensors(folder.path() / "model.safetensors", layout, values, {{"run", "run-7"}});
  const SafetensorsReader reader(folder.path() / "model.safetensors");
  EXPECT_EQ(reader.tensors().size(), layout.tensors().size());
  EXPECT_EQ(reader.metadata().at("run"), "run-7");
  EXPECT_EQ(reader.metadata().at("model.width"), "16");
  for (const TensorSpec& tensor : layout.tensors()) {
    const std::vector<float> read = reader.read(tensor.name);
    ASSERT_EQ(read.size(), tensor.elements);
    EXPECT_TRUE(std::equal(read.begin(), read.end(),
                           values.begin() + static_cast<std::ptrdiff_t>(tensor.offset)));
  }
  EXPECT_THROW(reader.read("absent"), Error);
}

TEST(Safetensors, ReadsHalfPrecision) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "h.safetensors";
  write_file(path,
             R"({"h":{"dtype":"F16","shape":[5],"data_offsets":[0,10]},)"
             R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[10,14]}})",
             0);
  const std::uint16_t bits[] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0xfc00, 0x3f80, 0xbf00};
  std::ofstream(path, std::ios::binary | std::ios::app)
      .write(reinterpret_cast<const char*>(bits), sizeof bits);
  const SafetensorsReader reader(path);
  EXPECT_THAT(reader.read("h"), ::testing::ElementsAre(1.0f, -2.0f, 0x1p-24f, 65504.0f, -INFINITY));
  EXPECT_THAT(reader.read("b"), ::testing::ElementsAre(1.0f, -0.5f));
}

TEST(Safetensors, RefusesHostileHeaders) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "x.safetensors";
  const auto refusal = [&](const std::string& header, std::size_t data_bytes) {
    write_file(path, header, data_bytes);
    return refusal_of(path);
  };
  const auto one = [](const std::string& shape, const std::string& offsets) {
    return R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  EXPECT_THAT(refusal("not json", 0), HasSubstr("not understood"));
  EXPECT_THAT(refusal("[]", 0), HasSubstr("not an object"));
  EXPECT_THAT(refusal(std::string(1'000'000, '['), 0), HasSubstr("nested too deeply"));
  EXPECT_THAT(refusal(one("[2]", "[0,9]"), 9), HasSubstr("size of its shape"));
  EXPECT_THAT(refusal(one("[2]", "[8,0]"), 8), HasSubstr("size of its shape"));
  EXPECT_THAT(refusal(one("[2]", "[0,8]"), 7), HasSubstr("overlap or leave gaps"));
  EXPECT_THAT(refusal(one("[2]", "[0,8]"), 12), HasSubstr("does not end where"));
  EXPECT_THAT(refusal(one("[2]", "[4,12]"), 12), HasSubstr("overlap or leave gaps"));
  EXPECT_THAT(refusal(one("[-2]", "[0,8]"), 8), HasSubstr("whole number"));
  EXPECT_THAT(refusal(one("[4611686018427387905]", "[0,4]"), 4), HasSubstr("size of its shape"));
  EXPECT_THAT(refusal(one("[2]", "[18446744073709551608,18446744073709551615]"), 8),
              HasSubstr("size of its shape"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F31","shape":[],"data_offsets":[0,4]}})", 4),
              HasSubstr("unknown type F31"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                      R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                      2),
              HasSubstr("names a twice"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":1}})", 0), HasSubstr("not understood"));
  std::ofstream(path, std::ios::binary) << "short";
  EXPECT_THAT(refusal_of(path), HasSubstr("cut short"));
  std::ofstream(path, std::ios::binary) << std::string(16, '\xff');
  EXPECT_THAT(refusal_of(path), HasSubstr("longer than allowed"));
}

TEST(Safetensors, SurvivesAnyChangeOfTheHeader) {
  const TemporaryFolder folder(TemporaryFolder::On::memory);
  const fs::path path = folder.path() / "m.safetensors";
  const Layout layout = small_layout();
  write_safetensors(path, layout, sample(layout));
  std::ifstream file(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), {}};
  Random random(derive_seed("safetensors", {1}));
  int refused = 0;
  for (int i = 0; i < 500; ++i) {
    std::string changed = content;
    for (int k = 0; k < 2; ++k) changed[random.below(1'600)] = static_cast<char>(random());
    std::ofstream(path, std::ios::binary) << changed;
    try {
      const SafetensorsReader reader(path);
      for (const auto& [name, tensor] : reader.tensors()) {
        if (tensor.dtype == "F32") reader.read(name);
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::data_invalid);
      ++refused;
    }
  }
  EXPECT_GT(refused, 250);
}

TEST(Safetensors, LeavesNothingBehindWhenTheDiskIsFull) {
  const SmallDisk disk("8k");
  if (!disk.is_there()) GTEST_SKIP() << "mounting a tmpfs is not permitted here";
  const Layout layout = small_layout();
  const std::vector<float> values = sample(layout);
  ASSERT_GT(values.size() * 4, 8'192u);
  try {
    write_safetensors(disk.path() / "m.safetensors", layout, values);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::disk_full);
  }
  EXPECT_TRUE(fs::is_empty(disk.path()));
}

TEST(Safetensors, IsReadByTheFormatsOwnLibrary) {
  const std::string python = YUMOE_PYTHON;
  if (!fs::exists(python)) GTEST_SKIP() << "no Python at YUMOE_PYTHON_ENV: run launch/setup";
  const TemporaryFolder folder;
  const Layout layout = small_layout();
  const std::vector<float> values = sample(layout);
  write_safetensors(folder.path() / "m.safetensors", layout, values, {{"run", "run-7"}});
  const std::string script =
      "import numpy, safetensors\n"
      "f = safetensors.safe_open('" +
      (folder.path() / "m.safetensors").string() +
      "', 'np')\n"
      "assert f.metadata()['run'] == 'run-7' and f.metadata()['format'] == 'pt'\n"
      "e = f.get_tensor('embedding')\n"
      "assert e.shape == (50, 16) and e.dtype == numpy.float32\n"
      "assert numpy.array_equal(e.ravel(), numpy.arange(800, dtype='f4') / numpy.float32(3))\n"
      "assert len(list(f.keys())) == " +
      std::to_string(layout.tensors().size()) + "\n";
  std::ofstream(folder.path() / "check.py") << script;
  EXPECT_EQ(std::system((python + " " + (folder.path() / "check.py").string()).c_str()), 0);
}

}  // namespace
}  // namespace yumoe

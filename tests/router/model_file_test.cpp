// A run's model in one file: comes back as it was, and nothing that was changed on the way passes for it.

#include "router/model_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <iterator>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

class ModelFileTest : public testing::Test {
 protected:
  ~ModelFileTest() override { std::filesystem::remove(path_); }
  Bytes bytes() const {
    std::ifstream in(path_, std::ios::binary);
    return Bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  }
  void replace(const Bytes& bytes) const {
    std::ofstream out(path_, std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
  }
  const std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("model_file_test." + std::to_string(::getpid()));
};

ModelFile some_model() {
  ModelFile file;
  file.facts.run = "mine";
  file.facts.configuration = {{"model.width", "32"}, {"run.seed", "7"}};
  file.facts.configuration_digest = digest_of(file.facts.configuration);
  file.facts.token_set = digest_of(as_bytes(std::string_view("tokens")));
  file.base = {1, 2, 3, 4, 5};
  return file;
}

TEST_F(ModelFileTest, ComesBackAsItWas) {
  const ModelFile file = some_model();
  EXPECT_FALSE(is_model_file(path_));
  write_model_file(path_, file);
  EXPECT_TRUE(is_model_file(path_));
  const ModelFile back = read_model_file(path_);
  EXPECT_EQ(back.facts.run, "mine");
  EXPECT_EQ(back.facts.configuration, file.facts.configuration);
  EXPECT_EQ(back.facts.configuration_digest, file.facts.configuration_digest);
  EXPECT_EQ(back.facts.token_set, file.facts.token_set);
  EXPECT_EQ(back.base, file.base);
}

TEST_F(ModelFileTest, IsRefusedIfAnyByteIsAnotherOrMissing) {
  write_model_file(path_, some_model());
  const Bytes good = bytes();
  for (std::size_t i = 0; i < good.size(); ++i) {
    Bytes changed = good;
    changed[i] ^= 0x20;
    replace(changed);
    EXPECT_THROW(read_model_file(path_), Error) << i;
    changed = good;
    changed.resize(i);
    replace(changed);
    EXPECT_THROW(read_model_file(path_), Error) << i;
  }
}

TEST_F(ModelFileTest, SaysHowToGetOneWhereThereIsNone) {
  EXPECT_THROW(read_model_file(path_), Error);
  replace(Bytes(100, 'x'));
  try {
    read_model_file(path_);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::checkpoint_corrupt);
    EXPECT_THAT(error.what(), testing::HasSubstr("yumoe export RUN --model"));
  }
  EXPECT_THROW(write_model_file("/nowhere/x", some_model()), Error);
}

}  // namespace
}  // namespace yumoe

// `yumoe-worker island` from outside, over a program that stands for mpirun: when it starts the ranks again.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// Runs an island of three by `script`, whose $2 is the number of ranks, in a folder that is TMPDIR too.
class IslandProgram : public testing::Test {
 protected:
  void SetUp() override {
    std::string path = (fs::temp_directory_path() / "yumoe-test-XXXXXX").string();
    ASSERT_NE(mkdtemp(path.data()), nullptr);
    folder_ = path;
    fs::create_directory(folder_ / "tmp");
  }
  void TearDown() override { fs::remove_all(folder_); }

  int run(const std::string& script) {
    std::ofstream(folder_ / "mpirun") << "#!/bin/sh\nwhile [ \"$1\" != -n ]; do shift; done\n"
                                      << "echo \"started $2\"\n"
                                      << script;
    fs::permissions(folder_ / "mpirun", fs::perms::owner_all);
    const std::string command = "TMPDIR=" + (folder_ / "tmp").string() +
                                " timeout 60 " YUMOE_BIN_DIR "/yumoe-worker island -n 3 --mpirun " +
                                (folder_ / "mpirun").string() +
                                " worker --coordinator tcp://127.0.0.1:1 > " +
                                (folder_ / "said").string() + " 2>&1";
    const int status = std::system(command.c_str());
    std::ifstream said(folder_ / "said");
    said_ = std::string(std::istreambuf_iterator<char>(said), {});
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  fs::path folder_;
  std::string said_;
};

TEST_F(IslandProgram, StartsOneRankFewerWhereOneSaidThatTheIslandIsBroken) {
  EXPECT_EQ(run("[ $2 = 3 ] && echo x > $YUMOE_ISLAND_BROKEN\nexit 0\n"), 0) << said_;
  EXPECT_THAT(said_, HasSubstr("started 3"));
  EXPECT_THAT(said_, HasSubstr("started 2"));
  EXPECT_THAT(said_, Not(HasSubstr("started 1")));
}

TEST_F(IslandProgram, KeepsThatWordInAFolderOfItsOwnAndLeavesNothing) {
  EXPECT_EQ(run("stat -c 'mode %a' $(dirname $YUMOE_ISLAND_BROKEN)\n"
                "case $YUMOE_ISLAND_BROKEN in $TMPDIR/*) echo 'in TMPDIR';; esac\nexit 3\n"),
            3)
      << said_;
  EXPECT_THAT(said_, HasSubstr("mode 700"));
  EXPECT_THAT(said_, HasSubstr("in TMPDIR"));
  EXPECT_THAT(said_, Not(HasSubstr("started 2")));
  EXPECT_TRUE(fs::is_empty(folder_ / "tmp"));
}

}  // namespace

#include "launch/data.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <map>

#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "router/tokenizer.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const fs::path& path, std::string_view text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary)
      .write(text.data(), static_cast<std::streamsize>(text.size()));
}

// Paragraphs of made-up words, so that documents differ and a tokenizer finds something to merge.
std::string prose(std::uint64_t seed, int paragraphs) {
  static constexpr std::string_view kWords[] = {
      "router", "expert", "läuft", "мир", "and", "the", "of", "token", "слово", "über", "gradient"};
  Random random(seed);
  std::string text;
  for (int p = 0; p < paragraphs; ++p) {
    for (int w = 0; w < 60; ++w) {
      text += std::string(kWords[random.below(std::size(kWords))]) + (w % 12 == 11 ? "\n" : " ");
    }
    text += "\n";
  }
  return text;
}

std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    files[entry.path().filename()] = read(entry.path());
  }
  return files;
}

class DataTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("data_test." + std::to_string(::getpid()));
    fs::remove_all(folder_);
    write(folder_ / "text/Novels/one.txt", prose(1, 200));
    write(folder_ / "text/Novels/deep/two.txt", prose(2, 100));
    write(folder_ / "text/notes.md", prose(3, 150));
    write(folder_ / "text/.hidden", "not this");
    options_.path = folder_ / "set";
    options_.sources = {folder_ / "text"};
    options_.vocabulary = 400;
    options_.heldout_percent = 10;
    options_.private_percent = 10;
    options_.sample_mib = 1;
  }
  void TearDown() override { fs::remove_all(folder_); }

  void build(bool replace = false) {
    build_token_set(options_, replace, [](std::string_view) {});
  }
  std::string refusal(ErrorCode code) {
    try {
      build();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      return error.what();
    }
    return "accepted";
  }

  fs::path folder_;
  DataOptions options_;
};

TEST_F(DataTest, BuildsASetWhoseDomainsAreSubfoldersAndFiles) {
  build();
  const TokenSet set = TokenSet::open(options_.path);
  set.verify();
  EXPECT_THAT(std::vector(set.domains().begin(), set.domains().end()),
              ::testing::ElementsAre("novels", "notes"));
  EXPECT_LE(set.vocabulary(), 400u);
  for (const Split split : kSplits) EXPECT_GT(set.windows(split, 16), 0u);
  EXPECT_GT(set.bytes_per_token(Split::train), 1.5);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 2) << "leaves nothing beside";
}

TEST_F(DataTest, TheSameTextGivesTheSameBytes) {
  build();
  const auto first = files_of(options_.path);
  options_.path = folder_ / "again";
  build();
  EXPECT_EQ(files_of(options_.path), first);
}

TEST_F(DataTest, KeepsEveryDocumentInOneSplitAndDecodesToTheText) {
  build();
  const TokenSet set = TokenSet::open(options_.path);
  const Tokenizer tokenizer = Tokenizer::open(set.folder() / "tokenizer.model");
  const std::string original = prose(3, 150);
  std::uint64_t bytes = 0;
  for (const Split split : kSplits) {
    const std::string raw = read(set.folder() / file_of(set.manifest().domains[1], split));
    std::vector<std::uint16_t> document;
    std::uint64_t documents = 0;
    for (std::size_t i = 0; i < raw.size(); i += 2) {
      const auto token = static_cast<std::uint16_t>(static_cast<unsigned char>(raw[i]) |
                                                    static_cast<unsigned char>(raw[i + 1]) << 8);
      if (token != set.manifest().end_token) {
        document.push_back(token);
        continue;
      }
      const std::string text = tokenizer.decode(document);
      EXPECT_THAT(original, HasSubstr(text));
      bytes += text.size();
      ++documents;
      document.clear();
    }
    EXPECT_TRUE(document.empty()) << "the last document has no end token";
    EXPECT_EQ(documents, set.manifest().domains[1].file(split).documents);
  }
  EXPECT_GT(bytes, original.size() * 9 / 10);
}

TEST_F(DataTest, TakesADocumentThatOccursTwiceOnce) {
  build();
  const std::uint64_t before =
      TokenSet::open(options_.path).manifest().domains[0].files[0].documents;
  write(folder_ / "text/Novels/copy.txt", prose(1, 200));
  build(/*replace=*/true);
  EXPECT_EQ(TokenSet::open(options_.path).manifest().domains[0].files[0].documents, before);
}

TEST_F(DataTest, ReplacesASetOnlyWhenToldAndNothingElseEver) {
  build();
  EXPECT_THAT(refusal(ErrorCode::usage), HasSubstr("--replace"));
  build(/*replace=*/true);
  fs::remove(folder_ / "set/manifest.json");
  EXPECT_THAT(refusal(ErrorCode::usage), HasSubstr("exists and is no token set"));
  EXPECT_THROW(build(true), Error);
}

TEST_F(DataTest, BuildsTheConfiguredSetOnlyIfItIsMissing) {
  int lines = 0;
  const auto count = [&](std::string_view) { ++lines; };
  const Digest digest = build_default(options_, count).digest();
  EXPECT_GT(lines, 0);
  lines = 0;
  EXPECT_EQ(build_default(options_, count).digest(), digest);
  EXPECT_EQ(lines, 0);
}

TEST_F(DataTest, NamesFileAndByteOfTextThatIsNotUtf8) {
  const std::pair<std::string, int> cases[] = {{"caf\xe9 au lait", 3},
                                               {"\xc3", 0},
                                               {"ok\xed\xa0\x80 surrogate", 2},
                                               {"\xc0\xaf overlong", 0},
                                               {"\xf4\x90\x80\x80", 0},
                                               {"a\x80", 1},
                                               {"\xe2\x82", 0}};
  for (const auto& [text, offset] : cases) {
    write(folder_ / "text/bad.txt", text);
    const std::string message = refusal(ErrorCode::data_invalid);
    EXPECT_THAT(message, HasSubstr("bad.txt is not UTF-8 at byte " + std::to_string(offset)));
  }
  const std::string far = std::string((1 << 20) - 1, 'a') + "\xc3";  // cut by the piece's border
  write(folder_ / "text/bad.txt", far + "\xa4 fine until here \xff");
  EXPECT_THAT(refusal(ErrorCode::data_invalid),
              HasSubstr("at byte " + std::to_string(far.size() + 18)));
}

TEST_F(DataTest, RefusesSourcesWithoutText) {
  options_.sources = {folder_ / "nowhere"};
  EXPECT_THAT(refusal(ErrorCode::file_missing), HasSubstr("is not a folder"));
  fs::create_directory(folder_ / "empty");
  options_.sources = {folder_ / "empty"};
  EXPECT_THAT(refusal(ErrorCode::data_invalid), HasSubstr("holds no files"));
  write(folder_ / "empty/blank.txt", "\n \n\t\x01\n");
  EXPECT_THAT(refusal(ErrorCode::data_invalid), HasSubstr("hold no text"));
  options_.sources = {};
  EXPECT_THAT(refusal(ErrorCode::data_invalid), HasSubstr("no sources"));
  options_.sources = {"apt:no-such-package"};
  EXPECT_THAT(refusal(ErrorCode::file_missing), HasSubstr("apt-get install no-such-package"));
  options_.sources = {"apt:../../etc"};
  EXPECT_THAT(refusal(ErrorCode::data_invalid), HasSubstr("names no Debian package"));
  EXPECT_FALSE(fs::exists(options_.path));
}

TEST_F(DataTest, SaysThatATextIsTooSmallToBeSplit) {
  options_.sources = {folder_ / "small"};
  write(folder_ / "small/a.txt", "one document and no more");
  EXPECT_THAT(refusal(ErrorCode::data_invalid), HasSubstr("none fell into the split"));
}

TEST_F(DataTest, LeavesNothingBehindWhenTheDiskRefusesToTakeMore) {
  const auto old = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{4'096, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = refusal(ErrorCode::file_io);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, old);
  EXPECT_THAT(message, HasSubstr("write "));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
}

TEST_F(DataTest, FollowsNoLinks) {
  fs::create_directory_symlink("..", folder_ / "text/loop");
  fs::create_symlink("/etc/passwd", folder_ / "text/passwd");
  build();
  EXPECT_EQ(TokenSet::open(options_.path).domains().size(), 2u);
}

TEST_F(DataTest, ReadsFortunesAndDictionariesOfInstalledPackages) {
  if (!fs::exists("/var/lib/dpkg/info/dict-devil.list")) GTEST_SKIP() << "run launch/setup";
  options_.sources = {"apt:dict-devil"};
  options_.vocabulary = 600;
  build();
  const TokenSet set = TokenSet::open(options_.path);
  EXPECT_EQ(set.domains()[0], "literary");
  std::uint64_t documents = 0;
  for (const Split split : kSplits) documents += set.manifest().domains[0].file(split).documents;
  EXPECT_GT(documents, 900u);
}

TEST_F(DataTest, TokenizersRefuseWhatIsNoModelAndDecodeAnything) {
  build();
  EXPECT_THROW(Tokenizer::from_bytes("garbage"), Error);
  EXPECT_THROW(Tokenizer::from_bytes(""), Error);
  const Tokenizer tokenizer = Tokenizer::open(fs::path(options_.path) / "tokenizer.model");
  const std::string text = "  Grüße, 世界!\n\n\tмир 123 \xF0\x9F\x90\xB8";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  Random random(1);
  for (int i = 0; i < 200; ++i) {
    std::vector<std::uint16_t> tokens(20);
    for (std::uint16_t& token : tokens) token = static_cast<std::uint16_t>(random());
    tokenizer.decode(tokens);
  }
}

}  // namespace
}  // namespace yumoe

#include "router/token_set.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

void write(const fs::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary)
      .write(text.data(), static_cast<std::streamsize>(text.size()));
}

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A set of two domains whose n-th token of a file is n % vocabulary.
class TokenSetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("token_set_test." + std::to_string(::getpid()));
    fs::create_directories(folder_);
    write(folder_ / "tokenizer.model", "model");
    manifest_.vocabulary = 100;
    manifest_.end_token = 1;
    manifest_.tokenizer = digest_of(as_bytes(std::string_view("model")));
    add_domain("english", {1'001, 101, 51});
    add_domain("german", {333, 0, 9});
    write_manifest();
  }
  void TearDown() override { fs::remove_all(folder_); }

  void add_domain(const std::string& name, std::array<std::uint64_t, 3> tokens) {
    TokenDomain domain;
    domain.name = name;
    for (const Split split : kSplits) {
      const std::uint64_t count = tokens[static_cast<std::size_t>(split)];
      std::vector<std::uint16_t> values(count);
      for (std::uint64_t i = 0; i < count; ++i) values[i] = static_cast<std::uint16_t>(i % 100);
      const ByteView bytes = as_bytes(std::span<const std::uint16_t>(values));
      domain.files[static_cast<std::size_t>(split)] = {count / 10, count, count * 3,
                                                       digest_of(bytes)};
      write(folder_ / file_of(domain, split),
            {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    }
    manifest_.domains.push_back(domain);
  }
  void write_manifest() { write(folder_ / "manifest.json", json_of(manifest_)); }

  void expect_refused(ErrorCode code, std::string_view part) {
    try {
      TokenSet::open(folder_).verify();
      FAIL() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_THAT(error.what(), HasSubstr(std::string(part)));
    }
  }

  fs::path folder_;
  TokenManifest manifest_;
};

TEST_F(TokenSetTest, CountsWindowsThatOverlapByOneToken) {
  const TokenSet set = TokenSet::open(folder_);
  set.verify();
  EXPECT_EQ(set.windows(0, Split::train, 10), 100u);
  EXPECT_EQ(set.windows(1, Split::train, 10), 33u);
  EXPECT_EQ(set.windows(Split::train, 10), 133u);
  EXPECT_EQ(set.windows(1, Split::heldout, 10), 0u);
  EXPECT_EQ(set.windows(1, Split::validation_private, 10), 0u);
  EXPECT_DOUBLE_EQ(set.bytes_per_token(Split::train), 3);
  EXPECT_DOUBLE_EQ(set.bytes_per_token(1, Split::heldout), 0);
}

TEST_F(TokenSetTest, CopiesTheLastWindowToItsLastToken) {
  const TokenSet set = TokenSet::open(folder_);
  std::vector<std::uint16_t> tokens(11);
  set.copy({0, 99}, Split::train, 10, tokens);
  EXPECT_EQ(tokens.front(), 990 % 100);
  EXPECT_EQ(tokens.back(), 1'000 % 100);
}

TEST_F(TokenSetTest, DrawsEachWindowOnceAPassAndInAnotherOrderEachPass) {
  const TokenSet set = TokenSet::open(folder_);
  std::vector<std::vector<std::pair<std::uint32_t, std::uint64_t>>> passes(2);
  for (std::uint64_t position = 0; position < 2 * 133; ++position) {
    const Window window = set.at(position, 7, Split::train, 10);
    ASSERT_LT(window.index, set.windows(window.domain, Split::train, 10));
    passes[position / 133].emplace_back(window.domain, window.index);
  }
  for (const auto& pass : passes) {
    EXPECT_EQ(std::set(pass.begin(), pass.end()).size(), 133u);
  }
  EXPECT_NE(passes[0], passes[1]);
}

TEST_F(TokenSetTest, DrawsAPermutationForEveryCount) {
  for (std::uint32_t context = 1; context < 400; context += 7) {
    const TokenSet set = TokenSet::open(folder_);
    const std::uint64_t count = set.windows(Split::train, context);
    std::set<std::pair<std::uint32_t, std::uint64_t>> seen;
    for (std::uint64_t position = 0; position < count; ++position) {
      const Window window = set.at(position, context, Split::train, context);
      seen.emplace(window.domain, window.index);
    }
    EXPECT_EQ(seen.size(), count) << context;
  }
}

TEST_F(TokenSetTest, KeepsItsOrderForEver) {
  const TokenSet set = TokenSet::open(folder_);
  std::vector<std::uint64_t> indices;
  for (std::uint64_t position = 0; position < 6; ++position) {
    indices.push_back(set.at(position, 1, Split::train, 10).index);
  }
  EXPECT_THAT(indices, ::testing::ElementsAre(15, 87, 64, 18, 62, 11));
}

TEST_F(TokenSetTest, SpreadsWindowsEvenlyOverAPass) {
  const TokenSet set = TokenSet::open(folder_);
  int first_half = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const Window window = set.at(0, seed, Split::train, 10);
    if (window.domain == 0 && window.index < 66) ++first_half;
  }
  EXPECT_NEAR(first_half, 400 * 66 / 133, 50);  // five deviations
}

TEST_F(TokenSetTest, SaysThatASplitIsTooSmallForTheContext) {
  const TokenSet set = TokenSet::open(folder_);
  try {
    set.at(0, 1, Split::heldout, 200);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no window of 200 tokens in its split 'heldout'"));
  }
}

TEST_F(TokenSetTest, NamesAMissingSetAndHowToBuildIt) {
  folder_ /= "nowhere";
  expect_refused(ErrorCode::file_missing, "yumoe data build");
}

TEST_F(TokenSetTest, RefusesFilesThatAreMissingShortenedChangedOrNoFiles) {
  const fs::path file = folder_ / "english.train.tokens";
  const std::string good = read(file);
  fs::remove(file);
  expect_refused(ErrorCode::file_missing, "english.train.tokens");
  write(file, good.substr(1));
  expect_refused(ErrorCode::data_invalid, "has 2001 bytes where the manifest says 2002");
  std::string changed = good;
  changed[1'000] ^= 1;
  write(file, changed);
  expect_refused(ErrorCode::digest_mismatch, "english.train.tokens");
  fs::remove(file);
  fs::create_directory(file);
  expect_refused(ErrorCode::data_invalid, "not a regular file");
  fs::remove(file);
  write(file, good);
  write(folder_ / "tokenizer.model", "another");
  expect_refused(ErrorCode::digest_mismatch, "tokenizer.model");
}

TEST_F(TokenSetTest, NeverGivesATokenBeyondTheVocabulary) {
  std::string tokens = read(folder_ / "english.train.tokens");
  tokens[2 * 15 + 1] = '\x7f';
  write(folder_ / "english.train.tokens", tokens);
  const TokenSet set = TokenSet::open(folder_);
  std::vector<std::uint16_t> window(11);
  set.copy({0, 0}, Split::train, 10, window);
  EXPECT_THROW(set.copy({0, 1}, Split::train, 10, window), Error);
}

TEST_F(TokenSetTest, ManifestsSurviveTheRoundTrip) {
  EXPECT_EQ(parse_manifest(json_of(manifest_)), manifest_);
}

TEST_F(TokenSetTest, RefusesHostileManifestsAndNamesTheField) {
  struct Case {
    std::string_view from, to, part;
  };
  const Case cases[] = {
      {"\"vocabulary\": 100", "\"vocabulary\": 1", "manifest.vocabulary = 1 must be between 2"},
      {"\"vocabulary\": 100", "\"vocabulary\": 70000", "must be between 2 and 65536"},
      {"\"vocabulary\": 100", "\"vocabulary\": -5", "not a whole number"},
      {"\"vocabulary\": 100", "\"vocabulary\": 1e2", "not a whole number"},
      {"\"vocabulary\": 100", "\"vocabulary\": 99999999999999999999999", "not a whole number"},
      {"\"vocabulary\": 100", "\"words\": 100", "manifest has no vocabulary"},
      {"\"end_token\": 1", "\"end_token\": 100", "manifest.end_token = 100"},
      {"\"version\": 1", "\"version\": 2", "manifest.version = 2"},
      {"yumoe token set", "another", "format is not"},
      {"\"english\"", "\"../../etc/passwd\"", "domains[0].name must be"},
      {"\"english\"", "\"a/b\"", "domains[0].name must be"},
      {"\"english\"", "\"\"", "domains[0].name must be"},
      {"\"english\"", "7", "domains[0].name must be"},
      {"\"german\"", "\"english\"", "domains[1].name 'english' is there twice"},
      {"\"tokens\": 1001", "\"tokens\": 18446744073709551615", "domains[0].train.tokens ="},
      {"\"documents\": 100", "\"documents\": 5000", "domains[0].train.documents = 5000"},
      {"\"digest\": \"", "\"digest\": \"Z", "domains[0].train.digest is not a digest"},
      {"\"train\": {", "\"train\": [], \"x\": {", "domains[0].train is not an object"},
      {"\"domains\": [", "\"domains\": [], \"x\": [", "domains must be a list"},
  };
  const std::string good = json_of(manifest_);
  for (const Case& c : cases) {
    std::string bad = good;
    const std::size_t at = bad.find(c.from);
    ASSERT_NE(at, std::string::npos) << c.from;
    bad.replace(at, c.from.size(), c.to);
    write(folder_ / "manifest.json", bad);
    expect_refused(ErrorCode::data_invalid, c.part);
  }
  for (const std::string& bad :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"),
        std::string(100'000, '['), std::string("\xff\xfe"), good + "x",
        std::string(kManifestBytesMax + 1, ' ')}) {
    write(folder_ / "manifest.json", bad);
    expect_refused(ErrorCode::data_invalid, "manifest.json");
  }
}

TEST_F(TokenSetTest, RefusesEveryTruncatedManifest) {
  const std::string good = json_of(manifest_);
  for (std::size_t size = 0; size + 2 < good.size(); size += 3) {
    EXPECT_THROW(parse_manifest(good.substr(0, size)), Error) << size;
  }
}

}  // namespace
}  // namespace yumoe

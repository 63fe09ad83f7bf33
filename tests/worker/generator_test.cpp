// Text that a model writes: cached decoding against computing every prefix as a whole, the draw of the next
// token against its distribution, and a stream that never shows half a character.

#include "worker/generator.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <set>

#include "cluster/error.hpp"
#include "launch/data.hpp"
#include "model/device.hpp"
#include "model/model.hpp"
#include "worker/expert_servers.hpp"
#include "worker/feed_forward_experts.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

const DeviceOptions kDevice{.device = "cpu", .threads = 1};

ModelOptions small_model() {
  ModelOptions model;
  model.vocabulary = 64;
  model.context = 16;
  model.width = 32;
  model.layers = 2;
  model.heads = 4;
  model.key_value_heads = 2;
  model.experts = 4;
  model.expert_width = 24;
  model.shared_expert_width = 16;
  return model;
}

const std::vector<float>& parameters() {
  static const std::vector<float> values = [] {
    std::vector<float> made(Layout::of(small_model()).parameters());
    initialise(Layout::of(small_model()), 5, made);
    for (float& value : made) value *= 1.5F;  // further from all-equal logits
    return made;
  }();
  return values;
}

std::vector<std::uint16_t> random_tokens(std::size_t count, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::uint16_t> tokens(count);
  for (auto& token : tokens) token = static_cast<std::uint16_t>(random.below(64));
  return tokens;
}

std::vector<float> whole_of(const ModelOptions& model, std::span<const std::uint16_t> prefix) {
  Decoder fresh(model, parameters(), {}, 1, kDevice);
  const auto logits = fresh.append(std::array{Decoder::Piece{0, prefix}});
  return {logits.begin(), logits.end()};
}

// A pass over one row and one over many add up matrix products in another order; a sum of n products is then
// off by up to about n * 2^-24 of its terms, n at most 48 here, through a handful of such sums.
constexpr double kRounding = 2e-5;

double furthest(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    most = std::max(most, std::abs(static_cast<double>(a[i]) - b[i]));
  return most;
}

TEST(Decoder, ATokenAtATimeGivesWhatEachPrefixGivesAsAWhole) {
  const auto tokens = random_tokens(16, 3);
  for (const std::size_t prompt : {1U, 2U, 7U, 16U}) {
    Decoder decoder(small_model(), parameters(), {}, 1, kDevice);
    std::size_t count = prompt;
    std::span<const std::uint16_t> next = std::span(tokens).first(prompt);
    while (true) {
      const auto logits = decoder.append(std::array{Decoder::Piece{0, next}});
      EXPECT_LT(furthest(logits, whole_of(small_model(), std::span(tokens).first(count))),
                kRounding)
          << prompt << " then one at a time to " << count;
      if (count == tokens.size()) break;
      next = std::span(tokens).subspan(count++, 1);
    }
    EXPECT_EQ(decoder.slides(), 0U);
  }
}

TEST(Decoder, GivesTheLossesThatTrainingSees) {
  const auto tokens = random_tokens(17, 4);
  Model model(Layout::of(small_model()), {0, 1, 2, 3}, {}, open_device("cpu"), false);
  model.load(parameters());
  std::vector<float> bias(8);
  for (std::size_t i = 0; i < bias.size(); ++i) bias[i] = i % 3 == 0 ? 0.05F : -0.02F;
  const BatchResult whole = model.evaluate(tokens, bias);
  Decoder decoder(small_model(), parameters(), bias, 1, kDevice);
  for (std::size_t i = 0; i < 16; ++i) {
    const auto logits =
        decoder.append(std::array{Decoder::Piece{0, std::span(tokens).subspan(i, 1)}});
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    EXPECT_NEAR(std::log(sum) - logits[tokens[i + 1]], whole.losses[i], kRounding) << i;
  }
}

TEST(Decoder, KeepsSequencesOfDifferentLengthsApart) {
  const auto one = random_tokens(5, 6), two = random_tokens(9, 7), three = random_tokens(3, 8);
  Decoder decoder(small_model(), parameters(), {}, 3, kDevice);
  const auto cut = [](const auto& tokens, std::size_t begin, std::size_t count) {
    return std::span<const std::uint16_t>(tokens).subspan(begin, count);
  };
  decoder.append(std::array{Decoder::Piece{0, cut(one, 0, 4)}, Decoder::Piece{1, cut(two, 0, 8)},
                            Decoder::Piece{2, three}});
  const auto logits = decoder.append(
      std::array{Decoder::Piece{1, cut(two, 8, 1)}, Decoder::Piece{0, cut(one, 4, 1)}});
  EXPECT_LT(furthest(logits.first(64), whole_of(small_model(), two)), kRounding);
  EXPECT_LT(furthest(logits.last(64), whole_of(small_model(), one)), kRounding);
  decoder.clear(2);
  const auto again = decoder.append(std::array{Decoder::Piece{2, one}});
  EXPECT_LT(furthest(again, whole_of(small_model(), one)), kRounding);
}

TEST(DecoderDeathTest, TakesASequenceOnceACall) {
  const auto tokens = random_tokens(2, 6);
  Decoder decoder(small_model(), parameters(), {}, 2, kDevice);
  EXPECT_DEATH(decoder.append(std::array{Decoder::Piece{1, tokens}, Decoder::Piece{1, tokens}}),
               "count");
}

TEST(Decoder, ReadsItsNewestHalfAgainWhenTheContextIsFull) {
  const auto tokens = random_tokens(40, 9);
  Decoder decoder(small_model(), parameters(), {}, 1, kDevice);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto logits =
        decoder.append(std::array{Decoder::Piece{0, std::span(tokens).subspan(i, 1)}});
    // After 16 tokens the next goes behind the newest 8, then there is room for 7 more.
    const std::size_t begin = i < 16 ? 0 : (i - 8) / 8 * 8;
    EXPECT_LT(
        furthest(logits, whole_of(small_model(), std::span(tokens).subspan(begin, i + 1 - begin))),
        kRounding)
        << i;
  }
  EXPECT_EQ(decoder.slides(), 3U);
}

TEST(Decoder, RefusesTokensThatAreNone) {
  Decoder decoder(small_model(), parameters(), {}, 1, kDevice);
  const std::vector<std::uint16_t> beyond{64}, many(17), none;
  for (const auto& tokens : {beyond, many, none}) {
    EXPECT_THROW(decoder.append(std::array{Decoder::Piece{0, tokens}}), Error);
  }
}

struct Elsewhere {
  explicit Elsewhere(const ExpertSet& experts)
      : server("base", {}, [experts] {
          return feed_forward_experts(Layout::of(small_model()), parameters(), experts, kDevice,
                                      {});
        }) {
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      for (const std::uint32_t expert : experts) place.experts.emplace_back(layer, expert);
    }
    place.address = server.address();
  }
  ExpertServerThread server;
  ExpertPlace place;
};

std::vector<std::uint16_t> greedy(Decoder& decoder, std::size_t count,
                                  const std::function<void(std::size_t)>& before = {}) {
  Random random(1);
  const auto prompt = random_tokens(5, 2);
  std::span<const std::uint16_t> next = prompt;
  std::vector<std::uint16_t> written;
  for (std::size_t i = 0; i < count; ++i) {
    if (before) before(i);
    const auto logits = decoder.append(std::array{Decoder::Piece{0, next}});
    written.push_back(choose_token(logits, {.temperature = 0}, random));
    next = std::span(written).last(1);
  }
  return written;
}

TEST(Decoder, WritesTheSameWithExpertsElsewhereAndGoesOnWhenTheyAreGone) {
  Decoder here(small_model(), parameters(), {}, 1, kDevice);
  const auto alone = greedy(here, 24);
  const Digest version = digest_of(as_bytes(std::string_view("base")));
  DispatchOptions options;
  options.strikes_max = 2;
  options.deadline_max_ms = 300;
  options.rest_ms = 60'000;
  auto one = std::make_unique<Elsewhere>(ExpertSet{1, 2, 3}),
       two = std::make_unique<Elsewhere>(ExpertSet{1, 2, 3});
  RemoteExperts remote({one->place, two->place}, version, 32, options);
  Decoder far(small_model(), parameters(), {}, 1, kDevice, &remote, {1, 2, 3});
  EXPECT_EQ(greedy(far, 24,
                   [&](std::size_t token) {
                     if (token == 10) one.reset();
                   }),
            alone)
      << "a replica is there";
  EXPECT_EQ(remote.counts().given_up, 0U);
  EXPECT_GT(remote.counts().requests, 24U);
  far.clear(0);
  const auto holed = greedy(far, 24, [&](std::size_t token) {
    if (token == 10) two.reset();
  });
  EXPECT_EQ(std::vector(holed.begin(), holed.begin() + 10),
            std::vector(alone.begin(), alone.begin() + 10));
  EXPECT_GT(remote.counts().given_up, 0U);
}

TEST(ChooseToken, TakesTheLikeliestAtTemperatureZeroAndTheLowestOfEquals) {
  Random random(1);
  EXPECT_EQ(choose_token(std::vector<float>{1, 3, 3, 2}, {.temperature = 0}, random), 1);
}

TEST(ChooseToken, DrawsAsOftenAsTheDistributionSays) {
  const std::vector<float> logits{0, 1, -2, 0.5F, -30};
  const SamplingOptions options{.temperature = 0.7};
  std::vector<double> expected;
  double all = 0;
  for (const float logit : logits) all += expected.emplace_back(std::exp(logit / 0.7));
  constexpr int kDraws = 200'000;
  std::vector<int> counts(logits.size());
  Random random(7), same(7);
  for (int i = 0; i < kDraws; ++i) {
    const auto token = choose_token(logits, options, random);
    ++counts[token];
    if (i >= 1'000) continue;
    ASSERT_EQ(token, choose_token(logits, options, same));
  }
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double p = expected[i] / all;
    EXPECT_NEAR(counts[i], p * kDraws, 1 + 5 * std::sqrt(p * (1 - p) * kDraws)) << i;
  }
}

TEST(ChooseToken, KeepsToTheKLikeliestAndToTheirShareOfProbability) {
  const std::vector<float> logits{0, 2, 1, 2, -1};
  Random random(3);
  std::set<int> k, p, both;
  for (int i = 0; i < 5'000; ++i) {
    k.insert(choose_token(logits, {.temperature = 5, .top_k = 3}, random));
    p.insert(choose_token(logits, {.temperature = 1, .top_p = 0.5}, random));
    both.insert(choose_token(logits, {.temperature = 100, .top_k = 2, .top_p = 0.01}, random));
  }
  EXPECT_THAT(k, testing::ElementsAre(1, 2, 3));
  EXPECT_THAT(p, testing::ElementsAre(1, 3)) << "0.38 each";
  EXPECT_THAT(both, testing::ElementsAre(1));
}

TEST(ChooseToken, RefusesLogitsThatAreNoNumbers) {
  Random random(3);
  const float none = std::numeric_limits<float>::quiet_NaN(),
              infinite = std::numeric_limits<float>::infinity();
  EXPECT_THROW(choose_token(std::vector<float>{0, none}, {}, random), Error);
  EXPECT_THROW(choose_token(std::vector<float>{0, infinite}, {.temperature = 0}, random), Error);
  EXPECT_THROW(choose_token(std::vector<float>{-infinite, -infinite}, {}, random), Error);
  EXPECT_EQ(choose_token(std::vector<float>{-infinite, 0}, {}, random), 1);
}

class TextStreamTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = fs::temp_directory_path() / ("generator_test." + std::to_string(::getpid()));
    fs::create_directories(folder_ / "text");
    Random random(1);
    constexpr std::string_view kWords[] = {"router", "expert", "läuft", "мир",
                                           "and",    "слово",  "über"};
    std::ofstream file(folder_ / "text/one.txt");
    for (int line = 0; line < 3'000; ++line) {
      for (int word = 0; word < 8; ++word) file << kWords[random.below(std::size(kWords))] << ' ';
      file << (line % 5 == 4 ? "\n\n" : "\n");
    }
    file.close();
    DataOptions options;
    options.path = folder_ / "set";
    options.sources = {folder_ / "text"};
    options.vocabulary = 350;
    options.heldout_percent = options.private_percent = 10;
    options.sample_mib = 1;
    build_token_set(options, false, [](std::string_view) {});
    tokenizer_ = new Tokenizer(Tokenizer::open(folder_ / "set/tokenizer.model"));
  }
  static void TearDownTestSuite() {
    delete tokenizer_;
    fs::remove_all(folder_);
  }

  struct Shown {
    std::string text;
    bool whole = true;  // each piece was UTF-8
    bool stopped = false;
  };
  static Shown stream(std::span<const std::uint16_t> tokens, const std::string& stop = "") {
    TextStream text(*tokenizer_, stop);
    Shown shown;
    const auto show = [&](const std::string& piece) {
      shown.whole = shown.whole && is_utf8(piece);
      shown.text += piece;
    };
    for (const std::uint16_t token : tokens) show(text.push(token));
    show(text.finish());
    shown.stopped = text.is_stopped();
    return shown;
  }

  static inline fs::path folder_;
  static inline const Tokenizer* tokenizer_ = nullptr;
};

TEST_F(TextStreamTest, GivesTheTextAndNeverHalfACharacter) {
  // Characters that the tokenizer has never seen are several tokens of one byte.
  const std::string text = "expert мир 漢字 läuft 🙂🙂 and über";
  const auto tokens = tokenizer_->encode(text);
  ASSERT_GT(tokens.size(), 20U);
  const Shown shown = stream(tokens);
  EXPECT_EQ(shown.text, text);
  EXPECT_EQ(stream(tokenizer_->encode(" and")).text, " and") << "a new word keeps its space";
  EXPECT_TRUE(shown.whole);
  for (std::size_t cut = 0; cut < tokens.size(); ++cut) {
    EXPECT_TRUE(stream(std::span(tokens).first(cut)).whole) << cut;
  }
  TextStream waits(*tokenizer_, "");
  const auto smile = tokenizer_->encode("🙂");
  std::string early;
  for (std::size_t i = 0; i + 1 < smile.size(); ++i) early += waits.push(smile[i]);
  EXPECT_THAT(early, testing::AnyOf("", " "));
  EXPECT_TRUE((early + waits.push(smile.back())).ends_with("🙂"));
}

TEST_F(TextStreamTest, ShowsAnyTokensAsUtf8AndWaitsForNoneForEver) {
  Random random(5);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::uint16_t> tokens(1 + random.below(30));
    for (auto& token : tokens) {
      token = static_cast<std::uint16_t>(random.below(round % 2 == 0 ? 400 : 270));
    }
    ASSERT_TRUE(stream(tokens).whole);
    ASSERT_TRUE(stream(tokens, "er").whole);
  }
  const auto smile = tokenizer_->encode("🙂");
  TextStream waits(*tokenizer_, "");
  std::string text;
  for (int i = 0; i < 20; ++i) text += waits.push(smile.back());  // a byte that begins nothing
  EXPECT_FALSE(text.empty());
}

TEST_F(TextStreamTest, EndsBeforeTheStopTextWhereverTokensCutIt) {
  const auto tokens = tokenizer_->encode("router läuft über and мир and слово");
  EXPECT_EQ(stream(tokens, "and").text, "router läuft über ");
  EXPECT_TRUE(stream(tokens, "and").stopped);
  EXPECT_EQ(stream(tokens, "r and м").text, "router läuft übe");
  EXPECT_EQ(stream(tokens, "слов!").text, "router läuft über and мир and слово");
  EXPECT_FALSE(stream(tokens, "слов!").stopped);
  EXPECT_TRUE(stream(tokens, "ß").whole) << "shares its first byte with ü";
}

TEST(IsUtf8, AcceptsWhatRfc3629Does) {
  for (const char* good : {"", "a", "ü", "漢", "🙂", "\xED\x9F\xBF", "\xF4\x8F\xBF\xBF"})
    EXPECT_TRUE(is_utf8(good)) << good;
  for (const char* bad : {"\x80", "\xC3", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80",
                          "\xF4\x90\x80\x80", "\xF8\x88\x80\x80\x80", "a\xFF"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
}

}  // namespace
}  // namespace yumoe

// What the shared ground promises: errors with names, digests, seeded numbers, declared options.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/bytes.hpp"
#include "cluster/clock.hpp"
#include "cluster/error.hpp"
#include "cluster/option.hpp"
#include "cluster/random.hpp"

namespace yumoe {
namespace {

using ::testing::HasSubstr;

TEST(Error, SaysWhatHappenedBeforeItsContext) {
  const Error error(ErrorCode::digest_mismatch, "checkpoint 7");
  EXPECT_STREQ(error.what(), "payload does not match its digest: checkpoint 7");
  EXPECT_EQ(name_of(error.code()), "digest_mismatch");
}

TEST(Bytes, DigestOfAbcIsTheOneOfRfc7693ShortenedTo32Bytes) {
  EXPECT_EQ(digest_of(as_bytes("abc")).hex(),
            "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
}

TEST(Bytes, DigestOfPiecesIsTheDigestOfTheWhole) {
  EXPECT_EQ(Digester().update(as_bytes("ab")).update(as_bytes("c")).finish(),
            digest_of(as_bytes("abc")));
}

TEST(Bytes, HexRoundTripsAndRefusesOtherText) {
  const Bytes bytes{0, 1, 0xab, 0xff};
  EXPECT_EQ(from_hex("0x" + to_hex(bytes)), bytes);
  EXPECT_THROW(from_hex("abc"), Error);
  EXPECT_THROW(from_hex("zz"), Error);
}

TEST(Random, EqualSeedsGiveEqualNumbersAndPurposesDiffer) {
  Random a(derive_seed("data", {1, 2})), b(derive_seed("data", {1, 2}));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a(), b());
  EXPECT_NE(derive_seed("data", {1, 2}), derive_seed("data", {2, 1}));
  EXPECT_NE(derive_seed("data", {1}), derive_seed("init", {1}));
}

TEST(Random, NumbersBelowABoundCoverItEvenly) {
  Random random(7);
  int counts[5] = {};
  for (int i = 0; i < 50'000; ++i) ++counts[random.below(5)];
  for (const int count : counts) EXPECT_NEAR(count, 10'000, 500);
}

TEST(Random, NormalHasZeroMeanAndUnitVariance) {
  Random random(7);
  double sum = 0, squares = 0;
  constexpr int kCount = 100'000;
  for (int i = 0; i < kCount; ++i) {
    const double x = random.normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kCount, 0, 0.02);
  EXPECT_NEAR(squares / kCount, 1, 0.02);
}

TEST(Clock, SystemClockNeverRunsBackwards) {
  SystemClock clock;
  const TimeMs first = clock.now();
  EXPECT_LE(first, clock.now());
}

struct SampleOptions {
  std::int64_t steps = 30;
  double rate = 0.1;
  std::string outer = "sparseloco";
  std::vector<std::string> names{"a", "b"};
  bool on = true;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("steps", steps, {.unit = "steps", .min = 1, .max = 100, .help = "inner steps"});
    option("rate", rate, {.min = 0, .max = 1, .help = "learning rate"});
    option("outer", outer, {.choices = "sparseloco|diloco", .help = "outer step"});
    option("names", names, {.help = "some names"});
    option("on", on, {.help = "a switch"});
  }
};

TEST(Options, SurviveTheRoundTripThroughTextBitForBit) {
  SampleOptions options;
  options.rate = 1.0 / 3.0;
  const auto back = options_from<SampleOptions>(texts_of(options));
  EXPECT_EQ(back.rate, options.rate);
  EXPECT_EQ(back.names, options.names);
}

TEST(Options, NameTheOptionAndTheRuleItBreaks) {
  OptionTexts texts = texts_of(SampleOptions{});
  texts[0].second = "0";
  try {
    options_from<SampleOptions>(texts);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::config_invalid);
    EXPECT_THAT(error.what(), HasSubstr("steps = 0 must be between 1 and 100 steps"));
  }
  texts = texts_of(SampleOptions{});
  texts[2].second = "adam";
  EXPECT_THROW(options_from<SampleOptions>(texts), Error);
}

TEST(Options, RefuseAMissingOrUnknownOption) {
  OptionTexts texts = texts_of(SampleOptions{});
  texts.pop_back();
  EXPECT_THROW(options_from<SampleOptions>(texts), Error);
  texts = texts_of(SampleOptions{});
  texts.emplace_back("extra", "1");
  EXPECT_THROW(options_from<SampleOptions>(texts), Error);
}

}  // namespace
}  // namespace yumoe

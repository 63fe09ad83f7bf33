#include "launch/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string read(const std::string& path) {
  std::ifstream in(std::string(YUMOE_SOURCE_DIR) + "/" + path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string refusal(std::string_view toml, std::vector<std::string> flags = {}) {
  try {
    parse_config(toml, "run.toml", flags);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::config_invalid);
    return error.what();
  }
  return "accepted";
}

TEST(Config, AnEmptyFileGivesTheDefaults) {
  const RunConfig config = parse_config("", "run.toml");
  EXPECT_EQ(texts_of(config.model), texts_of(ModelOptions{}));
  EXPECT_TRUE(config.workers.empty());
}

TEST(Config, FlagsWinOverTheFile) {
  const std::vector<std::string> flags = {"--model.width=96", "--model.heads=6",
                                          "--data.sources=apt,novels", "--worker.b.threads=3",
                                          "--worker.0.threads=2"};
  const RunConfig config = parse_config(
      "[model]\nwidth = 128\n[[worker]]\nname = 'a'\n[[worker]]\nname = 'b'", "run.toml", flags);
  EXPECT_EQ(config.model.width, 96);
  EXPECT_THAT(config.data.sources, ::testing::ElementsAre("apt", "novels"));
  EXPECT_EQ(config.workers[0].threads, 2);
  EXPECT_EQ(config.workers[1].threads, 3);
}

TEST(Config, NamesProcessesThatHaveNoName) {
  const RunConfig config = parse_config("[[worker]]\n[[worker]]\n[[validator]]", "run.toml");
  EXPECT_EQ(config.workers[1].name, "worker-2");
  EXPECT_EQ(config.validators[0].name, "validator-1");
}

TEST(Config, SaysFileLineKeyValueRuleAndTheNearestName) {
  struct Case {
    std::string_view toml;
    std::vector<std::string> parts;
  };
  const Case cases[] = {
      {"[training]\nlearning_rate = 20",
       {"run.toml:2: training.learning_rate = 20", "must be between 0 and 10"}},
      {"[training]\nlearning_rte = 0.1",
       {"run.toml:2: training.learning_rte = 0.1", "did you mean learning_rate?"}},
      {"[traning]\n", {"run.toml:1: [traning] is no section", "did you mean training?"}},
      {"[model]\nwidth = 1.5", {"run.toml:2: model.width = 1.5", "must be a whole number"}},
      {"[model]\nwidth = '128'", {"model.width = '128'", "must be a whole number"}},
      {"[model]\nwidth = 99999999999999999999999", {"run.toml:2"}},
      {"[model]\nwidth = -8", {"model.width = -8", "between 8 and 65536"}},
      {"[model]\nwidth = [128]", {"model.width = [...]", "must be a whole number"}},
      {"[model]\nwidth = {a = 1}", {"model.width = {...}", "must be a whole number"}},
      {"[model.width]\na = 1", {"model.width = {...}", "must be a whole number"}},
      {"[model]\nwidth = 100\nheads = 6\nexperts = 4",
       {"run.toml:3: model.heads = 6 must divide width = 100"}},
      {"[model]\ntied_embedding = 1", {"model.tied_embedding = 1", "must be true or false"}},
      {"[model]\nexperts = 2\nexperts_per_token = 3", {"run.toml:3: model.experts_per_token = 3"}},
      {"[model]\nlayers = 1024\nexperts = 4096", {"run.toml:3", "must not exceed 65536"}},
      {"[training]\nbeta1 = nan", {"run.toml:2", "must be a finite number"}},
      {"[training]\nbeta1 = inf", {"must be a finite number"}},
      {"[training]\nbeta1 = 2024-01-01", {"must be a number"}},
      {"[training]\nbeta1 = true", {"must be a number"}},
      {"[training]\nwarmup_steps = 9\ntotal_steps = 8",
       {"run.toml:2: training.warmup_steps = 9 must not exceed training.total_steps = 8"}},
      {"[outer]\nstep = 'adam'", {"run.toml:2: outer.step = ", "must be one of sparseloco|diloco"}},
      {"[codec]\nkept_per_block = 4096\nblock_elements = 64", {"run.toml:2: codec.kept_per_block"}},
      {"[transport]\nport = 70000", {"transport.port = 70000", "between 0 and 65535"}},
      {"[transport]\nheartbeat_interval_ms = 9000\nlease_ms = 9000",
       {"half of transport.lease_ms = 4500"}},
      {"[data]\nsources = 'apt'", {"data.sources = ", "must be a list of texts in quotes"}},
      {"[data]\nsources = ['apt', 3]", {"must be a list of texts in quotes"}},
      {"[data]\npath = ''", {"data.path must name a folder"}},
      {"[data]\npath = \"a\\nb\"", {"must not contain control characters"}},
      {"[data]\nvocabulary = 9000", {"data.vocabulary = 9000 must not exceed model.vocabulary"}},
      {"model = 3", {"run.toml:1: model must be a section: [model]"}},
      {"[[model]]\nwidth = 128", {"model must be a section"}},
      {"[worker]\nname = 'a'", {"run.toml:1: worker must be a list of sections: [[worker]]"}},
      {"worker = [1, 2]", {"worker must be a list of sections"}},
      {"[[worker]]\nname = 'a'\n[[worker]]\nname = 'a'",
       {"run.toml:3: worker.1.name = 'a' is taken already"}},
      {"[[worker]]\nname = 'a/../b'", {"must be 1 to 64 of"}},
      {"[[worker]]\nhotkey = '//A'\n[[validator]]\nhotkey = '//A'",
       {"run.toml:3: validator.0.hotkey is another process's already"}},
      {"[[worker]]\nexperts_max = 1",
       {"worker.0.experts_max = 1 must be 0 or at least model.experts_per_token = 2"}},
      {"[[worker]]\nthread = 1", {"run.toml:2: worker.0.thread = 1", "did you mean threads?"}},
      {"[[worker]]\nspeed_share = 0", {"worker.0.speed_share", "must be between 0.01 and 1"}},
      {"[run]\ncommit_wait_min_ms = 500\ncommit_wait_max_ms = 400",
       {"run.toml:2: run.commit_wait_min_ms = 500"}},
      {"[model]\nwidth = 128\nwidth = 128", {"run.toml:3"}},
      {"[model]\nwidth =", {"run.toml:2"}},
      {"[model\n", {"run.toml:1"}},
      {"\xff\xfe", {"run.toml:1"}},
      {"[model]\n\"wi\\ndth\" = 1", {"model.wi dth = 1 is no option", "did you mean width?"}},
  };
  for (const Case& c : cases) {
    const std::string message = refusal(c.toml);
    for (const std::string& part : c.parts) EXPECT_THAT(message, HasSubstr(part)) << c.toml;
    EXPECT_THAT(message, Not(HasSubstr("\n"))) << c.toml;
  }
}

TEST(Config, RefusesWrongFlagsByTheirName) {
  const std::pair<std::string, std::string> cases[] = {
      {"--model.widht=3", "--model.widht=3: names no option; did you mean --model.width?"},
      {"--modle.width=3", "did you mean model?"},
      {"--model.width=abc", "--model.width=abc: must be a whole number"},
      {"--model.width=12x", "must be a whole number"},
      {"--model.width=7", "must be between 8 and 65536"},
      {"--model.width", "must have the form --section.key=value"},
      {"--width=3", "must have the form --section.key=value"},
      {"model.width=3", "must have the form --section.key=value"},
      {"--model.0.width=3", "must have the form --model.key=value"},
      {"--worker.threads=3", "names no worker"},
      {"--worker.9.threads=3", "names no worker; there are 1"},
      {"--worker.0.thread=3", "did you mean --worker.0.threads?"},
      {"--training.beta1=nan", "must be a finite number"},
      {"--outer.step=adam", "must be one of sparseloco|diloco"},
      {"--data.path=\xff", "must be UTF-8"},
      {"--=", "must have the form"},
      {"--.=", "names no section"},
  };
  for (const auto& [flag, part] : cases) {
    EXPECT_THAT(refusal("[[worker]]\nname = 'a'", {flag}), HasSubstr(part)) << flag;
  }
}

TEST(Config, RefusesFilesThatAreTooLargeTooDeepOrMissing) {
  EXPECT_THAT(refusal(std::string(kConfigBytesMax + 1, '\n')), HasSubstr("larger than 1 MiB"));
  EXPECT_THAT(refusal("a = " + std::string(100'000, '[')), HasSubstr("run.toml:1"));
  EXPECT_THROW(read_config("/nowhere/run.toml"), Error);
  EXPECT_THROW(read_config("/"), Error);
}

TEST(Config, PrintsWhatReadsBackToTheSame) {
  const RunConfig config = parse_config(
      "[model]\nrope_base = 12345.678\n[data]\npath = 'a \"quoted\" \\ path'\nsources = []\n"
      "[[worker]]\nspeed_share = 0.3333333333333333\n[[validator]]\nstake = 1e7",
      "run.toml");
  const std::string printed = toml_of(config);
  const RunConfig back = parse_config(printed, "printed");
  EXPECT_EQ(toml_of(back), printed);
  EXPECT_EQ(json_of(back), json_of(config));
  EXPECT_EQ(back.workers[0].speed_share, config.workers[0].speed_share);
  EXPECT_THAT(printed, HasSubstr("rope_base = 12345.678\n"));
  EXPECT_THAT(printed, HasSubstr("width = 192  # default\n"));
  EXPECT_THAT(json_of(config), HasSubstr("\"defaults\":[\"run.rounds\""));
}

TEST(Config, TheDigestCoversSharedOptionsAlone) {
  const auto digest = [](std::string_view toml) {
    return shared_digest(parse_config(toml, "run.toml"));
  };
  const Digest base = digest("");
  EXPECT_EQ(digest("[training]\nbeta1 = 0.9"), base) << "writing a default down changes nothing";
  EXPECT_EQ(digest("[transport]\nport = 1\n[data]\npath = 'x'\n[[worker]]"), base);
  EXPECT_NE(digest("[training]\nbeta1 = 0.91"), base);
  EXPECT_NE(digest("[model]\nlayers = 5"), base);
  EXPECT_NE(digest("[run]\nseed = 2"), base);
}

TEST(Config, EverySharedOptionEntersTheDigest) {
  const OptionTexts texts = shared_texts(RunConfig{});
  EXPECT_TRUE(std::is_sorted(texts.begin(), texts.end()));
  EXPECT_THAT(texts, ::testing::Contains(::testing::Pair("model.width", "192")));
  for (const auto& [key, value] : texts) {
    EXPECT_THAT(value, Not(HasSubstr("\n"))) << key << ": a line break would make lines ambiguous";
  }
}

TEST(Config, TemplatesAreUsable) {
  EXPECT_THAT(config_templates(), ::testing::ElementsAre("demo", "lab", "miner"));
  for (const std::string& name : config_templates()) {
    EXPECT_EQ(config_template(name), read("launch/examples/" + name + ".toml"));
    parse_config(config_template(name), name);
  }
  EXPECT_THROW(config_template("x"), Error);
}

TEST(Config, TheReferencePageIsWhatTheCodeSays) {
  EXPECT_EQ(read("docs/configuration.md"), config_reference())
      << "run: build/release/bin/yumoe config reference >docs/configuration.md";
}

}  // namespace
}  // namespace yumoe

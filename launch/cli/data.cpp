#include "launch/data.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cluster/error.hpp"
#include "launch/config.hpp"
#include "router/tokenizer.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kSampleTokens = 48;

void print_progress(std::string_view line) { std::cerr << line << std::endl; }

std::string sample_of(const TokenSet& set, const Tokenizer& tokenizer, std::uint32_t domain) {
  if (set.windows(domain, Split::train, kSampleTokens) == 0) return "";
  std::vector<std::uint16_t> tokens(kSampleTokens + 1);
  set.copy({domain, 0}, Split::train, kSampleTokens, tokens);
  std::string text;
  for (auto rest = std::span<const std::uint16_t>(tokens); !rest.empty();) {
    const auto end = std::find(rest.begin(), rest.end(), tokenizer.end_token());
    const auto size = static_cast<std::size_t>(end - rest.begin());
    text += tokenizer.decode(rest.first(size));
    if (end != rest.end()) text += " | ";  // where a document ends
    rest = rest.subspan(std::min(size + 1, rest.size()));
  }
  for (char& c : text) {
    if (c == '\n' || c == '\t') c = ' ';
  }
  return text;
}

nlohmann::ordered_json json_of_set(const TokenSet& set, bool digests_only) {
  nlohmann::ordered_json json;
  json["digest"] = set.digest().hex();
  json["tokenizer"] = set.manifest().tokenizer.hex();
  json["vocabulary"] = set.vocabulary();
  for (const Split split : kSplits) {
    json["bytes_per_token"][std::string(name_of(split))] = set.bytes_per_token(split);
  }
  for (const TokenDomain& domain : set.manifest().domains) {
    nlohmann::ordered_json entry;
    if (!digests_only) entry["name"] = domain.name;
    for (const Split split : kSplits) {
      const TokenFile& file = domain.file(split);
      entry[std::string(name_of(split))] = {{"documents", file.documents},
                                            {"tokens", file.tokens},
                                            {"text_bytes", file.text_bytes},
                                            {"digest", file.digest.hex()}};
    }
    json["domains"].push_back(std::move(entry));
  }
  return json;
}

void print_digests(const TokenSet& set) {
  std::printf("set %s\n", set.digest().hex().c_str());
  std::printf("tokenizer %s, vocabulary %u\n", set.manifest().tokenizer.hex().c_str(),
              set.vocabulary());
  for (std::size_t i = 0; i < set.domains().size(); ++i) {
    for (const Split split : kSplits) {
      const TokenFile& file = set.manifest().domains[i].file(split);
      std::printf("%zu %-7s %9llu documents %12llu tokens %12llu bytes %s\n", i,
                  std::string(name_of(split)).c_str(),
                  static_cast<unsigned long long>(file.documents),
                  static_cast<unsigned long long>(file.tokens),
                  static_cast<unsigned long long>(file.text_bytes), file.digest.hex().c_str());
    }
  }
}

void print_set(const TokenSet& set) {
  const Tokenizer tokenizer = Tokenizer::open(set.folder() / "tokenizer.model");
  std::printf("%s  vocabulary %u  digest %s\n", set.folder().c_str(), set.vocabulary(),
              set.digest().hex().c_str());
  std::printf("%-16s %12s %10s %10s %8s  %s\n", "domain", "train", "heldout", "private",
              "bytes/tok", "begins");
  for (std::uint32_t i = 0; i < set.domains().size(); ++i) {
    const TokenDomain& domain = set.manifest().domains[i];
    const auto tokens = [&](Split split) {
      return static_cast<unsigned long long>(domain.file(split).tokens);
    };
    std::printf("%-16s %12llu %10llu %10llu %8.2f   %s\n", domain.name.c_str(),
                tokens(Split::train), tokens(Split::heldout), tokens(Split::validation_private),
                set.bytes_per_token(i, Split::train), sample_of(set, tokenizer, i).c_str());
  }
  std::printf("bytes a token: train %.3f, heldout %.3f, private %.3f\n",
              set.bytes_per_token(Split::train), set.bytes_per_token(Split::heldout),
              set.bytes_per_token(Split::validation_private));
}

void add_build(CLI::App& group) {
  struct Choices {
    std::string file;
    DataOptions options;
    bool replace = false;
  };
  auto choices = std::make_shared<Choices>();
  CLI::App* build = group.add_subcommand("build", "Turn text into a token set");
  build->add_option("file", choices->file,
                    "A run's TOML file: what its [data] says; no other options");
  auto* out = build->add_option("--out", choices->options.path, "Folder to make");
  build
      ->add_option("--source", choices->options.sources,
                   "apt (the default packages), apt:PACKAGE, or a folder of text files")
      ->take_all();
  build->add_option("--vocabulary", choices->options.vocabulary, "Tokens of the tokenizer")
      ->capture_default_str();
  build
      ->add_option("--heldout-percent", choices->options.heldout_percent,
                   "Documents for public evaluation")
      ->capture_default_str();
  build
      ->add_option("--private-percent", choices->options.private_percent,
                   "Documents for validators alone")
      ->capture_default_str();
  build->add_option("--sample-mib", choices->options.sample_mib, "Text to train the tokenizer on")
      ->capture_default_str();
  build->add_flag("--replace", choices->replace, "Replace the token set that is there");
  build->footer(
      "yumoe data build --out token-set\n"
      "yumoe data build --source ~/novels --source apt:dict-foldoc --out mine "
      "--vocabulary 8000\n"
      "yumoe data build lab.toml");
  build->callback([choices, build, out] {
    const bool is_file = !choices->file.empty();
    const auto given = build->count_all() - 1 - (choices->replace ? 1 : 0);
    if (is_file ? given > 1 : out->count() == 0) {
      throw Error(
          ErrorCode::usage,
          is_file ? "build what " + choices->file + " says: change its [data], give no options"
                  : "say where the token set is to be made: --out FOLDER, or a run's TOML file");
    }
    const DataOptions options = is_file ? read_config(choices->file, {}).data
                                        : options_from<DataOptions>(texts_of(choices->options));
    build_token_set(options, choices->replace, print_progress);
    print_set(TokenSet::open(options.path));
  });
}

void add_show(CLI::App& group) {
  struct Choices {
    std::string set;
    bool digests = false;
    bool json = false;
    bool verify = false;
  };
  auto choices = std::make_shared<Choices>();
  CLI::App* show = group.add_subcommand("show", "Say what a token set holds");
  show->add_option("set", choices->set, "Folder of the token set")->required();
  show->add_flag("--digests", choices->digests,
                 "Counts and digests alone: what others may know of private data");
  show->add_flag("--json", choices->json, "One JSON object");
  show->add_flag("--verify", choices->verify, "Read every byte and compare digests first");
  show->footer("yumoe data show token-set\nyumoe data show token-set --digests --json");
  show->callback([choices] {
    const TokenSet set = TokenSet::open(choices->set);
    if (choices->verify) set.verify();
    if (choices->json) {
      std::cout << json_of_set(set, choices->digests).dump() << std::endl;
    } else if (choices->digests) {
      print_digests(set);
    } else {
      print_set(set);
    }
  });
}

}  // namespace

void add_data_commands(CLI::App& app) {
  CLI::App* group = app.add_subcommand("data", "Build and inspect token sets");
  group->require_subcommand(1);
  add_build(*group);
  add_show(*group);
}

}  // namespace yumoe

#pragma once
// Builds token sets (router/token_set.hpp) from text: from installed Debian packages, or from any
// folder of text files. The same text gives the same bytes, whatever the machine or thread count.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/option.hpp"
#include "router/token_set.hpp"

namespace yumoe {

// A source is one of
//   apt          the eleven packages of default_packages(), each a domain: seven languages, and
//                computing, hacker, literary and acronym prose; about 23 MB
//   apt:PACKAGE  one installed package: its fortunes and dictd dictionaries
//   FOLDER       each subfolder (with all below it) and each file directly in it is a domain; hidden
//                files are left out, links are not followed. Long files are cut into documents at
//                blank lines.
// Sources that name the same domain are joined.
struct DataOptions {
  std::string path = "token-set";
  std::vector<std::string> sources = {"apt"};
  std::int64_t vocabulary = 4'096;
  std::int64_t heldout_percent = 2;
  std::int64_t private_percent = 2;
  std::int64_t sample_mib = 8;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("path", path, {.help = "folder of the token set; built from sources if it is missing"});
    option("sources", sources, {.help = "text to build from: apt, apt:PACKAGE or a folder"});
    option("vocabulary", vocabulary,
           {.unit = "tokens",
            .min = 300,
            .max = 65'535,
            .help = "size of the tokenizer; a small text may give fewer"});
    option("heldout_percent", heldout_percent,
           {.unit = "% of documents", .min = 0, .max = 40, .help = "public evaluation"});
    option("private_percent", private_percent,
           {.unit = "% of documents",
            .min = 0,
            .max = 40,
            .help = "validators' own evaluation, never trained on"});
    option("sample_mib", sample_mib,
           {.unit = "MiB",
            .min = 1,
            .max = 1'024,
            .help = "text that the tokenizer is trained on, in equal parts of each domain"});
  }
};

struct DefaultPackage {
  std::string_view package;
  std::string_view domain;
};
std::vector<DefaultPackage> default_packages();

// One line about what is being done; called from the calling thread.
using DataProgress = std::function<void(std::string_view)>;

// Builds the set at options.path: written beside, synced, renamed. Documents that occur twice are
// taken once; the split of a document follows from its bytes alone.
//
// Throws Error{data_invalid} if a source is not UTF-8 (naming file and byte), holds no text, or a
// split with a percentage above 0 stays empty; Error{file_missing} naming what to install;
// Error{usage} if the path is taken (a token set is replaced only if `replace`);
// Error{file_io} or Error{disk_full}, leaving nothing behind.
// Cost: about 20 s of two cores for the default set; memory for the sample and 64 bytes a document.
void build_token_set(const DataOptions& options, bool replace, const DataProgress& progress);

// Opens the set at options.path, building it first if there is nothing. Several processes may do so
// at once: the first to finish wins, the others open what it built.
TokenSet build_default(const DataOptions& options, const DataProgress& progress);

}  // namespace yumoe

#pragma once
// Where text comes from: finds the files behind `data.sources` and reads documents out of them.

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "data/documents.hpp"

namespace yumoe {

enum class TextFormat { plain, fortunes, dictionary };

struct TextFile {
  std::filesystem::path path;
  TextFormat format = TextFormat::plain;
};

struct TextDomain {
  std::string name;
  std::vector<TextFile> files;
};

// Domains in the order their sources name them, files sorted within a source.
// `root` stands before every path that apt sources use ("/" but in tests).
// Throws Error{file_missing} or Error{data_invalid}.
std::vector<TextDomain> find_text(std::span<const std::string> sources,
                                  const std::filesystem::path& root = "/");

// Throws Error{data_invalid} naming file and byte of what is not UTF-8, Error{file_io}.
void read_documents(const TextDomain& domain, const DocumentSink& sink);

}  // namespace yumoe

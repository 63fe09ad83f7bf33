#pragma once
// What a token set says about itself: manifest.json, parsed and written here and nowhere else.
//
//   {"format": "yumoe token set", "version": 1, "vocabulary": 4096, "end_token": 1,
//    "tokenizer": "<digest of tokenizer.model>",
//    "domains": [{"name": "english", "train": F, "heldout": F, "private": F}, ...]}
//   with F = {"documents": 9, "tokens": 4100, "text_bytes": 12650, "digest": "<64 hex digits>"}
//
// File names follow from the names (see file_of), so a manifest cannot point outside its folder.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/bytes.hpp"

namespace yumoe {

enum class Split : std::uint8_t { train, heldout, validation_private };
inline constexpr std::array kSplits{Split::train, Split::heldout, Split::validation_private};

// "train", "heldout", "private": as in file names and in the manifest.
std::string_view name_of(Split split);

struct TokenFile {
  std::uint64_t documents = 0;
  std::uint64_t tokens = 0;      // end tokens included; the file has two bytes a token
  std::uint64_t text_bytes = 0;  // of the documents' UTF-8, end tokens counting nothing
  Digest digest;                 // of the file's bytes
  friend bool operator==(const TokenFile&, const TokenFile&) = default;
};

struct TokenDomain {
  std::string name;                             // 1 to 64 of a-z 0-9 _ -
  std::array<TokenFile, kSplits.size()> files;  // by Split
  const TokenFile& file(Split split) const { return files[static_cast<std::size_t>(split)]; }
  friend bool operator==(const TokenDomain&, const TokenDomain&) = default;
};

struct TokenManifest {
  std::uint32_t vocabulary = 0;  // 2 to 65,536: pieces of the tokenizer
  std::uint16_t end_token = 0;   // stands after each document; below vocabulary
  Digest tokenizer;
  std::vector<TokenDomain> domains;  // 1 to 1,024, distinct names
  friend bool operator==(const TokenManifest&, const TokenManifest&) = default;
};

inline constexpr std::uint64_t kManifestBytesMax = 4u << 20;
inline constexpr std::uint64_t kTokenFileTokensMax = std::uint64_t{1} << 40;

bool is_domain_name(std::string_view name);

// "<domain>.<split>.tokens".
std::string file_of(const TokenDomain& domain, Split split);

// Total: any bytes give a manifest within the bounds above, or Error{data_invalid} naming the file
// (`name`) and the field.
TokenManifest parse_manifest(std::string_view json, std::string_view name = "manifest.json");

// The same manifest gives the same bytes.
std::string json_of(const TokenManifest& manifest);

}  // namespace yumoe

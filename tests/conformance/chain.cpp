// yumoe-conformance chain: finds the files, tells their shapes and hands each to its check.

#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <stdexcept>

#include "conformance/chain_checks.hpp"

namespace yumoe::conformance {
namespace {

namespace fs = std::filesystem;
using Check = void (*)(const ChainFile&);

// The check of a file, told from its shape; nullptr: none of ours.
Check check_of(const Json& document) {
  const auto has = [](const Json& json, std::initializer_list<const char*> fields) {
    return json.is_object() && std::all_of(fields.begin(), fields.end(),
                                           [&](const char* field) { return json.contains(field); });
  };
  if (has(document, {"storage_keys", "calls", "metadata"})) return check_golden;
  if (has(document, {"types", "codec"})) return check_shapes;
  if (has(document, {"cases", "signed_extensions"})) return check_extrinsics;
  if (has(document, {"compact", "blake2"})) return check_primitives;
  if (has(document, {"signed_extensions", "pallets"}) || has(document, {"extrinsic", "pallets"})) {
    return check_extrinsic_format;
  }
  if (has(document, {"specs"})) return check_genesis;
  if (has(document, {"proofs", "root"})) return check_trie_proofs;
  if (has(document, {"preimage_hex", "commit_hash_blake2_256"})) return check_commit_reveal;
  if (has(document, {"pairs", "keys"})) return check_raw_storage;
  if (has(document, {"sr25519", "pub"})) return check_signatures;
  if (has(document, {"envelope_hex", "round"})) return check_timelock;
  if (!document.is_array() || document.empty()) return nullptr;
  const Json& first = document.front();
  if (has(first, {"type", "public"})) return check_keys;
  if (has(first, {"root_v0", "entries"})) return check_trie_roots;
  if (has(first, {"extrinsic_hex", "label"})) return check_outcomes;
  if (has(first, {"pallet", "call", "args"}) || has(first, {"pallet", "item", "key_prefix_hex"}) ||
      has(first, {"pallet", "name", "value_hex"}) || has(first, {"pallet", "error"}) ||
      has(first, {"pallet", "event", "fields"})) {
    return check_metadata_table;
  }
  return nullptr;
}

bool is_json(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.ends_with(".json") || name.ends_with(".json.gz");
}

bool is_transcript(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.ends_with(".jsonl") || name.ends_with(".jsonl.gz");
}

bool is_metadata(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with("metadata") && (name.ends_with(".hex") || name.ends_with(".hex.gz"));
}

std::vector<fs::path> files_of(const std::vector<std::string>& paths) {
  std::vector<fs::path> files;
  for (const std::string& path : paths) {
    if (!fs::exists(path)) throw std::runtime_error("there is no file " + path);
    if (!fs::is_directory(path)) {
      files.emplace_back(path);
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      if (!entry.is_regular_file()) continue;
      const fs::path& file = entry.path();
      if (is_json(file) || is_transcript(file) || is_metadata(file) || is_keyfile(file)) {
        files.push_back(file);
      }
    }
  }
  std::sort(files.begin(), files.end());
  // A file that two of the paths reach is one file.
  files.erase(
      std::unique(files.begin(), files.end(),
                  [](const fs::path& a, const fs::path& b) { return fs::equivalent(a, b); }),
      files.end());
  return files;
}

void run_json(const fs::path& path, MetadataStore& metadata, Tally& tally) {
  const Json document = parse_json_exact(read_text(path));
  const Check check = check_of(document);
  if (check == nullptr) {
    tally.unsupported("not a shape of the chain's vectors (epochs: yumoe-conformance ledger)");
    return;
  }
  check({path, document, metadata, tally});
}

void run_file(const fs::path& path, MetadataStore& metadata, Tally& tally) {
  try {
    if (is_transcript(path)) return check_transcript(path, metadata, tally);
    if (is_keyfile(path)) return check_keyfile(path, tally);
    if (is_metadata(path)) return check_metadata_bytes(path, metadata, tally);
    run_json(path, metadata, tally);
  } catch (const std::exception& error) {
    tally.check(false, error.what());
  }
}

}  // namespace

std::string read_text(const fs::path& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) throw std::runtime_error("cannot open " + path.string());
  std::string text;
  char buffer[1 << 16];
  int count = 0;
  while ((count = gzread(file.get(), buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<std::size_t>(count));
  }
  if (count < 0) throw std::runtime_error("cannot read " + path.string());
  return text;
}

Bytes bytes_of(const Json& hex) { return from_hex(hex.get_ref<const std::string&>()); }

std::string hex_of(ByteView bytes) { return "0x" + to_hex(bytes); }

std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string expect_equal(const std::string& what, const std::string& got,
                         const std::string& wanted) {
  if (got == wanted) return "";
  return what + " is " + got.substr(0, 400) + ", wanted " + wanted.substr(0, 400);
}

std::string expect_same(const std::string& what, const Json& got, const Json& wanted) {
  if (same_value(got, wanted)) return "";
  return what + " is " + got.dump().substr(0, 400) + ", wanted " + wanted.dump().substr(0, 400);
}

bool same_name(std::string_view a, std::string_view b) {
  const auto letters = [](std::string_view name) {
    std::string out;
    for (const char c : name) {
      if (c != '_') out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    return out;
  };
  return letters(a) == letters(b);
}

std::string pallet_named(const Metadata& metadata, std::string_view name) {
  for (const auto& pallet : metadata.pallets()) {
    if (same_name(pallet.name, name)) return pallet.name;
  }
  throw std::runtime_error("no pallet " + std::string(name));
}

std::string call_named(const Metadata& metadata, const std::string& pallet, std::string_view name) {
  for (const auto& variant : metadata.types().at(*metadata.pallet(pallet).calls).variants) {
    if (same_name(variant.name, name)) return variant.name;
  }
  throw std::runtime_error("no call " + pallet + "." + std::string(name));
}

namespace {

bool similar_text(const std::string& theirs, const Json& ours) {
  if (!theirs.empty() && (theirs[0] == '{' || theirs[0] == '[')) {
    return similar(parse_json_exact(theirs), ours);
  }
  if (ours.is_string()) {
    const auto& text = ours.get_ref<const std::string&>();
    return text == theirs || same_name(text, theirs) || (text.empty() && theirs == "0x") ||
           hex_of(as_bytes(text)) == theirs;
  }
  if (ours.is_number()) {
    if (ours.dump() == theirs) return true;
    // Wide numbers are printed as big-endian hexadecimal.
    if (!theirs.starts_with("0x") || theirs.size() > 18) return false;
    return std::to_string(std::stoull(theirs.substr(2), nullptr, 16)) == ours.dump();
  }
  if (ours.is_boolean()) return theirs == (ours.get<bool>() ? "true" : "false");
  return ours.is_null() && (theirs == "null" || theirs.empty());
}

bool similar_objects(const Json& theirs, const Json& ours) {
  if (theirs.size() != ours.size()) return false;
  for (const auto& [key, value] : ours.items()) {
    bool found = false;
    for (const auto& [their_key, their_value] : theirs.items()) {
      if (same_name(their_key, key)) found = similar(their_value, value);
    }
    if (!found) return false;
  }
  return true;
}

}  // namespace

bool similar(const Json& theirs, const Json& ours) {
  if (theirs.is_string()) return similar_text(theirs.get_ref<const std::string&>(), ours);
  if (theirs.is_object() && ours.is_object()) return similar_objects(theirs, ours);
  if (theirs.is_object() && theirs.size() == 1 && ours.is_string()) {
    // A variant without fields: {"stale": null}; an address of account kind: {"id": "5..."}.
    const Json& inner = theirs.begin().value();
    if (inner.is_null()) return same_name(theirs.begin().key(), ours.get_ref<const std::string&>());
    return same_name(theirs.begin().key(), "id") && similar(inner, ours);
  }
  if (theirs.is_array() && ours.is_array()) {
    return theirs.size() == ours.size() &&
           std::equal(theirs.begin(), theirs.end(), ours.begin(), similar);
  }
  if (theirs.is_null() && ours.is_structured() && ours.empty()) return true;  // a type of no size
  return same_value(theirs, ours);
}

int conformance_chain(const std::vector<std::string>& paths) {
  MetadataStore metadata;
  bool failed = false;
  for (const fs::path& path : files_of(paths)) {
    Tally tally;
    run_file(path, metadata, tally);
    failed = failed || tally.failed();
    std::printf("%s\n", tally.line(path.string()).c_str());
    std::fflush(stdout);
  }
  return failed ? 1 : 0;
}

}  // namespace yumoe::conformance

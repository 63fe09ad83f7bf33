#pragma once
// The checks behind `yumoe-conformance chain`, one function a shape of file.

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"
#include "conformance/conformance.hpp"
#include "coordinator/metadata.hpp"

namespace yumoe::conformance {

// Reads plain and gzip files alike.
std::string read_text(const std::filesystem::path& path);

// Finds the metadata that a file's cases were made with, by spec number: beside the file, in the
// folders above it and their `metadata` folders, then in the repository's own data.
class MetadataStore {
 public:
  // Prefers metadata of `version` where several are found. Throws std::runtime_error if none is.
  const Metadata& of_spec(const std::filesystem::path& near, std::uint64_t spec, int version = 0);
  const Metadata& of_file(const std::filesystem::path& file);
  // From the golden file's v14_hex or v15_hex.
  const Metadata& of_golden(const std::filesystem::path& near, std::uint64_t spec, int version);
  const Metadata& of_hex(const std::string& key, const std::string& hex);

 private:
  std::map<std::string, std::unique_ptr<Metadata>> parsed_;
};

struct ChainFile {
  std::filesystem::path path;
  const Json& document;
  MetadataStore& metadata;
  Tally& tally;
};

void check_keys(const ChainFile& file);
void check_primitives(const ChainFile& file);
void check_extrinsics(const ChainFile& file);
void check_golden(const ChainFile& file);
void check_shapes(const ChainFile& file);
void check_metadata_table(const ChainFile& file);  // calls, storage, constants, errors, events
void check_extrinsic_format(const ChainFile& file);
void check_genesis(const ChainFile& file);
void check_trie_roots(const ChainFile& file);
void check_trie_proofs(const ChainFile& file);
void check_outcomes(const ChainFile& file);
void check_raw_storage(const ChainFile& file);
void check_commit_reveal(const ChainFile& file);
void check_signatures(const ChainFile& file);
void check_timelock(const ChainFile& file);
void check_metadata_bytes(const std::filesystem::path& path, MetadataStore& metadata, Tally& tally);
void check_transcript(const std::filesystem::path& path, MetadataStore& metadata, Tally& tally);
void check_keyfile(const std::filesystem::path& path, Tally& tally);
bool is_keyfile(const std::filesystem::path& path);

// Runs one case: a thrown error is its difference.
template <typename Act>
void attempt(Tally& tally, const std::string& name, const Act& act) {
  std::string difference;
  try {
    difference = act();
  } catch (const std::exception& error) {
    difference = error.what();
  }
  tally.check(difference.empty() ? "" : name + ": " + difference);
}

Bytes bytes_of(const Json& hex);
std::string text_of(const Json& value);  // a string itself, anything else dumped
std::string hex_of(ByteView bytes);      // "0x..."
std::string expect_equal(const std::string& what, const std::string& got,
                         const std::string& wanted);
std::string expect_same(const std::string& what, const Json& got, const Json& wanted);

// Names as polkadot-js spells them ("subtensorModule", "setWeights", "refTime") beside the
// metadata's.
bool same_name(std::string_view a, std::string_view b);
// Values as polkadot-js prints them beside ours.
bool similar(const Json& theirs, const Json& ours);
std::string pallet_named(const Metadata& metadata, std::string_view name);
std::string call_named(const Metadata& metadata, const std::string& pallet, std::string_view name);

}  // namespace yumoe::conformance

#include "coordinator/trie.hpp"

#include <gtest/gtest.h>

#include "cluster/error.hpp"
#include "coordinator/chain_data.hpp"

namespace yumoe {
namespace {

struct Recorded {
  Digest root;
  struct Proof {
    Bytes key;
    std::optional<Bytes> value;
    std::vector<Bytes> nodes;
  };
  std::vector<Proof> proofs;
};

std::string shown(const std::optional<Bytes>& value) {
  return value ? "0x" + to_hex(*value) : "absent";
}

Recorded recorded() {
  const Json data = parse_json_exact(read_chain_data("trie/proofs_spec218_genesis.json.gz"));
  Recorded out;
  const Bytes root = from_hex(data["root"].get_ref<const std::string&>());
  std::copy(root.begin(), root.end(), out.root.bytes.begin());
  for (const Json& one : data["proofs"]) {
    Recorded::Proof proof{from_hex(one["key"].get_ref<const std::string&>()), {}, {}};
    if (one["value"].is_string())
      proof.value = from_hex(one["value"].get_ref<const std::string&>());
    for (const Json& node : one["nodes"]) {
      proof.nodes.push_back(from_hex(node.get_ref<const std::string&>()));
    }
    out.proofs.push_back(std::move(proof));
  }
  return out;
}

TEST(Trie, ReadsPresentAndAbsentKeysFromRealProofs) {
  const Recorded data = recorded();
  for (const auto& proof : data.proofs) {
    EXPECT_EQ(shown(read_proof(data.root, proof.nodes, proof.key)), shown(proof.value));
  }
}

TEST(Trie, BelievesNoProofWithANodeMissingOrChanged) {
  const Recorded data = recorded();
  for (const auto& proof : data.proofs) {
    for (std::size_t i = 0; i < proof.nodes.size(); ++i) {
      auto missing = proof.nodes;
      missing.erase(missing.begin() + static_cast<std::ptrdiff_t>(i));
      EXPECT_THROW(read_proof(data.root, missing, proof.key), Error);
      auto changed = proof.nodes;
      changed[i].back() ^= 1;
      EXPECT_THROW(read_proof(data.root, changed, proof.key), Error);
    }
  }
}

TEST(Trie, TellsWhatIsAbsentFromWhatIsNotProven) {
  const Recorded data = recorded();
  Bytes other = data.proofs[0].key;
  other.back() ^= 0x10;
  try {
    EXPECT_EQ(shown(read_proof(data.root, data.proofs[0].nodes, other)), "absent");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::digest_mismatch);
  }
  const Bytes unrelated(40, 0x77);
  try {
    EXPECT_EQ(shown(read_proof(data.root, data.proofs[0].nodes, unrelated)), "absent");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::digest_mismatch);
  }
}

TEST(Trie, RefusesNodesThatAreNoNodes) {
  for (const char* hex : {"0x", "0x08", "0x41", "0x7f", "0x80ff", "0xc0000004", "0x0000"}) {
    const std::vector<Bytes> nodes{from_hex(hex)};
    EXPECT_THROW(read_proof(digest_of(nodes[0]), nodes, Bytes{1}), Error) << hex;
  }
}

TEST(Trie, RootDependsOnTheStateVersionOnlyForLongValues) {
  const std::map<Bytes, Bytes> small{{{1}, Bytes(32, 5)}, {{1, 2}, {6}}},
      large{{{1}, Bytes(33, 5)}};
  EXPECT_EQ(trie_root(small, StateVersion::v0), trie_root(small, StateVersion::v1));
  EXPECT_NE(trie_root(large, StateVersion::v0), trie_root(large, StateVersion::v1));
}

}  // namespace
}  // namespace yumoe

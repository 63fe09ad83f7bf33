#include "coordinator/trie.hpp"

#include <algorithm>
#include <vector>

#include "cluster/error.hpp"
#include "coordinator/scale.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kInlineNodeMax = 31;   // a longer node stands as its hash in its parent
constexpr std::size_t kInlineValueMax = 32;  // version 1: a longer value stands as its hash
constexpr std::size_t kPartialNibblesMax = 1u << 16;

// The node's first byte: its kind in the high bits, the length of its partial key in the rest.
struct Kind {
  std::uint8_t bits;
  std::uint8_t length_max;  // also the mask
  bool is_branch;
  bool has_value;
  bool value_is_hashed;
};
constexpr Kind kLeaf{0x40, 63, false, true, false}, kBranch{0x80, 63, true, false, false},
    kBranchWithValue{0xc0, 63, true, true, false}, kHashedLeaf{0x20, 31, false, true, true},
    kHashedBranch{0x10, 15, true, true, true};

using Nibbles = std::vector<std::uint8_t>;

Nibbles nibbles_of(ByteView key) {
  Nibbles nibbles;
  nibbles.reserve(key.size() * 2);
  for (const std::uint8_t byte : key) {
    nibbles.push_back(byte >> 4);
    nibbles.push_back(byte & 15);
  }
  return nibbles;
}

void write_header(const Kind& kind, std::span<const std::uint8_t> partial, ScaleWriter& out) {
  std::size_t length = partial.size();
  if (length < kind.length_max) {
    out.u8(static_cast<std::uint8_t>(kind.bits | length));
  } else {
    out.u8(kind.bits | kind.length_max);
    for (length -= kind.length_max; length >= 255; length -= 255) out.u8(255);
    out.u8(static_cast<std::uint8_t>(length));
  }
  std::size_t i = 0;
  if (partial.size() % 2 != 0) out.u8(partial[i++]);
  for (; i < partial.size(); i += 2) {
    out.u8(static_cast<std::uint8_t>(partial[i] << 4 | partial[i + 1]));
  }
}

class Builder {
 public:
  Builder(const std::map<Bytes, Bytes>& entries, StateVersion version) : version_(version) {
    for (const auto& [key, value] : entries) entries_.push_back({nibbles_of(key), &value});
  }

  Bytes root_node() { return entries_.empty() ? Bytes{0} : node(0, entries_.size(), 0); }

 private:
  struct Entry {
    Nibbles key;
    const Bytes* value;
  };

  // The node of the entries [first, last), all alike in their first `depth` nibbles.
  Bytes node(std::size_t first, std::size_t last, std::size_t depth) {
    const Nibbles& low = entries_[first].key;
    const Nibbles& high = entries_[last - 1].key;
    std::size_t common = depth;
    while (common < low.size() && common < high.size() && low[common] == high[common]) ++common;
    const std::span partial(low.data() + depth, common - depth);
    // Sorted: only the first can end here.
    const Bytes* value = low.size() == common ? entries_[first].value : nullptr;
    const bool hashed =
        value != nullptr && version_ == StateVersion::v1 && value->size() > kInlineValueMax;
    ScaleWriter out;
    if (last - first == 1) {
      write_header(hashed ? kHashedLeaf : kLeaf, partial, out);
      write_value(*value, hashed, out);
      return out.take();
    }
    write_header(value == nullptr ? kBranch
                 : hashed         ? kHashedBranch
                                  : kBranchWithValue,
                 partial, out);
    write_children(value == nullptr ? first : first + 1, last, common, value, hashed, out);
    return out.take();
  }

  void write_children(std::size_t first, std::size_t last, std::size_t depth, const Bytes* value,
                      bool hashed, ScaleWriter& out) {
    std::uint16_t bitmap = 0;
    ScaleWriter children;
    while (first < last) {
      const std::uint8_t nibble = entries_[first].key[depth];
      std::size_t end = first;
      while (end < last && entries_[end].key[depth] == nibble) ++end;
      bitmap |= static_cast<std::uint16_t>(1u << nibble);
      const Bytes child = node(first, end, depth + 1);
      children.bytes(child.size() > kInlineNodeMax ? ByteView(digest_of(child).bytes) : child);
      first = end;
    }
    out.u16(bitmap);
    if (value != nullptr) write_value(*value, hashed, out);
    out.raw(children.view());
  }

  static void write_value(const Bytes& value, bool hashed, ScaleWriter& out) {
    if (hashed) {
      out.raw(digest_of(value).bytes);
    } else {
      out.bytes(value);
    }
  }

  std::vector<Entry> entries_;
  StateVersion version_;
};

struct Node {
  bool is_empty = false;
  Kind kind = kLeaf;
  Nibbles partial;
  Bytes value;                        // its hash if kind.value_is_hashed
  std::optional<Bytes> children[16];  // a hash or a node of at most 31 bytes
};

Kind kind_of(std::uint8_t first, const ScaleReader& reader) {
  switch (first >> 6) {
    case 1: return kLeaf;
    case 2: return kBranch;
    case 3: return kBranchWithValue;
    default: break;
  }
  if ((first & 0xe0) == kHashedLeaf.bits) return kHashedLeaf;
  if ((first & 0xf0) == kHashedBranch.bits) return kHashedBranch;
  reader.refuse("a trie node's first byte is not known");
}

Nibbles read_partial(const Kind& kind, std::uint8_t first, ScaleReader& reader) {
  std::size_t length = first & kind.length_max;
  if (length == kind.length_max) {
    std::uint8_t more;
    do {
      more = reader.u8();
      length += more;
      if (length > kPartialNibblesMax) reader.refuse("a trie node's partial key is too long");
    } while (more == 255);
  }
  const Nibbles padded = nibbles_of(reader.raw((length + 1) / 2));
  if (length % 2 != 0 && padded[0] != 0) reader.refuse("a trie node's padding is not zero");
  return {padded.begin() + static_cast<std::ptrdiff_t>(length % 2), padded.end()};
}

Node parse_node(ByteView bytes) {
  ScaleReader reader(bytes);
  Node node;
  const std::uint8_t first = reader.u8();
  if (first == 0) {
    node.is_empty = true;
    reader.require_end("an empty trie node");
    return node;
  }
  node.kind = kind_of(first, reader);
  node.partial = read_partial(node.kind, first, reader);
  const std::uint16_t bitmap = node.kind.is_branch ? reader.u16() : 0;
  if (node.kind.has_value) {
    const ByteView value = node.kind.value_is_hashed ? reader.raw(32) : reader.bytes();
    node.value.assign(value.begin(), value.end());
  }
  for (std::size_t i = 0; i < 16; ++i) {
    if ((bitmap >> i & 1) == 0) continue;
    const ByteView child = reader.bytes();
    if (child.size() > 32) reader.refuse("a trie node's child is longer than a hash");
    node.children[i].emplace(child.begin(), child.end());
  }
  reader.require_end("a trie node");
  return node;
}

class Proof {
 public:
  explicit Proof(std::span<const Bytes> nodes) {
    for (const auto& node : nodes) by_hash_.emplace(digest_of(node), &node);
  }

  const Bytes& at(ByteView hash) const {
    Digest wanted;
    std::copy(hash.begin(), hash.end(), wanted.bytes.begin());
    const auto found = by_hash_.find(wanted);
    if (found == by_hash_.end()) {
      throw Error(ErrorCode::digest_mismatch, "reading a trie proof: the node " + wanted.hex() +
                                                  " is missing: the proof is for another root or "
                                                  "key, or was cut short");
    }
    return *found->second;
  }

 private:
  std::map<Digest, const Bytes*> by_hash_;
};

}  // namespace

Digest trie_root(const std::map<Bytes, Bytes>& entries, StateVersion version) {
  return digest_of(Builder(entries, version).root_node());
}

std::optional<Bytes> read_proof(const Digest& root, std::span<const Bytes> nodes, ByteView key) {
  const Proof proof(nodes);
  const Nibbles path = nibbles_of(key);
  std::size_t depth = 0;
  Bytes encoded = proof.at(root.bytes);
  while (true) {
    const Node node = parse_node(encoded);
    if (node.is_empty) return std::nullopt;
    const std::size_t rest = path.size() - depth;
    if (node.partial.size() > rest ||
        !std::equal(node.partial.begin(), node.partial.end(),
                    path.begin() + static_cast<std::ptrdiff_t>(depth))) {
      return std::nullopt;
    }
    depth += node.partial.size();
    if (depth == path.size()) {
      if (!node.kind.has_value) return std::nullopt;
      return node.kind.value_is_hashed ? proof.at(node.value) : node.value;
    }
    const auto& child = node.children[path[depth]];
    if (!child) return std::nullopt;
    ++depth;
    // A child of 32 bytes is a hash; the nodes' own hashes keep this from going round.
    encoded = child->size() == 32 ? proof.at(*child) : *child;
  }
}

}  // namespace yumoe

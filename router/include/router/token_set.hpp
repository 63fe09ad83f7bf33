#pragma once
// A token set: text turned into tokens, domains kept apart, in a folder that can be mapped into
// memory. Written by `yumoe data build`, read by workers and validators.
//
//   SET/manifest.json     tokenizer digest, vocabulary, and for each domain and split: file, tokens,
//                         bytes of text, BLAKE2b digest
//   SET/tokenizer.model   SentencePiece BPE with byte fallback
//   SET/<domain>.<split>.tokens   u16 little-endian tokens, documents separated by the end token
//
// Splits: train (what shards draw from), heldout (public evaluation), private (drawn by validators
// with a seed of their own; never trained on).

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"
#include "router/shard.hpp"

namespace yumoe {

enum class Split : std::uint8_t { train, heldout, validation_private };

struct Window {
  std::uint32_t domain = 0;   // index into TokenSet::domains()
  std::uint64_t index = 0;    // window of that domain's split: tokens [index * context, +context + 1)
  friend bool operator==(const Window&, const Window&) = default;
};

class TokenSet {
 public:
  // Maps a set and checks the manifest against the files' sizes; digests are checked by verify().
  // Throws Error{data_invalid} or Error{file_missing} naming the file and what to do.
  static TokenSet open(const std::filesystem::path& folder);
  TokenSet(TokenSet&&) noexcept;
  TokenSet& operator=(TokenSet&&) noexcept;
  ~TokenSet();

  // Reads every byte and compares digests. Throws Error{digest_mismatch} naming the file.
  void verify() const;

  const std::filesystem::path& folder() const;
  const Digest& digest() const;             // of the manifest: what participants agree on
  std::uint32_t vocabulary() const;
  std::span<const std::string> domains() const;

  // Number of windows of `context` + 1 tokens, overlapping by one token, that a split holds.
  std::uint64_t windows(std::uint32_t domain, Split split, std::uint32_t context) const;
  std::uint64_t windows(Split split, std::uint32_t context) const;  // over all domains

  // Bytes of text behind one token of this split on average: turns loss into bits per byte.
  double bytes_per_token(Split split) const;
  double bytes_per_token(std::uint32_t domain, Split split) const;

  // Copies context + 1 tokens into `tokens`. The window must exist.
  void copy(const Window& window, Split split, std::uint32_t context,
            std::span<std::uint16_t> tokens) const;

  // The window at place `position` of the split's endless seeded order: pass = position / n,
  // then a Feistel permutation of [0, n) keyed by (order_seed, pass), then domains in order.
  Window at(std::uint64_t position, std::uint64_t order_seed, Split split,
            std::uint32_t context) const;

 private:
  struct Mapped;
  explicit TokenSet(std::unique_ptr<Mapped> mapped);
  std::unique_ptr<Mapped> mapped_;
};

}  // namespace yumoe

#pragma once
// A token set: text turned into tokens, domains kept apart, in a folder that can be mapped into
// memory. Written by `yumoe data build`, read by workers and validators.
//
//   SET/manifest.json     tokenizer digest, vocabulary, and for each domain and split: documents,
//                         tokens, bytes of text, BLAKE2b digest (router/token_manifest.hpp)
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
#include "router/token_manifest.hpp"

namespace yumoe {

struct Window {
  std::uint32_t domain = 0;  // index into TokenSet::domains()
  std::uint64_t index = 0;  // window of that domain's split: tokens [index * context, +context + 1)
  friend bool operator==(const Window&, const Window&) = default;
};

class TokenSet {
 public:
  // Maps a set and checks the manifest against the files' sizes; digests are checked by verify().
  // Throws Error{data_invalid} or Error{file_missing} naming the file and what to do.
  // A set must not be cut short in place while it is open; builders write beside and rename.
  static TokenSet open(const std::filesystem::path& folder);
  TokenSet(TokenSet&&) noexcept;
  TokenSet& operator=(TokenSet&&) noexcept;
  ~TokenSet();

  // Reads every byte and compares digests. Throws Error{digest_mismatch} naming the file.
  void verify() const;

  const std::filesystem::path& folder() const;
  const Digest& digest() const;  // of the manifest: what participants agree on
  const TokenManifest& manifest() const;
  std::uint32_t vocabulary() const;  // every token that copy() gives is below it
  std::span<const std::string> domains() const;

  // Number of windows of `context` + 1 tokens, overlapping by one token, that a split holds.
  std::uint64_t windows(std::uint32_t domain, Split split, std::uint32_t context) const;
  std::uint64_t windows(Split split, std::uint32_t context) const;  // over all domains

  // Bytes of text behind one token of this split on average: turns loss into bits per byte. 0 if the
  // split has no tokens.
  double bytes_per_token(Split split) const;
  double bytes_per_token(std::uint32_t domain, Split split) const;

  // Copies context + 1 tokens into `tokens`. The window must exist.
  // Throws Error{data_invalid} if the file holds a token that is not in the vocabulary.
  void copy(const Window& window, Split split, std::uint32_t context,
            std::span<std::uint16_t> tokens) const;

  // The window at place `position` of the split's endless seeded order: pass = position / n,
  // then a Feistel permutation of [0, n) keyed by (order_seed, pass), then domains in order.
  // Throws Error{data_invalid} if the split holds no window of this context.
  Window at(std::uint64_t position, std::uint64_t order_seed, Split split,
            std::uint32_t context) const;

 private:
  struct Mapped;
  explicit TokenSet(std::unique_ptr<Mapped> mapped);
  std::unique_ptr<Mapped> mapped_;
};

}  // namespace yumoe

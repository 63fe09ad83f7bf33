#pragma once
// Learns a tokenizer from a sample of text.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace yumoe {

// Keeps, of each domain, the documents with the lowest hashes up to a number of bytes. The choice
// depends on nothing but the documents.
class TextSample {
 public:
  explicit TextSample(std::uint64_t bytes_max_of_domain) : bytes_max_(bytes_max_of_domain) {}

  void start_domain() { domains_.emplace_back(); }
  void offer(std::uint64_t hash, std::string_view document);

  // All kept documents, by domain and hash.
  std::vector<std::string_view> documents() const;

 private:
  struct Domain {
    std::map<std::uint64_t, std::string> kept;  // by hash
    std::uint64_t bytes = 0;
  };
  std::uint64_t bytes_max_;
  std::vector<Domain> domains_;
};

// SentencePiece BPE with byte fallback, text unchanged (no normalisation), token 0 unknown (never
// given), token 1 the end token. Returns the model file's bytes; equal documents give equal bytes.
// Throws Error{data_invalid} if SentencePiece refuses the text.
// Cost: about 1 s a MiB at 4,096 tokens, one core.
std::string train_tokenizer(const std::vector<std::string_view>& documents,
                            std::uint32_t vocabulary);

}  // namespace yumoe

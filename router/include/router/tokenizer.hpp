#pragma once
// Text to tokens and back: SentencePiece BPE with byte fallback, so any bytes that are text can be said.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/bytes.hpp"

namespace yumoe {

class Tokenizer {
 public:
  // Reads SET/tokenizer.model of a token set, or any SentencePiece model of at most 65,536 pieces.
  // Throws Error{file_missing} or Error{data_invalid} naming the file.
  static Tokenizer open(const std::filesystem::path& model);
  // From the model's bytes; `name` stands in errors.
  static Tokenizer from_bytes(std::string_view model, std::string_view name = "tokenizer");
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  std::uint32_t vocabulary() const;
  std::uint16_t end_token() const;

  // Tokens of `text`, without an end token. `text` is UTF-8; what is not becomes U+FFFD.
  // Thread-safe. Cost: about 2 MB/s a core.
  std::vector<std::uint16_t> encode(std::string_view text) const;

  // Total: tokens beyond the vocabulary and bytes that form no character give U+FFFD, the end token
  // gives nothing. decode(encode(t)) == t for UTF-8 without control characters and U+2581.
  std::string decode(std::span<const std::uint16_t> tokens) const;

 private:
  struct Model;
  explicit Tokenizer(std::unique_ptr<Model> model);
  std::unique_ptr<Model> model_;
};

}  // namespace yumoe

#include "data/tokenizer_trainer.hpp"

#include <sentencepiece_trainer.h>

#include <unordered_map>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kLineBytesMax = 4'000;  // longer ones SentencePiece would leave out

// Gives SentencePiece the documents line by line: newlines are single bytes to it, never merged.
class Lines final : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(const std::vector<std::string_view>& documents) : documents_(documents) { Next(); }

  bool done() const override { return done_; }
  void Next() override {
    while (rest_.empty()) {
      if (index_ == documents_.size()) {
        done_ = true;
        return;
      }
      rest_ = documents_[index_++];
      skip_newlines();
    }
    std::size_t size = std::min(rest_.find('\n'), rest_.size());
    if (size > kLineBytesMax) {
      size = kLineBytesMax;
      while ((static_cast<unsigned char>(rest_[size]) & 0xC0) == 0x80) --size;
    }
    line_ = rest_.substr(0, size);
    rest_.remove_prefix(size);
    skip_newlines();
  }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  void skip_newlines() {
    while (rest_.starts_with('\n')) rest_.remove_prefix(1);
  }

  const std::vector<std::string_view>& documents_;
  std::size_t index_ = 0;
  std::string_view rest_;
  std::string line_;
  bool done_ = false;
};

}  // namespace

void TextSample::offer(std::uint64_t hash, std::string_view document) {
  Domain& domain = domains_.back();
  if (domain.bytes + document.size() > bytes_max_ && !domain.kept.empty() &&
      hash > domain.kept.rbegin()->first) {
    return;
  }
  if (!domain.kept.emplace(hash, document).second) return;
  domain.bytes += document.size();
  while (domain.bytes > bytes_max_ && domain.kept.size() > 1) {
    const auto last = std::prev(domain.kept.end());
    domain.bytes -= last->second.size();
    domain.kept.erase(last);
  }
}

std::vector<std::string_view> TextSample::documents() const {
  std::vector<std::string_view> documents;
  for (const Domain& domain : domains_) {
    for (const auto& [hash, document] : domain.kept) documents.push_back(document);
  }
  return documents;
}

std::string train_tokenizer(const std::vector<std::string_view>& documents,
                            std::uint32_t vocabulary) {
  const std::unordered_map<std::string, std::string> settings = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(vocabulary)},
      {"hard_vocab_limit", "false"},
      {"byte_fallback", "true"},
      {"character_coverage", "0.9995"},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"split_digits", "true"},
      {"unk_id", "0"},
      {"eos_id", "1"},
      {"bos_id", "-1"},
      {"pad_id", "-1"},
      {"max_sentence_length", std::to_string(2 * kLineBytesMax)},
      {"num_threads", "1"},
      {"minloglevel", "2"},
  };
  Lines lines(documents);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(settings, &lines, &model);
  if (!status.ok()) {
    throw Error(ErrorCode::data_invalid, "train the tokenizer: " + status.ToString());
  }
  return model;
}

}  // namespace yumoe

#include "router/tokenizer.hpp"

#include <sentencepiece_processor.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr std::uintmax_t kModelBytesMax = 64u << 20;
constexpr int kVocabularyMax = 65'536;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

struct Tokenizer::Model {
  sentencepiece::SentencePieceProcessor processor;
  std::uint16_t end_token = 0;
};

Tokenizer::Tokenizer(std::unique_ptr<Model> model) : model_(std::move(model)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::open(const std::filesystem::path& path) {
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) {
    throw Error(ErrorCode::file_missing, path.string() + ": " + error.message() +
                                             "; build the token set with `yumoe data build`");
  }
  if (size > kModelBytesMax) throw Error(ErrorCode::data_invalid, path.string() + " is too large");
  std::ifstream in(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (!in) throw Error(ErrorCode::file_io, "read " + path.string());
  return from_bytes(bytes, path.string());
}

Tokenizer Tokenizer::from_bytes(std::string_view bytes, std::string_view name) {
  auto model = std::make_unique<Model>();
  const auto refuse = [&](const std::string& what) {
    throw Error(ErrorCode::data_invalid, std::string(name) + ": " + what);
  };
  if (const auto status = model->processor.LoadFromSerializedProto(bytes); !status.ok()) {
    refuse("not a SentencePiece model");
  }
  const int pieces = model->processor.GetPieceSize();
  if (pieces < 2 || pieces > kVocabularyMax) refuse(std::to_string(pieces) + " pieces");
  const int end = model->processor.eos_id();
  if (end < 0 || end >= pieces) refuse("has no end token");
  model->end_token = static_cast<std::uint16_t>(end);
  return Tokenizer(std::move(model));
}

std::uint32_t Tokenizer::vocabulary() const {
  return static_cast<std::uint32_t>(model_->processor.GetPieceSize());
}

std::uint16_t Tokenizer::end_token() const { return model_->end_token; }

std::vector<std::uint16_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int> ids;
  const auto status = model_->processor.Encode(text, &ids);
  if (!status.ok()) throw Error(ErrorCode::data_invalid, "encode text: " + status.ToString());
  std::vector<std::uint16_t> tokens;
  tokens.reserve(ids.size());
  for (const int id : ids) {
    YUMOE_ASSERT(id >= 0 && id < model_->processor.GetPieceSize());
    tokens.push_back(static_cast<std::uint16_t>(id));
  }
  return tokens;
}

std::string Tokenizer::decode(std::span<const std::uint16_t> tokens) const {
  std::string text;
  std::vector<int> run;
  const auto flush = [&] {
    std::string piece;
    const auto status = model_->processor.Decode(run, &piece);
    if (!status.ok()) throw Error(ErrorCode::data_invalid, "decode tokens: " + status.ToString());
    text += piece;
    run.clear();
  };
  for (const std::uint16_t token : tokens) {
    if (token < vocabulary()) {
      run.push_back(token);
    } else {
      flush();
      text += kReplacement;
    }
  }
  flush();
  return text;
}

}  // namespace yumoe

#include <algorithm>
#include <utility>

#include "cluster/error.hpp"
#include "worker/generator.hpp"

namespace yumoe {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
// Tokens of bytes that form no character are shown as U+FFFD after so many; a character has at most four.
constexpr std::size_t kPendingMax = 8;

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, std::string stop)
    : tokenizer_(tokenizer), stop_(std::move(stop)), anchor_(tokenizer.encode("a")) {
  anchor_bytes_ = tokenizer_.decode(anchor_).size();
}

std::string TextStream::push(std::uint16_t token) {
  if (stopped_) return "";
  pending_.push_back(token);
  std::vector<std::uint16_t> tokens = anchor_;
  tokens.insert(tokens.end(), pending_.begin(), pending_.end());
  std::string text = tokenizer_.decode(tokens).substr(anchor_bytes_);
  if (text.ends_with(kReplacement) && pending_.size() < kPendingMax) return "";
  pending_.clear();
  return release(std::move(text));
}

std::string TextStream::release(std::string text) {
  held_ += text;
  if (stop_.empty()) return std::exchange(held_, "");
  if (const std::size_t at = held_.find(stop_); at != std::string::npos) {
    stopped_ = true;
    return std::exchange(held_, "").substr(0, at);
  }
  // The longest end that begins the stop text. It begins and ends where a character does.
  std::size_t kept = std::min(held_.size(), stop_.size() - 1);
  while (kept > 0 && !held_.ends_with(std::string_view(stop_).substr(0, kept))) --kept;
  std::string shown = held_.substr(0, held_.size() - kept);
  held_.erase(0, shown.size());
  return shown;
}

std::string TextStream::finish() {
  std::string shown;
  if (!pending_.empty() && !stopped_) {
    std::vector<std::uint16_t> tokens = anchor_;
    tokens.insert(tokens.end(), pending_.begin(), pending_.end());
    pending_.clear();
    shown = release(tokenizer_.decode(tokens).substr(anchor_bytes_));
  }
  return stopped_ ? shown : shown + std::exchange(held_, "");
}

bool is_utf8(std::string_view bytes) {
  for (std::size_t i = 0; i < bytes.size();) {
    const auto at = [&](std::size_t j) { return static_cast<unsigned char>(bytes[j]); };
    const unsigned char first = at(i);
    const std::size_t length = first < 0x80   ? 1
                               : first < 0xC2 ? 0
                               : first < 0xE0 ? 2
                               : first < 0xF0 ? 3
                               : first < 0xF5 ? 4
                                              : 0;
    if (length == 0 || i + length > bytes.size()) return false;
    for (std::size_t j = 1; j < length; ++j) {
      if ((at(i + j) & 0xC0) != 0x80) return false;
    }
    const unsigned char second = length > 1 ? at(i + 1) : 0;
    const bool overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
    const bool surrogate = first == 0xED && second > 0x9F, beyond = first == 0xF4 && second > 0x8F;
    if (overlong || surrogate || beyond) return false;
    i += length;
  }
  return true;
}

}  // namespace yumoe

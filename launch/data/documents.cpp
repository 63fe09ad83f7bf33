#include "data/documents.hpp"

#include <algorithm>
#include <array>

namespace yumoe {
namespace {

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Value of a number in dictd's base 64, most significant digit first.
std::optional<std::uint64_t> base64_number(std::string_view text) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.empty() || text.size() > 8) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    const std::size_t digit = kDigits.find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    value = value * 64 + digit;
  }
  return value;
}

// Takes the next line, without its newline, off `text`.
std::string_view next_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

}  // namespace

bool Utf8Checker::feed(std::string_view piece) {
  for (const char c : piece) {
    if (!feed(static_cast<unsigned char>(c))) return false;
    ++offset_;
  }
  return true;
}

bool Utf8Checker::feed(unsigned char byte) {
  if (left_ > 0) {
    if (byte < least_ || byte > most_) return false;
    least_ = 0x80;
    most_ = 0xBF;
    --left_;
    return true;
  }
  start_ = offset_;
  if (byte < 0x80) return true;
  if (byte < 0xC2 || byte > 0xF4) return false;
  left_ = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
  // The second byte excludes overlong forms, surrogates and what lies beyond U+10FFFF.
  if (byte == 0xE0) least_ = 0xA0;
  if (byte == 0xED) most_ = 0x9F;
  if (byte == 0xF0) least_ = 0x90;
  if (byte == 0xF4) most_ = 0x8F;
  return true;
}

void DocumentCutter::add(std::string_view piece) {
  for (const char c : piece) {
    if (c == '\b') {
      while (!pending_.empty() && is_continuation(pending_.back())) pending_.pop_back();
      if (!pending_.empty() && pending_.back() != '\n') pending_.pop_back();
    } else if (static_cast<unsigned char>(c) >= 0x20 ? c != 0x7F : c == '\n' || c == '\t') {
      pending_ += c;
    }
    // One byte more than the largest document, so that a cut sees what follows it.
    if (pending_.size() > kDocumentBytesMax) cut_full_documents();
  }
}

void DocumentCutter::end_document() {
  cut_full_documents();
  emit(pending_.size());
}

void DocumentCutter::cut_full_documents() {
  while (pending_.size() > bytes_min_) {
    const std::size_t blank = pending_.find("\n\n", bytes_min_);
    if (blank != std::string::npos && blank < kDocumentBytesMax) {
      emit(blank + 1);
      continue;
    }
    if (pending_.size() <= kDocumentBytesMax) return;
    std::size_t end = pending_.rfind('\n', kDocumentBytesMax - 1);
    if (end == std::string::npos || end == 0) {
      end = kDocumentBytesMax;
      while (is_continuation(pending_[end])) --end;
    }
    emit(end);
  }
}

void DocumentCutter::emit(std::size_t size) {
  std::string_view document = std::string_view(pending_).substr(0, size);
  const std::size_t last = document.find_last_not_of(" \t\n");
  if (last != std::string_view::npos) {
    document = document.substr(0, last + 1);
    document.remove_prefix(document.find_first_not_of('\n'));
    sink_(document);
  }
  pending_.erase(0, size);
}

std::vector<std::string_view> fortune_records(std::string_view text) {
  std::vector<std::string_view> records;
  const char* start = text.data();
  while (!text.empty()) {
    const std::string_view line = next_line(text);
    if (!line.starts_with('%') || line.find_first_not_of(" \t\r", 1) != std::string_view::npos) {
      continue;
    }
    records.emplace_back(start, static_cast<std::size_t>(line.data() - start));
    start = text.data();
  }
  records.emplace_back(start, static_cast<std::size_t>(text.data() - start));
  return records;
}

std::optional<std::vector<TextRange>> dictionary_entries(std::string_view index,
                                                         std::uint64_t bytes) {
  std::vector<TextRange> entries;
  while (!index.empty()) {
    const std::string_view line = next_line(index);
    if (line.empty()) continue;
    const std::size_t first = line.find('\t');
    const std::size_t second = first == std::string_view::npos ? first : line.find('\t', first + 1);
    if (second == std::string_view::npos) return std::nullopt;
    const auto offset = base64_number(line.substr(first + 1, second - first - 1));
    const std::string_view rest = line.substr(second + 1);
    const auto size = base64_number(rest.substr(0, rest.find('\t')));
    if (!offset || !size || *offset > bytes || *size > bytes - *offset) return std::nullopt;
    if (line.starts_with("00-database") || line.starts_with("00database")) continue;
    entries.push_back({*offset, *size});
  }
  std::sort(entries.begin(), entries.end());
  entries.erase(std::unique(entries.begin(), entries.end()), entries.end());
  return entries;
}

}  // namespace yumoe

#pragma once
// From bytes of a text file to clean documents. Nothing here touches the disk.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace yumoe {

// Called for each document; the view lives until it returns. Never empty.
using DocumentSink = std::function<void(std::string_view)>;

// Finds the first byte of a stream that is not UTF-8 (RFC 3629: no surrogates, nothing overlong).
class Utf8Checker {
 public:
  // Feeds the next piece; true while all is well.
  bool feed(std::string_view piece);
  // True if the stream may end here.
  bool complete() const { return left_ == 0; }
  // Of the first byte of the bad sequence.
  std::uint64_t bad_offset() const { return start_; }

 private:
  bool feed(unsigned char byte);

  std::uint64_t offset_ = 0;
  std::uint64_t start_ = 0;  // of the sequence under way
  int left_ = 0;             // continuation bytes still to come
  unsigned char least_ = 0x80;
  unsigned char most_ = 0xBF;
};

// Cleans a stream of UTF-8 and cuts it into documents: after `bytes_min`, at the next blank line;
// after kDocumentBytesMax at the last line end, or else between two characters. Where a text is cut
// does not depend on how it is split into pieces.
//
// Clean means: a backspace takes the character before it away (overstrikes), other control
// characters but newline and tab are dropped, documents have no white space at their end and no
// blank lines at their start.
class DocumentCutter {
 public:
  DocumentCutter(std::uint64_t bytes_min, DocumentSink sink)
      : bytes_min_(bytes_min), sink_(std::move(sink)) {}

  void add(std::string_view piece);
  void end_document();

 private:
  void cut_full_documents();
  void emit(std::size_t size);

  std::uint64_t bytes_min_;
  DocumentSink sink_;
  std::string pending_;
};

inline constexpr std::uint64_t kDocumentBytesMax = 16'384;

// Records of a fortune file: separated by lines of one '%'.
std::vector<std::string_view> fortune_records(std::string_view text);

struct TextRange {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  friend auto operator<=>(const TextRange&, const TextRange&) = default;
};

// Entries of a dictd index (lines "word TAB offset TAB size" in dictd's base 64), sorted, each once,
// without the "00-database" ones. Returns nothing if a line is malformed or points beyond `bytes`.
std::optional<std::vector<TextRange>> dictionary_entries(std::string_view index,
                                                         std::uint64_t bytes);

}  // namespace yumoe

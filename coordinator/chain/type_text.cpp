#include "chain/type_text.hpp"

#include <cctype>

namespace yumoe {
namespace {

void erase_all(std::string& text, std::string_view what) {
  for (std::size_t at = text.find(what); at != text.npos; at = text.find(what, at)) {
    const bool inside_a_word =
        at > 0 && (std::isalnum(static_cast<unsigned char>(text[at - 1])) || text[at - 1] == '_');
    if (what.front() != '<' && inside_a_word) {
      ++at;
    } else {
      text.erase(at, what.size());
    }
  }
}

// "<T as anything>::"
void erase_qualified_self(std::string& text) {
  for (std::size_t at = text.find("<T as "); at != text.npos; at = text.find("<T as ", at)) {
    const std::size_t end = text.find(">::", at);
    if (end == text.npos) return;
    text.erase(at, end + 3 - at);
  }
}

}  // namespace

std::string plain_type_name(std::string_view type_name) {
  std::string text(type_name);
  erase_qualified_self(text);
  erase_all(text, "T::");
  erase_all(text, "<T>");
  if (text.starts_with("Box<") && text.ends_with('>')) text = text.substr(4, text.size() - 5);
  return text == "Vec<u8>" ? "Bytes" : text;
}

}  // namespace yumoe

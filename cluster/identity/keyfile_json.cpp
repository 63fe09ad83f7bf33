#include "identity/keyfile_json.hpp"

#include <algorithm>
#include <cctype>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kFieldsMax = 64;
constexpr int kNestingMax = 16;

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  [[noreturn]] void refuse() const {
    throw Error(ErrorCode::key_invalid, "reading a key file: its JSON is damaged at byte " +
                                            std::to_string(at_) + ": restore it from a backup");
  }

  void space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != text_.npos) ++at_;
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool take(char wanted) {
    space();
    if (peek() != wanted) return false;
    ++at_;
    return true;
  }

  void expect(char wanted) {
    if (!take(wanted)) refuse();
  }

  bool at_end() {
    space();
    return at_ == text_.size();
  }

  LockedBytes string() {
    expect('"');
    LockedBytes out(text_.size() - at_ + 1);
    std::size_t length = 0;
    while (true) {
      if (at_ == text_.size()) refuse();
      const char c = text_[at_++];
      if (c == '"') break;
      if (c == '\\') {
        escape(out, length);
      } else {
        out[length++] = static_cast<std::uint8_t>(c);
      }
    }
    out.shrink(length);
    return out;
  }

  LockedBytes bare() {
    const std::size_t start = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) ||
                                  text_[at_] == '-' || text_[at_] == '+' || text_[at_] == '.')) {
      ++at_;
    }
    if (at_ == start) refuse();
    return LockedBytes(as_bytes(text_.substr(start, at_ - start)));
  }

  void skip_nested(int depth) {
    if (depth > kNestingMax) refuse();
    const char close = peek() == '{' ? '}' : ']';
    const bool is_object = peek() == '{';
    ++at_;
    if (take(close)) return;
    do {
      if (is_object) {
        string();
        expect(':');
      }
      space();
      if (peek() == '{' || peek() == '[') {
        skip_nested(depth + 1);
      } else if (peek() == '"') {
        string();
      } else {
        bare();
      }
    } while (take(','));
    expect(close);
  }

 private:
  void escape(LockedBytes& out, std::size_t& length) {
    if (at_ == text_.size()) refuse();
    const char c = text_[at_++];
    constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    if (const std::size_t simple = kFrom.find(c); simple != kFrom.npos) {
      out[length++] = static_cast<std::uint8_t>(kTo[simple]);
      return;
    }
    if (c != 'u' || text_.size() - at_ < 4) refuse();
    unsigned code = 0;
    for (int i = 0; i < 4; ++i) {
      const char digit = text_[at_++];
      const std::size_t value =
          std::string_view("0123456789abcdef").find(static_cast<char>(std::tolower(digit)));
      if (value == std::string_view::npos) refuse();
      code = code << 4 | static_cast<unsigned>(value);
    }
    // Six bytes of escape make at most three of UTF-8. No field of ours holds a surrogate.
    if (code < 0x80) {
      out[length++] = static_cast<std::uint8_t>(code);
    } else if (code < 0x800) {
      out[length++] = static_cast<std::uint8_t>(0xc0 | code >> 6);
      out[length++] = static_cast<std::uint8_t>(0x80 | (code & 0x3f));
    } else {
      out[length++] = static_cast<std::uint8_t>(0xe0 | code >> 12);
      out[length++] = static_cast<std::uint8_t>(0x80 | (code >> 6 & 0x3f));
      out[length++] = static_cast<std::uint8_t>(0x80 | (code & 0x3f));
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

KeyfileJson::KeyfileJson(std::string_view text) {
  Reader reader(text);
  reader.expect('{');
  if (!reader.take('}')) {
    do {
      if (fields_.size() == kFieldsMax) reader.refuse();
      reader.space();
      const LockedBytes name = reader.string();
      Field field{std::string(name.text()), {}, true};
      reader.expect(':');
      reader.space();
      const char first = reader.peek();
      if (first == '{' || first == '[') {
        reader.skip_nested(0);
        field.is_scalar = false;
      } else if (first == '"') {
        field.value = reader.string();
      } else {
        field.value = reader.bare();
        field.is_scalar = field.value.text() != "null";
      }
      fields_.push_back(std::move(field));
    } while (reader.take(','));
    reader.expect('}');
  }
  if (!reader.at_end()) reader.refuse();
}

const LockedBytes* KeyfileJson::find(std::string_view name) const {
  for (const auto& field : fields_) {
    if (field.name == name && field.is_scalar) return &field.value;
  }
  return nullptr;
}

bool KeyfileJson::has(std::string_view name) const {
  return std::any_of(fields_.begin(), fields_.end(),
                     [name](const auto& field) { return field.name == name; });
}

}  // namespace yumoe

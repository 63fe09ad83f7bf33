#include "identity/secret_uri.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kUriLengthMax = 4096;
constexpr std::size_t kJunctionsMax = 64;

std::optional<std::uint64_t> parse_number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);  // as substrate's parser does
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

Bytes scale_string(std::string_view text) {
  Bytes out;
  const std::size_t n = text.size();
  if (n < 64) {
    out.push_back(static_cast<std::uint8_t>(n << 2));
  } else {  // the URI's bound keeps this under 2^14
    out.push_back(static_cast<std::uint8_t>(n << 2 | 1));
    out.push_back(static_cast<std::uint8_t>(n >> 6));
  }
  out.insert(out.end(), text.begin(), text.end());
  return out;
}

// A number is 8 little-endian bytes, a name its SCALE string; longer than 32 bytes is hashed.
Junction junction_of(std::string_view text, bool hard) {
  Junction junction{hard, {}};
  if (const auto number = parse_number(text)) {
    std::memcpy(junction.chain_code.data(), &*number, sizeof *number);
    return junction;
  }
  const Bytes encoded = scale_string(text);
  if (encoded.size() > junction.chain_code.size()) {
    junction.chain_code = digest_of(encoded).bytes;
  } else {
    std::copy(encoded.begin(), encoded.end(), junction.chain_code.begin());
  }
  return junction;
}

}  // namespace

SecretUri parse_secret_uri(std::string_view uri) {
  if (uri.size() > kUriLengthMax) {
    throw Error(ErrorCode::key_invalid, "reading a secret URI: it is longer than 4096 characters");
  }
  SecretUri parsed;
  if (const std::size_t at = uri.find("///"); at != uri.npos) {
    parsed.password = uri.substr(at + 3);
    uri = uri.substr(0, at);
  }
  const std::size_t path = std::min(uri.find('/'), uri.size());
  parsed.phrase = uri.substr(0, path);
  uri.remove_prefix(path);
  while (!uri.empty()) {
    uri.remove_prefix(1);
    const bool hard = uri.starts_with('/');
    if (hard) uri.remove_prefix(1);
    const std::size_t end = std::min(uri.find('/'), uri.size());
    if (end == 0 || parsed.path.size() == kJunctionsMax) {
      throw Error(ErrorCode::key_invalid,
                  "reading a secret URI: write it as PHRASE//hard/soft///password, no empty part");
    }
    parsed.path.push_back(junction_of(uri.substr(0, end), hard));
    uri.remove_prefix(end);
  }
  return parsed;
}

}  // namespace yumoe

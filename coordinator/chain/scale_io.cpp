#include <bit>
#include <cstring>

#include "chain/text.hpp"
#include "cluster/error.hpp"
#include "coordinator/scale.hpp"

namespace yumoe {
namespace {

static_assert(std::endian::native == std::endian::little);
constexpr std::size_t kCompactBytesMax = 67;  // the length byte's six bits, plus four

}  // namespace

void ScaleWriter::little_endian(std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) bytes_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

void ScaleWriter::raw(ByteView bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }

void ScaleWriter::compact(std::uint64_t value) {
  if (value < 1u << 6) {
    u8(static_cast<std::uint8_t>(value << 2));
  } else if (value < 1u << 14) {
    u16(static_cast<std::uint16_t>(value << 2 | 1));
  } else if (value < 1u << 30) {
    u32(static_cast<std::uint32_t>(value << 2 | 2));
  } else {
    const int bytes = (std::bit_width(value) + 7) / 8;
    u8(static_cast<std::uint8_t>((bytes - 4) << 2 | 3));
    little_endian(value, bytes);
  }
}

void ScaleWriter::compact(ByteView number) {
  while (!number.empty() && number.back() == 0) number = number.first(number.size() - 1);
  if (number.size() <= 8) {
    std::uint64_t value = 0;
    if (!number.empty()) std::memcpy(&value, number.data(), number.size());
    return compact(value);
  }
  if (number.size() > kCompactBytesMax) {
    throw Error(ErrorCode::scale_malformed, "encoding a compact integer: it is over 536 bits");
  }
  u8(static_cast<std::uint8_t>((number.size() - 4) << 2 | 3));
  raw(number);
}

void ScaleReader::refuse(std::string_view why) const {
  throw Error(ErrorCode::scale_malformed,
              "decoding SCALE at byte " + std::to_string(at_) + ": " + std::string(why));
}

ByteView ScaleReader::raw(std::size_t size) {
  if (size > left()) {
    refuse(std::to_string(size) + " bytes are wanted and " + std::to_string(left()) + " are left");
  }
  at_ += size;
  return bytes_.subspan(at_ - size, size);
}

std::uint64_t ScaleReader::little_endian(std::size_t size) {
  std::uint64_t value = 0;
  std::memcpy(&value, raw(size).data(), size);
  return value;
}

std::uint64_t ScaleReader::compact() {
  const Bytes number = compact_bytes();
  if (number.size() > 8) refuse("a compact integer is over 64 bits");
  std::uint64_t value = 0;
  std::memcpy(&value, number.data(), number.size());
  return value;
}

Bytes ScaleReader::compact_bytes() {
  const std::uint8_t first = u8();
  std::uint64_t value = first >> 2, least = 0;
  switch (first & 3) {
    case 0: break;
    case 1:
      value |= static_cast<std::uint64_t>(u8()) << 6;
      least = 1u << 6;
      break;
    case 2:
      value |= little_endian(3) << 6;
      least = 1u << 14;
      break;
    default: {
      const ByteView number = raw((first >> 2) + 4u);
      bool longer_than_needed = number.back() == 0;
      if (number.size() == 4) longer_than_needed = number[3] < 0x40;
      if (longer_than_needed) refuse("a compact integer is longer than it needs to be");
      return Bytes(number.begin(), number.end());
    }
  }
  if (value < least) refuse("a compact integer is longer than it needs to be");
  Bytes number(4);
  std::memcpy(number.data(), &value, 4);
  return number;
}

std::size_t ScaleReader::count(std::size_t element_bytes_min) {
  const std::uint64_t count = compact();
  if (element_bytes_min != 0 && count > left() / element_bytes_min) {
    refuse("a list claims " + std::to_string(count) + " elements, more than the bytes left");
  }
  return static_cast<std::size_t>(count);
}

std::string ScaleReader::string() {
  const ByteView text = bytes();
  if (!is_utf8(text)) refuse("a string is not UTF-8");
  return {text.begin(), text.end()};
}

void ScaleReader::require_end(std::string_view what) const {
  if (left() != 0) refuse(std::to_string(left()) + " bytes follow " + std::string(what));
}

}  // namespace yumoe

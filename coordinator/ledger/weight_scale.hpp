#pragma once
// The few SCALE forms that weight calls hash and seal; coordinator/scale.hpp is the general codec
// and belongs to the chain part, which depends on the ledger's world and not the other way round.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "coordinator/weights.hpp"

namespace yumoe::ledger {

class ScaleWriter {
 public:
  ScaleWriter& raw(std::span<const std::uint8_t> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  ScaleWriter& u16(std::uint16_t value) { return little_endian(value, 2); }
  ScaleWriter& u64(std::uint64_t value) { return little_endian(value, 8); }
  // Lengths under 2^30; longer lists do not occur.
  ScaleWriter& compact(std::size_t length) {
    if (length < 64) return little_endian(length << 2, 1);
    if (length < 16384) return little_endian(length << 2 | 1, 2);
    return little_endian(length << 2 | 2, 4);
  }
  ScaleWriter& list(std::span<const std::uint16_t> values) {
    compact(values.size());
    for (const std::uint16_t v : values) u16(v);
    return *this;
  }
  const Bytes& bytes() const { return bytes_; }

 private:
  ScaleWriter& little_endian(std::uint64_t value, int count) {
    for (int k = 0; k < count; ++k) bytes_.push_back(static_cast<std::uint8_t>(value >> (8 * k)));
    return *this;
  }
  Bytes bytes_;
};

// Total: any bytes give a value or nothing. Bytes after the value are ignored, as the chain's
// decoder does.
class ScaleReader {
 public:
  explicit ScaleReader(ByteView bytes) : rest_(bytes) {}

  std::optional<ByteView> bytes() {
    const auto length = compact();
    if (!length || *length > rest_.size()) return std::nullopt;
    return take(*length);
  }
  std::optional<WeightVector> weights() {
    const auto uids = list();
    const auto values = uids ? list() : std::nullopt;
    if (!values || rest_.size() < 8) return std::nullopt;
    return WeightVector{*uids, *values, number(8)};
  }

 private:
  ByteView take(std::size_t count) {
    const ByteView taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  std::uint64_t number(std::size_t count) {
    std::uint64_t value = 0;
    const ByteView taken = take(count);
    for (std::size_t k = 0; k < count; ++k) value |= std::uint64_t{taken[k]} << (8 * k);
    return value;
  }
  std::optional<std::size_t> compact() {
    if (rest_.empty()) return std::nullopt;
    const std::size_t width = std::size_t{1} << (rest_[0] & 3);
    if (width > 4 || rest_.size() < width) return std::nullopt;
    const std::uint64_t value = number(width) >> 2;
    // A longer form than needed is malformed.
    if ((width == 2 && value < 64) || (width == 4 && value < 16384)) return std::nullopt;
    return static_cast<std::size_t>(value);
  }
  std::optional<std::vector<std::uint16_t>> list() {
    const auto length = compact();
    if (!length || *length > rest_.size() / 2) return std::nullopt;
    std::vector<std::uint16_t> values;
    for (std::size_t k = 0; k < *length; ++k)
      values.push_back(static_cast<std::uint16_t>(number(2)));
    return values;
  }
  ByteView rest_;
};

}  // namespace yumoe::ledger

#include "identity/transcript.hpp"

#include <bit>
#include <cstring>

namespace yumoe::sr25519 {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::uint8_t kRate = 166;  // 200 - 2 * 16 - 2: STROBE at 128 bits of security
enum Flag : std::uint8_t { kInbound = 1, kApplication = 2, kCipher = 4, kMeta = 16, kKeyTree = 32 };

constexpr std::array<std::uint64_t, 24> kRoundConstants = [] {
  // The degree-8 register of FIPS 202, 3.2.5, rather than a table to mistype.
  std::array<std::uint64_t, 24> constants{};
  std::uint8_t lfsr = 1;
  for (auto& constant : constants) {
    for (int j = 0; j < 7; ++j) {
      if (lfsr & 1) constant |= std::uint64_t{1} << ((1 << j) - 1);
      lfsr = static_cast<std::uint8_t>((lfsr << 1) ^ ((lfsr >> 7) * 0x71));
    }
  }
  return constants;
}();

struct Lane {
  int rotation;
  int target;
};

constexpr std::array<Lane, 24> kRhoPi = [] {
  std::array<Lane, 24> lanes{};
  int x = 1, y = 0;
  for (int t = 0; t < 24; ++t) {
    const int next_x = y, next_y = (2 * x + 3 * y) % 5;
    lanes[t] = {(t + 1) * (t + 2) / 2 % 64, next_x + 5 * next_y};
    x = next_x;
    y = next_y;
  }
  return lanes;
}();

void keccak_f(std::array<std::uint64_t, 25>& a) {
  for (const std::uint64_t round_constant : kRoundConstants) {
    std::uint64_t column[5];
    for (int x = 0; x < 5; ++x) column[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
    for (int x = 0; x < 5; ++x) {
      const std::uint64_t mixed = column[(x + 4) % 5] ^ std::rotl(column[(x + 1) % 5], 1);
      for (int y = 0; y < 25; y += 5) a[y + x] ^= mixed;
    }
    std::uint64_t moving = a[1];
#pragma GCC unroll 24
    for (int t = 0; t < 24; ++t) {
      const std::uint64_t next = a[kRhoPi[t].target];
      a[kRhoPi[t].target] = std::rotl(moving, kRhoPi[t].rotation);
      moving = next;
    }
    for (int y = 0; y < 25; y += 5) {
      const std::uint64_t row[5] = {a[y], a[y + 1], a[y + 2], a[y + 3], a[y + 4]};
      for (int x = 0; x < 5; ++x) a[y + x] = row[x] ^ (~row[(x + 1) % 5] & row[(x + 2) % 5]);
    }
    a[0] ^= round_constant;
  }
}

std::array<std::uint8_t, 4> little_endian(std::size_t value) {
  return {static_cast<std::uint8_t>(value), static_cast<std::uint8_t>(value >> 8),
          static_cast<std::uint8_t>(value >> 16), static_cast<std::uint8_t>(value >> 24)};
}

}  // namespace

Transcript::Transcript(std::string_view protocol) {
  auto* bytes = reinterpret_cast<std::uint8_t*>(state_.data());
  const std::uint8_t head[6] = {1, kRate + 2, 1, 0, 1, 96};
  std::memcpy(bytes, head, sizeof head);
  std::memcpy(bytes + sizeof head, "STROBEv1.0.2", 12);
  keccak_f(state_);
  begin(kMeta | kApplication);
  absorb(as_bytes("Merlin v1.0"));
  append("dom-sep", as_bytes(protocol));
}

void Transcript::permute() {
  auto* bytes = reinterpret_cast<std::uint8_t*>(state_.data());
  bytes[position_] ^= begun_;
  bytes[position_ + 1] ^= 0x04;
  bytes[kRate + 1] ^= 0x80;
  keccak_f(state_);
  position_ = 0;
  begun_ = 0;
}

void Transcript::absorb(ByteView in) {
  auto* bytes = reinterpret_cast<std::uint8_t*>(state_.data());
  for (const std::uint8_t byte : in) {
    bytes[position_++] ^= byte;
    if (position_ == kRate) permute();
  }
}

void Transcript::overwrite(ByteView in) {
  auto* bytes = reinterpret_cast<std::uint8_t*>(state_.data());
  for (const std::uint8_t byte : in) {
    bytes[position_++] = byte;
    if (position_ == kRate) permute();
  }
}

void Transcript::squeeze(std::span<std::uint8_t> out) {
  auto* bytes = reinterpret_cast<std::uint8_t*>(state_.data());
  for (std::uint8_t& byte : out) {
    byte = bytes[position_];
    bytes[position_++] = 0;
    if (position_ == kRate) permute();
  }
}

void Transcript::begin(std::uint8_t flags) {
  const std::uint8_t header[2] = {begun_, flags};
  begun_ = static_cast<std::uint8_t>(position_ + 1);
  absorb(header);
  if ((flags & (kCipher | kKeyTree)) != 0 && position_ != 0) permute();
}

void Transcript::meta(ByteView bytes) {
  begin(kMeta | kApplication);
  absorb(bytes);
}

void Transcript::labelled_length(std::string_view label, std::size_t length) {
  meta(as_bytes(label));
  absorb(little_endian(length));  // "more" of the same operation
}

Transcript& Transcript::append(std::string_view label, ByteView message) {
  labelled_length(label, message.size());
  begin(kApplication);
  absorb(message);
  return *this;
}

void Transcript::challenge(std::string_view label, std::span<std::uint8_t> out) {
  labelled_length(label, out.size());
  begin(kInbound | kApplication | kCipher);
  squeeze(out);
}

void Transcript::become_random_source(std::string_view label, ByteView secret,
                                      ByteView randomness) {
  labelled_length(label, secret.size());
  begin(kApplication | kCipher);
  overwrite(secret);
  meta(as_bytes("rng"));
  begin(kApplication | kCipher);
  overwrite(randomness);
}

void Transcript::random_bytes(std::span<std::uint8_t> out) {
  meta(little_endian(out.size()));
  begin(kInbound | kApplication | kCipher);
  squeeze(out);
}

}  // namespace yumoe::sr25519

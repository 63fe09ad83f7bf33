#pragma once
// Calls to a server of experts and its answers, checked (schemas/expert.capnp).

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "cluster/bytes.hpp"

namespace yumoe {

inline constexpr std::size_t kExpertRowsMax = 1 << 20;
inline constexpr std::size_t kExpertWidthMax = 65'536;
inline constexpr std::size_t kExpertPayloadBytesMax = std::size_t{64} << 20;

// Most rows of one call, so that also a backward that brings x fits. At least 1.
constexpr std::size_t expert_rows_max(std::size_t width) {
  return std::min(kExpertRowsMax, kExpertPayloadBytesMax / (2 * width * sizeof(float)));
}

// XXH3-128 of a payload: finds damage at memory speed; CURVE says who speaks.
using PayloadDigest = std::array<std::uint8_t, 16>;
PayloadDigest payload_digest(ByteView payload);

struct ExpertCall {
  std::uint64_t id = 0;
  bool backward = false;
  Digest version;
  std::uint32_t layer = 0, expert = 0, rows = 0, width = 0;
  bool keep = false;
  std::uint64_t forward_id = 0;
  // Numbers the payload holds: rows * width, twice that for a backward that brings x.
  std::size_t numbers() const {
    return std::size_t{rows} * width * (backward && forward_id == 0 ? 2 : 1);
  }
};

enum class ExpertStatus : std::uint8_t {
  ok,
  other_version,
  unknown_expert,
  not_kept,
  malformed,
  busy
};

struct ExpertAnswer {
  std::uint64_t id = 0;
  ExpertStatus status = ExpertStatus::ok;
  Digest version;
  std::uint32_t credits = 0, rows = 0, width = 0;
};

// Header and payload as frames.
std::vector<Bytes> encode(const ExpertCall& call, Bytes payload);
std::vector<Bytes> encode(const ExpertAnswer& answer, Bytes payload);

// Check bounds, that the payload has the header's size, and its digest. Throw
// Error{message_malformed} or Error{digest_mismatch}.
ExpertCall decode_expert_call(std::span<const Bytes> frames);
// The header alone, whatever the payload is: for an answer without looking at it.
ExpertCall decode_expert_header(std::span<const Bytes> frames);
ExpertAnswer decode_expert_answer(std::span<const Bytes> frames);

}  // namespace yumoe

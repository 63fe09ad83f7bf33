#pragma once
// Merlin transcripts over STROBE-128 and Keccak-f[1600]: what schnorrkel hashes with.
// Source: Merlin v1.0, STROBE v1.0.2 (the part Merlin uses), FIPS 202. Runs in constant time.

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "cluster/bytes.hpp"

namespace yumoe::sr25519 {

class Transcript {
 public:
  explicit Transcript(std::string_view protocol);

  // Absorbs one labelled message (shorter than 4 GiB).
  Transcript& append(std::string_view label, ByteView message);

  // Draws bytes that depend on everything absorbed so far.
  void challenge(std::string_view label, std::span<std::uint8_t> out);

  // Turns this copy into a random source bound to the transcript, a secret and fresh randomness
  // (Merlin's TranscriptRng): no two messages can share a nonce even if the random source fails.
  void become_random_source(std::string_view label, ByteView secret, ByteView randomness);
  void random_bytes(std::span<std::uint8_t> out);

 private:
  void permute();
  void absorb(ByteView bytes);
  void overwrite(ByteView bytes);
  void squeeze(std::span<std::uint8_t> out);
  void begin(std::uint8_t flags);
  void labelled_length(std::string_view label, std::size_t length);
  void meta(ByteView bytes);

  std::array<std::uint64_t, 25> state_{};
  std::uint8_t position_ = 0;
  std::uint8_t begun_ = 0;
};

}  // namespace yumoe::sr25519

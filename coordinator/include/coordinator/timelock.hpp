#pragma once
// Weights nobody can read before their time: encryption to a future round of the drand network
// "quicknet", whose signature on that round is the key. Byte-compatible with Bittensor's client.
//
// Source: Boneh and Franklin 2001 (FullIdent), over BLS12-381 as in drand's tlock, serialised as
// arkworks does; AES-256-GCM for the payload.

#include <cstdint>
#include <span>

#include "cluster/bytes.hpp"
#include "cluster/clock.hpp"

namespace yumoe {

// quicknet's calendar: round r is published at genesis + 3 s * (r - 1).
inline constexpr std::int64_t kDrandGenesisSeconds = 1'692'803'367;
inline constexpr std::int64_t kDrandPeriodSeconds = 3;

// The chain refuses a longer commit.
inline constexpr std::size_t kTimelockCommitBytesMax = 5'000;

// The moment at which round `round` (from 1) is published.
TimeMs drand_round_time(std::uint64_t round);

// The round the real client asks for, so that weights can be read when `blocks_until_reveal` more
// blocks of `block_time` have passed and a margin of three: floor((then - genesis) / 3 s). At
// least 1.
std::uint64_t drand_reveal_round(TimeMs now, std::uint64_t blocks_until_reveal,
                                 std::chrono::milliseconds block_time);

// Whether `signature` (48 bytes, compressed G1) is quicknet's on `round`. Never throws: malformed
// is simply not valid. Cost: about 2 ms.
bool drand_signature_valid(std::uint64_t round, ByteView signature) noexcept;

// What `commit_timelocked_weights` encrypts: SCALE {hotkey Vec<u8>, uids Vec<u16>, values Vec<u16>,
// version_key u64}. `uids` and `values` have one length.
Bytes timelock_weights_payload(ByteView hotkey, std::span<const std::uint16_t> uids,
                               std::span<const std::uint16_t> values, std::uint64_t version_key);

// Random inputs of one encryption; a sealed message is as secret as these.
struct TimelockRandom {
  std::array<std::uint8_t, 32> key{};
  std::array<std::uint8_t, 32> sigma{};
  std::array<std::uint8_t, 12> nonce{};
};

// Encrypts `plaintext` to `round`: what the chain stores, the round beside it. With the system's
// random source; the second form is for tests that need equal bytes. Cost: about 5 ms.
Bytes timelock_seal(ByteView plaintext, std::uint64_t round);
Bytes timelock_seal(ByteView plaintext, std::uint64_t round, const TimelockRandom& random);

// Decrypts with the round's signature. Throws Error{message_malformed} on bytes that are no sealed
// message and Error{signature_invalid} when the signature is not the one it was sealed to (or the
// message was altered). Cost: about 7 ms.
Bytes timelock_open(ByteView sealed, ByteView signature);

// The form that travels with its round: SCALE {Vec<u8> sealed, u64 round}.
struct TimelockEnvelope {
  Bytes sealed;
  std::uint64_t round = 0;
  friend bool operator==(const TimelockEnvelope&, const TimelockEnvelope&) = default;
};
Bytes to_bytes(const TimelockEnvelope& envelope);
// Throws Error{message_malformed}; nothing may follow the envelope.
TimelockEnvelope timelock_envelope_from(ByteView bytes);

}  // namespace yumoe

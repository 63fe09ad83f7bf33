#pragma once
// Transactions: payload, signature, bytes. Version 4; the set, order and types of the signed
// extensions come from the metadata.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/identity.hpp"
#include "coordinator/metadata.hpp"

namespace yumoe {

// For how long a transaction is valid: for ever, or for `period` blocks from its birth.
// Source: sp_runtime::generic::Era.
struct Era {
  std::uint64_t period = 0;  // 0: immortal; else a power of two, 4 to 65536
  std::uint64_t phase = 0;   // birth block modulo period, quantised

  static Era immortal() { return {}; }
  // `period` is rounded up to a power of two and kept in range.
  static Era mortal(std::uint64_t period, std::uint64_t current_block);

  bool is_immortal() const { return period == 0; }
  // The block whose hash is signed, and the first block in which it is no longer valid, of the
  // transaction that was made at or after `current_block`'s latest fitting birth.
  std::uint64_t birth(std::uint64_t current_block) const;
  std::uint64_t death(std::uint64_t current_block) const;
  Bytes encode() const;                    // one byte or two
  static Era decode(ScaleReader& reader);  // throws Error{scale_malformed}
  friend bool operator==(const Era&, const Era&) = default;
};

struct ExtrinsicParameters {
  std::uint64_t nonce = 0;
  std::string tip = "0";  // decimal, in rao
  Era era;
  Digest genesis_hash;
  Digest checkpoint_hash;  // the era's birth block; equal to the genesis hash if immortal
  std::uint32_t spec_version = 0;
  std::uint32_t transaction_version = 0;
  // Values for extensions this client does not know, by identifier: JSON text of {"extra":..,
  // "additional":..}. An unknown extension needs none if its types are empty or optional.
  std::map<std::string, std::string> extensions;
};

struct SigningPayload {
  Bytes extra;       // goes into the extrinsic
  Bytes additional;  // signed, not sent
  Bytes payload;     // call, extra, additional
  Bytes message;     // what is signed: the payload, or its BLAKE2b-256 if longer than 256 bytes
};

// `call` is encoded (Metadata::encode_call). Throws Error{metadata_unsupported} naming an extension
// that needs a value nobody gave.
SigningPayload signing_payload(const Metadata& metadata, ByteView call,
                               const ExtrinsicParameters& parameters);

// The complete extrinsic with its length in front, as submitted.
Bytes assemble_extrinsic(const Metadata& metadata, ByteView call, const SigningPayload& payload,
                         const PublicKey& signer, const Signature& signature);

Bytes sign_extrinsic(const Metadata& metadata, ByteView call, const ExtrinsicParameters& parameters,
                     const Keypair& signer);

// What the chain calls a transaction by: BLAKE2b-256 of its bytes, length included.
Digest extrinsic_hash(ByteView extrinsic);

struct DecodedExtrinsic {
  std::uint8_t version = 0;
  bool is_signed = false;
  std::optional<PublicKey> signer;  // if address and signature are of kinds this client knows
  std::optional<Signature> signature;
  Era era;
  std::uint64_t nonce = 0;
  std::string tip = "0";
  Bytes extra;
  Bytes call;
};

// Reads an extrinsic as it stands in a block, length included. Throws Error{scale_malformed}.
DecodedExtrinsic decode_extrinsic(const Metadata& metadata, ByteView extrinsic);

// The same as JSON: {"address","signature","era","nonce","tip","call",...}.
Json extrinsic_to_json(const Metadata& metadata, ByteView extrinsic);

// Tells whether `extrinsic`'s signature is good for the payload these parameters give.
bool verify_extrinsic(const Metadata& metadata, const DecodedExtrinsic& extrinsic,
                      const ExtrinsicParameters& parameters);

// The account that `threshold` of these signatories move together (pallet_multisig); their order
// does not matter. Throws Error{key_invalid} if there are none or the threshold cannot be met.
PublicKey multisig_account(std::vector<PublicKey> signatories, std::uint16_t threshold);

}  // namespace yumoe

#include "coordinator/timelock.hpp"

#include <blst.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string_view>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

using Block = std::array<std::uint8_t, 32>;

constexpr std::size_t kPointBytes = 96;  // compressed G2
constexpr std::size_t kSignatureBytes = 48;
constexpr std::size_t kNonceBytes = 12;
constexpr std::size_t kTagBytes = 16;
constexpr std::size_t kPayloadBytesMax = 1 << 20;
constexpr std::string_view kSuite = "AES_GCM_";
constexpr std::string_view kHashDomain = "BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";
constexpr std::string_view kQuicknetKey =
    "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064"
    "510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ec"
    "e45a";

[[noreturn]] void malformed(const char* what) {
  throw Error(ErrorCode::message_malformed, std::string("timelocked message: ") + what);
}

const blst_p2_affine& quicknet_key() {
  static const blst_p2_affine key = [] {
    const Bytes bytes = from_hex(kQuicknetKey);
    blst_p2_affine point;
    YUMOE_ASSERT(blst_p2_uncompress(&point, bytes.data()) == BLST_SUCCESS);
    YUMOE_ASSERT(blst_p2_affine_in_g2(&point));
    return point;
  }();
  return key;
}

Block sha256(ByteView bytes) {
  Block digest;
  SHA256(bytes.data(), bytes.size(), digest.data());
  return digest;
}

Block operator^(const Block& a, const Block& b) {
  Block out;
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = a[i] ^ b[i];
  return out;
}

Block round_message(std::uint64_t round) {
  std::array<std::uint8_t, 8> big_endian;
  for (int i = 0; i < 8; ++i) big_endian[i] = static_cast<std::uint8_t>(round >> (56 - 8 * i));
  return sha256(big_endian);
}

blst_p1 round_point(std::uint64_t round) {
  const Block message = round_message(round);
  blst_p1 point;
  blst_hash_to_g1(&point, message.data(), message.size(),
                  reinterpret_cast<const byte*>(kHashDomain.data()), kHashDomain.size(), nullptr,
                  0);
  return point;
}

// Nothing but a point of the right subgroup other than its zero may enter a pairing.
bool read_signature(ByteView bytes, blst_p1_affine& point) {
  return bytes.size() == kSignatureBytes &&
         blst_p1_uncompress(&point, bytes.data()) == BLST_SUCCESS && blst_p1_affine_in_g1(&point) &&
         !blst_p1_affine_is_inf(&point);
}

// SHA-256 of the pairing's value as arkworks writes it: twelve field elements, little-endian, c0
// first.
Block hash_of_pairing(const blst_p2_affine& q, const blst_p1_affine& p) {
  blst_fp12 value;
  blst_miller_loop(&value, &q, &p);
  blst_final_exp(&value, &value);
  std::array<std::uint8_t, 12 * 48> bytes;
  std::uint8_t* out = bytes.data();
  for (const blst_fp6& six : value.fp6) {
    for (const blst_fp2& two : six.fp2) {
      for (const blst_fp& one : two.fp) {
        blst_lendian_from_fp(out, &one);
        out += 48;
      }
    }
  }
  return sha256(bytes);
}

// The exponent follows from the secrets, so whoever opens the message can check the point.
blst_scalar exponent_of(const Block& sigma, const Block& key) {
  std::array<std::uint8_t, 64> both;
  std::copy(sigma.begin(), sigma.end(), both.begin());
  std::copy(key.begin(), key.end(), both.begin() + 32);
  const Block hash = sha256(both);
  blst_scalar scalar;
  blst_scalar_from_be_bytes(&scalar, hash.data(), hash.size());
  return scalar;
}

std::array<std::uint8_t, kPointBytes> times_generator(const blst_scalar& scalar) {
  blst_p2 point;
  blst_p2_mult(&point, blst_p2_generator(), scalar.b, 255);
  std::array<std::uint8_t, kPointBytes> bytes;
  blst_p2_compress(bytes.data(), &point);
  return bytes;
}

using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

CipherContext cipher_context() {
  CipherContext context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  YUMOE_ASSERT(context);
  return context;
}

// Ciphertext with its tag behind it.
Bytes gcm_encrypt(const Block& key, ByteView nonce, ByteView plaintext) {
  const CipherContext context = cipher_context();
  Bytes out(plaintext.size() + kTagBytes);
  int written = 0;
  int last = 0;
  YUMOE_ASSERT(EVP_EncryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key.data(),
                                  nonce.data()) == 1 &&
               EVP_EncryptUpdate(context.get(), out.data(), &written, plaintext.data(),
                                 static_cast<int>(plaintext.size())) == 1 &&
               EVP_EncryptFinal_ex(context.get(), out.data() + written, &last) == 1 &&
               EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes,
                                   out.data() + plaintext.size()) == 1);
  return out;
}

// False if the tag does not match.
bool gcm_decrypt(const Block& key, ByteView nonce, ByteView sealed, Bytes& plaintext) {
  const CipherContext context = cipher_context();
  const std::size_t size = sealed.size() - kTagBytes;
  plaintext.resize(size + 1);  // room, so that data() is not null for an empty message
  int written = 0;
  int last = 0;
  Bytes tag(sealed.begin() + static_cast<std::ptrdiff_t>(size), sealed.end());
  const bool ok =
      EVP_DecryptInit_ex(context.get(), EVP_aes_256_gcm(), nullptr, key.data(), nonce.data()) ==
          1 &&
      EVP_DecryptUpdate(context.get(), plaintext.data(), &written, sealed.data(),
                        static_cast<int>(size)) == 1 &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
      EVP_DecryptFinal_ex(context.get(), plaintext.data() + written, &last) == 1;
  plaintext.resize(size);
  return ok;
}

void put_u64(Bytes& out, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
}

void put_sized(Bytes& out, ByteView bytes) {
  put_u64(out, bytes.size());
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void put_compact(Bytes& out, std::size_t value) {
  YUMOE_ASSERT(value < (std::size_t{1} << 30));
  const auto byte = [&](std::size_t v) { out.push_back(static_cast<std::uint8_t>(v)); };
  if (value < 64) {
    byte(value << 2);
  } else if (value < 16'384) {
    byte(value << 2 | 1);
    byte(value >> 6);
  } else {
    for (int i = 0; i < 4; ++i) byte((value << 2 | 2) >> (8 * i));
  }
}

// Reads forwards; every step is checked against what is left.
class Cursor {
 public:
  explicit Cursor(ByteView bytes) : rest_(bytes) {}

  ByteView take(std::uint64_t size) {
    if (size > rest_.size()) malformed("ends early");
    const ByteView part = rest_.first(size);
    rest_ = rest_.subspan(size);
    return part;
  }
  std::uint64_t u64() {
    const ByteView part = take(8);
    std::uint64_t value = 0;
    for (int i = 7; i >= 0; --i) value = value << 8 | part[i];
    return value;
  }
  ByteView sized() { return take(u64()); }
  Block block() {
    const ByteView part = sized();
    if (part.size() != 32) malformed("a hidden value is not 32 bytes");
    Block out;
    std::copy(part.begin(), part.end(), out.begin());
    return out;
  }
  std::size_t compact() {
    const std::uint8_t first = take(1)[0];
    if ((first & 3) == 3) malformed("length is out of range");
    const int extra = (first & 3) == 0 ? 0 : (first & 3) == 1 ? 1 : 3;
    std::size_t value = first;
    const ByteView part = take(static_cast<std::uint64_t>(extra));
    for (int i = 0; i < extra; ++i) value |= std::size_t{part[i]} << (8 * (i + 1));
    value >>= 2;
    if ((extra == 1 && value < 64) || (extra == 3 && value < 16'384)) {
      malformed("length is not written the shortest way");
    }
    return value;
  }
  void expect_end() const {
    if (!rest_.empty()) malformed("has bytes behind its end");
  }

 private:
  ByteView rest_;
};

}  // namespace

TimeMs drand_round_time(std::uint64_t round) {
  YUMOE_ASSERT(round >= 1);
  return {(kDrandGenesisSeconds + kDrandPeriodSeconds * static_cast<std::int64_t>(round - 1)) *
          1'000};
}

std::uint64_t drand_reveal_round(TimeMs now, std::uint64_t blocks_until_reveal,
                                 std::chrono::milliseconds block_time) {
  constexpr std::int64_t kMarginBlocks = 3;
  const std::int64_t blocks = static_cast<std::int64_t>(blocks_until_reveal) + kMarginBlocks;
  const std::int64_t then = now.value + blocks * block_time.count();
  const std::int64_t round = (then - kDrandGenesisSeconds * 1'000) / (kDrandPeriodSeconds * 1'000);
  return round < 1 ? 1 : static_cast<std::uint64_t>(round);
}

bool drand_signature_valid(std::uint64_t round, ByteView signature) noexcept {
  blst_p1_affine point;
  if (round == 0 || !read_signature(signature, point)) return false;
  const Block message = round_message(round);
  return blst_core_verify_pk_in_g2(&quicknet_key(), &point, true, message.data(), message.size(),
                                   reinterpret_cast<const byte*>(kHashDomain.data()),
                                   kHashDomain.size(), nullptr, 0) == BLST_SUCCESS;
}

Bytes timelock_weights_payload(ByteView hotkey, std::span<const std::uint16_t> uids,
                               std::span<const std::uint16_t> values, std::uint64_t version_key) {
  YUMOE_ASSERT(uids.size() == values.size());
  Bytes out;
  put_compact(out, hotkey.size());
  out.insert(out.end(), hotkey.begin(), hotkey.end());
  for (const std::span<const std::uint16_t> list : {uids, values}) {
    put_compact(out, list.size());
    for (const std::uint16_t item : list) {
      out.push_back(static_cast<std::uint8_t>(item));
      out.push_back(static_cast<std::uint8_t>(item >> 8));
    }
  }
  put_u64(out, version_key);
  return out;
}

Bytes timelock_seal(ByteView plaintext, std::uint64_t round) {
  TimelockRandom random;
  const auto fill = [](auto& bytes) {
    if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
      throw Error(ErrorCode::device_missing, "the system's random source does not answer");
    }
  };
  fill(random.key);
  fill(random.sigma);
  fill(random.nonce);
  Bytes sealed = timelock_seal(plaintext, round, random);
  OPENSSL_cleanse(&random, sizeof random);
  return sealed;
}

Bytes timelock_seal(ByteView plaintext, std::uint64_t round, const TimelockRandom& random) {
  YUMOE_ASSERT(round >= 1);
  YUMOE_ASSERT(plaintext.size() <= kPayloadBytesMax);
  const blst_scalar exponent = exponent_of(random.sigma, random.key);
  const blst_p1 identity = round_point(round);
  blst_p1 shared;
  blst_p1_mult(&shared, &identity, exponent.b, 255);
  blst_p1_affine shared_affine;
  blst_p1_to_affine(&shared_affine, &shared);

  Bytes out;
  const auto point = times_generator(exponent);
  out.insert(out.end(), point.begin(), point.end());
  put_sized(out, random.sigma ^ hash_of_pairing(quicknet_key(), shared_affine));
  put_sized(out, random.key ^ sha256(random.sigma));
  Bytes body;
  put_sized(body, gcm_encrypt(random.key, random.nonce, plaintext));
  put_sized(body, random.nonce);
  put_sized(out, body);
  put_sized(out, as_bytes(kSuite));
  return out;
}

Bytes timelock_open(ByteView sealed, ByteView signature) {
  Cursor cursor(sealed);
  const ByteView point_bytes = cursor.take(kPointBytes);
  const Block hidden_sigma = cursor.block();
  const Block hidden_key = cursor.block();
  const ByteView body_bytes = cursor.sized();
  const ByteView suite = cursor.sized();
  cursor.expect_end();
  if (!std::ranges::equal(suite, as_bytes(kSuite))) malformed("uses a cipher other than AES_GCM_");
  Cursor body(body_bytes);
  const ByteView ciphertext = body.sized();
  const ByteView nonce = body.sized();
  body.expect_end();
  if (nonce.size() != kNonceBytes) malformed("nonce is not 12 bytes");
  if (ciphertext.size() < kTagBytes) malformed("ciphertext is shorter than its tag");
  if (ciphertext.size() > kPayloadBytesMax + kTagBytes) malformed("is larger than 1 MiB");

  blst_p2_affine point;
  if (blst_p2_uncompress(&point, point_bytes.data()) != BLST_SUCCESS ||
      !blst_p2_affine_in_g2(&point) || blst_p2_affine_is_inf(&point)) {
    malformed("does not begin with a point of G2");
  }
  blst_p1_affine round_signature;
  if (!read_signature(signature, round_signature)) {
    throw Error(ErrorCode::signature_invalid, "drand signature is not a point of G1");
  }
  const Block sigma = hidden_sigma ^ hash_of_pairing(point, round_signature);
  const Block key = hidden_key ^ sha256(sigma);
  Bytes plaintext;
  if (!std::ranges::equal(times_generator(exponent_of(sigma, key)), point_bytes) ||
      !gcm_decrypt(key, nonce, ciphertext, plaintext)) {
    throw Error(ErrorCode::signature_invalid,
                "timelocked message was not sealed to the round of this drand signature");
  }
  return plaintext;
}

Bytes to_bytes(const TimelockEnvelope& envelope) {
  Bytes out;
  put_compact(out, envelope.sealed.size());
  out.insert(out.end(), envelope.sealed.begin(), envelope.sealed.end());
  put_u64(out, envelope.round);
  return out;
}

TimelockEnvelope timelock_envelope_from(ByteView bytes) {
  Cursor cursor(bytes);
  TimelockEnvelope envelope;
  const ByteView sealed = cursor.take(cursor.compact());
  envelope.sealed.assign(sealed.begin(), sealed.end());
  envelope.round = cursor.u64();
  cursor.expect_end();
  return envelope;
}

}  // namespace yumoe

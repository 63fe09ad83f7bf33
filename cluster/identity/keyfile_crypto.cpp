#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sodium.h>

#include <cstring>
#include <memory>

#include "cluster/error.hpp"
#include "cluster/wallet.hpp"

namespace yumoe {
namespace {

constexpr std::string_view kNacl = "$NACL";
constexpr std::string_view kAnsible = "$ANSIBLE_VAULT;";
constexpr std::string_view kFernet = "gAAAAA";

// The salt and costs that bittensor-wallet fixed for all files.
constexpr std::array<std::uint8_t, 16> kNaclSalt = {0x13, 0x71, 0x83, 0xdf, 0xf1, 0x5a, 0x09, 0xbc,
                                                    0x9c, 0x90, 0xb5, 0x51, 0x87, 0x39, 0xe9, 0xb1};
constexpr unsigned long long kNaclOps = 8;
constexpr std::size_t kNaclMemory = 512u << 20;
constexpr std::string_view kFernetSalt =
    "Iguesscyborgslikemyselfhaveatendencytobeparanoidaboutourorigins";
constexpr int kFernetRounds = 10'000'000, kAnsibleRounds = 10'000;

[[noreturn]] void wrong_password() {
  throw Error(ErrorCode::password_wrong, "opening the key file: try again");
}

[[noreturn]] void damaged(std::string_view what) {
  throw Error(ErrorCode::key_invalid, "opening an encrypted key file: its " + std::string(what) +
                                          " is damaged: restore it from a backup or the mnemonic");
}

LockedBytes nacl_key(ByteView password) {
  LockedBytes key(crypto_secretbox_KEYBYTES);
  if (crypto_pwhash(key.data(), key.size(), reinterpret_cast<const char*>(password.data()),
                    password.size(), kNaclSalt.data(), kNaclOps, kNaclMemory,
                    crypto_pwhash_ALG_ARGON2I13) != 0) {
    throw Error(ErrorCode::memory_exceeded,
                "unlocking a key file: it takes 512 MiB: free some memory");
  }
  return key;
}

LockedBytes open_nacl(ByteView contents, ByteView password) {
  constexpr std::size_t kOverhead = crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES;
  contents = contents.subspan(kNacl.size());
  if (contents.size() < kOverhead) damaged("NaCl box");
  const ByteView box = contents.subspan(crypto_secretbox_NONCEBYTES);
  const LockedBytes key = nacl_key(password);
  LockedBytes plain(contents.size() - kOverhead);
  if (crypto_secretbox_open_easy(plain.data(), box.data(), box.size(), contents.data(),
                                 key.data()) != 0) {
    wrong_password();
  }
  return plain;
}

LockedBytes pbkdf2(ByteView password, ByteView salt, int rounds, std::size_t size) {
  LockedBytes key(size);
  const int done = PKCS5_PBKDF2_HMAC(reinterpret_cast<const char*>(password.data()),
                                     static_cast<int>(password.size()), salt.data(),
                                     static_cast<int>(salt.size()), rounds, EVP_sha256(),
                                     static_cast<int>(size), key.data());
  YUMOE_ASSERT(done == 1);
  return key;
}

bool is_hmac(ByteView key, ByteView message, ByteView mac) {
  std::array<std::uint8_t, 32> made;
  unsigned length = 0;
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), message.data(), message.size(),
       made.data(), &length);
  return mac.size() == made.size() && CRYPTO_memcmp(made.data(), mac.data(), made.size()) == 0;
}

LockedBytes aes_decrypted(const EVP_CIPHER* cipher, ByteView key, ByteView iv, ByteView text) {
  const std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> context(
      EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
  LockedBytes plain(text.size() + 16);
  int length = 0;
  YUMOE_ASSERT(context != nullptr);
  if (EVP_DecryptInit_ex(context.get(), cipher, nullptr, key.data(), iv.data()) != 1 ||
      EVP_CIPHER_CTX_set_padding(context.get(), 0) != 1 ||
      EVP_DecryptUpdate(context.get(), plain.data(), &length, text.data(),
                        static_cast<int>(text.size())) != 1 ||
      length != static_cast<int>(text.size())) {
    damaged("ciphertext");
  }
  plain.shrink(text.size());
  return plain;
}

// The MAC has been checked: a bad padding is damage done before encryption, not a wrong password.
void strip_pkcs7(LockedBytes& plain) {
  const std::size_t padding = plain.empty() ? 0 : plain[plain.size() - 1];
  if (padding == 0 || padding > 16 || padding > plain.size()) damaged("padding");
  for (std::size_t i = plain.size() - padding; i < plain.size(); ++i) {
    if (plain[i] != padding) damaged("padding");
  }
  plain.shrink(plain.size() - padding);
}

Bytes unhex(std::string_view text, std::string_view what) {
  if (text.empty() || text.size() % 2 != 0) damaged(what);
  Bytes bytes(text.size() / 2);
  std::size_t length = 0;
  if (sodium_hex2bin(bytes.data(), bytes.size(), text.data(), text.size(), nullptr, &length,
                     nullptr) != 0 ||
      length != bytes.size()) {
    damaged(what);
  }
  return bytes;
}

// Lines of hex, which say in hex: salt, HMAC and ciphertext, each in hex on a line of its own.
LockedBytes open_ansible(ByteView contents, ByteView password) {
  std::string_view text(reinterpret_cast<const char*>(contents.data()), contents.size());
  text.remove_prefix(std::min(text.find('\n'), text.size()));
  std::string digits;
  for (const char c : text) {
    if (c != '\n' && c != '\r' && c != ' ') digits += c;
  }
  const Bytes inner = unhex(digits, "Ansible vault");
  std::string_view rest(reinterpret_cast<const char*>(inner.data()), inner.size());
  Bytes parts[3];
  for (auto& part : parts) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    part = unhex(rest.substr(0, end), "Ansible vault");
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  const LockedBytes key = pbkdf2(password, parts[0], kAnsibleRounds, 80);
  if (!is_hmac(key.view().subspan(32, 32), parts[2], parts[1])) wrong_password();
  LockedBytes plain =
      aes_decrypted(EVP_aes_256_ctr(), key.view().first(32), key.view().subspan(64, 16), parts[2]);
  strip_pkcs7(plain);
  return plain;
}

LockedBytes open_fernet(ByteView contents, ByteView password) {
  std::string_view text(reinterpret_cast<const char*>(contents.data()), contents.size());
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r' || text.back() == '=')) {
    text.remove_suffix(1);
  }
  Bytes token(text.size());
  std::size_t length = 0;
  const char* end = nullptr;
  if (sodium_base642bin(token.data(), token.size(), text.data(), text.size(), nullptr, &length,
                        &end, sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
      end != text.data() + text.size()) {
    damaged("Fernet token");
  }
  token.resize(length);
  constexpr std::size_t kHead = 1 + 8 + 16, kMac = 32;  // version, time, IV; HMAC at the end
  if (token.size() < kHead + kMac + 16 || (token.size() - kHead - kMac) % 16 != 0 ||
      token[0] != 0x80) {
    damaged("Fernet token");
  }
  const LockedBytes key = pbkdf2(password, as_bytes(kFernetSalt), kFernetRounds, 32);
  const ByteView signed_part(token.data(), token.size() - kMac);
  if (!is_hmac(key.view().first(16), signed_part, ByteView(token).last(kMac))) wrong_password();
  LockedBytes plain = aes_decrypted(EVP_aes_128_cbc(), key.view().subspan(16, 16),
                                    signed_part.subspan(9, 16), signed_part.subspan(kHead));
  strip_pkcs7(plain);
  return plain;
}

bool starts_with(ByteView contents, std::string_view start) {
  return contents.size() >= start.size() &&
         std::memcmp(contents.data(), start.data(), start.size()) == 0;
}

}  // namespace

KeyfileFormat keyfile_format(ByteView contents) {
  if (starts_with(contents, kNacl)) return KeyfileFormat::nacl;
  if (starts_with(contents, kAnsible)) return KeyfileFormat::ansible_vault;
  if (starts_with(contents, kFernet)) return KeyfileFormat::fernet;
  for (const std::uint8_t byte : contents) {
    if (byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t') continue;
    if (byte == '{') return KeyfileFormat::json;
    if ((byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
        (byte >= 'A' && byte <= 'F')) {
      return KeyfileFormat::text;
    }
    break;
  }
  throw Error(ErrorCode::key_invalid,
              "reading a key file: it is in no known format (JSON, $NACL, Ansible vault, Fernet, "
              "hexadecimal or a phrase): regenerate it from the mnemonic");
}

bool is_encrypted(KeyfileFormat format) {
  return format != KeyfileFormat::json && format != KeyfileFormat::text;
}

LockedBytes decrypt_keyfile(ByteView contents, ByteView password) {
  require_sodium();
  switch (keyfile_format(contents)) {
    case KeyfileFormat::nacl: return open_nacl(contents, password);
    case KeyfileFormat::ansible_vault: return open_ansible(contents, password);
    case KeyfileFormat::fernet: return open_fernet(contents, password);
    case KeyfileFormat::json:
    case KeyfileFormat::text: break;
  }
  throw Error(ErrorCode::key_invalid, "opening a key file: it is not encrypted");
}

Bytes encrypt_keyfile(ByteView contents, ByteView password) {
  require_sodium();
  const LockedBytes key = nacl_key(password);
  Bytes out(kNacl.begin(), kNacl.end());
  out.resize(kNacl.size() + crypto_secretbox_NONCEBYTES + crypto_secretbox_MACBYTES +
             contents.size());
  std::uint8_t* nonce = out.data() + kNacl.size();
  randombytes_buf(nonce, crypto_secretbox_NONCEBYTES);
  crypto_secretbox_easy(nonce + crypto_secretbox_NONCEBYTES, contents.data(), contents.size(),
                        nonce, key.data());
  return out;
}

}  // namespace yumoe

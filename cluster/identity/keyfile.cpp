#include <sodium.h>

#include <algorithm>
#include <cstring>

#include "cluster/error.hpp"
#include "cluster/wallet.hpp"
#include "identity/keyfile_json.hpp"
#include "identity/keyfile_parts.hpp"
#include "identity/keypair_secret.hpp"
#include "identity/mnemonic.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kSeedBytes = 32, kExpandedBytes = 64;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t start = text.find_first_not_of(kSpace);
  if (start == text.npos) return {};
  return text.substr(start, text.find_last_not_of(kSpace) - start + 1);
}

// nullopt unless the text is hexadecimal of exactly one of the sizes.
std::optional<LockedBytes> hex_bytes(std::string_view text) {
  text = trimmed(text);
  if (text.starts_with("0x")) text.remove_prefix(2);
  if (text.size() != 2 * kSeedBytes && text.size() != 2 * kExpandedBytes) return std::nullopt;
  LockedBytes bytes(text.size() / 2);
  std::size_t length = 0;
  if (sodium_hex2bin(bytes.data(), bytes.size(), text.data(), text.size(), nullptr, &length,
                     nullptr) != 0 ||
      length != bytes.size()) {
    return std::nullopt;
  }
  return bytes;
}

// A privateKey: sr25519's expanded key or mini-secret; ed25519's seed, with or without public half.
Keypair from_private_key(KeyType type, ByteView bytes) {
  if (type == KeyType::sr25519 && bytes.size() == kExpandedBytes)
    return Keypair::from_expanded(bytes);
  return Keypair::from_seed(type, bytes.first(kSeedBytes));
}

}  // namespace

// Finds the key that a file's fields agree on.
class KeyfileReader {
 public:
  explicit KeyfileReader(const std::filesystem::path& name) : name_(name.string()) {}

  Key from_json(std::string_view text) {
    const KeyfileJson json(text);
    if (json.has("encoded") && json.has("encoding")) {
      refuse("it is an export of polkadot-js: import its mnemonic instead");
    }
    read_address(json);
    read_type(json);
    if (auto key = from_phrase(json.find("secretPhrase"))) return std::move(*key);
    if (auto key = from_seed(json.find("secretSeed"))) return std::move(*key);
    if (auto key = from_private(json.find("privateKey"))) return std::move(*key);
    if (contradicted_) {
      refuse("its private key does not belong to its address " + to_ss58(*address_) +
             ": the file was mixed up; regenerate it from the mnemonic");
    }
    refuse(address_ ? "it holds an address but no usable private key: give the key's own file, not "
                      "the pub file"
                    : "it holds no usable key: regenerate it from the mnemonic");
  }

  Key from_text(std::string_view text) {
    text = trimmed(text);
    if (const auto bytes = hex_bytes(text)) {
      if (bytes->size() == kSeedBytes) return Key::from_seed(KeyType::sr25519, *bytes);
      return Key(Keypair::from_expanded(*bytes), {}, {});
    }
    return Key::from_mnemonic(KeyType::sr25519, text);
  }

  // The address of a file whose secrets nobody needs.
  PublicKey public_key(std::string_view text) {
    if (!trimmed(text).starts_with('{')) return from_ss58(trimmed(text));
    const KeyfileJson json(text);
    read_type(json);
    read_address(json);
    if (!address_) refuse("it holds no address: regenerate it from the mnemonic");
    return PublicKey{type_, address_->bytes};
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(ErrorCode::key_invalid, "reading key file " + name_ + ": " + why);
  }

  void read_address(const KeyfileJson& json) {
    // Old files spell the name with a space in front.
    for (const char* field : {"ss58Address", " ss58Address"}) {
      if (const LockedBytes* text = json.find(field)) {
        address_ = from_ss58(text->text());
        return;
      }
    }
    for (const char* field : {"publicKey", "accountId"}) {
      const LockedBytes* text = json.find(field);
      const auto bytes = text == nullptr ? std::nullopt : hex_bytes(text->text());
      if (!bytes || bytes->size() != kSeedBytes) continue;
      address_.emplace();
      std::memcpy(address_->bytes.data(), bytes->data(), kSeedBytes);
      return;
    }
  }

  void read_type(const KeyfileJson& json) {
    const LockedBytes* text = json.find("cryptoType");
    if (text == nullptr || text->text() == "1") return;  // absent: sr25519
    if (text->text() != "0") {
      refuse("its cryptoType is neither 0 (ed25519) nor 1 (sr25519): this client has no other");
    }
    type_ = KeyType::ed25519;
  }

  // Makes the key of the type the file names, or of the other if only that fits the address.
  template <typename Make>
  std::optional<Key> fitting(const Make& make) {
    const KeyType other = type_ == KeyType::sr25519 ? KeyType::ed25519 : KeyType::sr25519;
    for (const KeyType type : {type_, other}) {
      try {
        Key key = make(type);
        if (!address_ || key.public_key().bytes == address_->bytes) return key;
        contradicted_ = true;
      } catch (const Error& error) {
        // Not a key of this kind: the next field may still be one.
        if (error.code() != ErrorCode::key_invalid) throw;
      }
    }
    return std::nullopt;
  }

  std::optional<Key> from_phrase(const LockedBytes* phrase) {
    if (phrase == nullptr) return std::nullopt;
    return fitting([&](KeyType type) { return Key::from_mnemonic(type, trimmed(phrase->text())); });
  }

  std::optional<Key> from_seed(const LockedBytes* text) {
    const auto seed = text == nullptr ? std::nullopt : hex_bytes(text->text());
    if (!seed || seed->size() != kSeedBytes) return std::nullopt;
    return fitting([&](KeyType type) { return Key::from_seed(type, *seed); });
  }

  std::optional<Key> from_private(const LockedBytes* text) {
    const auto bytes = text == nullptr ? std::nullopt : hex_bytes(text->text());
    if (!bytes) return std::nullopt;
    return fitting([&](KeyType type) { return Key(from_private_key(type, *bytes), {}, {}); });
  }

  std::string name_;
  KeyType type_ = KeyType::sr25519;
  std::optional<PublicKey> address_;
  bool contradicted_ = false;
};

Key::Key(Keypair pair, LockedBytes mnemonic, LockedBytes seed)
    : pair_(std::move(pair)), mnemonic_(std::move(mnemonic)), seed_(std::move(seed)) {}

Key Key::generate(KeyType type, int words) {
  require_sodium();
  if (words < 12 || words > 24 || words % 3 != 0) {
    throw Error(ErrorCode::key_invalid, "making a mnemonic of " + std::to_string(words) +
                                            " words: choose 12, 15, 18, 21 or 24");
  }
  LockedBytes entropy(static_cast<std::size_t>(words) / 3 * 4);
  randombytes_buf(entropy.data(), entropy.size());
  return from_mnemonic(type, mnemonic_from_entropy(entropy).text());
}

Key Key::from_mnemonic(KeyType type, std::string_view words) {
  LockedBytes seed = seed_from_mnemonic(words, "");
  Keypair pair = Keypair::from_seed(type, seed);
  return Key(std::move(pair), LockedBytes(as_bytes(words)), std::move(seed));
}

Key Key::from_seed(KeyType type, ByteView seed) {
  return Key(Keypair::from_seed(type, seed), {}, LockedBytes(seed));
}

Key Key::from_uri(KeyType type, std::string_view uri) {
  return Key(Keypair::from_uri(type, uri), {}, {});
}

Key read_key(ByteView contents, const std::filesystem::path& name, const PasswordSource& password) {
  const KeyfileFormat format = keyfile_format(contents);
  KeyfileReader reader(name);
  const std::string_view text(reinterpret_cast<const char*>(contents.data()), contents.size());
  if (format == KeyfileFormat::json) return reader.from_json(text);
  if (format == KeyfileFormat::text) return reader.from_text(text);
  const std::optional<LockedBytes> given = password ? password(name) : std::nullopt;
  if (!given) {
    throw Error(ErrorCode::password_wrong, "opening key file " + name.string() +
                                               ": it is encrypted and no password was given: "
                                               "set " +
                                               password_variable(name) + " or answer the prompt");
  }
  try {
    const LockedBytes plain = decrypt_keyfile(contents, *given);
    return plain.text().find('{') != std::string_view::npos ? reader.from_json(plain.text())
                                                            : reader.from_text(plain.text());
  } catch (const Error& error) {
    if (error.code() != ErrorCode::password_wrong) throw;
    throw Error(ErrorCode::password_wrong, "opening key file " + name.string() + ": try again");
  }
}

PublicKey public_key_of(ByteView contents, const std::filesystem::path& name) {
  if (is_encrypted(keyfile_format(contents))) {
    throw Error(ErrorCode::key_invalid, "reading the address in " + name.string() +
                                            ": the file is encrypted: read its pub file instead");
  }
  return KeyfileReader(name).public_key(
      {reinterpret_cast<const char*>(contents.data()), contents.size()});
}

namespace {

// Puts text together in locked memory of a size known to be enough.
class LockedText {
 public:
  explicit LockedText(std::size_t capacity) : bytes_(capacity) {}
  void add(std::string_view text) {
    YUMOE_ASSERT(length_ + text.size() <= bytes_.size());
    if (!text.empty()) std::memcpy(bytes_.data() + length_, text.data(), text.size());
    length_ += text.size();
  }
  void add_hex(ByteView bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    add("0x");
    for (const std::uint8_t byte : bytes) {
      add(kDigits.substr(byte >> 4, 1));
      add(kDigits.substr(byte & 15, 1));
    }
  }
  LockedBytes take() {
    bytes_.shrink(length_);
    return std::move(bytes_);
  }

 private:
  LockedBytes bytes_;
  std::size_t length_ = 0;
};

void add_public(const PublicKey& key, LockedText& out) {
  out.add("{\"accountId\":\"");
  out.add_hex(key.bytes);
  out.add("\",\"publicKey\":\"");
  out.add_hex(key.bytes);
  out.add("\",\"cryptoType\":");
  out.add(key.type == KeyType::sr25519 ? "1" : "0");
  out.add(",\"ss58Address\":\"");
  out.add(to_ss58(key));
  out.add("\"");
}

}  // namespace

LockedBytes Key::to_json() const {
  LockedText out(1024 + mnemonic_.size());
  add_public(public_key(), out);
  out.add(",\"privateKey\":\"");
  out.add_hex(KeypairSecret::of(pair_));
  out.add("\"");
  if (!mnemonic_.empty()) {  // words of the list and spaces: nothing to escape
    out.add(",\"secretPhrase\":\"");
    out.add(mnemonic_.text());
    out.add("\"");
  }
  if (!seed_.empty()) {
    out.add(",\"secretSeed\":\"");
    out.add_hex(seed_);
    out.add("\"");
  }
  out.add("}");
  return out.take();
}

std::string public_json(const PublicKey& key) {
  LockedText out(512);
  add_public(key, out);
  out.add("}");
  return std::string(out.take().text());
}

}  // namespace yumoe

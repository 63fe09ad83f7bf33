#pragma once
// Wallet directories as Bittensor's own tools keep them: ROOT/NAME/{coldkey, coldkeypub.txt,
// hotkeys/HOT, hotkeys/HOTpub.txt}. Read whatever those tools wrote, write what they read.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "cluster/identity.hpp"
#include "cluster/locked.hpp"

namespace yumoe {

struct Wallet {
  std::filesystem::path root;  // "~/.bittensor/wallets"
  std::string name;

  std::filesystem::path coldkey() const { return root / name / "coldkey"; }
  std::filesystem::path coldkey_public() const { return root / name / "coldkeypub.txt"; }
  std::filesystem::path hotkey(const std::string& hotkey) const {
    return root / name / "hotkeys" / hotkey;
  }
  std::filesystem::path hotkey_public(const std::string& hotkey) const {
    return root / name / "hotkeys" / (hotkey + "pub.txt");
  }
};

enum class KeyfileFormat {
  json,           // plain: one JSON object
  nacl,           // "$NACL": Argon2i (512 MiB, about 6 s by design) and XSalsa20-Poly1305
  ansible_vault,  // "$ANSIBLE_VAULT;1.1;AES256": read only
  fernet,         // "gAAAAA...": read only
  text            // a bare hexadecimal seed or private key, or a bare phrase: read only
};

// Throws Error{key_invalid} naming a format that is known but foreign (polkadot-js) or not known.
KeyfileFormat keyfile_format(ByteView contents);
bool is_encrypted(KeyfileFormat format);

// Asked only if a file is encrypted; nullopt: there is none, and the file stays shut.
using PasswordSource = std::function<std::optional<LockedBytes>(const std::filesystem::path&)>;

// On the terminal, without echo. Throws Error{password_wrong} if there is no terminal.
PasswordSource password_from_prompt();
// The first line of an open file descriptor.
PasswordSource password_from_descriptor(int descriptor);
// The variable the real tools use: "BT_PW_" and the file's path, '/' and '.' as '_', upper case;
// its value is base64 of the password XOR the variable's name. nullopt if it is not set.
PasswordSource password_from_environment();
// The first of several that has one.
PasswordSource first_password_of(PasswordSource first, PasswordSource second);

std::string password_variable(const std::filesystem::path& keyfile);
std::string hide_password(std::string_view variable, std::string_view password);

// All that a key file holds. Secret parts are in locked memory.
class Key {
 public:
  static Key generate(KeyType type, int words = 12);  // 12, 15, 18, 21 or 24
  static Key from_mnemonic(KeyType type, std::string_view words);
  static Key from_seed(KeyType type, ByteView seed);
  static Key from_uri(KeyType type, std::string_view uri);

  const Keypair& pair() const { return pair_; }
  Keypair take_pair() && { return std::move(pair_); }  // when only signing is wanted
  const PublicKey& public_key() const { return pair_.public_key(); }
  const LockedBytes& mnemonic() const { return mnemonic_; }  // empty: there is none

  // The file's contents, plain.
  LockedBytes to_json() const;

 private:
  friend class KeyfileReader;
  Key(Keypair pair, LockedBytes mnemonic, LockedBytes seed);
  Keypair pair_;
  LockedBytes mnemonic_;
  LockedBytes seed_;
};

// Reads a key. Errors name the file and what to do: file_missing, file_io, key_invalid,
// password_wrong. A field that does not parse is passed over while another holds the key
// (bittensor- wallet 4.1.1 writes secretSeed damaged), but a key that contradicts its own address
// is refused.
Key read_key(const std::filesystem::path& file, const PasswordSource& password);
Key read_key(ByteView contents, const std::filesystem::path& name, const PasswordSource& password);

// Reads the address of a key from its own or its "pub" file; never asks for a password.
PublicKey read_public_key(const std::filesystem::path& file);

// Writes a key and its "pub" file: directories 0700, files 0600, beside, synced, then renamed.
// With a password: $NACL. Throws Error{file_io} if the file exists and `overwrite` is false.
void write_key(const std::filesystem::path& file, const std::filesystem::path& public_file,
               const Key& key, const std::optional<LockedBytes>& password, bool overwrite = false);

// The usual pair: coldkeys must be encrypted unless the caller insists, hotkeys are plain unless a
// password is given. Throws Error{key_invalid} for a coldkey without password that is not insisted
// on.
void write_coldkey(const Wallet& wallet, const Key& key, const std::optional<LockedBytes>& password,
                   bool overwrite = false, bool insist_on_plain = false);
void write_hotkey(const Wallet& wallet, const std::string& hotkey, const Key& key,
                  const std::optional<LockedBytes>& password = std::nullopt,
                  bool overwrite = false);

// Opens an encrypted file's contents. Throws Error{password_wrong} or Error{key_invalid} (damaged).
LockedBytes decrypt_keyfile(ByteView contents, ByteView password);
// As "$NACL".
Bytes encrypt_keyfile(ByteView contents, ByteView password);

}  // namespace yumoe

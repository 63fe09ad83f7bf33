#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cluster/error.hpp"
#include "cluster/wallet.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kSecretBytesMax = 64u << 10;

// Where a key goes or comes from: a file, or a place in a wallet directory.
struct KeyPlace {
  std::string file;
  std::string wallet;
  std::string hotkey;
  std::string root = "~/.bittensor/wallets";

  void add_to(CLI::App& command) {
    command.add_option("--out", file, "Key file to write; its address goes to FILEpub.txt");
    command.add_option("--wallet", wallet, "Wallet to write to instead of a file");
    command.add_option("--hotkey", hotkey, "Hotkey of that wallet; its coldkey if not given");
    command.add_option("--root", root, "Where wallets lie")->capture_default_str();
  }

  fs::path path() const {
    if (file.empty() == wallet.empty()) {
      throw Error(ErrorCode::usage, "give either --out FILE or --wallet NAME [--hotkey NAME]");
    }
    if (!file.empty()) return file;
    return hotkey.empty() ? as_wallet().coldkey() : as_wallet().hotkey(hotkey);
  }

  void write(const Key& key, const std::optional<LockedBytes>& password) const {
    const fs::path target = path();
    if (!file.empty()) {
      write_key(target, file + "pub.txt", key, password);
    } else if (hotkey.empty()) {
      write_coldkey(as_wallet(), key, password);
    } else {
      write_hotkey(as_wallet(), hotkey, key, password);
    }
  }

 private:
  Wallet as_wallet() const {
    for (const std::string& name : {wallet, hotkey}) {
      if (name.find('/') != std::string::npos || name.starts_with('.')) {
        throw Error(ErrorCode::usage, "'" + name + "' is no name of a wallet or hotkey");
      }
    }
    const char* home = std::getenv("HOME");
    const bool below_home = root.starts_with("~/");
    if (below_home && home == nullptr)
      throw Error(ErrorCode::usage, "HOME is not set: give --root");
    return {below_home ? fs::path(home) / root.substr(2) : fs::path(root), wallet};
  }
};

PasswordSource password_source(int descriptor) {
  if (descriptor >= 0) return password_from_descriptor(descriptor);
  return first_password_of(password_from_environment(), password_from_prompt());
}

// For a new file: asked for twice at a terminal, so that a slip of the finger locks nobody out.
LockedBytes new_password(const fs::path& file, int descriptor) {
  const auto ask = [&](const PasswordSource& source) {
    auto password = source(file);
    if (!password || password->empty()) {
      throw Error(ErrorCode::password_wrong, "a password is needed to encrypt " + file.string());
    }
    return std::move(*password);
  };
  if (descriptor >= 0) return ask(password_from_descriptor(descriptor));
  if (auto password = password_from_environment()(file)) return std::move(*password);
  LockedBytes first = ask(password_from_prompt());
  std::cerr << "again: " << std::flush;
  const LockedBytes second = ask(password_from_prompt());
  if (!std::ranges::equal(first.view(), second.view())) {
    throw Error(ErrorCode::password_wrong, "the two passwords differ");
  }
  return first;
}

KeyType key_type(const std::string& name) {
  return name == "ed25519" ? KeyType::ed25519 : KeyType::sr25519;
}

std::string_view name_of(KeyType type) { return type == KeyType::ed25519 ? "ed25519" : "sr25519"; }

void print_public(const PublicKey& key, const fs::path& file, bool json) {
  if (json) {
    nlohmann::ordered_json out;
    out["file"] = file.string();
    out["address"] = to_ss58(key);
    out["public_key"] = to_hex(key.bytes);
    out["type"] = name_of(key.type);
    std::cout << out.dump() << std::endl;
  } else {
    std::cout << file.string() << "\n  address     " << to_ss58(key) << "\n  public key  "
              << to_hex(key.bytes) << "\n  type        " << name_of(key.type) << std::endl;
  }
}

void print_phrase(const Key& key) {
  if (key.mnemonic().empty()) {
    std::cout << "  phrase      (this key has none)" << std::endl;
  } else {
    std::cout << "  phrase      " << key.mnemonic().text() << std::endl;
  }
}

// Standard input to its end, in locked memory.
LockedBytes read_secret_input() {
  if (::isatty(STDIN_FILENO) != 0) {
    std::cerr << "Phrase, hexadecimal seed or key file, then end of input (Ctrl-D):" << std::endl;
  }
  LockedBytes input(kSecretBytesMax);
  std::size_t size = 0;
  while (true) {
    if (size == input.size()) throw Error(ErrorCode::key_invalid, "input is larger than 64 KiB");
    const ssize_t read = ::read(STDIN_FILENO, input.data() + size, input.size() - size);
    if (read < 0 && errno == EINTR) continue;
    if (read < 0) {
      throw Error(ErrorCode::file_io, std::string("read the input: ") + std::strerror(errno));
    }
    if (read == 0) break;
    size += static_cast<std::size_t>(read);
  }
  while (size > 0 && (input[size - 1] == '\n' || input[size - 1] == '\r')) --size;
  input.shrink(size);
  return input;
}

struct KeyChoices {
  KeyPlace place;
  std::string file;
  std::string type = "sr25519";
  std::string uri;
  int words = 12;
  int password_descriptor = -1;
  bool encrypt = false;
  bool secret = false;
  bool json = false;

  void add_password(CLI::App& command) {
    command.add_option("--password-fd", password_descriptor,
                       "Read the password from this open file descriptor");
  }

  void store(const Key& key) const {
    const fs::path target = place.path();
    std::optional<LockedBytes> password;
    const bool is_coldkey = place.file.empty() && place.hotkey.empty();
    if (encrypt || is_coldkey) password = new_password(target, password_descriptor);
    place.write(key, password);
    print_public(key.public_key(), target, json);
  }
};

void add_new(CLI::App& group) {
  auto choices = std::make_shared<KeyChoices>();
  CLI::App* command = group.add_subcommand("new", "Make a key and keep it in a file");
  choices->place.add_to(*command);
  choices->add_password(*command);
  command->add_option("--type", choices->type, "Kind of key")
      ->check(CLI::IsMember({"sr25519", "ed25519"}))
      ->capture_default_str();
  command->add_option("--words", choices->words, "Words of its phrase")
      ->check(CLI::IsMember({12, 15, 18, 21, 24}))
      ->capture_default_str();
  command->add_flag("--encrypt", choices->encrypt, "Lock the file by a password (coldkeys always)");
  command->add_flag("--show-phrase", choices->secret, "Print the phrase, to be written down");
  command->add_flag("--json", choices->json, "One JSON object, never with secrets");
  command->footer(
      "yumoe keys new --out miner-key\n"
      "yumoe keys new --wallet mine --hotkey miner");
  command->callback([choices] {
    choices->place.path();  // refuses before a key is made
    const Key key = Key::generate(key_type(choices->type), choices->words);
    choices->store(key);
    if (choices->secret) print_phrase(key);
  });
}

void add_show(CLI::App& group) {
  auto choices = std::make_shared<KeyChoices>();
  CLI::App* command = group.add_subcommand("show", "Print the address of a key file");
  command->add_option("file", choices->file, "Key file, or its pub.txt")->required();
  command->add_flag("--secret", choices->secret, "Open the key and print its phrase too");
  command->add_flag("--json", choices->json, "One JSON object, never with secrets");
  choices->add_password(*command);
  command->footer("yumoe keys show miner-key");
  command->callback([choices] {
    const fs::path file = choices->file;
    if (!choices->secret) {
      print_public(read_public_key(file), file, choices->json);
      return;
    }
    if (choices->json) throw Error(ErrorCode::usage, "--secret and --json exclude each other");
    const Key key = read_key(file, password_source(choices->password_descriptor));
    print_public(key.public_key(), file, false);
    print_phrase(key);
  });
}

void add_import(CLI::App& group) {
  auto choices = std::make_shared<KeyChoices>();
  CLI::App* command = group.add_subcommand(
      "import", "Keep a key that exists: from a file, from standard input, or a test URI");
  choices->place.add_to(*command);
  choices->add_password(*command);
  command->add_option("--from", choices->file,
                      "Key file of any kind; without it phrase, seed or file come from the input");
  command->add_option("--uri", choices->uri,
                      "Secret URI of a well-known test key, such as //Alice");
  command->add_option("--type", choices->type, "Kind of key for --uri")
      ->check(CLI::IsMember({"sr25519", "ed25519"}))
      ->capture_default_str();
  command->add_flag("--encrypt", choices->encrypt, "Lock the file by a password (coldkeys always)");
  command->add_flag("--json", choices->json, "One JSON object, never with secrets");
  command->footer(
      "yumoe keys import --out miner-key <phrase.txt\n"
      "yumoe keys import --uri //Alice --out alice");
  command->callback([choices] {
    choices->place.path();
    if (!choices->uri.empty() && !choices->uri.starts_with("//")) {
      throw Error(ErrorCode::usage,
                  "--uri is for test keys, which start with '//'; other secrets "
                  "do not belong on a command line: give them as input");
    }
    if (!choices->uri.empty()) {
      choices->store(Key::from_uri(key_type(choices->type), choices->uri));
    } else if (!choices->file.empty()) {
      choices->store(
          read_key(fs::path(choices->file), password_source(choices->password_descriptor)));
    } else {
      const LockedBytes input = read_secret_input();
      choices->store(
          read_key(input.view(), "standard input", password_source(choices->password_descriptor)));
    }
  });
}

}  // namespace

void add_keys_commands(CLI::App& app) {
  CLI::App* group = app.add_subcommand("keys", "Make, show and import identities");
  group->require_subcommand(1);
  add_new(*group);
  add_show(*group);
  add_import(*group);
}

}  // namespace yumoe

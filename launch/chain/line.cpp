#include <chrono>
#include <cstdlib>
#include <thread>

#include "cluster/error.hpp"
#include "cluster/wallet.hpp"
#include "launch/chain.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

ChainRpcOptions checked(const ChainOptions& options) {
  if (options.rpc.endpoints.empty()) {
    throw Error(ErrorCode::usage,
                "no chain node is named: give --endpoints ws://HOST:PORT, or a run's "
                "file with [chain] endpoints by --config FILE");
  }
  return options.rpc;
}

std::string joined(const std::vector<std::string>& list) {
  std::string text;
  for (const std::string& item : list) text += (text.empty() ? "" : ", ") + item;
  return text;
}

bool is_uri(const std::string& key) { return key.starts_with("//"); }
bool is_file(const std::string& key) { return !is_uri(key) && key.find('/') != std::string::npos; }

Wallet wallet_of(const ChainOptions& options, const char* key) {
  if (options.wallet.empty()) {
    throw Error(ErrorCode::usage, std::string("no wallet is named: give --wallet NAME, or --") +
                                      key + " FILE; `yumoe keys new` makes one");
  }
  for (const std::string& name : {options.wallet, options.hotkey}) {
    if (name.starts_with('.') || (name == options.wallet && name.find('/') != std::string::npos)) {
      throw Error(ErrorCode::usage, "'" + name + "' is no name of a wallet or hotkey");
    }
  }
  return {below_home(options.wallets), options.wallet};
}

PasswordSource password_of(const ChainOptions& options) {
  if (options.password_fd >= 0) {
    return password_from_descriptor(static_cast<int>(options.password_fd));
  }
  return first_password_of(password_from_environment(), password_from_prompt());
}

Keypair open_key(const std::string& uri, const std::filesystem::path& file,
                 const ChainOptions& options) {
  if (is_uri(uri)) return Keypair::from_uri(KeyType::sr25519, uri);
  return read_key(file, password_of(options)).take_pair();
}

// The pub file beside it if there is one: it needs no password.
PublicKey address_of(const std::string& uri, const std::filesystem::path& file) {
  if (is_uri(uri)) return Keypair::from_uri(KeyType::sr25519, uri).public_key();
  for (const char* suffix : {"pub.txt", ""}) {
    const std::filesystem::path candidate = file.string() + suffix;
    if (std::filesystem::exists(candidate)) return read_public_key(candidate);
  }
  throw Error(ErrorCode::file_missing,
              "key " + file.string() +
                  ": name another with --wallet and --hotkey, or make it with "
                  "`yumoe keys new`");
}

}  // namespace

std::filesystem::path below_home(const std::string& path) {
  if (!path.starts_with("~/")) return path;
  const char* home = std::getenv("HOME");
  if (home == nullptr) throw Error(ErrorCode::usage, "HOME is not set: give " + path + " in full");
  return std::filesystem::path(home) / path.substr(2);
}

ChainLine::ChainLine(const ChainOptions& options, const ChainProgress& progress)
    : client_(checked(options)), node_(client_) {
  const auto start = std::chrono::steady_clock::now();
  const milliseconds wait_max(options.rpc.connect_timeout_ms *
                              static_cast<std::int64_t>(options.rpc.endpoints.size()));
  bool told = false;
  while (client_.endpoint().empty()) {
    const auto waited = std::chrono::steady_clock::now() - start;
    const std::string failure = client_.last_failure();
    if (failure.find("of another chain") != std::string::npos) {
      throw Error(ErrorCode::peer_refused, failure + ": check --endpoints against --genesis");
    }
    // A refused connection is tried a few times: a node may just be starting.
    if (waited > wait_max || (!failure.empty() && waited > milliseconds(3'000))) {
      throw Error(ErrorCode::peer_unreachable,
                  "no chain node answers at " + joined(options.rpc.endpoints) +
                      (failure.empty() ? "" : " (" + failure + ")") +
                      ": check the address, or list others in --endpoints");
    }
    if (progress && !told && waited > milliseconds(500)) {
      progress("waiting for " + joined(options.rpc.endpoints) +
               (failure.empty() ? "" : ": " + failure));
      told = true;
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
  genesis_ = node_.genesis_hash();
}

std::filesystem::path hotkey_file(const ChainOptions& options) {
  if (is_uri(options.hotkey)) return {};
  if (is_file(options.hotkey)) return below_home(options.hotkey);
  return wallet_of(options, "hotkey").hotkey(options.hotkey);
}

std::filesystem::path coldkey_file(const ChainOptions& options) {
  if (is_uri(options.coldkey)) return {};
  if (!options.coldkey.empty()) return below_home(options.coldkey);
  return wallet_of(options, "coldkey").coldkey();
}

Keypair open_chain_hotkey(const ChainOptions& options) {
  return open_key(options.hotkey, hotkey_file(options), options);
}
Keypair open_chain_coldkey(const ChainOptions& options) {
  return open_key(options.coldkey, coldkey_file(options), options);
}

PublicKey chain_hotkey(const ChainOptions& options) {
  return address_of(options.hotkey, hotkey_file(options));
}
PublicKey chain_coldkey(const ChainOptions& options) {
  return address_of(options.coldkey, coldkey_file(options));
}

}  // namespace yumoe

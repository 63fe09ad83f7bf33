#pragma once
// A line to a chain and the keys that sign for it, from options alone; for `yumoe chain` and for runs.

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "cluster/identity.hpp"
#include "coordinator/chain_options.hpp"
#include "coordinator/chain_rpc.hpp"

namespace yumoe {

// One line about what is waited for.
using ChainProgress = std::function<void(std::string_view)>;

// A client that has reached a node of the right chain.
class ChainLine {
 public:
  // Waits for the first of the endpoints that answers, at most connect_timeout_ms for each.
  // Throws Error{usage} if none is given, Error{peer_unreachable} naming all and the last reason,
  // Error{peer_refused} if a node is of another chain than `genesis`.
  explicit ChainLine(const ChainOptions& options, const ChainProgress& progress = {});

  RpcClient& client() { return client_; }
  ChainNode& node() { return node_; }
  const Digest& genesis() const { return genesis_; }

 private:
  RpcClient client_;
  ChainNode node_;
  Digest genesis_;
};

// Where a key of these options lies; empty for a secret URI. Throws Error{usage} if no wallet is named.
std::filesystem::path hotkey_file(const ChainOptions& options);
std::filesystem::path coldkey_file(const ChainOptions& options);

// Opens a key; asks for its password if it has one. Throws Error{file_missing} saying where it was looked
// for, and what read_key() throws.
Keypair open_chain_hotkey(const ChainOptions& options);
Keypair open_chain_coldkey(const ChainOptions& options);

// Their addresses, without opening them.
PublicKey chain_hotkey(const ChainOptions& options);
PublicKey chain_coldkey(const ChainOptions& options);

// "~/..." below the home folder.
std::filesystem::path below_home(const std::string& path);

}  // namespace yumoe

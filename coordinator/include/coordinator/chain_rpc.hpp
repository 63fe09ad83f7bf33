#pragma once
// The line to a chain node: JSON-RPC 2.0 over WebSocket, and the few methods of a Substrate node
// that are needed, each answer checked before it is handed on.
//
// One thread owns the socket, so there is one writer; any thread may call. A lost connection is
// made again (endpoints in order, then a growing pause), repeatable calls are sent again until
// their deadline, subscriptions are renewed. What may have happened unseen is told, never guessed:
// a call that must not be repeated fails with peer_unreachable when the line breaks after it was
// sent.

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/error.hpp"
#include "cluster/option.hpp"

namespace yumoe {

struct ChainRpcOptions {
  std::vector<std::string> endpoints;
  std::string genesis;
  std::string ca_file;
  std::int64_t connect_timeout_ms = 10'000;
  std::int64_t call_timeout_ms = 30'000;
  std::int64_t idle_timeout_ms = 60'000;
  std::int64_t pause_first_ms = 250;
  std::int64_t pause_max_ms = 30'000;
  std::int64_t message_bytes_max = 64 << 20;
  std::int64_t calls_open_max = 128;
  std::int64_t notices_kept_max = 1'024;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("endpoints", endpoints, {.help = "ws:// or wss:// addresses of nodes, tried in order"});
    option("genesis", genesis,
           {.help = "hash of block 0 the node must have; empty: the first one seen"});
    option("ca_file", ca_file, {.help = "certificates trusted for wss; empty: the system's"});
    option("connect_timeout_ms", connect_timeout_ms,
           {.unit = "ms", .min = 10, .max = 600'000, .help = "longest wait for one endpoint"});
    option("call_timeout_ms", call_timeout_ms,
           {.unit = "ms", .min = 10, .max = 600'000, .help = "longest wait for one answer"});
    option(
        "idle_timeout_ms", idle_timeout_ms,
        {.unit = "ms", .min = 100, .max = 600'000, .help = "silence after which the line is dead"});
    option(
        "pause_first_ms", pause_first_ms,
        {.unit = "ms", .min = 1, .max = 60'000, .help = "pause after all endpoints failed once"});
    option("pause_max_ms", pause_max_ms,
           {.unit = "ms",
            .min = 1,
            .max = 600'000,
            .help = "longest such pause; it doubles up to this"});
    option("message_bytes_max", message_bytes_max,
           {.unit = "bytes",
            .min = 1024,
            .max = 1 << 30,
            .help = "largest message taken from a node"});
    option("calls_open_max", calls_open_max,
           {.unit = "calls", .min = 1, .max = 4'096, .help = "calls in flight; further ones wait"});
    option("notices_kept_max", notices_kept_max,
           {.unit = "notices",
            .min = 1,
            .max = 1 << 20,
            .help = "unread notices a subscription keeps"});
  }
};

// The node answered with an error object. code() is rpc_failed, or chain_state_pruned where the
// node says that it no longer has (or never had) the block asked about.
class RpcError : public Error {
 public:
  RpcError(ErrorCode code, std::string_view context, std::int64_t rpc_code, std::string message,
           std::string data);
  std::int64_t rpc_code() const noexcept { return rpc_code_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& data() const noexcept { return data_; }  // text, or JSON if it was no string

 private:
  std::int64_t rpc_code_;
  std::string message_;
  std::string data_;
};

// One message of a node, taken apart. `json` is the text of the result (answer) or of params.result
// (notice).
struct RpcMessage {
  enum class Kind { answer, failure, notice };
  Kind kind = Kind::answer;
  std::uint64_t id = 0;      // answer, failure
  std::string json;          // answer, notice
  std::string method;        // notice
  std::string subscription;  // notice; the JSON text of the id, which may be a string or a number
  std::int64_t error_code = 0;  // failure
  std::string error_message;
  std::string error_data;
};

// Total: reads any bytes, throws Error{message_malformed} on whatever is not one JSON-RPC 2.0
// answer or notice, or nests deeper than 64.
RpcMessage rpc_message_from(std::string_view text);

enum class Repeat { yes, no };

struct RpcNotice {
  enum class Kind {
    value,    // `json` is what the node told
    resumed,  // the subscription was renewed on another connection: look at what was missed
    lagged,   // older notices were thrown away because nobody read them
    lost,     // not renewable and its connection is gone; nothing follows
  };
  Kind kind = Kind::value;
  std::string json;
};

class RpcSubscription {
 public:
  virtual ~RpcSubscription() = default;  // unsubscribes
  // The next notice; nullopt if none came within `wait_max`.
  virtual std::optional<RpcNotice> next(std::chrono::milliseconds wait_max) = 0;
};

class RpcClient {
 public:
  // Starts connecting at once and returns at once. Throws Error{config_invalid} on a bad endpoint.
  explicit RpcClient(ChainRpcOptions options);
  ~RpcClient();  // every waiting call fails with peer_unreachable
  // Ends the line for good, from any thread: calls that wait and later ones fail with
  // peer_unreachable.
  void close();
  RpcClient(const RpcClient&) = delete;
  RpcClient& operator=(const RpcClient&) = delete;

  // Sends one call and waits for its result (JSON text). `params` is a JSON array as text.
  // Throws RpcError; Error{peer_unreachable} when the deadline passes, or when the line broke after
  // a call that must not be repeated was sent. `deadline` 0: call_timeout_ms.
  std::string call(std::string_view method, std::string_view params, Repeat repeat = Repeat::yes,
                   std::chrono::milliseconds deadline = {});

  // Repeat::yes renews the subscription after a reconnect; Repeat::no ends it with `lost`.
  std::unique_ptr<RpcSubscription> subscribe(std::string_view method, std::string_view params,
                                             std::string_view unsubscribe_method, Repeat repeat);

  // The endpoint in use, empty while there is none.
  std::string endpoint() const;
  // Why the last connection failed or ended, empty if none did.
  std::string last_failure() const;
  std::uint64_t connections_made() const;

 private:
  friend class RpcSubscriptionState;
  class Engine;
  std::shared_ptr<Engine> engine_;
};

struct BlockHeader {
  std::uint32_t number = 0;
  Digest parent;
};

struct ChainBlock {
  BlockHeader header;
  std::vector<Bytes> extrinsics;  // as they stand in the block, with their length prefix
};

struct RuntimeVersion {
  std::string spec_name;
  std::uint32_t spec_version = 0;
  std::uint32_t transaction_version = 0;
};

// The chain's currency as its node calls it; Bittensor's where it says nothing.
struct ChainToken {
  std::string symbol = "TAO";
  unsigned decimals = 9;  // at most 38
  // "12.345678901", of a decimal number of the smallest unit.
  std::string text(const std::string& amount) const;
};

struct TransactionStatus {
  enum class Kind {
    future,
    ready,
    broadcast,
    in_block,
    retracted,
    finality_timeout,
    finalized,
    usurped,
    dropped,
    invalid,  // the node has given it up; another node may still hold it
    lost,     // the line broke; nothing more is known
  };
  Kind kind = Kind::ready;
  std::optional<Digest> block;  // in_block, retracted, finality_timeout, finalized
  bool final() const { return kind >= Kind::finality_timeout; }
};
std::string_view name_of(TransactionStatus::Kind kind);

class TransactionWatch {
 public:
  explicit TransactionWatch(std::unique_ptr<RpcSubscription> subscription);
  std::optional<TransactionStatus> next(std::chrono::milliseconds wait_max);

 private:
  std::unique_ptr<RpcSubscription> subscription_;
};

struct FinalizedHead {
  std::optional<BlockHeader> header;  // nullopt: heads may have been missed, ask for the newest
};

class FinalizedHeads {
 public:
  explicit FinalizedHeads(std::unique_ptr<RpcSubscription> subscription);
  std::optional<FinalizedHead> next(std::chrono::milliseconds wait_max);

 private:
  std::unique_ptr<RpcSubscription> subscription_;
};

// What a node can be asked, with answers checked for form, bounds and relation to the question.
// Beside call()'s errors: Error{message_malformed} when an answer is not what the method promises,
// Error{chain_state_pruned} when the node has no block or state of that time.
class ChainNode {
 public:
  explicit ChainNode(RpcClient& client) : client_(client) {}

  Digest finalized_head();
  BlockHeader header(const Digest& block);
  std::optional<Digest> block_hash(std::uint32_t number);  // nullopt: not there yet
  ChainBlock block(const Digest& block);
  Digest genesis_hash();
  RuntimeVersion runtime_version(const std::optional<Digest>& at = {});
  ChainToken token();
  // Bare metadata ("meta..." and on): the newest of versions 15 and 14 that the node offers.
  Bytes metadata(const std::optional<Digest>& at = {});
  Bytes state_call(std::string_view function, ByteView arguments, const Digest& at);
  std::optional<Bytes> storage(ByteView key, const Digest& at);
  // One answer a key, in the order of `keys`.
  std::vector<std::optional<Bytes>> storage(const std::vector<Bytes>& keys, const Digest& at);
  // All keys that begin with `prefix`, ascending. Throws Error{memory_exceeded} beyond `count_max`.
  std::vector<Bytes> keys(ByteView prefix, const Digest& at, std::size_t count_max = 1 << 20);
  // The next nonce with what waits in this node's pool counted.
  std::uint64_t next_nonce(std::string_view ss58);
  std::vector<Bytes> pending_extrinsics();
  // Never repeated. Throws RpcError with the pool's verdict (1010 and on).
  TransactionWatch submit(ByteView extrinsic);
  FinalizedHeads finalized_heads();

  RpcClient& client() { return client_; }

 private:
  RpcClient& client_;
};

}  // namespace yumoe

#pragma once
// How frames travel between participants and the coordinator. One interface, two backends: ZeroMQ
// over TCP with CURVE, and in-process queues for tests.
//
// A connection is authenticated on the server's side by the client's CURVE key and on the client's by
// the server's: who that client is (its hotkey) is the business of the envelope above. Nothing here
// blocks longer than it is told to; a peer that does not read loses messages, never the server's time.

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/option.hpp"

namespace yumoe {

struct TransportOptions {
  std::string address = "127.0.0.1";
  std::int64_t port = 48'150;
  std::int64_t message_bytes_max = 4 << 20;
  std::int64_t queued_messages_max = 256;
  std::int64_t heartbeat_interval_ms = 1'000;
  std::int64_t lease_ms = 15'000;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("address", address, {.help = "interface the coordinator listens on; 0.0.0.0 for all"});
    option("port", port,
           {.min = 0,
            .max = 65'535,
            .help = "TCP port the coordinator listens on; 0 lets the system choose"});
    option("message_bytes_max", message_bytes_max,
           {.unit = "bytes",
            .min = 65'536,
            .max = 1 << 30,
            .help = "a larger frame closes the connection"});
    option("queued_messages_max", queued_messages_max,
           {.unit = "messages",
            .min = 1,
            .max = 1e6,
            .help = "what may wait for one peer; more is dropped and said again later"});
    option("heartbeat_interval_ms", heartbeat_interval_ms,
           {.unit = "ms",
            .min = 10,
            .max = 60'000,
            .help = "how often a participant says that it lives"});
    option("lease_ms", lease_ms,
           {.unit = "ms",
            .min = 100,
            .max = 3'600'000,
            .help = "silence after which a participant counts as lost"});
  }
};

using CurveKey = std::array<std::uint8_t, 32>;

struct CurveKeypair {
  CurveKey public_key{};
  CurveKey secret_key{};
  static CurveKeypair generate();
  static CurveKeypair from_secret(const CurveKey& secret);
  // Kept in `file` as 64 hex digits of mode 0600; made, durably, if it is missing. Throws
  // Error{key_invalid} if the file holds something else, Error{file_io} if it cannot be written.
  static CurveKeypair kept_in(const std::filesystem::path& file);
};

// "tcp://HOST:PORT?key=HEX64": where a coordinator is and which key it must prove to hold.
struct CoordinatorAddress {
  std::string endpoint;
  CurveKey key{};
  std::string text() const;
  // Throws Error{usage} naming what is wrong.
  static CoordinatorAddress parse(std::string_view text);
};

// One connection as the server sees it; stable until that connection ends.
using Peer = std::string;

struct Received {
  Peer peer;
  CurveKey client_key{};
  std::vector<Bytes> frames;  // 1 or 2
};

struct TransportCounts {
  std::uint64_t bytes_in = 0, bytes_out = 0;  // of frames, at the socket's boundary
  std::uint64_t messages_in = 0, messages_out = 0, messages_dropped = 0;
};

class ServerTransport {
 public:
  virtual ~ServerTransport() = default;
  // The next message, or nothing after `wait_max`. Malformed framing is dropped and counted.
  virtual std::optional<Received> receive(std::chrono::milliseconds wait_max) = 0;
  // False if the peer is gone or its queue is full: the message is dropped.
  virtual bool send(const Peer& peer, std::vector<Bytes> frames) = 0;
  // Where clients reach it, with the real port.
  virtual CoordinatorAddress address() const = 0;
  virtual TransportCounts counts() const = 0;
};

class ClientTransport {
 public:
  virtual ~ClientTransport() = default;
  virtual std::optional<std::vector<Bytes>> receive(std::chrono::milliseconds wait_max) = 0;
  // False if the queue is full: the message is dropped.
  virtual bool send(std::vector<Bytes> frames) = 0;
  virtual TransportCounts counts() const = 0;
};

// Who may come in by a server, and what of its memory a peer may fill. 0: as the options say.
struct Door {
  std::vector<CurveKey> allowed;         // empty: any key
  std::int64_t unread_messages_max = 0;  // of one connection, then its sender is held back
  std::size_t unsent_bytes_max = 0;  // to one CURVE key; more is dropped, as if its queue were full
  std::size_t all_unsent_bytes_max =
      0;  // to all: more than one message for a key only if as much is left
};

// Listens. Throws Error{port_taken} if something else does, Error{usage} if the address is none.
std::unique_ptr<ServerTransport> listen_zeromq(const TransportOptions& options,
                                               const CurveKeypair& keys, const Door& door = {});

// Connects in the background and again whenever the connection breaks. After a break the server sees
// a new Peer, so whoever talks over this must be ready to introduce itself again.
std::unique_ptr<ClientTransport> connect_zeromq(const CoordinatorAddress& address,
                                                const CurveKeypair& keys,
                                                const TransportOptions& options);

// Until one of `transports`, made by connect_zeromq, has something to receive, `descriptor` can be read
// (a file descriptor; -1: none), or `wait_max` is over. Nobody else may use them meanwhile.
void wait_any(std::span<const std::unique_ptr<ClientTransport>> transports, int descriptor,
              std::chrono::milliseconds wait_max);

}  // namespace yumoe

// The only file that includes zmq.hpp.

#include <sodium.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <zmq.hpp>

#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "cluster/transport.hpp"

namespace yumoe {

std::string CoordinatorAddress::text() const { return endpoint + "?key=" + to_hex(key); }

CoordinatorAddress CoordinatorAddress::parse(std::string_view text) {
  const auto refuse = [&](const char* why) {
    throw Error(ErrorCode::usage, "coordinator address '" + std::string(text) + "' " + why +
                                      "; it looks like tcp://HOST:PORT?key=<64 hex digits>, as "
                                      "`yumoe coordinator` prints it");
  };
  const std::size_t query = text.find("?key=");
  if (!text.starts_with("tcp://")) refuse("does not start with tcp://");
  if (query == std::string_view::npos) refuse("has no ?key=");
  const std::string_view hex = text.substr(query + 5);
  if (hex.size() != 64) refuse("has a key that is not 64 hex digits");
  CoordinatorAddress address;
  address.endpoint = text.substr(0, query);
  try {
    const Bytes key = from_hex(hex);
    std::copy(key.begin(), key.end(), address.key.begin());
  } catch (const Error&) {
    refuse("has a key that is not hexadecimal");
  }
  return address;
}

namespace {

constexpr const char* kZapEndpoint = "inproc://zeromq.zap.01";

// Common to both sides: bounds, no lingering at close, TCP that notices a dead peer.
void configure(zmq::socket_t& socket, const TransportOptions& options) {
  socket.set(zmq::sockopt::linger, 0);
  socket.set(zmq::sockopt::maxmsgsize, options.message_bytes_max);
  socket.set(zmq::sockopt::sndhwm, static_cast<int>(options.queued_messages_max));
  socket.set(zmq::sockopt::rcvhwm, static_cast<int>(options.queued_messages_max));
  socket.set(zmq::sockopt::heartbeat_ivl, static_cast<int>(options.heartbeat_interval_ms));
  socket.set(zmq::sockopt::heartbeat_timeout, static_cast<int>(options.lease_ms));
  socket.set(zmq::sockopt::handshake_ivl, 10'000);
}

bool wait_readable(zmq::socket_t& socket, std::chrono::milliseconds wait_max) {
  zmq::pollitem_t item{socket.handle(), 0, ZMQ_POLLIN, 0};
  try {
    return zmq::poll(&item, 1, wait_max) > 0;
  } catch (const zmq::error_t& error) {
    if (error.num() == EINTR) return false;  // a signal: the caller looks at its own flag
    throw;
  }
}

// Reads one whole multipart message. Parts beyond `parts_max` are read and thrown away.
std::vector<zmq::message_t> receive_parts(zmq::socket_t& socket, std::size_t parts_max) {
  std::vector<zmq::message_t> parts;
  bool more = true;
  while (more) {
    zmq::message_t part;
    if (!socket.recv(part, zmq::recv_flags::none)) break;
    more = part.more();
    if (parts.size() <= parts_max) parts.push_back(std::move(part));
  }
  return parts;
}

Bytes bytes_of(const zmq::message_t& part) {
  const auto* data = static_cast<const std::uint8_t*>(part.data());
  return Bytes(data, data + part.size());
}

// A connection's name is what ZeroMQ calls it and whose it is.
Peer peer_of(const zmq::message_t& route, const CurveKey& key) {
  return Peer(reinterpret_cast<const char*>(key.data()), key.size()) + route.to_string();
}

// Bytes that ZeroMQ has taken and not sent yet.
using Unsent = std::shared_ptr<std::atomic<std::size_t>>;

// The same, counted in `caller` and `all` until they are on their way or their connection is gone.
zmq::message_t message_of(Bytes&& bytes, const Unsent& caller, const Unsent& all) {
  struct Counted {
    Bytes bytes;
    Unsent caller, all;
    ~Counted() {
      *caller -= bytes.size();
      *all -= bytes.size();
    }
  };
  *caller += bytes.size();
  *all += bytes.size();
  auto* owned = new Counted{std::move(bytes), caller, all};
  return zmq::message_t(
      owned->bytes.data(), owned->bytes.size(),
      [](void*, void* hint) { delete static_cast<Counted*>(hint); }, owned);
}

// Hands a vector to ZeroMQ without copying it.
zmq::message_t message_of(Bytes&& bytes) {
  auto* owned = new Bytes(std::move(bytes));
  return zmq::message_t(
      owned->data(), owned->size(), [](void*, void* hint) { delete static_cast<Bytes*>(hint); },
      owned);
}

// ZeroMQ asks this thread about every client (RFC 27). Any CURVE key may connect, or only the allowed ones;
// the key becomes the connection's user id, which is how an identity is later bound to it.
class Doorkeeper {
 public:
  Doorkeeper(zmq::context_t& context, const std::vector<CurveKey>& allowed)
      : allowed_(allowed.begin(), allowed.end()), socket_(context, zmq::socket_type::rep) {
    socket_.set(zmq::sockopt::linger, 0);
    socket_.bind(kZapEndpoint);
    thread_ = std::jthread([this] { serve(); });
  }
  // The context must have been shut down before, which ends the thread's wait.
  ~Doorkeeper() { thread_.join(); }

 private:
  void serve() {
    try {
      while (true) answer(receive_parts(socket_, 8));
    } catch (const zmq::error_t& error) {
      if (error.num() != ETERM) log_error(std::string("CURVE doorkeeper stopped: ") + error.what());
    }
    socket_.close();
  }

  void answer(const std::vector<zmq::message_t>& request) {
    // version, request id, domain, address, identity, mechanism, client key
    const bool accepted = request.size() == 7 && request[5].to_string_view() == "CURVE" &&
                          request[6].size() == sizeof(CurveKey) && is_allowed(request[6]);
    const std::string id = request.size() > 1 ? request[1].to_string() : "";
    const std::string user = accepted ? to_hex(bytes_of(request[6])) : "";
    for (const std::string& part :
         {std::string("1.0"), id, std::string(accepted ? "200" : "400"), std::string(), user}) {
      socket_.send(zmq::buffer(part), zmq::send_flags::sndmore);
    }
    socket_.send(zmq::message_t(), zmq::send_flags::none);
  }

  bool is_allowed(const zmq::message_t& part) const {
    CurveKey key;
    std::memcpy(key.data(), part.data(), key.size());
    return allowed_.empty() || allowed_.contains(key);
  }

  const std::set<CurveKey> allowed_;
  zmq::socket_t socket_;
  std::jthread thread_;
};

class ZeromqServer final : public ServerTransport {
 public:
  ZeromqServer(const TransportOptions& options, const CurveKeypair& keys, const Door& door)
      : doorkeeper_(std::make_unique<Doorkeeper>(context_, door.allowed)),
        socket_(context_, zmq::socket_type::router),
        unsent_bytes_max_(door.unsent_bytes_max > 0 ? door.unsent_bytes_max : SIZE_MAX),
        all_unsent_bytes_max_(door.all_unsent_bytes_max > 0 ? door.all_unsent_bytes_max
                                                            : SIZE_MAX) {
    configure(socket_, options);
    if (door.unread_messages_max > 0) {
      socket_.set(zmq::sockopt::rcvhwm, static_cast<int>(door.unread_messages_max));
    }
    socket_.set(zmq::sockopt::curve_server, 1);
    socket_.set(zmq::sockopt::curve_secretkey,
                std::string_view(reinterpret_cast<const char*>(keys.secret_key.data()), 32));
    socket_.set(zmq::sockopt::router_mandatory, 1);
    socket_.set(zmq::sockopt::zap_domain, "yumoe");
    const std::string wanted =
        "tcp://" + options.address + ":" + (options.port == 0 ? "*" : std::to_string(options.port));
    try {
      socket_.bind(wanted);
    } catch (const zmq::error_t& error) {
      const int reason = error.num();
      close();
      if (reason == EADDRINUSE) {
        throw Error(ErrorCode::port_taken,
                    "listen on " + wanted +
                        ": choose another with --transport.port, or 0 to let the system choose");
      }
      throw Error(ErrorCode::usage, "listen on " + wanted + ": " + error.what());
    }
    address_ = {socket_.get(zmq::sockopt::last_endpoint), keys.public_key};
  }
  ~ZeromqServer() override { close(); }

  std::optional<Received> receive(std::chrono::milliseconds wait_max) override {
    if (!wait_readable(socket_, wait_max)) return std::nullopt;
    std::vector<zmq::message_t> parts = receive_parts(socket_, 3);
    std::size_t size = 0;
    for (const auto& part : parts) size += part.size();
    counts_.bytes_in += size;
    ++counts_.messages_in;
    if (parts.size() < 2 || parts.size() > 3) {
      ++counts_.messages_dropped;
      return std::nullopt;
    }
    Received received;
    const Bytes key = from_hex(parts[1].gets("User-Id"));
    if (key.size() == received.client_key.size()) {
      std::copy(key.begin(), key.end(), received.client_key.begin());
    }
    received.peer = peer_of(parts[0], received.client_key);
    for (std::size_t i = 1; i < parts.size(); ++i) received.frames.push_back(bytes_of(parts[i]));
    return received;
  }

  bool send(const Peer& peer, std::vector<Bytes> frames) override {
    std::size_t size = 0;
    for (const Bytes& frame : frames) size += frame.size();
    CurveKey key;
    if (peer.size() < key.size()) {  // none of ours
      ++counts_.messages_dropped;
      return false;
    }
    std::memcpy(key.data(), peer.data(), key.size());
    const Unsent unsent = unsent_to(key);
    if (!has_room(*unsent, size)) {
      ++counts_.messages_dropped;
      return false;
    }
    try {
      // The first part decides: a full queue or an unknown peer is told there.
      if (!socket_.send(zmq::buffer(peer.data() + key.size(), peer.size() - key.size()),
                        zmq::send_flags::sndmore | zmq::send_flags::dontwait)) {
        ++counts_.messages_dropped;
        return false;
      }
      for (std::size_t i = 0; i < frames.size(); ++i) {
        socket_.send(message_of(std::move(frames[i]), unsent, all_unsent_),
                     i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
      }
    } catch (const zmq::error_t& error) {
      if (error.num() != EHOSTUNREACH && error.num() != EAGAIN) throw;
      ++counts_.messages_dropped;
      return false;
    }
    counts_.bytes_out += size;
    ++counts_.messages_out;
    return true;
  }

  CoordinatorAddress address() const override { return address_; }
  TransportCounts counts() const override { return counts_; }

 private:
  // Whoever has nothing unsent may fill all that is left; with more, no more than is left then for others. So
  // one key fills half of all, a second a third of it, and there is always some for the next.
  bool has_room(std::size_t own, std::size_t size) const {
    const std::size_t all = *all_unsent_;
    if (size > all_unsent_bytes_max_ || all > all_unsent_bytes_max_ - size) return false;
    if (own == 0) return true;
    const std::size_t left = all_unsent_bytes_max_ - all - size;
    return own + size <= std::min(unsent_bytes_max_, left);
  }

  Unsent unsent_to(const CurveKey& key) {
    if (unsent_.size() > unsent_keys_max_) {
      std::erase_if(unsent_, [](const auto& entry) { return *entry.second == 0; });
      unsent_keys_max_ = std::max(kUnsentKeys, 2 * unsent_.size());
    }
    Unsent& unsent = unsent_[key];
    if (unsent == nullptr) unsent = std::make_shared<std::atomic<std::size_t>>(0);
    return unsent;
  }

  void close() {
    socket_.close();
    context_.shutdown();  // ends the doorkeeper's wait
    doorkeeper_.reset();
  }

  zmq::context_t context_{1};
  std::unique_ptr<Doorkeeper> doorkeeper_;
  zmq::socket_t socket_;
  CoordinatorAddress address_;
  TransportCounts counts_;
  const std::size_t unsent_bytes_max_, all_unsent_bytes_max_;
  static constexpr std::size_t kUnsentKeys = 1'024;  // looked through when there are more
  std::size_t unsent_keys_max_ = kUnsentKeys;
  std::map<CurveKey, Unsent> unsent_;
  const Unsent all_unsent_ = std::make_shared<std::atomic<std::size_t>>(0);
};

class ZeromqClient final : public ClientTransport {
 public:
  ZeromqClient(const CoordinatorAddress& address, const CurveKeypair& keys,
               const TransportOptions& options)
      : socket_(context_, zmq::socket_type::dealer) {
    configure(socket_, options);
    const auto view = [](const CurveKey& key) {
      return std::string_view(reinterpret_cast<const char*>(key.data()), key.size());
    };
    socket_.set(zmq::sockopt::curve_serverkey, view(address.key));
    socket_.set(zmq::sockopt::curve_publickey, view(keys.public_key));
    socket_.set(zmq::sockopt::curve_secretkey, view(keys.secret_key));
    socket_.set(zmq::sockopt::reconnect_ivl, 100);
    socket_.set(zmq::sockopt::reconnect_ivl_max, 5'000);
    try {
      socket_.connect(address.endpoint);
    } catch (const zmq::error_t& error) {
      throw Error(ErrorCode::usage, "connect to " + address.endpoint + ": " + error.what());
    }
  }

  std::optional<std::vector<Bytes>> receive(std::chrono::milliseconds wait_max) override {
    if (!wait_readable(socket_, wait_max)) return std::nullopt;
    const std::vector<zmq::message_t> parts = receive_parts(socket_, 2);
    ++counts_.messages_in;
    std::vector<Bytes> frames;
    for (const auto& part : parts) {
      counts_.bytes_in += part.size();
      frames.push_back(bytes_of(part));
    }
    if (frames.empty() || frames.size() > 2) {
      ++counts_.messages_dropped;
      return std::nullopt;
    }
    return frames;
  }

  bool send(std::vector<Bytes> frames) override {
    for (std::size_t i = 0; i < frames.size(); ++i) {
      const std::size_t size = frames[i].size();
      const auto flags =
          (i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none) |
          zmq::send_flags::dontwait;
      if (!socket_.send(message_of(std::move(frames[i])), flags)) {
        ++counts_.messages_dropped;
        return false;
      }
      counts_.bytes_out += size;
    }
    ++counts_.messages_out;
    return true;
  }

  TransportCounts counts() const override { return counts_; }
  zmq::pollitem_t readable() { return {socket_.handle(), 0, ZMQ_POLLIN, 0}; }

 private:
  zmq::context_t context_{1};
  zmq::socket_t socket_;
  TransportCounts counts_;
};

}  // namespace

std::unique_ptr<ServerTransport> listen_zeromq(const TransportOptions& options,
                                               const CurveKeypair& keys, const Door& door) {
  return std::make_unique<ZeromqServer>(options, keys, door);
}

std::unique_ptr<ClientTransport> connect_zeromq(const CoordinatorAddress& address,
                                                const CurveKeypair& keys,
                                                const TransportOptions& options) {
  return std::make_unique<ZeromqClient>(address, keys, options);
}

void wait_any(std::span<const std::unique_ptr<ClientTransport>> transports, int descriptor,
              std::chrono::milliseconds wait_max) {
  std::vector<zmq::pollitem_t> items;
  for (const auto& transport : transports) {
    auto* zeromq = dynamic_cast<ZeromqClient*>(transport.get());
    YUMOE_ASSERT(zeromq != nullptr);
    items.push_back(zeromq->readable());
  }
  if (descriptor >= 0) items.push_back({nullptr, descriptor, ZMQ_POLLIN, 0});
  try {
    zmq::poll(items.data(), items.size(), wait_max);
  } catch (const zmq::error_t& error) {
    if (error.num() != EINTR) throw;  // a signal: the caller looks at its own flag
  }
}

}  // namespace yumoe

#include "coordinator/scripted_node.hpp"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <unistd.h>
#include <zlib.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/ssl.hpp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace yumoe::test {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = boost::beast::websocket;
using boost::system::error_code;
using nlohmann::json;

std::string read_recorded(const std::string& path) {
  const std::string full =
      path.starts_with("/") ? path : std::string(YUMOE_SOURCE_DIR) + "/" + path;
  const gzFile file = gzopen(full.c_str(), "rb");
  if (!file) throw std::runtime_error("no file " + full);
  std::string text;
  char buffer[1 << 16];
  int size = 0;
  while ((size = gzread(file, buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<std::size_t>(size));
  }
  gzclose(file);
  return text;
}

namespace {

struct Planned {
  std::optional<Fault> fault;
  std::chrono::milliseconds delay{0};
};

// A self-signed certificate for 127.0.0.1, written as two PEM files.
void write_certificate(const std::string& certificate_file, const std::string& key_file) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("scripted node"), -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  X509_EXTENSION* names =
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, "IP:127.0.0.1");
  X509_add_ext(certificate, names, -1);
  X509_EXTENSION_free(names);
  X509_sign(certificate, key, EVP_sha256());
  FILE* out = std::fopen(certificate_file.c_str(), "w");
  PEM_write_X509(out, certificate);
  std::fclose(out);
  out = std::fopen(key_file.c_str(), "w");
  PEM_write_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(out);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

class Connection {
 public:
  virtual ~Connection() = default;
  virtual void send(std::string text) = 0;
  virtual void close() = 0;
};

}  // namespace

class ScriptedNode::Server {
 public:
  explicit Server(bool tls);
  ~Server();

  void on_message(const std::shared_ptr<Connection>& connection, const std::string& text);
  void on_closed(Connection* connection);

  const bool tls_;
  asio::io_context io_{1};
  asio::ssl::context tls_context_{asio::ssl::context::tls_server};
  asio::ip::tcp::acceptor acceptor_;
  std::string folder_;
  std::thread thread_;

  mutable std::mutex mutex_;
  std::map<std::string, std::function<Reply(const std::string&)>> handlers_;
  std::map<std::string, std::deque<Reply>> recorded_;  // "method params" -> answers
  std::map<std::string, std::deque<Planned>> planned_;
  std::vector<std::pair<std::string, std::string>> received_;
  bool refuse_ = false;

  // Server thread only.
  std::set<std::shared_ptr<Connection>> connections_;
  struct Subscription {
    std::weak_ptr<Connection> connection;
    std::string method;
    std::string id;
  };
  std::vector<Subscription> subscriptions_;
  std::uint64_t last_subscription_ = 0;

 private:
  template <typename Stream>
  class WebSocketConnection;
  void accept();
  Reply reply_to(const std::string& method, const std::string& params);
  void answer(const std::shared_ptr<Connection>& connection, const json& call, const Reply& reply);
  bool fail(const std::shared_ptr<Connection>& connection, const json& call, Fault fault);
};

template <typename Stream>
class ScriptedNode::Server::WebSocketConnection final
    : public Connection,
      public std::enable_shared_from_this<WebSocketConnection<Stream>> {
 public:
  WebSocketConnection(Server& server, Stream stream)
      : server_(server), stream_(std::move(stream)) {}

  void start() {
    auto self = this->shared_from_this();
    if constexpr (std::is_same_v<Stream, websocket::stream<beast::tcp_stream>>) {
      upgrade();
    } else {
      stream_.next_layer().async_handshake(asio::ssl::stream_base::server,
                                           [self](error_code error) {
                                             if (!error) self->upgrade();
                                           });
    }
  }

  void send(std::string text) override {
    outgoing_.push_back(std::move(text));
    if (outgoing_.size() == 1) write_next();
  }

  void close() override {
    beast::get_lowest_layer(stream_).close();
    server_.on_closed(this);
  }

 private:
  void upgrade() {
    stream_.async_accept([self = this->shared_from_this()](error_code error) {
      if (error) return;
      self->server_.connections_.insert(self);
      self->read_next();
    });
  }
  void read_next() {
    stream_.async_read(buffer_, [self = this->shared_from_this()](error_code error, std::size_t) {
      if (error) {
        self->server_.on_closed(self.get());
        return;
      }
      const std::string text = beast::buffers_to_string(self->buffer_.data());
      self->buffer_.clear();
      self->server_.on_message(self, text);
      self->read_next();
    });
  }
  void write_next() {
    stream_.async_write(asio::buffer(outgoing_.front()),
                        [self = this->shared_from_this()](error_code error, std::size_t) {
                          if (error) return;
                          self->outgoing_.pop_front();
                          if (!self->outgoing_.empty()) self->write_next();
                        });
  }

  Server& server_;
  Stream stream_;
  beast::flat_buffer buffer_;
  std::deque<std::string> outgoing_;
};

ScriptedNode::Server::Server(bool tls)
    : tls_(tls), acceptor_(io_, {asio::ip::make_address("127.0.0.1"), 0}) {
  if (tls_) {
    char folder[] = "/tmp/scripted_node.XXXXXX";
    folder_ = mkdtemp(folder);
    write_certificate(folder_ + "/certificate.pem", folder_ + "/key.pem");
    tls_context_.use_certificate_chain_file(folder_ + "/certificate.pem");
    tls_context_.use_private_key_file(folder_ + "/key.pem", asio::ssl::context::pem);
  }
  accept();
  thread_ = std::thread([this] { io_.run(); });
}

ScriptedNode::Server::~Server() {
  io_.stop();
  thread_.join();
  if (!folder_.empty()) {
    std::remove((folder_ + "/certificate.pem").c_str());
    std::remove((folder_ + "/key.pem").c_str());
    rmdir(folder_.c_str());
  }
}

void ScriptedNode::Server::accept() {
  acceptor_.async_accept([this](error_code error, asio::ip::tcp::socket socket) {
    if (error) return;
    bool refuse = false;
    {
      const std::lock_guard lock(mutex_);
      refuse = refuse_;
    }
    if (!refuse) {
      socket.set_option(asio::ip::tcp::no_delay(true));
      beast::tcp_stream tcp(std::move(socket));
      if (tls_) {
        using Stream = websocket::stream<beast::ssl_stream<beast::tcp_stream>>;
        std::make_shared<WebSocketConnection<Stream>>(*this, Stream(std::move(tcp), tls_context_))
            ->start();
      } else {
        using Stream = websocket::stream<beast::tcp_stream>;
        std::make_shared<WebSocketConnection<Stream>>(*this, Stream(std::move(tcp)))->start();
      }
    }
    accept();
  });
}

void ScriptedNode::Server::on_closed(Connection* connection) {
  std::erase_if(connections_, [&](const auto& kept) { return kept.get() == connection; });
}

void ScriptedNode::Server::on_message(const std::shared_ptr<Connection>& connection,
                                      const std::string& text) {
  const json call = json::parse(text);
  const std::string method = call["method"];
  Planned planned;
  {
    const std::lock_guard lock(mutex_);
    received_.emplace_back(method, call["params"].dump());
    if (auto& waiting = planned_[method]; !waiting.empty()) {
      planned = waiting.front();
      waiting.pop_front();
    }
  }
  if (planned.fault && fail(connection, call, *planned.fault)) return;
  const Reply reply = reply_to(method, call["params"].dump());
  if (planned.delay.count() == 0) {
    answer(connection, call, reply);
    return;
  }
  auto timer = std::make_shared<asio::steady_timer>(io_, planned.delay);
  timer->async_wait(
      [this, timer, connection, call, reply](error_code) { answer(connection, call, reply); });
}

Reply ScriptedNode::Server::reply_to(const std::string& method, const std::string& params) {
  std::function<Reply(const std::string&)> handler;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = handlers_.find(method); found != handlers_.end()) {
      handler = found->second;
    } else if (const auto past = recorded_.find(method + " " + params); past != recorded_.end()) {
      const Reply reply = past->second.front();
      if (past->second.size() > 1) past->second.pop_front();
      return reply;
    }
  }
  if (handler) return handler(params);
  return {.error = R"({"code":-32601,"message":"Method not found: )" + method + "\"}"};
}

void ScriptedNode::Server::answer(const std::shared_ptr<Connection>& connection, const json& call,
                                  const Reply& reply) {
  const std::string head = R"({"jsonrpc":"2.0","id":)" + call["id"].dump();
  if (!reply.error.empty()) {
    connection->send(head + R"(,"error":)" + reply.error + "}");
    return;
  }
  const std::string method = call["method"];
  const bool subscribes = method.find("subscribe") != std::string::npos &&
                          method.find("unsubscribe") == std::string::npos;
  if (!subscribes && method != "author_submitAndWatchExtrinsic") {
    connection->send(head + R"(,"result":)" + reply.result + "}");
    return;
  }
  // Its own id for each subscription, as a node gives; the recorded ones would meet again.
  const std::string id = "\"sub" + std::to_string(++last_subscription_) + "\"";
  subscriptions_.push_back({connection, method, id});
  connection->send(head + R"(,"result":)" + id + "}");
  for (const std::string& notice : reply.notices) {
    connection->send(R"({"jsonrpc":"2.0","method":")" + reply.notice_method +
                     R"(","params":{"result":)" + notice + R"(,"subscription":)" + id + "}}");
  }
}

// True if the fault takes the answer's place.
bool ScriptedNode::Server::fail(const std::shared_ptr<Connection>& connection, const json& call,
                                Fault fault) {
  const std::string head = R"({"jsonrpc":"2.0","id":)" + call["id"].dump();
  switch (fault) {
    case Fault::answer_then_drop:
      reply_to(call["method"], call["params"].dump());
      connection->close();
      return true;
    case Fault::disconnect: connection->close(); return true;
    case Fault::silence: return true;
    case Fault::garbage: connection->send("\x01\xff}{ this is no JSON"); return true;
    case Fault::not_rpc: connection->send(R"([1,2,3])"); return true;
    case Fault::deep:
      connection->send(head + R"(,"result":)" + std::string(10'000, '[') +
                       std::string(10'000, ']') + "}");
      return true;
    case Fault::oversized:
      connection->send(head + R"(,"result":")" + std::string(1 << 20, 'a') + "\"}");
      return true;
    case Fault::unknown_id:
      connection->send(R"({"jsonrpc":"2.0","id":999999,"result":null})");
      return true;
    case Fault::pruned:
      connection->send(head +
                       R"(,"error":{"code":4003,"message":"Client error: UnknownBlock: State )"
                       R"(already discarded for 0xab"}})");
      return true;
    case Fault::wrong_type: connection->send(head + R"(,"result":{"what":[true]}})"); return true;
  }
  return false;
}

ScriptedNode::ScriptedNode(bool tls) : server_(std::make_unique<Server>(tls)) {}
ScriptedNode::~ScriptedNode() = default;

std::string ScriptedNode::url() const {
  return (server_->tls_ ? "wss://127.0.0.1:" : "ws://127.0.0.1:") +
         std::to_string(server_->acceptor_.local_endpoint().port());
}

std::string ScriptedNode::certificate_file() const { return server_->folder_ + "/certificate.pem"; }

std::size_t ScriptedNode::load_transcript(const std::string& path) {
  std::istringstream lines(read_recorded(path));
  std::map<std::uint64_t, std::string> asked;                         // id -> "method params"
  std::map<std::string, std::pair<std::string, std::size_t>> places;  // subscription -> answer
  std::size_t calls = 0;
  const std::lock_guard lock(server_->mutex_);
  for (std::string line; std::getline(lines, line);) {
    const json entry = json::parse(line);
    const auto found = entry.find("msg");
    if (found == entry.end()) continue;  // cut by the recorder
    const json& message = *found;
    if (entry["dir"] == "out") {
      asked[message["id"]] = message["method"].get<std::string>() + " " + message["params"].dump();
    } else if (message.contains("id")) {
      const std::string& key = asked.at(message["id"]);
      Reply reply;
      if (message.contains("error")) {
        reply.error = message["error"].dump();
      } else {
        reply.result = message["result"].dump();
      }
      auto& replies = server_->recorded_[key];
      replies.push_back(reply);
      places[reply.result] = {key, replies.size() - 1};
      ++calls;
    } else {
      const auto place = places.find(message["params"]["subscription"].dump());
      if (place == places.end()) continue;
      Reply& reply = server_->recorded_[place->second.first][place->second.second];
      reply.notice_method = message["method"];
      reply.notices.push_back(message["params"]["result"].dump());
    }
  }
  return calls;
}

void ScriptedNode::answer(const std::string& method,
                          std::function<Reply(const std::string& params)> handler) {
  const std::lock_guard lock(server_->mutex_);
  server_->handlers_[method] = std::move(handler);
}

void ScriptedNode::fault(const std::string& method, Fault fault, int times) {
  const std::lock_guard lock(server_->mutex_);
  for (int i = 0; i < times; ++i) server_->planned_[method].push_back({fault, {}});
}

void ScriptedNode::delay(const std::string& method, std::chrono::milliseconds by, int times) {
  const std::lock_guard lock(server_->mutex_);
  for (int i = 0; i < times; ++i) server_->planned_[method].push_back({{}, by});
}

void ScriptedNode::disconnect_all() {
  asio::post(server_->io_, [server = server_.get()] {
    for (const auto& connection : std::set(server->connections_)) connection->close();
  });
}

void ScriptedNode::refuse(bool on) {
  const std::lock_guard lock(server_->mutex_);
  server_->refuse_ = on;
}

void ScriptedNode::notify(const std::string& subscribe_method, const std::string& notice_method,
                          const std::string& result) {
  asio::post(server_->io_, [=, server = server_.get()] {
    for (const auto& subscription : server->subscriptions_) {
      if (subscription.method != subscribe_method) continue;
      const auto connection = subscription.connection.lock();
      if (!connection || !server->connections_.contains(connection)) continue;
      connection->send(R"({"jsonrpc":"2.0","method":")" + notice_method +
                       R"(","params":{"result":)" + result + R"(,"subscription":)" +
                       subscription.id + "}}");
    }
  });
}

std::vector<std::pair<std::string, std::string>> ScriptedNode::received() const {
  const std::lock_guard lock(server_->mutex_);
  return server_->received_;
}

std::size_t ScriptedNode::received(const std::string& method) const {
  std::size_t count = 0;
  for (const auto& [name, params] : received()) count += name == method;
  return count;
}

}  // namespace yumoe::test

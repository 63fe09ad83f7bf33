// The socket side of the chain connection: one thread, one session at a time. The only file that
// includes Boost.Beast.

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/ssl.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/beast/websocket/ssl.hpp>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <variant>

#include "chain/rpc/endpoint.hpp"
#include "cluster/log.hpp"
#include "coordinator/chain_rpc.hpp"

namespace yumoe {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = boost::beast::websocket;
using boost::system::error_code;
using std::chrono::milliseconds;
using SteadyTime = std::chrono::steady_clock::time_point;

namespace {

// Notices that overtook the answer that names their subscription.
constexpr std::size_t kUnclaimedMax = 256;

constexpr std::int64_t kUnknownBlock = 4003;  // sc-rpc-api: state error, "UnknownBlock: ..."

// Why a call failed. Crosses threads as a value; only the caller's thread makes an exception of it.
struct CallFailure {
  ErrorCode code = ErrorCode::peer_unreachable;
  std::string context;
  bool from_node = false;  // then what follows is its error object
  std::int64_t rpc_code = 0;
  std::string message = {};
  std::string data = {};
};
using CallEnd = std::variant<std::string, CallFailure>;

CallFailure unreachable(const std::string& what) { return {ErrorCode::peer_unreachable, what}; }

std::string result_of(CallEnd end) {
  if (auto* json = std::get_if<std::string>(&end)) return std::move(*json);
  const CallFailure& failure = std::get<CallFailure>(end);
  if (!failure.from_node) throw Error(failure.code, failure.context);
  throw RpcError(failure.code, failure.context, failure.rpc_code, failure.message, failure.data);
}

bool says_pruned(const RpcMessage& failure) {
  const auto says = [&](std::string_view text) {
    return failure.error_message.find(text) != std::string::npos ||
           failure.error_data.find(text) != std::string::npos;
  };
  // The last is how chopsticks says it, with code 1.
  const bool not_found =
      failure.error_message.starts_with("Block ") && failure.error_message.ends_with(" not found");
  return failure.error_code == kUnknownBlock || says("State already discarded") ||
         says("UnknownBlock") || says("Unknown block") || not_found;
}

CallFailure failure_of(const RpcMessage& failure, const std::string& method) {
  std::string context =
      method + ": " + std::to_string(failure.error_code) + " " + failure.error_message;
  if (!failure.error_data.empty()) context += " (" + failure.error_data + ")";
  const bool pruned = says_pruned(failure);
  if (pruned) context += ": ask an archive node (list one in chain endpoints)";
  return {pruned ? ErrorCode::chain_state_pruned : ErrorCode::rpc_failed,
          context,
          true,
          failure.error_code,
          failure.error_message,
          failure.error_data};
}

std::string request_text(std::uint64_t id, const std::string& method, const std::string& params) {
  return R"({"jsonrpc":"2.0","id":)" + std::to_string(id) + R"(,"method":)" +
         nlohmann::json(method).dump() + R"(,"params":)" + params + "}";
}

}  // namespace

RpcError::RpcError(ErrorCode code, std::string_view context, std::int64_t rpc_code,
                   std::string message, std::string data)
    : Error(code, context),
      rpc_code_(rpc_code),
      message_(std::move(message)),
      data_(std::move(data)) {}

// What the reader of a subscription and the socket thread share.
class RpcSubscriptionState {
 public:
  RpcSubscriptionState(std::string method, std::string params, std::string unsubscribe,
                       Repeat repeat, std::size_t kept_max)
      : method(std::move(method)),
        params(std::move(params)),
        unsubscribe(std::move(unsubscribe)),
        repeat(repeat),
        kept_max_(kept_max) {}

  void push(RpcNotice notice) {
    {
      const std::lock_guard lock(mutex_);
      if (notices_.size() >= kept_max_) {
        notices_.pop_front();
        if (notices_.empty() || notices_.front().kind == RpcNotice::Kind::value) {
          if (!notices_.empty()) notices_.pop_front();
          notices_.push_front({RpcNotice::Kind::lagged, ""});
        }
      }
      notices_.push_back(std::move(notice));
    }
    ready_.notify_one();
  }

  std::optional<RpcNotice> pop(milliseconds wait_max) {
    std::unique_lock lock(mutex_);
    if (!ready_.wait_for(lock, wait_max, [&] { return !notices_.empty(); })) return std::nullopt;
    RpcNotice notice = std::move(notices_.front());
    // `lost` stays: whoever asks again is told again.
    if (notice.kind != RpcNotice::Kind::lost) notices_.pop_front();
    return notice;
  }

  const std::string method;
  const std::string params;
  const std::string unsubscribe;
  const Repeat repeat;
  std::string server_id;   // socket thread only; empty: not subscribed now
  bool abandoned = false;  // socket thread only: the reader is gone

 private:
  const std::size_t kept_max_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<RpcNotice> notices_;
};

namespace {

struct Call {
  std::uint64_t id = 0;
  std::string method;
  std::string params;
  Repeat repeat = Repeat::yes;
  bool sent = false;
  std::shared_ptr<RpcSubscriptionState> subscription;  // if it subscribes
  bool renewal = false;                                // nobody waits for it
  std::promise<CallEnd> result;
  bool ended = false;

  void end(CallEnd with) {
    if (!std::exchange(ended, true)) result.set_value(std::move(with));
  }
  // Whoever waits is told even when the call was dropped on its way to the socket thread.
  ~Call() { end(unreachable("the connection was closed here")); }
};
using CallPointer = std::shared_ptr<Call>;

// A connection that has been opened and checked.
class Session {
 public:
  virtual ~Session() = default;
  virtual void send(std::string text) = 0;
  virtual void close() = 0;
};

template <typename Stream>
class WebSocketSession final : public Session,
                               public std::enable_shared_from_this<WebSocketSession<Stream>> {
 public:
  explicit WebSocketSession(Stream stream) : stream_(std::move(stream)) {}

  void send(std::string text) override {
    outgoing_.push_back(std::move(text));
    if (outgoing_.size() == 1) write_next();
  }

  void close() override { beast::get_lowest_layer(stream_).close(); }

  Stream& stream() { return stream_; }

 private:
  // One write at a time, in order: a WebSocket allows no other.
  void write_next() {
    stream_.async_write(asio::buffer(outgoing_.front()),
                        [self = this->shared_from_this()](error_code error, std::size_t) {
                          if (error) return;  // the reader meets the same end and reports it
                          self->outgoing_.pop_front();
                          if (!self->outgoing_.empty()) self->write_next();
                        });
  }

  Stream stream_;
  std::deque<std::string> outgoing_;
};

}  // namespace

class RpcClient::Engine : public std::enable_shared_from_this<RpcClient::Engine> {
 public:
  explicit Engine(ChainRpcOptions options);
  ~Engine();
  void start();
  void stop();

  std::string call(std::string_view method, std::string_view params, Repeat repeat,
                   milliseconds deadline, std::shared_ptr<RpcSubscriptionState> subscription);
  void abandon(std::shared_ptr<RpcSubscriptionState> subscription);

  ChainRpcOptions options_;
  mutable std::mutex status_mutex_;
  std::string endpoint_now_;
  std::string last_failure_;
  std::uint64_t connections_made_ = 0;

 private:
  enum class Ended { unreached, violated, served };

  asio::awaitable<void> connect_forever();
  asio::awaitable<Ended> serve(Endpoint endpoint);
  template <typename Stream>
  asio::awaitable<Ended> talk(Endpoint endpoint, std::shared_ptr<WebSocketSession<Stream>> session);
  asio::awaitable<asio::ip::tcp::resolver::results_type> resolve(Endpoint endpoint);
  void check_genesis(const std::string& text);
  milliseconds connect_timeout() const { return milliseconds(options_.connect_timeout_ms); }

  // Runs `work` on the socket thread; drops it if that has ended.
  template <typename Work>
  void post(Work work) {
    const std::lock_guard lock(slots_mutex_);
    if (!stopped_) asio::post(*io_, std::move(work));
  }
  void add(const CallPointer& call);
  void transmit(const CallPointer& call);
  void session_up(std::shared_ptr<Session> session, const std::string& endpoint);
  void session_down(const std::string& why, bool too_large);
  void renew(const std::shared_ptr<RpcSubscriptionState>& subscription);
  void take(RpcMessage message);
  void take_answer(const CallPointer& call, RpcMessage message);
  void take_notice(RpcMessage message);
  void finish(const CallPointer& call, CallFailure failure);
  void note_failure(const std::string& why);

  std::vector<Endpoint> endpoints_;
  std::unique_ptr<asio::io_context> io_ = std::make_unique<asio::io_context>(1);
  asio::ssl::context tls_{asio::ssl::context::tls_client};
  std::thread thread_;

  // Callers beyond calls_open_max wait here.
  std::mutex slots_mutex_;
  std::condition_variable slot_free_;
  std::int64_t slots_used_ = 0;
  bool stopped_ = false;

  std::atomic<std::uint64_t> last_id_ = 0;  // 0 is the genesis question

  // Socket thread only.
  std::shared_ptr<Session> session_;

  std::uint64_t answers_in_session_ = 0;
  std::string genesis_;
  std::map<std::uint64_t, CallPointer> open_;
  std::map<std::string, std::shared_ptr<RpcSubscriptionState>> subscriptions_;  // by the node's id
  std::vector<std::shared_ptr<RpcSubscriptionState>> unsubscribed_;  // to renew at the next session
  std::deque<RpcMessage> unclaimed_;
};

RpcClient::Engine::Engine(ChainRpcOptions options)
    : options_(std::move(options)), genesis_(options_.genesis) {
  if (options_.endpoints.empty()) {
    throw Error(ErrorCode::config_invalid, "chain endpoints: list at least one");
  }
  bool needs_tls = false;
  for (const std::string& text : options_.endpoints) {
    endpoints_.push_back(endpoint_from(text));
    needs_tls = needs_tls || endpoints_.back().tls;
  }
  if (!needs_tls) return;
  error_code error;
  tls_.set_options(asio::ssl::context::default_workarounds | asio::ssl::context::no_sslv2 |
                   asio::ssl::context::no_sslv3 | asio::ssl::context::no_tlsv1 |
                   asio::ssl::context::no_tlsv1_1);
  tls_.set_verify_mode(asio::ssl::verify_peer);
  if (options_.ca_file.empty()) {
    tls_.set_default_verify_paths(error);
  } else {
    tls_.load_verify_file(options_.ca_file, error);
  }
  if (error) {
    throw Error(ErrorCode::config_invalid,
                "chain ca_file '" + options_.ca_file + "' could not be loaded: " + error.message());
  }
}

RpcClient::Engine::~Engine() { stop(); }

void RpcClient::Engine::start() {
  asio::co_spawn(*io_, connect_forever(), asio::detached);
  thread_ = std::thread([io = io_.get()] { io->run(); });
}

void RpcClient::Engine::stop() {
  {
    const std::lock_guard lock(slots_mutex_);
    if (stopped_) return;
    stopped_ = true;
  }
  slot_free_.notify_all();
  io_->stop();
  if (thread_.joinable()) thread_.join();
  session_down("the connection was closed here", false);
  for (const auto& [id, call] : std::exchange(open_, {})) {
    if (!call->renewal) call->end(unreachable("the connection was closed here"));
  }
  for (const auto& subscription : unsubscribed_) {
    subscription->push({RpcNotice::Kind::lost, ""});
  }
  io_.reset();  // destroys suspended coroutines while what they refer to still stands
}

std::string RpcClient::Engine::call(std::string_view method, std::string_view params, Repeat repeat,
                                    milliseconds deadline,
                                    std::shared_ptr<RpcSubscriptionState> subscription) {
  if (deadline.count() == 0) deadline = milliseconds(options_.call_timeout_ms);
  const SteadyTime until = std::chrono::steady_clock::now() + deadline;
  const auto late = [&](std::string_view what) {
    std::string text = std::string(method) + ": " + std::string(what) + " within " +
                       std::to_string(deadline.count()) + " ms";
    const std::lock_guard lock(status_mutex_);
    if (!last_failure_.empty()) text += "; last failure of the line: " + last_failure_;
    return Error(ErrorCode::peer_unreachable, text);
  };
  {
    std::unique_lock lock(slots_mutex_);
    if (!slot_free_.wait_until(lock, until,
                               [&] { return stopped_ || slots_used_ < options_.calls_open_max; })) {
      throw late("no call in flight finished");
    }
    if (stopped_) throw Error(ErrorCode::peer_unreachable, "the connection was closed here");
    ++slots_used_;
  }
  struct Slot {
    Engine& engine;
    ~Slot() {
      {
        const std::lock_guard lock(engine.slots_mutex_);
        --engine.slots_used_;
      }
      engine.slot_free_.notify_one();
    }
  } const slot{*this};

  auto call = std::make_shared<Call>();
  const std::uint64_t id = call->id = ++last_id_;
  call->method = method;
  call->params = params;
  call->repeat = repeat;
  call->subscription = std::move(subscription);
  std::future<CallEnd> result = call->result.get_future();
  post([this, call = std::move(call)] { add(call); });  // the call is the socket thread's now
  if (result.wait_until(until) != std::future_status::ready) {
    post([this, id] { open_.erase(id); });
    throw late("no answer");
  }
  return result_of(result.get());
}

void RpcClient::Engine::abandon(std::shared_ptr<RpcSubscriptionState> subscription) {
  post([this, subscription = std::move(subscription)] {
    subscription->abandoned = true;
    std::erase(unsubscribed_, subscription);
    if (subscription->server_id.empty()) return;
    subscriptions_.erase(subscription->server_id);
    if (session_) {
      session_->send(
          request_text(++last_id_, subscription->unsubscribe, "[" + subscription->server_id + "]"));
    }
  });
}

// ---- the line -------------------------------------------------------------------------------

asio::awaitable<void> RpcClient::Engine::connect_forever() {
  const milliseconds pause_first(options_.pause_first_ms);
  const milliseconds pause_max(options_.pause_max_ms);
  milliseconds pause = pause_first;
  std::size_t next = 0;
  while (true) {
    const Ended ended = co_await serve(endpoints_[next]);
    // After good service the order starts again; otherwise it goes on, and round it there is a
    // pause.
    next = ended == Ended::served ? 0 : next + 1;
    if (ended == Ended::served) pause = pause_first;
    if (next < endpoints_.size() && ended != Ended::served) continue;
    next = 0;
    asio::steady_timer timer(*io_, pause);
    co_await timer.async_wait(asio::use_awaitable);
    pause = std::min(pause * 2, pause_max);
  }
}

asio::awaitable<asio::ip::tcp::resolver::results_type> RpcClient::Engine::resolve(
    Endpoint endpoint) {
  auto resolver = std::make_shared<asio::ip::tcp::resolver>(*io_);
  auto timer = std::make_shared<asio::steady_timer>(*io_, connect_timeout());
  timer->async_wait([resolver](error_code error) {
    if (!error) resolver->cancel();
  });
  auto results =
      co_await resolver->async_resolve(endpoint.host, endpoint.port, asio::use_awaitable);
  timer->cancel();
  co_return results;
}

asio::awaitable<RpcClient::Engine::Ended> RpcClient::Engine::serve(Endpoint endpoint) {
  std::string why;
  bool too_large = false;
  Ended ended = Ended::unreached;
  try {
    const auto addresses = co_await resolve(endpoint);
    beast::tcp_stream tcp(*io_);
    tcp.expires_after(connect_timeout());
    co_await tcp.async_connect(addresses, asio::use_awaitable);
    tcp.socket().set_option(asio::ip::tcp::no_delay(true));
    if (endpoint.tls) {
      using Stream = websocket::stream<beast::ssl_stream<beast::tcp_stream>>;
      auto session = std::make_shared<WebSocketSession<Stream>>(Stream(std::move(tcp), tls_));
      auto& layer = session->stream().next_layer();
      if (!SSL_set_tlsext_host_name(layer.native_handle(), endpoint.host.c_str())) {
        throw Error(ErrorCode::config_invalid, "host name is not usable for TLS");
      }
      layer.set_verify_callback(asio::ssl::host_name_verification(endpoint.host));
      beast::get_lowest_layer(session->stream()).expires_after(connect_timeout());
      co_await layer.async_handshake(asio::ssl::stream_base::client, asio::use_awaitable);
      ended = co_await talk(endpoint, std::move(session));
    } else {
      using Stream = websocket::stream<beast::tcp_stream>;
      ended = co_await talk(endpoint,
                            std::make_shared<WebSocketSession<Stream>>(Stream(std::move(tcp))));
    }
  } catch (const boost::system::system_error& error) {
    too_large = error.code() == websocket::error::message_too_big ||
                error.code() == websocket::error::buffer_overflow;
    why = too_large
              ? "a message is larger than " + std::to_string(options_.message_bytes_max) + " bytes"
              : error.code().message();
  } catch (const Error& error) {
    why = error.what();
    if (session_) ended = Ended::violated;
  }
  if (session_ && !too_large && ended == Ended::unreached) {
    ended = answers_in_session_ > 0 ? Ended::served : Ended::violated;
  }
  why = endpoint.text + ": " + (why.empty() ? "closed" : why);
  note_failure(why);
  if (session_) session_down(why, too_large);
  co_return ended;
}

template <typename Stream>
asio::awaitable<RpcClient::Engine::Ended> RpcClient::Engine::talk(
    Endpoint endpoint, std::shared_ptr<WebSocketSession<Stream>> session) {
  Stream& stream = session->stream();
  stream.read_message_max(static_cast<std::size_t>(options_.message_bytes_max));
  beast::get_lowest_layer(stream).expires_never();
  websocket::stream_base::timeout timeout;
  timeout.handshake_timeout = connect_timeout();
  timeout.idle_timeout = connect_timeout();  // until the genesis question is answered
  timeout.keep_alive_pings = false;
  stream.set_option(timeout);
  const bool ipv6 = endpoint.host.find(':') != std::string::npos;
  const std::string host = (ipv6 ? "[" + endpoint.host + "]" : endpoint.host) + ":" + endpoint.port;
  co_await stream.async_handshake(host, endpoint.path, asio::use_awaitable);

  session->send(request_text(0, "chain_getBlockHash", "[0]"));
  beast::flat_buffer buffer;
  co_await stream.async_read(buffer, asio::use_awaitable);
  check_genesis(beast::buffers_to_string(buffer.data()));
  timeout.idle_timeout = milliseconds(options_.idle_timeout_ms);
  timeout.keep_alive_pings = true;
  stream.set_option(timeout);
  session_up(session, endpoint.text);
  while (true) {
    buffer.clear();
    co_await stream.async_read(buffer, asio::use_awaitable);
    take(rpc_message_from({static_cast<const char*>(buffer.data().data()), buffer.data().size()}));
  }
}

// A list of endpoints may by mistake mix two chains; their blocks and nonces must not.
void RpcClient::Engine::check_genesis(const std::string& text) {
  const RpcMessage message = rpc_message_from(text);
  if (message.kind != RpcMessage::Kind::answer || message.id != 0) {
    throw Error(ErrorCode::message_malformed, "node does not say its genesis hash");
  }
  const auto hash = nlohmann::json::parse(message.json);
  if (!hash.is_string() || hash.get_ref<const std::string&>().size() != 66) {
    throw Error(ErrorCode::message_malformed, "genesis hash is not a hash");
  }
  if (genesis_.empty()) genesis_ = hash.get<std::string>();
  if (genesis_ != hash.get_ref<const std::string&>()) {
    throw Error(ErrorCode::peer_refused, "node is of another chain: its genesis is " +
                                             hash.get<std::string>() + ", not " + genesis_);
  }
}

// ---- calls and notices, socket thread ---------------------------------------------------------

void RpcClient::Engine::add(const CallPointer& call) {
  open_[call->id] = call;
  if (session_) transmit(call);
}

void RpcClient::Engine::transmit(const CallPointer& call) {
  call->sent = true;
  session_->send(request_text(call->id, call->method, call->params));
}

void RpcClient::Engine::session_up(std::shared_ptr<Session> session, const std::string& endpoint) {
  session_ = std::move(session);
  answers_in_session_ = 0;
  {
    const std::lock_guard lock(status_mutex_);
    endpoint_now_ = endpoint;
    ++connections_made_;
  }
  log_debug("connected to chain node " + endpoint);
  for (const auto& [id, call] : open_) transmit(call);
  for (const auto& subscription : std::exchange(unsubscribed_, {})) renew(subscription);
}

void RpcClient::Engine::renew(const std::shared_ptr<RpcSubscriptionState>& subscription) {
  const auto call = std::make_shared<Call>();
  call->id = ++last_id_;
  call->method = subscription->method;
  call->params = subscription->params;
  call->subscription = subscription;
  call->renewal = true;
  add(call);
}

void RpcClient::Engine::session_down(const std::string& why, bool too_large) {
  if (session_) session_->close();
  session_.reset();
  {
    const std::lock_guard lock(status_mutex_);
    endpoint_now_.clear();
  }
  unclaimed_.clear();
  for (auto it = open_.begin(); it != open_.end();) {
    const CallPointer call = it->second;
    if (call->sent && too_large) {
      it = open_.erase(it);
      finish(call, {ErrorCode::message_too_large,
                    "answer to " + call->method + " (or one beside it) from " + why});
    } else if (call->sent && call->repeat == Repeat::no) {
      it = open_.erase(it);
      finish(call, unreachable(call->method + " was sent and the line broke: " + why));
    } else {
      call->sent = false;
      ++it;
    }
  }
  for (const auto& [id, subscription] : std::exchange(subscriptions_, {})) {
    subscription->server_id.clear();
    if (subscription->repeat == Repeat::no) {
      subscription->push({RpcNotice::Kind::lost, ""});
    } else {
      unsubscribed_.push_back(subscription);
    }
  }
}

void RpcClient::Engine::take(RpcMessage message) {
  if (message.kind == RpcMessage::Kind::notice) {
    take_notice(std::move(message));
    return;
  }
  const auto found = open_.find(message.id);
  if (found == open_.end()) {
    // Late, after its deadline; or the answer to an unsubscription. An id never used is a
    // violation.
    if (message.id > last_id_) {
      throw Error(ErrorCode::message_malformed, "node answers a call that was never made");
    }
    return;
  }
  const CallPointer call = found->second;
  open_.erase(found);
  ++answers_in_session_;
  take_answer(call, std::move(message));
}

void RpcClient::Engine::take_answer(const CallPointer& call, RpcMessage message) {
  if (message.kind == RpcMessage::Kind::failure) {
    finish(call, failure_of(message, call->method));
    return;
  }
  if (call->subscription && !call->subscription->abandoned) {
    const auto id = nlohmann::json::parse(message.json);
    if (!id.is_string() && !id.is_number_integer()) {
      finish(call, {ErrorCode::message_malformed, call->method + ": subscription id is no id"});
      return;
    }
    call->subscription->server_id = message.json;
    subscriptions_[message.json] = call->subscription;
    if (call->renewal) call->subscription->push({RpcNotice::Kind::resumed, ""});
    std::deque<RpcMessage> still_unclaimed;
    for (RpcMessage& notice : std::exchange(unclaimed_, {})) {
      if (notice.subscription == message.json) {
        call->subscription->push({RpcNotice::Kind::value, std::move(notice.json)});
      } else {
        still_unclaimed.push_back(std::move(notice));
      }
    }
    unclaimed_ = std::move(still_unclaimed);
  }
  if (!call->renewal) call->end(std::move(message.json));
}

void RpcClient::Engine::take_notice(RpcMessage message) {
  const auto found = subscriptions_.find(message.subscription);
  if (found != subscriptions_.end()) {
    found->second->push({RpcNotice::Kind::value, std::move(message.json)});
    return;
  }
  if (unclaimed_.size() == kUnclaimedMax) unclaimed_.pop_front();
  unclaimed_.push_back(std::move(message));
}

void RpcClient::Engine::finish(const CallPointer& call, CallFailure failure) {
  if (call->renewal) {
    call->subscription->push({RpcNotice::Kind::lost, ""});
  } else {
    call->end(std::move(failure));
  }
}

void RpcClient::Engine::note_failure(const std::string& why) {
  {
    const std::lock_guard lock(status_mutex_);
    last_failure_ = why;
  }
  log_debug("chain node " + why);
}

// ---- the public face ------------------------------------------------------------------------

namespace {

class OpenSubscription final : public RpcSubscription {
 public:
  OpenSubscription(std::shared_ptr<RpcSubscriptionState> state,
                   std::function<void(std::shared_ptr<RpcSubscriptionState>)> abandon)
      : state_(std::move(state)), abandon_(std::move(abandon)) {}
  ~OpenSubscription() override { abandon_(state_); }
  std::optional<RpcNotice> next(milliseconds wait_max) override { return state_->pop(wait_max); }

 private:
  std::shared_ptr<RpcSubscriptionState> state_;
  std::function<void(std::shared_ptr<RpcSubscriptionState>)> abandon_;
};

}  // namespace

RpcClient::RpcClient(ChainRpcOptions options)
    : engine_(std::make_shared<Engine>(std::move(options))) {
  engine_->start();
}

void RpcClient::close() { engine_->stop(); }

RpcClient::~RpcClient() { engine_->stop(); }

std::string RpcClient::call(std::string_view method, std::string_view params, Repeat repeat,
                            milliseconds deadline) {
  const auto engine = engine_;  // stays until the call has ended, also if the client goes
  return engine->call(method, params, repeat, deadline, nullptr);
}

std::unique_ptr<RpcSubscription> RpcClient::subscribe(std::string_view method,
                                                      std::string_view params,
                                                      std::string_view unsubscribe_method,
                                                      Repeat repeat) {
  auto state = std::make_shared<RpcSubscriptionState>(
      std::string(method), std::string(params), std::string(unsubscribe_method), repeat,
      static_cast<std::size_t>(engine_->options_.notices_kept_max));
  auto subscription = std::make_unique<OpenSubscription>(
      state, [engine = std::weak_ptr<Engine>(engine_)](auto abandoned) {
        if (const auto alive = engine.lock()) alive->abandon(std::move(abandoned));
      });
  const auto engine = engine_;
  engine->call(method, params, repeat, {}, state);
  return subscription;
}

std::string RpcClient::endpoint() const {
  const std::lock_guard lock(engine_->status_mutex_);
  return engine_->endpoint_now_;
}

std::string RpcClient::last_failure() const {
  const std::lock_guard lock(engine_->status_mutex_);
  return engine_->last_failure_;
}

std::uint64_t RpcClient::connections_made() const {
  const std::lock_guard lock(engine_->status_mutex_);
  return engine_->connections_made_;
}

}  // namespace yumoe

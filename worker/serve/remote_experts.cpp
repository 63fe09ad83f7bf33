#include "worker/remote_experts.hpp"

#include <algorithm>
#include <cstring>
#include <thread>

#include "cluster/error.hpp"
#include "cluster/log.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;
using Lock = std::unique_lock<std::mutex>;

TransportOptions transport_options() {
  TransportOptions options;
  options.message_bytes_max = 1 << 30;
  return options;
}

void append(Bytes& to, std::span<const float> rows) {
  const ByteView bytes = as_bytes(rows);
  to.insert(to.end(), bytes.begin(), bytes.end());
}

}  // namespace

RemoteExperts::RemoteExperts(std::vector<ExpertPlace> places, const Digest& version,
                             std::size_t width, const DispatchOptions& options)
    : places_(std::move(places)),
      version_(version),
      width_(width),
      dispatcher_(options, places_.size()),
      refused_(places_.size()) {
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<std::size_t>> holders;
  const CurveKeypair keys = CurveKeypair::generate();
  for (std::size_t s = 0; s < places_.size(); ++s) {
    transports_.push_back(connect_zeromq(places_[s].address, keys, transport_options()));
    for (const auto& expert : places_[s].experts) holders[expert].push_back(s);
  }
  for (const auto& [expert, servers] : holders) {
    dispatcher_.set_replicas(expert.first, expert.second, servers);
  }
}

RemoteExperts::~RemoteExperts() = default;

Dispatcher::Time RemoteExperts::now() const {
  return std::chrono::duration_cast<Dispatcher::Time>(
      std::chrono::steady_clock::now().time_since_epoch());
}

RemoteCounts RemoteExperts::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void RemoteExperts::forward(std::span<ExpertRows> calls) { run(calls, false); }
void RemoteExperts::backward(std::span<ExpertRows> calls) { run(calls, true); }

void RemoteExperts::run(std::span<ExpertRows> calls, bool backward) {
  Lock lock(mutex_);
  std::vector<Dispatcher::CallId> mine;
  for (ExpertRows& rows : calls) {
    YUMOE_ASSERT(!rows.out.empty() && rows.out.size() % width_ == 0);
    rows.answered = false;
    // Backward goes where forward was answered: there the state is.
    const ExpertKey key{rows.layer, rows.expert, backward, backward ? rows.forward : 0};
    std::optional<Dispatcher::Server> preferred;
    if (backward) preferred = rows.server;
    mine.push_back(dispatcher_.add(now(), key, rows.out.size() / width_, preferred));
    open_[mine.back()] = Open{.rows = &rows, .backward = backward};
  }
  const auto is_done = [&] {
    return std::all_of(mine.begin(), mine.end(), [&](auto id) { return open_.at(id).done; });
  };
  while (!is_done()) {
    if (has_leader_) {
      changed_.wait(lock);
      continue;
    }
    has_leader_ = true;
    while (!is_done()) step(lock);
    has_leader_ = false;
    changed_.notify_all();
  }
  for (const auto id : mine) open_.erase(id);
  for (const ExpertRows& rows : calls) {
    if (rows.answered) continue;
    for (std::size_t s = 0; s < places_.size(); ++s) {
      const auto& held = places_[s].experts;
      const bool holds =
          std::find(held.begin(), held.end(), std::pair(rows.layer, rows.expert)) != held.end();
      if (holds && !refused_[s].empty()) throw Error(ErrorCode::version_mismatch, refused_[s]);
    }
  }
}

void RemoteExperts::step(Lock& lock) {
  send_due(lock);
  for (const auto id : dispatcher_.given_up(now())) {
    open_.at(id).done = true;
    ++counts_.given_up;
    changed_.notify_all();
  }
  receive_some(lock);
}

// dy, and x where the server has to compute forward again; x alone for forward.
std::vector<Bytes> RemoteExperts::frames_of(const Dispatcher::Send& send) {
  ExpertCall call{.id = send.request,
                  .backward = send.key.backward,
                  .version = version_,
                  .layer = send.key.layer,
                  .expert = send.key.expert,
                  .width = static_cast<std::uint32_t>(width_)};
  Bytes payload;
  for (const auto id : send.calls) {
    const Open& open = open_.at(id);
    call.rows += static_cast<std::uint32_t>(open.rows->out.size() / width_);
    call.keep = call.keep || (!open.backward && open.rows->keep);
    append(payload, open.backward ? open.rows->dy : open.rows->x);
    if (!open.backward) continue;
    const bool has_state =
        !open.sends_x && open.rows->forward != 0 && open.rows->server == send.server;
    if (has_state) {
      call.forward_id = open.rows->forward;
    } else {
      append(payload, open.rows->x);
    }
  }
  return encode(call, std::move(payload));
}

void RemoteExperts::send_due(Lock& lock) {
  std::vector<Dispatcher::Send> sends = dispatcher_.due(now());
  for (Dispatcher::Send& send : sends) {
    std::vector<Bytes> frames = frames_of(send);
    ++counts_.requests;
    const Dispatcher::RequestId request = send.request;
    const std::size_t server = send.server;
    sent_[request] = std::move(send);
    lock.unlock();  // only the leader touches transports
    const bool went = transports_[server]->send(std::move(frames));
    lock.lock();
    if (!went) dispatcher_.failed(now(), request);
    idle_rounds_ = 0;
  }
}

void RemoteExperts::receive_some(Lock& lock) {
  std::vector<std::pair<std::size_t, std::vector<Bytes>>> received;
  lock.unlock();
  if (transports_.size() == 1) {
    if (auto frames = transports_[0]->receive(milliseconds(1)))
      received.emplace_back(0, std::move(*frames));
  } else {
    for (std::size_t s = 0; s < transports_.size(); ++s) {
      while (auto frames = transports_[s]->receive(milliseconds(0))) {
        received.emplace_back(s, std::move(*frames));
      }
    }
    idle_rounds_ = received.empty() ? idle_rounds_ + 1 : 0;
    if (idle_rounds_ > 8) {
      std::this_thread::sleep_for(std::chrono::microseconds(std::min(20 * idle_rounds_, 500)));
    }
  }
  lock.lock();
  for (auto& [server, frames] : received) take(server, frames);
}

void RemoteExperts::refuse(std::size_t server, const ExpertAnswer& answer) {
  refused_[server] = "experts at " + places_[server].address.endpoint + " are of base version " +
                     answer.version.hex().substr(0, 16) + ", the caller's of " +
                     version_.hex().substr(0, 16) + ": bring both to one version";
  log_error(refused_[server]);
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<std::size_t>> holders;
  for (std::size_t s = 0; s < places_.size(); ++s) {
    for (const auto& expert : places_[s].experts) {
      auto& servers = holders[expert];
      if (refused_[s].empty()) servers.push_back(s);
    }
  }
  for (const auto& [expert, servers] : holders) {
    dispatcher_.set_replicas(expert.first, expert.second, servers);
  }
}

void RemoteExperts::take(std::size_t server, const std::vector<Bytes>& frames) {
  ExpertAnswer answer;
  try {
    answer = decode_expert_answer(frames);
  } catch (const Error& error) {
    // Which call it was for is not to be trusted either: its deadline brings it to another server.
    ++counts_.damaged;
    log_warning("answer of " + places_[server].address.endpoint + ": " + error.what());
    return;
  }
  const auto found = sent_.find(answer.id);
  if (found == sent_.end() || found->second.server != server) return;
  const Dispatcher::Send send = std::move(found->second);
  sent_.erase(found);
  if (answer.status != ExpertStatus::ok) {
    if (answer.status == ExpertStatus::other_version) refuse(server, answer);
    if (answer.status == ExpertStatus::not_kept) {
      for (const auto id : send.calls) {
        if (const auto open = open_.find(id); open != open_.end()) open->second.sends_x = true;
      }
    }
    dispatcher_.failed(now(), answer.id);
    ++counts_.repeated;
    return;
  }
  std::size_t rows = 0;
  const auto calls = dispatcher_.answered(now(), answer.id, answer.credits);
  for (const auto id : calls) rows += open_.at(id).rows->out.size() / width_;
  if (calls.empty()) return;  // another server was quicker
  const bool fits = rows == answer.rows && answer.width == width_;
  const float* from = reinterpret_cast<const float*>(frames[1].data());
  for (const auto id : calls) {
    Open& open = open_.at(id);
    if (fits) {
      std::memcpy(open.rows->out.data(), from, open.rows->out.size_bytes());
      from += open.rows->out.size();
      open.rows->answered = true;
      if (!open.backward) {
        open.rows->server = server;
        // State of a request that carried several callers' rows belongs to none of them alone.
        open.rows->forward = calls.size() == 1 && open.rows->keep ? answer.id : 0;
      }
    } else {
      ++counts_.given_up;
    }
    open.done = true;
  }
  changed_.notify_all();
}

}  // namespace yumoe

#include "worker/expert_server.hpp"

#include <algorithm>

#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "router/expert_message.hpp"

namespace yumoe {
namespace {

std::span<float> numbers_of(Bytes& bytes) {
  return {reinterpret_cast<float*>(bytes.data()), bytes.size() / sizeof(float)};
}

template <typename Entries, typename Key>
auto find_in(Entries& entries, const Key& key) {
  return std::find_if(entries.begin(), entries.end(),
                      [&](const auto& entry) { return entry.first == key; });
}

}  // namespace

ExpertServer::ExpertServer(ServerTransport& transport, const Digest& version,
                           ExpertCompute& compute, const Options& options)
    : transport_(transport), options_(options) {
  add(version, std::shared_ptr<ExpertCompute>(&compute, [](ExpertCompute*) {}));
}

ExpertServer::ExpertServer(ServerTransport& transport, const Options& options)
    : transport_(transport), options_(options) {}

void ExpertServer::add(const Digest& version, std::shared_ptr<ExpertCompute> compute) {
  const std::lock_guard lock(mutex_);
  std::erase_if(versions_, [&](const auto& served) { return served.first == version; });
  versions_.emplace_back(version, std::move(compute));
  if (versions_.size() > 2) versions_.erase(versions_.begin());
}

ExpertServer::Compute ExpertServer::compute_of(const Digest& version) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(versions_.begin(), versions_.end(),
                                  [&](const auto& served) { return served.first == version; });
  return found == versions_.end() ? nullptr : found->second;
}

void ExpertServer::serve(const std::atomic<bool>& stop) {
  while (!stop) {
    std::optional<Received> received = transport_.receive(std::chrono::milliseconds(100));
    if (received) answer(std::move(*received));
  }
}

void ExpertServer::answer(Received received) {
  ExpertCall call;
  try {
    call = decode_expert_call(received.frames);
  } catch (const Error& error) {
    log_warning(std::string("a call for an expert is refused: ") + error.what());
    say(received, call, static_cast<int>(ExpertStatus::malformed), {});
    return;
  }
  const Compute compute = compute_of(call.version);
  if (compute == nullptr) {
    say(received, call, static_cast<int>(ExpertStatus::other_version), {});
  } else if (!compute->holds(call.layer, call.expert)) {
    say(received, call, static_cast<int>(ExpertStatus::unknown_expert), {});
  } else if (call.width != compute->width()) {
    say(received, call, static_cast<int>(ExpertStatus::malformed), {});
  } else {
    // A call that asks for more memory than there is costs its answer and not the server.
    try {
      Bytes payload = std::move(received.frames[1]);
      if (call.backward) {
        answer_backward(received, call, compute, payload);
      } else {
        answer_forward(received, call, compute, std::move(payload));
      }
    } catch (const std::exception& error) {
      log_warning("a call with " + std::to_string(call.rows) +
                  " rows for an expert could not be computed: " + error.what());
      say(received, call, static_cast<int>(ExpertStatus::malformed), {});
    }
  }
}

void ExpertServer::answer_forward(const Received& from, const ExpertCall& call,
                                  const Compute& compute, Bytes x) {
  Bytes y(x.size());
  std::unique_ptr<KeptRows> kept =
      compute->forward(call.layer, call.expert, std::move(x), numbers_of(y), call.keep);
  say(from, call, static_cast<int>(ExpertStatus::ok), std::move(y));
  if (kept == nullptr) return;
  kept_.bytes += kept->bytes;
  kept_.entries.emplace_back(Key{from.client_key, call.id},
                             Kept{std::move(kept), compute, call.layer, call.expert, call.rows});
  while (kept_.bytes > options_.kept_bytes_max) {
    kept_.bytes -= kept_.entries.front().second.state->bytes;
    kept_.entries.pop_front();
  }
}

void ExpertServer::answer_backward(const Received& from, const ExpertCall& call,
                                   const Compute& compute, const Bytes& payload) {
  const Key key{from.client_key, call.forward_id};
  std::unique_ptr<KeptRows> kept;
  const std::size_t half = std::size_t{call.rows} * call.width * sizeof(float);
  if (call.forward_id == 0) {  // x follows dy
    Bytes x(payload.begin() + static_cast<std::ptrdiff_t>(half), payload.end()), y(half);
    kept = compute->forward(call.layer, call.expert, std::move(x), numbers_of(y), true);
  } else if (const auto said = find_in(answers_.entries, key); said != answers_.entries.end()) {
    say(from, call, static_cast<int>(ExpertStatus::ok), said->second);
    return;
  } else if (const auto found = find_in(kept_.entries, key); found != kept_.entries.end()) {
    const Kept& entry = found->second;
    if (entry.rows != call.rows || entry.layer != call.layer || entry.expert != call.expert ||
        entry.compute != compute) {
      say(from, call, static_cast<int>(ExpertStatus::malformed), {});
      return;
    }
    kept_.bytes -= entry.state->bytes;
    kept = std::move(found->second.state);
    kept_.entries.erase(found);
  } else {
    say(from, call, static_cast<int>(ExpertStatus::not_kept), {});
    return;
  }
  const std::span<const float> dy(reinterpret_cast<const float*>(payload.data()),
                                  half / sizeof(float));
  Bytes dx(half);
  compute->backward(call.layer, call.expert, *kept, dy, numbers_of(dx));
  if (call.forward_id != 0) {
    answers_.bytes += dx.size();
    answers_.entries.emplace_back(key, dx);
    while (answers_.bytes > options_.answers_bytes_max) {
      answers_.bytes -= answers_.entries.front().second.size();
      answers_.entries.pop_front();
    }
  }
  say(from, call, static_cast<int>(ExpertStatus::ok), std::move(dx));
}

void ExpertServer::say(const Received& to, const ExpertCall& call, int status, Bytes payload) {
  Digest newest;
  {
    const std::lock_guard lock(mutex_);
    if (!versions_.empty()) newest = versions_.back().first;
  }
  const ExpertAnswer answer{.id = call.id,
                            .status = static_cast<ExpertStatus>(status),
                            .version = newest,
                            .credits = options_.credits,
                            .rows = call.rows,
                            .width = call.width};
  transport_.send(to.peer,
                  encode(answer, std::move(payload)));  // if it does not go, it is asked again
}

}  // namespace yumoe

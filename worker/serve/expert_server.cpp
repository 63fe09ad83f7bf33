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

constexpr std::size_t kCallBytes = 4'096;  // what a call takes beside its payload, at most
constexpr int kArrivalsMax = 256;          // looked at before the next is computed

// Header and payload, and a header that kCallBytes counts.
bool is_framed(const Received& call) {
  return call.frames.size() == 2 && call.frames[0].size() <= kCallBytes;
}

std::size_t bytes_of(const Received& call) { return kCallBytes + call.frames[1].size(); }

}  // namespace

ExpertServer::ExpertServer(ServerTransport& transport, const Digest& version,
                           ExpertCompute& compute, const Options& options)
    : ExpertServer(transport, options) {
  add(version, std::shared_ptr<ExpertCompute>(&compute, [](ExpertCompute*) {}));
}

ExpertServer::ExpertServer(ServerTransport& transport, const Options& options)
    : transport_(transport),
      options_(options),
      kept_(options.caller_kept_bytes_max, options.kept_bytes_max),
      answers_(options.caller_answers_bytes_max, options.answers_bytes_max) {}

void ExpertServer::add(const Digest& version, std::shared_ptr<ExpertCompute> compute) {
  const std::lock_guard lock(mutex_);
  std::erase_if(versions_, [&](const auto& served) { return served.first == version; });
  versions_.emplace_back(version, std::move(compute));
  if (versions_.size() > 2) versions_.erase(versions_.begin());
  versions_changed_ = true;
}

void ExpertServer::forget_old() {
  const std::lock_guard lock(mutex_);
  if (versions_.size() > 1) versions_.erase(versions_.begin(), versions_.end() - 1);
  versions_changed_ = true;
}

ExpertServer::Compute ExpertServer::compute_of(const Digest& version) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(versions_.begin(), versions_.end(),
                                  [&](const auto& served) { return served.first == version; });
  return found == versions_.end() ? nullptr : found->second;
}

void ExpertServer::serve(const std::atomic<bool>& stop) {
  while (!stop) {
    look_at_arrivals();
    if (versions_changed_.exchange(false)) {
      // Backward of a version that is not served is refused, so what it would need is of no use.
      kept_.erase_if([&](const Kept& kept) { return compute_of(kept.version) == nullptr; });
    }
    if (std::optional<Received> next = take_next()) answer(*std::move(next));
  }
}

// All that has come, before anything is computed: what is too much is refused early and does not pile up.
void ExpertServer::look_at_arrivals() {
  std::chrono::milliseconds wait(waiting_.empty() ? 100 : 0);
  for (int i = 0; i < kArrivalsMax; ++i) {
    std::optional<Received> received = transport_.receive(wait);
    if (!received) return;
    admit(*std::move(received));
    wait = {};
  }
}

void ExpertServer::admit(Received received) {
  if (!is_framed(received)) {
    return say(received, {}, static_cast<int>(ExpertStatus::malformed), {});
  }
  const std::size_t bytes = bytes_of(received);
  const auto own = waiting_.find(received.client_key);
  const bool caller_has_room =
      own == waiting_.end() || (own->second.calls.size() < options_.caller_calls_max &&
                                own->second.bytes + bytes <= options_.caller_waiting_bytes_max);
  if (!caller_has_room || !make_room(received.client_key, bytes)) return refuse(received);
  Waiting& waiting = waiting_[received.client_key];
  if (waiting.calls.empty()) waiting.since = ++callers_come_;
  waiting.calls.push_back(std::move(received));
  waiting.bytes += bytes;
  waiting_bytes_ += bytes;
  ++waiting_calls_;
}

// Whether a caller's call of so many bytes may wait, in place of newer ones of whoever has most if all are too
// many: of one that has more than the caller would, or of any if nothing of the caller's waits yet.
bool ExpertServer::make_room(const CurveKey& caller, std::size_t bytes) {
  if (bytes > options_.waiting_bytes_max) return waiting_.empty();
  const auto own = waiting_.find(caller);
  const bool is_first = own == waiting_.end();
  const std::size_t calls_then = is_first ? 1 : own->second.calls.size() + 1;
  const std::size_t bytes_then = is_first ? bytes : own->second.bytes + bytes;
  while (true) {
    const bool too_many = waiting_calls_ >= options_.calls_max;
    if (!too_many && waiting_bytes_ + bytes <= options_.waiting_bytes_max) return true;
    // Of several with as much, who has waited longest has had its chance.
    const auto rank = [&](const Waiting& waiting) {
      return std::pair(too_many ? waiting.calls.size() : waiting.bytes, ~waiting.since);
    };
    const auto most = std::max_element(
        waiting_.begin(), waiting_.end(),
        [&](const auto& a, const auto& b) { return rank(a.second) < rank(b.second); });
    const std::size_t amount = rank(most->second).first;
    if (!is_first && amount <= (too_many ? calls_then : bytes_then)) return false;
    refuse(take_of(most, false));
  }
}

void ExpertServer::refuse(const Received& received) {
  ExpertCall call;
  try {
    call = decode_expert_header(received.frames);
  } catch (const Error&) {
    return say(received, call, static_cast<int>(ExpertStatus::malformed), {});
  }
  if (refused_++ == 0) {
    log_warning("calls for experts are refused: more come than may wait (--callers-mib)");
  }
  say(received, call, static_cast<int>(ExpertStatus::busy), {});
}

Received ExpertServer::take_of(std::map<CurveKey, Waiting>::iterator own, bool oldest) {
  std::deque<Received>& calls = own->second.calls;
  Received call = std::move(oldest ? calls.front() : calls.back());
  oldest ? calls.pop_front() : calls.pop_back();
  const std::size_t bytes = bytes_of(call);
  own->second.bytes -= bytes;
  waiting_bytes_ -= bytes;
  --waiting_calls_;
  if (calls.empty()) waiting_.erase(own);
  return call;
}

// Of the caller after the one before, by their keys.
std::optional<Received> ExpertServer::take_next() {
  if (waiting_.empty()) return std::nullopt;
  auto own = waiting_.upper_bound(turn_);
  if (own == waiting_.end()) own = waiting_.begin();
  turn_ = own->first;
  return take_of(own, true);
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
  const std::size_t bytes = kept->bytes;
  kept_.add(from.client_key, call.id,
            Kept{std::move(kept), call.version, call.layer, call.expert, call.rows}, bytes);
}

void ExpertServer::answer_backward(const Received& from, const ExpertCall& call,
                                   const Compute& compute, const Bytes& payload) {
  std::unique_ptr<KeptRows> kept;
  const std::size_t half = std::size_t{call.rows} * call.width * sizeof(float);
  if (call.forward_id == 0) {  // x follows dy
    Bytes x(payload.begin() + static_cast<std::ptrdiff_t>(half), payload.end()), y(half);
    kept = compute->forward(call.layer, call.expert, std::move(x), numbers_of(y), true);
  } else if (const Bytes* said = answers_.find(from.client_key, call.forward_id)) {
    say(from, call, static_cast<int>(ExpertStatus::ok), *said);
    return;
  } else if (Kept* found = kept_.find(from.client_key, call.forward_id)) {
    if (found->rows != call.rows || found->layer != call.layer || found->expert != call.expert ||
        found->version != call.version) {
      say(from, call, static_cast<int>(ExpertStatus::malformed), {});
      return;
    }
    kept = std::move(found->state);
    kept_.erase(from.client_key, call.forward_id);
  } else {
    say(from, call, static_cast<int>(ExpertStatus::not_kept), {});
    return;
  }
  const std::span<const float> dy(reinterpret_cast<const float*>(payload.data()),
                                  half / sizeof(float));
  Bytes dx(half);
  compute->backward(call.layer, call.expert, *kept, dy, numbers_of(dx));
  if (call.forward_id != 0) {
    answers_.add(from.client_key, call.forward_id, dx, dx.size());
  }
  say(from, call, static_cast<int>(ExpertStatus::ok), std::move(dx));
}

// As many as fit into what may wait of one caller, so that it is not refused for what it was told: by the
// largest of its last calls, as a backward that brings x too if it may come to that.
std::uint32_t ExpertServer::credits_of(const CurveKey& caller, const ExpertCall& call) {
  constexpr std::size_t kCallersMax = 4'096;
  if (call.rows == 0) return options_.credits;  // not read
  if (largest_.size() >= kCallersMax) largest_.clear();
  const bool brings_x = call.keep || call.backward;
  const std::size_t bytes =
      kCallBytes + std::size_t{call.rows} * call.width * sizeof(float) * (brings_x ? 2 : 1);
  std::size_t& largest = largest_[caller];
  largest = std::max(bytes, largest - largest / 16);
  return static_cast<std::uint32_t>(
      std::clamp<std::size_t>(options_.caller_waiting_bytes_max / largest, 1, options_.credits));
}

void ExpertServer::say(const Received& to, const ExpertCall& call, int status, Bytes payload) {
  Digest newest;
  {
    const std::lock_guard lock(mutex_);
    if (!versions_.empty()) newest = versions_.back().first;
  }
  ExpertAnswer answer{.id = call.id,
                      .status = static_cast<ExpertStatus>(status),
                      .version = newest,
                      .credits = credits_of(to.client_key, call),
                      .rows = call.rows,
                      .width = call.width};
  // If it does not go, it is asked again; later, if that it is busy goes.
  if (transport_.send(to.peer, encode(answer, std::move(payload)))) return;
  if (answer.status != ExpertStatus::ok) return;
  if (unsent_++ == 0) {
    log_warning("answers for experts are dropped: their callers do not read (--caller-mib)");
  }
  answer.status = ExpertStatus::busy;
  transport_.send(to.peer, encode(answer, {}));
}

}  // namespace yumoe

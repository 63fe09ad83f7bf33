#include "router/dispatch.hpp"

#include <algorithm>
#include <tuple>
#include <utility>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;

}  // namespace

Dispatcher::Dispatcher(const DispatchOptions& options, std::size_t servers)
    : options_(options), servers_(servers) {
  for (ServerState& server : servers_) {
    server.credits = static_cast<std::size_t>(options.credits_first);
  }
}

void Dispatcher::set_replicas(std::uint32_t layer, std::uint32_t expert,
                              std::vector<Server> servers) {
  for (const Server server : servers) YUMOE_ASSERT(server < servers_.size());
  replicas_[{layer, expert}] = std::move(servers);
}

const std::vector<Dispatcher::Server>& Dispatcher::replicas_of(std::uint32_t layer,
                                                               std::uint32_t expert) const {
  static const std::vector<Server> none;
  const auto found = replicas_.find({layer, expert});
  return found == replicas_.end() ? none : found->second;
}

bool Dispatcher::is_masked(Time now, std::uint32_t layer, std::uint32_t expert) const {
  const std::vector<Server>& replicas = replicas_of(layer, expert);
  return std::all_of(replicas.begin(), replicas.end(),
                     [&](Server s) { return rests(servers_[s], now); });
}

Dispatcher::CallId Dispatcher::add(Time now, const ExpertKey& key, std::size_t rows,
                                   std::optional<Server> preferred) {
  YUMOE_ASSERT(rows >= 1);
  const CallId call = ++newest_;
  if (is_masked(now, key.layer, key.expert)) {
    given_up_.push_back(call);
    return call;
  }
  for (const std::uint64_t id : waiting_) {
    Batch& batch = batches_.at(id);
    const bool merges = batch.key == key && !key.backward && batch.attempts == 0 &&
                        batch.rows + rows <= static_cast<std::size_t>(options_.rows_max);
    if (!merges) continue;
    batch.calls.push_back(call);
    batch.rows += rows;
    return call;
  }
  const std::uint64_t id = ++newest_;
  batches_[id] =
      Batch{.key = key, .calls = {call}, .rows = rows, .preferred = preferred, .tried = {}};
  waiting_.push_back(id);
  return call;
}

Dispatcher::Time Dispatcher::deadline_of(Server server) const {
  return servers_[server].answers.deadline(options_.deadline_factor,
                                           milliseconds(options_.deadline_min_ms),
                                           milliseconds(options_.deadline_max_ms));
}

// The one that was not tried yet, then the least busy, then the first.
std::optional<Dispatcher::Server> Dispatcher::choose(const Batch& batch, Time now) const {
  std::optional<Server> best;
  const auto rank = [&](Server s) {
    return std::tuple(batch.tried.contains(s), batch.preferred != s, servers_[s].under_way);
  };
  for (const Server s : replicas_of(batch.key.layer, batch.key.expert)) {
    const ServerState& server = servers_[s];
    if (rests(server, now) || now < server.busy_until || server.under_way >= server.credits) {
      continue;
    }
    if (!best || rank(s) < rank(*best)) best = s;
  }
  return best;
}

// It is not under way any more, and if it was its batch's last one that waits again.
void Dispatcher::release(Attempt& attempt) {
  attempt.expired = true;
  --servers_[attempt.server].under_way;
  const auto batch = batches_.find(attempt.batch);
  if (batch == batches_.end()) return;  // another answered
  if (--batch->second.under_way == 0) waiting_.push_front(attempt.batch);
}

void Dispatcher::miss(Attempt& attempt, Time now) {
  release(attempt);
  ServerState& server = servers_[attempt.server];
  if (++server.strikes >= options_.strikes_max) {
    server.rests_until = now + milliseconds(options_.rest_ms);
    server.strikes = options_.strikes_max - 1;  // one more miss after the rest is enough
  }
}

void Dispatcher::busy(Time now, RequestId request) {
  const auto found = attempts_.find(request);
  if (found == attempts_.end()) return;
  ServerState& server = servers_[found->second.server];
  if (!found->second.expired) release(found->second);
  attempts_.erase(found);
  if (now < server.busy_until) return;  // of several at once the first counts
  const std::int64_t doubled = options_.busy_ms << std::min<std::int64_t>(server.busy_times, 16);
  server.busy_until = now + milliseconds(std::min(doubled, options_.rest_ms));
  ++server.busy_times;
}

void Dispatcher::expire(Time now) {
  for (auto& [id, attempt] : attempts_) {
    if (!attempt.expired && now >= attempt.deadline) miss(attempt, now);
  }
  // Answers that come this late are of no use to anybody.
  std::erase_if(attempts_, [&](const auto& entry) {
    return entry.second.expired && now >= entry.second.deadline + milliseconds(options_.rest_ms);
  });
}

void Dispatcher::give_up(std::uint64_t id) {
  const Batch& batch = batches_.at(id);
  given_up_.insert(given_up_.end(), batch.calls.begin(), batch.calls.end());
  batches_.erase(id);
}

std::vector<Dispatcher::Send> Dispatcher::due(Time now) {
  expire(now);
  std::vector<Send> sends;
  std::deque<std::uint64_t> still;
  for (const std::uint64_t id : waiting_) {
    Batch& batch = batches_.at(id);
    if (batch.attempts >= static_cast<std::size_t>(options_.attempts_max) ||
        is_masked(now, batch.key.layer, batch.key.expert)) {
      give_up(id);
      continue;
    }
    const std::optional<Server> server = choose(batch, now);
    if (!server) {
      still.push_back(id);
      continue;
    }
    const RequestId request = ++newest_;
    attempts_[request] = Attempt{
        .batch = id, .server = *server, .sent = now, .deadline = now + deadline_of(*server)};
    ++servers_[*server].under_way;
    ++batch.under_way;
    ++batch.attempts;
    batch.tried.insert(*server);
    sends.push_back({request, *server, batch.key, batch.calls});
  }
  waiting_ = std::move(still);
  return sends;
}

std::vector<Dispatcher::CallId> Dispatcher::answered(Time now, RequestId request,
                                                     std::size_t credits) {
  const auto found = attempts_.find(request);
  if (found == attempts_.end()) return {};
  const Attempt attempt = found->second;
  attempts_.erase(found);
  ServerState& server = servers_[attempt.server];
  if (credits > 0) server.credits = credits;
  if (!attempt.expired) --server.under_way;
  server.strikes = 0;
  server.rests_until = server.busy_until = {};
  server.busy_times = 0;
  server.answers.observe(std::chrono::ceil<milliseconds>(now - attempt.sent));
  const auto batch = batches_.find(attempt.batch);
  if (batch == batches_.end()) return {};
  std::erase(waiting_, attempt.batch);
  std::vector<CallId> calls = std::move(batch->second.calls);
  batches_.erase(batch);
  return calls;
}

void Dispatcher::failed(Time now, RequestId request) {
  const auto found = attempts_.find(request);
  if (found == attempts_.end()) return;
  if (!found->second.expired) miss(found->second, now);
  attempts_.erase(found);
}

std::vector<Dispatcher::CallId> Dispatcher::given_up(Time) { return std::exchange(given_up_, {}); }

std::optional<Dispatcher::Time> Dispatcher::next_time() const {
  std::optional<Time> next;
  const auto take = [&](Time time) {
    if (!next || time < *next) next = time;
  };
  for (const auto& [id, attempt] : attempts_) {
    if (!attempt.expired) take(attempt.deadline);
  }
  for (const std::uint64_t id : waiting_) {
    const Batch& batch = batches_.at(id);
    for (const Server s : replicas_of(batch.key.layer, batch.key.expert)) {
      const ServerState& server = servers_[s];
      // One without a credit is free again by an answer or a deadline.
      if (server.under_way < server.credits) take(std::max(server.rests_until, server.busy_until));
    }
  }
  if (!given_up_.empty()) take(Time{});
  return next;
}

bool renormalise(std::span<float> weights, const std::vector<bool>& answered) {
  YUMOE_ASSERT(weights.size() == answered.size());
  float all = 0, left = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    all += weights[i];
    if (answered[i]) left += weights[i];
  }
  const float scale = left > 0 ? all / left : 0;
  for (std::size_t i = 0; i < weights.size(); ++i)
    weights[i] = answered[i] ? weights[i] * scale : 0;
  return left > 0;
}

}  // namespace yumoe

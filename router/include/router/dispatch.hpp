#pragma once
// Decides which server computes which rows of which expert, when to ask another, and when to do
// without. Pure: it is told of calls, answers and the time, and says what to send.
//
//   callers -> add() -> [queue, merged by expert] -> due() -> a server with a credit left
//                                                 <- answered() | failed() | the deadline passes
//
// A server has as many requests under way as it gave credits. A request whose answer is later than
// median + factor * MAD of that server's answers goes to another replica as well (or the same again if
// there is none); the first answer counts. One that says it is busy is left alone for a moment.
// A server that missed several in a row rests; an expert all of
// whose servers rest is masked: its calls are given up at once, and renormalise() spreads their weight.

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "cluster/option.hpp"
#include "router/deadline.hpp"

namespace yumoe {

struct DispatchOptions {
  std::int64_t credits_first = 2;
  std::int64_t rows_max = 4'096;
  std::int64_t attempts_max = 8;
  std::int64_t strikes_max = 5;
  double deadline_factor = 8;
  std::int64_t deadline_min_ms = 25;
  std::int64_t deadline_max_ms = 2'000;
  std::int64_t rest_ms = 5'000;
  std::int64_t busy_ms = 20;

  template <typename Visitor>
  void visit(Visitor& option) {
    option("credits_first", credits_first,
           {.unit = "requests",
            .min = 1,
            .max = 1'024,
            .help = "under way to a server that has not said how many it takes"});
    option("rows_max", rows_max,
           {.unit = "rows",
            .min = 1,
            .max = 1 << 20,
            .help = "of one request; calls of several callers are merged up to it"});
    option("attempts_max", attempts_max,
           {.unit = "requests", .min = 1, .max = 64, .help = "for one call before it is given up"});
    option(
        "strikes_max", strikes_max,
        {.unit = "requests", .min = 1, .max = 64, .help = "missed in a row before a server rests"});
    option(
        "deadline_factor", deadline_factor,
        {.min = 1, .max = 100, .help = "k of the deadline median + k * MAD of a server's answers"});
    option("deadline_min_ms", deadline_min_ms,
           {.unit = "ms", .min = 1, .max = 60'000, .help = "least deadline of a request"});
    option("deadline_max_ms", deadline_max_ms,
           {.unit = "ms",
            .min = 1,
            .max = 600'000,
            .help = "most, and that of a server that has answered little yet"});
    option("rest_ms", rest_ms,
           {.unit = "ms",
            .min = 1,
            .max = 3'600'000,
            .help = "how long a server rests before it is asked again"});
    option("busy_ms", busy_ms,
           {.unit = "ms",
            .min = 1,
            .max = 60'000,
            .help = "pause after a server said that it has too much to do; doubles each time it "
                    "says so in a row, up to rest_ms"});
  }
};

struct ExpertKey {
  std::uint32_t layer = 0, expert = 0;
  bool backward = false;      // forward and backward are not merged
  std::uint64_t forward = 0;  // (backward) what it belongs to: not merged with others
  friend auto operator<=>(const ExpertKey&, const ExpertKey&) = default;
};

class Dispatcher {
 public:
  using Time = std::chrono::microseconds;  // since anything
  using Server = std::size_t;              // index
  using CallId = std::uint64_t;
  using RequestId = std::uint64_t;

  Dispatcher(const DispatchOptions& options, std::size_t servers);

  // Which servers hold an expert. None: its calls are given up.
  void set_replicas(std::uint32_t layer, std::uint32_t expert, std::vector<Server> servers);

  // A caller wants `rows` rows computed, if it can be by `preferred`. rows >= 1.
  CallId add(Time now, const ExpertKey& key, std::size_t rows,
             std::optional<Server> preferred = {});

  struct Send {
    RequestId request = 0;
    Server server = 0;
    ExpertKey key;
    std::vector<CallId> calls;  // whose rows it carries, in this order
  };
  // What to send now: first requests and repeated ones.
  std::vector<Send> due(Time now);

  // The calls that this answer is the first of; empty for one that came too late. `credits` 0: not said.
  std::vector<CallId> answered(Time now, RequestId request, std::size_t credits);

  // The server said no, or its answer was damaged: counts as missed, at once.
  void failed(Time now, RequestId request);

  // The server has too much to do: it is there, but left alone for a while. Counts as an attempt.
  void busy(Time now, RequestId request);

  // Calls that nobody could answer, each once.
  std::vector<CallId> given_up(Time now);

  // When due() or given_up() may say something new without any event, at once if that has passed; nothing:
  // never.
  std::optional<Time> next_time() const;

  // Whether no server of the expert is asked at present.
  bool is_masked(Time now, std::uint32_t layer, std::uint32_t expert) const;

  Time deadline_of(Server server) const;

 private:
  struct Batch {
    ExpertKey key;
    std::vector<CallId> calls;
    std::size_t rows = 0, attempts = 0;
    std::optional<Server> preferred;
    std::set<Server> tried;
    std::size_t under_way = 0;  // attempts not expired
  };
  struct Attempt {
    std::uint64_t batch = 0;
    Server server = 0;
    Time sent{}, deadline{};
    bool expired = false;
  };
  struct ServerState {
    std::size_t credits = 1, under_way = 0;
    std::int64_t strikes = 0;
    Time rests_until{}, busy_until{};
    std::int64_t busy_times = 0;  // in a row
    ArrivalStatistics answers;
  };

  bool rests(const ServerState& server, Time now) const { return now < server.rests_until; }
  std::optional<Server> choose(const Batch& batch, Time now) const;
  void expire(Time now);
  void miss(Attempt& attempt, Time now);
  void release(Attempt& attempt);
  void give_up(std::uint64_t batch);
  const std::vector<Server>& replicas_of(std::uint32_t layer, std::uint32_t expert) const;

  DispatchOptions options_;
  std::vector<ServerState> servers_;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<Server>> replicas_;
  std::map<std::uint64_t, Batch> batches_;
  std::deque<std::uint64_t> waiting_;  // batches with no attempt under way, oldest first
  std::map<RequestId, Attempt> attempts_;
  std::vector<CallId> given_up_;
  std::uint64_t newest_ = 0;
};

// Of one token: sets the weights of experts that did not answer to zero and scales the others to their old
// sum. Returns false, all zero, if none did.
bool renormalise(std::span<float> weights, const std::vector<bool>& answered);

}  // namespace yumoe

#pragma once
// A whole run in one thread and one seed: the real core, with a network that loses, delays and
// reorders, workers and validators that crash and come back, and a coordinator that loses everything
// since its last durable event. No tensor is involved: contributions are digests.

#include <map>
#include <memory>
#include <queue>

#include "cluster/random.hpp"
#include "coordinator/run.hpp"

namespace yumoe::sim {

struct Faults {
  double loss = 0;  // share of messages that never arrive
  std::int64_t delay_ms_max = 20;
  double worker_crash = 0;       // chance a second
  double coordinator_crash = 0;  // chance a second
  std::int64_t down_ms_max = 5'000;
};

struct Journaled {
  TimeMs time;
  Bytes event;
};

class SimulatedRun {
 public:
  SimulatedRun(std::uint64_t seed, std::size_t workers, std::size_t validators,
               RunSettings settings, Faults faults);

  // Runs until finished or `time_max` of simulated time has passed. True if it finished.
  bool run(std::chrono::hours time_max);

  const Run& core() const { return *core_; }
  const std::vector<Journaled>& journal() const { return journal_; }
  std::uint64_t messages() const { return messages_; }
  // Every aggregate the driver computed: round -> digest. Computing one twice must give the same.
  const std::map<std::uint64_t, Digest>& aggregates() const { return aggregates_; }
  TimeMs now() const { return now_; }
  // Restarts of the coordinator, and those after which its core was not what it had been before.
  std::uint64_t restarts() const { return restarts_; }
  std::uint64_t restarts_that_differ() const { return restarts_that_differ_; }

 private:
  struct Client {  // a worker or validator process
    std::size_t index = 0;
    Role role = Role::worker;
    PublicKey hotkey;
    double tokens_per_s = 0;
    bool up = true;
    std::optional<Uid> uid;        // known since the last welcome
    std::uint64_t generation = 0;  // of this process: messages to an older one are lost
    Directive directive;
    RoundId working;  // shard in work
    TimeMs done_at;
    bool trained = false;
    Bytes contribution;  // of `working`, kept on the worker's disk
  };
  struct Message {
    TimeMs at;
    std::uint64_t order;
    std::function<void()> deliver;
    bool operator<(const Message& other) const {
      return std::pair(at, order) > std::pair(other.at, other.order);
    }
  };

  void at(TimeMs time, std::function<void()> what);
  void send(std::function<void()> deliver);  // with loss and delay
  void to_core(std::size_t client, Event event);
  bool submit(const Event& event);  // journal, apply, act
  void act(const std::vector<Action>& actions);
  void tell(Uid uid);
  void beat(std::size_t client);
  void work(Client& client);
  void crash_coordinator();
  void disturb();

  Random random_;
  RunSettings settings_;
  Faults faults_;
  Layout layout_;
  std::unique_ptr<Run> core_;
  std::vector<Client> clients_;
  std::vector<Journaled> journal_;
  std::map<std::uint64_t, Digest> aggregates_;
  std::uint64_t restarts_ = 0, restarts_that_differ_ = 0;
  std::map<Uid, std::size_t> client_of_;
  std::map<Uid, TimeMs> last_heard_;
  std::priority_queue<Message> queue_;
  TimeMs now_{1'000'000};
  std::uint64_t order_ = 0;
  std::uint64_t messages_ = 0;
  bool coordinator_up_ = true;
};

}  // namespace yumoe::sim

// The operations, by direct messages between all pairs: as many bytes as any scheme needs, sums in the
// order of ranks, and whoever a rank still waits for at the deadline is who is missing.

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <thread>
#include <utility>

#include "cluster/error.hpp"
#include "collective/wire.hpp"

namespace yumoe::collective {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Waits ever longer: at once while messages fly, politely when a rank computes, rarely when idle.
class Patience {
 public:
  void wait() {
    ++rounds_;
    if (rounds_ < 64) return;
    if (rounds_ < 4'096) {
      std::this_thread::yield();
    } else if (rounds_ < 8'192) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    } else {
      std::this_thread::sleep_for(milliseconds(1));
    }
  }

 private:
  int rounds_ = 0;
};

std::string names_of(std::vector<int> ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    text += (i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ") + std::to_string(ranks[i]);
  }
  return text;
}

struct Pending {
  int peer;
  Wire::Ticket ticket;
};

class OverWire final : public Collective {
 public:
  OverWire(std::unique_ptr<Wire> wire, milliseconds wait_max)
      : wire_(std::move(wire)), wait_max_(wait_max) {}

  int rank() const override { return wire_->rank(); }
  int size() const override { return wire_->size(); }
  void wait_at_most(milliseconds wait_max) override { wait_max_ = wait_max; }

  void all_reduce_sum(std::span<float> values) override;
  void all_gather(ByteView mine, std::span<std::uint8_t> all) override;
  void broadcast(std::span<std::uint8_t> bytes, int root) override;
  void barrier() override;
  std::unique_ptr<Exchange> start_all_to_all_v(ByteView send,
                                               std::span<const std::size_t> send_bytes,
                                               std::span<std::uint8_t> receive,
                                               std::span<const std::size_t> receive_bytes) override;
  void progress() override { wire_->lost(); }
  std::unique_ptr<Collective> reform() override {
    return over(wire_->reform(wait_max_), wait_max_);
  }

  void finish(std::vector<Pending> pending, const char* operation);

 private:
  std::size_t ranks() const { return static_cast<std::size_t>(size()); }
  std::size_t self() const { return static_cast<std::size_t>(rank()); }
  void check_usable() const {
    if (!broken_.empty()) throw Error(ErrorCode::collective_failed, broken_);
  }
  void send(std::vector<Pending>& pending, int to, ByteView bytes) {
    if (!bytes.empty()) pending.push_back({to, wire_->send(to, bytes)});
  }
  void receive(std::vector<Pending>& pending, int from, std::span<std::uint8_t> into) {
    if (!into.empty()) pending.push_back({from, wire_->receive(from, into)});
  }
  std::vector<int> peers_of(const std::vector<Pending>& pending, bool only_left);
  [[noreturn]] void fail(const std::vector<Pending>& pending, std::vector<int> missing,
                         const std::string& why);

  std::unique_ptr<Wire> wire_;
  milliseconds wait_max_;
  std::string broken_;          // why no operation can succeed any more
  std::vector<float> scratch_;  // of all_reduce_sum
};

std::vector<int> OverWire::peers_of(const std::vector<Pending>& pending, bool only_left) {
  std::vector<int> peers;
  for (const Pending& one : pending) {
    if (!only_left || wire_->has_left(one.peer)) peers.push_back(one.peer);
  }
  std::sort(peers.begin(), peers.end());
  peers.erase(std::unique(peers.begin(), peers.end()), peers.end());
  return peers;
}

void OverWire::fail(const std::vector<Pending>& pending, std::vector<int> missing,
                    const std::string& why) {
  std::vector<Wire::Ticket> tickets;
  for (const Pending& one : pending) tickets.push_back(one.ticket);
  wire_->tell_lost(missing);
  wire_->abandon(tickets);
  broken_ = names_of(missing) + " of " + std::to_string(size()) + " " + why + " (seen by rank " +
            std::to_string(rank()) + ")";
  throw Error(ErrorCode::collective_failed, broken_);
}

void OverWire::finish(std::vector<Pending> pending, const char* operation) {
  const Clock::time_point start = Clock::now();
  Patience patience;
  for (int round = 1; !pending.empty(); ++round) {
    // Who has left is asked before the last look for what it sent.
    const std::vector<int> left = round % 32 == 0 ? peers_of(pending, true) : std::vector<int>();
    const std::size_t before = pending.size();
    std::erase_if(pending, [&](const Pending& one) { return wire_->is_done(one.ticket); });
    if (pending.empty()) return;
    if (pending.size() < before) {
      patience = {};
      continue;
    }
    if (round % 32 == 0) {
      if (const std::vector<int> lost = wire_->lost(); !lost.empty()) {
        fail(pending, lost, std::string("was missed by another rank during ") + operation);
      }
      if (!left.empty()) fail(pending, left, std::string("left during ") + operation);
      if (Clock::now() - start > wait_max_) {
        fail(pending, peers_of(pending, false),
             std::string("did not come to ") + operation + " within " +
                 std::to_string(wait_max_.count()) + " ms");
      }
    }
    patience.wait();
  }
}

void OverWire::all_reduce_sum(std::span<float> values) {
  check_usable();
  if (ranks() == 1 || values.empty()) return;
  const auto begin = [&](std::size_t r) { return values.size() * r / ranks(); };
  const std::size_t own = begin(self() + 1) - begin(self());
  scratch_.resize(own * ranks());
  std::vector<Pending> pending;
  for (std::size_t r = 0; r < ranks(); ++r) {
    if (r == self()) continue;
    receive(pending, static_cast<int>(r), as_writable(std::span(scratch_).subspan(r * own, own)));
    send(pending, static_cast<int>(r),
         as_bytes(std::span<const float>(values.subspan(begin(r), begin(r + 1) - begin(r)))));
  }
  finish(std::move(pending), "all_reduce_sum");
  const std::span<float> mine = values.subspan(begin(self()), own);
  std::copy(mine.begin(), mine.end(), scratch_.begin() + static_cast<std::ptrdiff_t>(self() * own));
  std::copy_n(scratch_.begin(), own, mine.begin());
  for (std::size_t r = 1; r < ranks(); ++r) {
    const float* from = scratch_.data() + r * own;
    for (std::size_t i = 0; i < own; ++i) mine[i] += from[i];
  }
  for (std::size_t r = 0; r < ranks(); ++r) {
    if (r == self()) continue;
    receive(pending, static_cast<int>(r),
            as_writable(values.subspan(begin(r), begin(r + 1) - begin(r))));
    send(pending, static_cast<int>(r), as_bytes(std::span<const float>(mine)));
  }
  finish(std::move(pending), "all_reduce_sum");
}

void OverWire::all_gather(ByteView mine, std::span<std::uint8_t> all) {
  check_usable();
  YUMOE_ASSERT(all.size() == mine.size() * ranks());
  std::vector<Pending> pending;
  for (std::size_t r = 0; r < ranks(); ++r) {
    const auto part = all.subspan(r * mine.size(), mine.size());
    if (r == self()) {
      std::copy(mine.begin(), mine.end(), part.begin());
    } else {
      receive(pending, static_cast<int>(r), part);
      send(pending, static_cast<int>(r), mine);
    }
  }
  finish(std::move(pending), "all_gather");
}

void OverWire::broadcast(std::span<std::uint8_t> bytes, int root) {
  check_usable();
  YUMOE_ASSERT(root >= 0 && root < size());
  std::vector<Pending> pending;
  if (rank() != root) {
    receive(pending, root, bytes);
  } else {
    for (int r = 0; r < size(); ++r) {
      if (r != root) send(pending, r, bytes);
    }
  }
  finish(std::move(pending), "broadcast");
}

void OverWire::barrier() {
  check_usable();
  const std::uint8_t mine = 0;
  std::vector<std::uint8_t> all(ranks());
  std::vector<Pending> pending;
  for (std::size_t r = 0; r < ranks(); ++r) {
    if (r == self()) continue;
    receive(pending, static_cast<int>(r), std::span(all).subspan(r, 1));
    send(pending, static_cast<int>(r), {&mine, 1});
  }
  finish(std::move(pending), "barrier");
}

class Started final : public Exchange {
 public:
  Started(OverWire& group, std::vector<Pending> pending)
      : group_(group), pending_(std::move(pending)) {}
  void wait() override { group_.finish(std::exchange(pending_, {}), "all_to_all_v"); }

 private:
  OverWire& group_;
  std::vector<Pending> pending_;
};

std::unique_ptr<Exchange> OverWire::start_all_to_all_v(ByteView send_all,
                                                       std::span<const std::size_t> send_bytes,
                                                       std::span<std::uint8_t> receive_all,
                                                       std::span<const std::size_t> receive_bytes) {
  check_usable();
  YUMOE_ASSERT(send_bytes.size() == ranks() && receive_bytes.size() == ranks());
  YUMOE_ASSERT(send_bytes[self()] == receive_bytes[self()]);
  std::vector<Pending> pending;
  std::size_t at = 0;
  for (std::size_t r = 0; r < ranks(); ++r) {
    if (r != self())
      receive(pending, static_cast<int>(r), receive_all.subspan(at, receive_bytes[r]));
    at += receive_bytes[r];
  }
  YUMOE_ASSERT(at == receive_all.size());
  at = 0;
  for (std::size_t r = 0; r < ranks(); ++r) {
    const ByteView part = send_all.subspan(at, send_bytes[r]);
    at += send_bytes[r];
    if (r != self()) {
      send(pending, static_cast<int>(r), part);
      continue;
    }
    std::size_t to = 0;
    for (std::size_t before = 0; before < r; ++before) to += receive_bytes[before];
    std::copy(part.begin(), part.end(), receive_all.begin() + static_cast<std::ptrdiff_t>(to));
  }
  YUMOE_ASSERT(at == send_all.size());
  return std::make_unique<Started>(*this, std::move(pending));
}

}  // namespace

std::unique_ptr<Collective> over(std::unique_ptr<Wire> wire, milliseconds wait_max) {
  return std::make_unique<OverWire>(std::move(wire), wait_max);
}

}  // namespace yumoe::collective

namespace yumoe {

namespace {

// The first of these that holds a number of at least `least`.
int number_from(std::initializer_list<const char*> names, int least, int otherwise) {
  for (const char* name : names) {
    const char* text = std::getenv(name);
    if (text != nullptr && *text != '\0' && std::atoi(text) >= least) return std::atoi(text);
  }
  return otherwise;
}

}  // namespace

// mpirun of Open MPI; srun, which counts the tasks of this step whatever its PMI is.
int launched_ranks() { return number_from({"OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"}, 1, 1); }

int launched_local_rank() {
  return number_from({"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"}, 0, 0);
}

}  // namespace yumoe

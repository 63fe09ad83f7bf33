// Ranks that are threads of one process.

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>

#include "cluster/error.hpp"
#include "collective/wire.hpp"

namespace yumoe::collective {
namespace {

// What the ranks of one group share. Messages are copied in and out, so that nobody reads the memory of
// a thread that has left.
struct Room {
  explicit Room(int ranks) : size(ranks), letters(static_cast<std::size_t>(ranks * ranks)) {}

  std::deque<Bytes>& from_to(int from, int to) {
    return letters[static_cast<std::size_t>(from * size + to)];
  }

  const int size;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::deque<Bytes>> letters;
  std::set<int> left;          // destroyed without reform()
  std::set<int> lost;          // told to be
  std::set<int> ready;         // have called reform()
  std::shared_ptr<Room> next;  // the group they form
  std::map<int, int> next_rank;
};

class InProcessWire final : public Wire {
 public:
  InProcessWire(std::shared_ptr<Room> room, int rank) : room_(std::move(room)), rank_(rank) {}
  ~InProcessWire() override {
    const std::lock_guard lock(room_->mutex);
    if (!room_->ready.contains(rank_)) room_->left.insert(rank_);
    room_->changed.notify_all();
  }

  int rank() const override { return rank_; }
  int size() const override { return room_->size; }

  Ticket send(int to, ByteView bytes) override {
    const std::lock_guard lock(room_->mutex);
    room_->from_to(rank_, to).emplace_back(bytes.begin(), bytes.end());
    return 0;  // done at once
  }

  Ticket receive(int from, std::span<std::uint8_t> into) override {
    waiting_[++newest_] = {from, into};
    order_[from].push_back(newest_);
    return newest_;
  }

  bool is_done(Ticket ticket) override {
    if (ticket == 0) return true;
    const std::lock_guard lock(room_->mutex);
    for (auto& [from, tickets] : order_) {
      std::deque<Bytes>& letters = room_->from_to(from, rank_);
      while (!tickets.empty() && !letters.empty()) {
        const std::span<std::uint8_t> into = waiting_.at(tickets.front()).into;
        YUMOE_ASSERT(into.size() == letters.front().size());
        std::memcpy(into.data(), letters.front().data(), into.size());
        waiting_.erase(tickets.front());
        tickets.pop_front();
        letters.pop_front();
      }
    }
    return !waiting_.contains(ticket);
  }

  void abandon(std::span<const Ticket>) override {
    waiting_.clear();
    order_.clear();
  }

  bool has_left(int rank) override {
    const std::lock_guard lock(room_->mutex);
    return room_->left.contains(rank);
  }

  std::vector<int> lost() override {
    const std::lock_guard lock(room_->mutex);
    return {room_->lost.begin(), room_->lost.end()};
  }

  void tell_lost(std::span<const int> ranks) override {
    const std::lock_guard lock(room_->mutex);
    room_->lost.insert(ranks.begin(), ranks.end());
  }

  std::unique_ptr<Wire> reform(std::chrono::milliseconds wait_max) override {
    std::unique_lock lock(room_->mutex);
    if (room_->lost.contains(rank_) || room_->next != nullptr) {
      throw Error(ErrorCode::collective_failed,
                  "rank " + std::to_string(rank_) + " was given up by the others");
    }
    room_->ready.insert(rank_);
    room_->changed.notify_all();
    const auto all_here = [&] {
      if (room_->next != nullptr) return true;
      std::set<int> accounted = room_->ready;
      accounted.insert(room_->lost.begin(), room_->lost.end());
      accounted.insert(room_->left.begin(), room_->left.end());
      return accounted.size() == static_cast<std::size_t>(room_->size);
    };
    if (!room_->changed.wait_for(lock, wait_max, all_here)) {
      for (int r = 0; r < room_->size; ++r) {  // those that did not come are lost too
        if (!room_->ready.contains(r)) room_->lost.insert(r);
      }
      room_->changed.notify_all();
    }
    if (room_->next == nullptr) {
      int place = 0;
      for (const int r : room_->ready) room_->next_rank[r] = place++;
      room_->next = std::make_shared<Room>(place);
    }
    return std::make_unique<InProcessWire>(room_->next, room_->next_rank.at(rank_));
  }

 private:
  struct Receive {
    int from;
    std::span<std::uint8_t> into;
  };

  std::shared_ptr<Room> room_;
  int rank_;
  Ticket newest_ = 0;
  std::map<Ticket, Receive> waiting_;
  std::map<int, std::deque<Ticket>> order_;
};

}  // namespace
}  // namespace yumoe::collective

namespace yumoe {

std::vector<std::unique_ptr<Collective>> in_process_group(int size,
                                                          std::chrono::milliseconds wait_max) {
  YUMOE_ASSERT(size >= 1);
  auto room = std::make_shared<collective::Room>(size);
  std::vector<std::unique_ptr<Collective>> group;
  for (int rank = 0; rank < size; ++rank) {
    group.push_back(
        collective::over(std::make_unique<collective::InProcessWire>(room, rank), wait_max));
  }
  return group;
}

}  // namespace yumoe

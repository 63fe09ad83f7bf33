#pragma once
// The one matrix of checks that every backend of Collective has to pass: in threads, under mpirun, on
// GPUs. Returns what is wrong, or nothing.

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cluster/collective.hpp"

namespace yumoe::collective_checks {

inline DeviceMemory host_memory() {
  return {[](std::size_t bytes) {
            return std::shared_ptr<std::uint8_t>(new std::uint8_t[bytes],
                                                 std::default_delete<std::uint8_t[]>());
          },
          [](void* to, const void* from, std::size_t bytes) { std::memcpy(to, from, bytes); }};
}

// `values` in memory of the group's kind.
template <typename T>
class Placed {
 public:
  Placed(const DeviceMemory& memory, const std::vector<T>& values)
      : memory_(memory),
        count_(values.size()),
        bytes_(memory.allocate(std::max<std::size_t>(count_ * sizeof(T), 1))) {
    if (count_ > 0) memory_.copy(bytes_.get(), values.data(), count_ * sizeof(T));
  }
  std::span<T> span() { return {reinterpret_cast<T*>(bytes_.get()), count_}; }
  std::vector<T> read() const {
    std::vector<T> values(count_);
    if (count_ > 0) memory_.copy(values.data(), bytes_.get(), count_ * sizeof(T));
    return values;
  }

 private:
  const DeviceMemory& memory_;
  std::size_t count_;
  std::shared_ptr<std::uint8_t> bytes_;
};

using Bytes8 = std::vector<std::uint8_t>;

inline std::string check_sum(Collective& group, const DeviceMemory& memory, std::size_t count) {
  std::vector<float> mine(count), expected(count);
  for (std::size_t i = 0; i < count; ++i) {
    for (int r = 0; r < group.size(); ++r) {
      const auto value = static_cast<float>(i % 97) + static_cast<float>(r) * 0.25F;
      expected[i] += value;
      if (r == group.rank()) mine[i] = value;
    }
  }
  Placed<float> placed(memory, mine);
  group.all_reduce_sum(placed.span());
  return placed.read() == expected ? "" : "all_reduce_sum of " + std::to_string(count);
}

inline std::string check_gather(Collective& group, const DeviceMemory& memory, std::size_t count) {
  const auto of = [&](int r) { return Bytes8(count, static_cast<std::uint8_t>(r + 1)); };
  Bytes8 expected;
  for (int r = 0; r < group.size(); ++r) {
    const Bytes8 part = of(r);
    expected.insert(expected.end(), part.begin(), part.end());
  }
  Placed<std::uint8_t> mine(memory, of(group.rank())), all(memory, Bytes8(expected.size()));
  group.all_gather(mine.span(), all.span());
  return all.read() == expected ? "" : "all_gather of " + std::to_string(count);
}

inline std::string check_broadcast(Collective& group, const DeviceMemory& memory, int root) {
  const Bytes8 said(1'000, static_cast<std::uint8_t>(root + 7));
  Placed<std::uint8_t> placed(memory, group.rank() == root ? said : Bytes8(said.size()));
  group.broadcast(placed.span(), root);
  return placed.read() == said ? "" : "broadcast from " + std::to_string(root);
}

// How much `from` sends to `to`: some nothing, some much, none alike.
inline std::size_t sent(int from, int to, std::size_t unit) {
  return (from + 2 * to) % 3 == 0 ? 0 : unit * static_cast<std::size_t>(1 + from + 3 * to);
}

struct Exchanged {
  std::vector<std::size_t> send_bytes, receive_bytes;
  Bytes8 send, expected;
};

inline Exchanged exchanged(const Collective& group, std::size_t unit, int salt) {
  const auto mark = [&](int from, int to) {
    return static_cast<std::uint8_t>(from * 16 + to + salt);
  };
  Exchanged x;
  for (int r = 0; r < group.size(); ++r) {
    x.send_bytes.push_back(sent(group.rank(), r, unit));
    x.receive_bytes.push_back(sent(r, group.rank(), unit));
    x.send.insert(x.send.end(), x.send_bytes.back(), mark(group.rank(), r));
    x.expected.insert(x.expected.end(), x.receive_bytes.back(), mark(r, group.rank()));
  }
  return x;
}

inline std::string check_all_to_all(Collective& group, const DeviceMemory& memory,
                                    std::size_t unit) {
  // Two at once: matched in the order they were started.
  const Exchanged first = exchanged(group, unit, 0), second = exchanged(group, unit, 1);
  Placed<std::uint8_t> send1(memory, first.send), send2(memory, second.send),
      got1(memory, Bytes8(first.expected.size())), got2(memory, Bytes8(second.expected.size()));
  const auto one =
      group.start_all_to_all_v(send1.span(), first.send_bytes, got1.span(), first.receive_bytes);
  const auto two =
      group.start_all_to_all_v(send2.span(), second.send_bytes, got2.span(), second.receive_bytes);
  group.progress();
  two->wait();
  one->wait();
  return got1.read() == first.expected && got2.read() == second.expected
             ? ""
             : "all_to_all_v in units of " + std::to_string(unit);
}

// Everything, with sizes from nothing to several MiB.
inline std::string check_all(Collective& group, const DeviceMemory& memory) {
  std::string wrong;
  const auto add = [&](const std::string& text) {
    if (!text.empty()) wrong += (wrong.empty() ? "" : "; ") + text;
  };
  for (const std::size_t count : {0U, 1U, 2U, 5U, 1'000U, 300'001U})
    add(check_sum(group, memory, count));
  for (const std::size_t count : {0U, 1U, 4'097U}) add(check_gather(group, memory, count));
  for (int root = 0; root < group.size(); ++root) add(check_broadcast(group, memory, root));
  for (const std::size_t unit : {1U, 100U, 40'000U, 200'000U})
    add(check_all_to_all(group, memory, unit));
  group.barrier();
  return wrong;
}

}  // namespace yumoe::collective_checks

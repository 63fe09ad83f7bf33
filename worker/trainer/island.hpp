#pragma once
// How rank 0 of an island tells the other ranks what to do: a numbered kind and its bytes, one after
// the other, so that all ranks make the same calls in the same order.

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/collective.hpp"
#include "router/deadline.hpp"
#include "router/layout.hpp"
#include "router/shard.hpp"

namespace yumoe::island {

enum class Command : std::uint32_t { idle, setup, base, start, step, collect, end };

struct Said {
  Command command = Command::idle;
  Bytes payload;
};

void say(Collective& group, Command command, ByteView payload);
// Waits up to kIdleWaitMax, then as long as the group did before.
Said hear(Collective& group, std::chrono::milliseconds usual_wait);

inline constexpr std::chrono::milliseconds kIdleWaitMax{600'000};

// The last thing the ranks of a group do: each returns when all have come, or after a while.
void part(Collective& group);

// Numbers and lists, one after the other, within one process image: no format for files or wires.
class Writer {
 public:
  template <typename T>
  Writer& add(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof value);
    return *this;
  }
  template <typename T>
  Writer& add_list(std::span<const T> values) {
    add(static_cast<std::uint64_t>(values.size()));
    const ByteView bytes = as_bytes(values);
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  const Bytes& bytes() const { return bytes_; }

 private:
  Bytes bytes_;
};

class Reader {
 public:
  explicit Reader(ByteView bytes) : bytes_(bytes) {}
  template <typename T>
  T take() {
    T value;
    take_into(&value, sizeof value);
    return value;
  }
  template <typename T>
  std::vector<T> take_list() {
    const auto count = take<std::uint64_t>();
    check(count <= bytes_.size() / sizeof(T));
    std::vector<T> values(count);
    if (count > 0) take_into(values.data(), count * sizeof(T));
    return values;
  }

 private:
  void take_into(void* to, std::size_t bytes);
  static void check(bool fits);
  ByteView bytes_;
};

struct Options {
  ModelOptions model;
  InnerOptions inner;
};
Bytes encode(const Options& options);
Options decode_options(ByteView bytes);

// Which of the `gpus` > 0 that a rank sees is its own. One alone is taken as its own, as launchers show it
// (Slurm's --gpus-per-task); ranks that see the same one are refused by join_nccl. Throws Error{config_invalid}
// for a rank beyond several.
int gpu_of_place(int local_rank, int gpus);

// How long a step may take: from those before it.
class StepDeadline {
 public:
  StepDeadline(Collective& group, std::chrono::milliseconds most) : group_(group), most_(most) {}
  void observe(double seconds);
  std::chrono::milliseconds now() const { return now_; }

 private:
  Collective& group_;
  std::chrono::milliseconds most_, now_ = most_;
  ArrivalStatistics steps_;
};

}  // namespace yumoe::island

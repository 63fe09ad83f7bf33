#pragma once
// Operations that all processes of an island take part in. One interface, three backends: in-process
// (threads; tests), MPI (CPUs), NCCL (GPUs). A backend that was not built throws when it is asked for.
//
// A group is fixed for its lifetime. Every rank calls the same operations in the same order. When a
// rank does not come within the deadline the operation ends on every other rank with
// Error{collective_failed} naming it, what it was to write is unspecified, and all later operations
// fail likewise; reform() makes a group of those that are left.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cluster/bytes.hpp"

namespace yumoe {

// Started, not yet waited for. The memory it was given stays untouched until wait() returned.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual void wait() = 0;  // once; throws Error{collective_failed}
};

class Collective {
 public:
  virtual ~Collective() = default;

  virtual int rank() const = 0;  // 0-based
  virtual int size() const = 0;

  // Whether the spans below are memory of a device instead of the host's. Then operations, and an
  // exchange's wait(), return as soon as they lie on the device's queues: they run after all that the
  // caller put on the device's default stream before, and whatever it puts there next runs after them.
  virtual bool on_device() const { return false; }

  // On a device: waits, with the operations' deadline, until all that the caller put there has ended.
  // To be called before anything else makes the host wait for the device, which has no deadline.
  virtual void drain() {}

  // A group of the same ranks over memory of the host; lives as long as this one.
  virtual Collective& host() { return *this; }

  // How long an operation waits for the others. Each backend starts with what it was made with.
  virtual void wait_at_most(std::chrono::milliseconds wait_max) = 0;

  // Replaces `values`, of one length everywhere, by the elementwise sum over ranks. The same bits on
  // every rank; host backends add in the order of ranks, so also in every run.
  virtual void all_reduce_sum(std::span<float> values) = 0;

  // all [size * mine.size()] = every rank's `mine`, of one length everywhere, by rank.
  virtual void all_gather(ByteView mine, std::span<std::uint8_t> all) = 0;

  virtual void broadcast(std::span<std::uint8_t> bytes, int root) = 0;
  virtual void barrier() = 0;

  // `send` is cut into send_bytes[r] for each rank r; `receive` is filled with receive_bytes[r] from
  // each. What r is sent must be as long as what it expects. Several may be under way; they are matched
  // in the order they were started.
  virtual std::unique_ptr<Exchange> start_all_to_all_v(
      ByteView send, std::span<const std::size_t> send_bytes, std::span<std::uint8_t> receive,
      std::span<const std::size_t> receive_bytes) = 0;
  void all_to_all_v(ByteView send, std::span<const std::size_t> send_bytes,
                    std::span<std::uint8_t> receive, std::span<const std::size_t> receive_bytes) {
    start_all_to_all_v(send, send_bytes, receive, receive_bytes)->wait();
  }

  // Lets what was started go on, between pieces of computation. Never blocks.
  virtual void progress() = 0;

  // After a failure, on every rank that is left: the group without the lost ones, in the old order.
  // Throws Error{collective_failed} where that cannot be done (MPI without ULFM, or a rank that is lost
  // but alive; NCCL over such a group): then the island's processes have to be started again. What was given to
  // operations before is not touched any more.
  virtual std::unique_ptr<Collective> reform() = 0;
};

template <typename T>
std::span<std::uint8_t> as_writable(std::span<T> values) {
  static_assert(std::is_trivially_copyable_v<T>);
  return {reinterpret_cast<std::uint8_t*>(values.data()), values.size_bytes()};
}

// A group of `size` ranks in one process: hand one to each thread. Destroying one means leaving.
std::vector<std::unique_ptr<Collective>> in_process_group(int size,
                                                          std::chrono::milliseconds wait_max);

// Ranks that a launcher (mpirun, srun with PMIx) says it started; 1 if none did.
int launched_ranks();
// Which of those on its machine this process is; 0 if none did.
int launched_local_rank();

// The group of all processes the launcher started. Once a process. Throws Error{config_invalid} if
// MPI was not built in. After a failure the process must end without waiting for the others, which
// the group's destructor sees to: it does not finalise MPI then.
bool mpi_is_built();
std::unique_ptr<Collective> join_mpi(std::chrono::milliseconds wait_max);
// The program that starts ranks for the MPI that was built in, and options it needs for reform().
std::vector<std::string> mpi_launcher();
// Ends, after a failure, the ranks that are left, hanging ones too, where their launcher would not do so
// once this process has ended: under ULFM. Returns otherwise, and in a rank that the others gave up.
void end_launched_ranks(int status);

// One rank a GPU. `control`, a host group of the same ranks, carries the identifier, names who is missing
// when a deadline passes, and is what host() gives. Throws Error{config_invalid} if NCCL was not built in,
// Error{device_missing} if there is no such GPU.
bool nccl_is_built();
std::unique_ptr<Collective> join_nccl(std::unique_ptr<Collective> control, int gpu,
                                      std::chrono::milliseconds wait_max);

// Memory of the group's kind: for tests and whoever does not hold tensors. bytes > 0.
// copy: between host and that memory, either direction.
struct DeviceMemory {
  std::function<std::shared_ptr<std::uint8_t>(std::size_t bytes)> allocate;
  std::function<void(void* to, const void* from, std::size_t bytes)> copy;
};
// What join_nccl's spans are made of. Throws as join_nccl does.
DeviceMemory nccl_memory();

}  // namespace yumoe

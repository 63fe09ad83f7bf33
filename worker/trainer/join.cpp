// An island of the processes that a launcher started: who computes on what.

#include <algorithm>

#include "cluster/error.hpp"
#include "model/device.hpp"
#include "trainer/island.hpp"
#include "worker/trainer.hpp"

namespace yumoe {
namespace {

// This rank's GPU: of its place on the machine, or the only one it is shown. -1: it computes on the CPU.
int gpu_for(const std::string& device) {
  if (device == "cpu" || (device == "auto" && !nccl_is_built())) return -1;
  if (device.starts_with("cuda:")) {
    throw Error(ErrorCode::usage, "--device " + device +
                                      " names one GPU, but an island has one a rank: say --device "
                                      "cuda, and each rank takes that of its place on its machine");
  }
  const int count = cuda_devices(device);
  return count > 0 ? island::gpu_of_place(launched_local_rank(), count) : -1;
}

}  // namespace

Island join_island(DeviceOptions& device, std::chrono::milliseconds wait_max) {
  auto control = join_mpi(wait_max);
  const std::int32_t gpu = gpu_for(device.device);
  // Before anything that takes all ranks: mixed, they would wait for one another.
  const std::uint8_t mine = gpu >= 0 ? 1 : 0;
  std::vector<std::uint8_t> all(static_cast<std::size_t>(control->size()));
  control->all_gather({&mine, 1}, all);
  if (std::ranges::count(all, mine) != static_cast<std::ptrdiff_t>(all.size())) {
    throw Error(ErrorCode::config_invalid,
                "rank " + std::to_string(control->rank()) + " of the island has " +
                    (gpu >= 0 ? "a GPU" : "none") +
                    ", others not so: an island is of GPUs or of CPUs; say --device cpu");
  }
  if (gpu < 0) {
    device.device = "cpu";
    return Island(std::move(control));
  }
  device.device = "cuda:" + std::to_string(gpu);
  return Island(join_nccl(std::move(control), gpu, wait_max));
}

}  // namespace yumoe

// The matrix of collectives over NCCL, one rank a GPU of this machine (or as many as mpirun started).
// Status 77 and "no GPU" where there is none; built by the `cuda` preset.

#include <cstdio>
#include <thread>

#include "cluster/collective_checks.hpp"
#include "cluster/error.hpp"

void fill_on_gpu(float* values, unsigned long count, float value);  // gpu_fill.cu

namespace yumoe {
namespace {

using std::chrono::milliseconds;

std::string check(std::unique_ptr<Collective> control) {
  const auto group = join_nccl(std::move(control), launched_local_rank(), milliseconds(60'000));
  const DeviceMemory memory = nccl_memory();
  std::string wrong = collective_checks::check_all(*group, memory);
  // What a kernel writes just before is summed.
  const std::vector<float> zeros(1'000'000);
  collective_checks::Placed<float> values(memory, zeros);
  fill_on_gpu(values.span().data(), zeros.size(), 3.0F);
  group->all_reduce_sum(values.span());
  if (values.read() != std::vector<float>(zeros.size(), 3.0F * static_cast<float>(group->size()))) {
    wrong += "; a sum did not wait for the kernel before it";
  }
  // And what a kernel writes right after does not spoil it; nothing waits on the host in between.
  const std::size_t half = zeros.size() * sizeof(float);
  collective_checks::Placed<float> from(memory, zeros), to(memory, zeros);
  std::vector<std::size_t> send(static_cast<std::size_t>(group->size())), receive(send.size());
  send[static_cast<std::size_t>(group->rank())] = receive[static_cast<std::size_t>(group->rank())] =
      half;
  for (int i = 0; i < 20; ++i) {
    fill_on_gpu(from.span().data(), zeros.size(), static_cast<float>(i));
    group->all_to_all_v(as_bytes(std::span<const float>(from.span())), send, as_writable(to.span()),
                        receive);
    fill_on_gpu(from.span().data(), zeros.size(), -1.0F);
  }
  group->drain();
  if (to.read() != std::vector<float>(zeros.size(), 19.0F)) {
    wrong += "; an exchange is not in order with the kernels around it";
  }
  return wrong;
}

int run() {
  std::unique_ptr<Collective> control;
  if (launched_ranks() > 1) {
    control = join_mpi(milliseconds(60'000));
  } else {
    control = std::move(in_process_group(1, milliseconds(60'000)).front());
  }
  const int rank = control->rank(), size = control->size();
  const std::string wrong = check(std::move(control));
  std::printf("rank %d of %d: %s\n", rank, size, wrong.empty() ? "all right" : wrong.c_str());
  return wrong.empty() ? 0 : 1;
}

}  // namespace
}  // namespace yumoe

int main() {
  try {
    return yumoe::run();
  } catch (const yumoe::Error& error) {
    std::fprintf(stderr, "nccl_check: %s\n", error.what());
    return error.code() == yumoe::ErrorCode::device_missing ? 77 : 1;
  }
}

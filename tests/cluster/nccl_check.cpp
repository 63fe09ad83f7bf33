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

std::string check(Collective& control) {
  const auto group = join_nccl(control, control.rank(), milliseconds(60'000));
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
  return wrong;
}

int run() {
  std::unique_ptr<Collective> control;
  if (launched_ranks() > 1) {
    control = join_mpi(milliseconds(60'000));
  } else {
    control = std::move(in_process_group(1, milliseconds(60'000)).front());
  }
  const std::string wrong = check(*control);
  std::printf("rank %d of %d: %s\n", control->rank(), control->size(),
              wrong.empty() ? "all right" : wrong.c_str());
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

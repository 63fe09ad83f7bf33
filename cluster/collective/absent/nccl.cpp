#include "cluster/collective.hpp"
#include "cluster/error.hpp"

namespace yumoe {
namespace {

[[noreturn]] void refuse() {
  throw Error(ErrorCode::config_invalid,
              "join ranks by NCCL: this build has none; configure with -DYUMOE_WITH_CUDA=ON");
}

}  // namespace

bool nccl_is_built() { return false; }

std::unique_ptr<Collective> join_nccl(std::unique_ptr<Collective>, int, std::chrono::milliseconds) {
  refuse();
}

DeviceMemory nccl_memory() { refuse(); }

}  // namespace yumoe

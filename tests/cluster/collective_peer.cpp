// One rank of the checks, started by mpirun: collective_peer mpi|nccl matrix, or
// collective_peer mpi hang|kill|reform|reform-hang RANK, where RANK stops or dies within an all-to-all, and the
// others form again without it.

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "cluster/collective_checks.hpp"
#include "cluster/error.hpp"
#include "cluster/launched_ranks.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

int matrix(const std::string& backend) {
  auto control = join_mpi(milliseconds(60'000));
  const int rank = control->rank(), size = control->size();
  std::string wrong = collective_checks::check_all(*control, collective_checks::host_memory());
  if (backend == "nccl") {
    const auto group = join_nccl(std::move(control), launched_local_rank(), milliseconds(60'000));
    wrong += collective_checks::check_all(*group, nccl_memory());
  }
  if (!wrong.empty()) std::fprintf(stderr, "rank %d: wrong: %s\n", rank, wrong.c_str());
  if (rank == 0 && wrong.empty()) std::printf("all right with %d ranks\n", size);
  return wrong.empty() ? 0 : 1;
}

int lose(const std::string& how, int victim) {
  const auto group = join_mpi(milliseconds(4'000));
  group->barrier();
  if (group->rank() == victim) {
    std::vector<std::size_t> bytes(static_cast<std::size_t>(group->size()), 1 << 20);
    std::vector<std::uint8_t> some((1 << 20) * bytes.size()), into(some.size());
    // One to its end first: who stops right after a barrier may still hold its message to one of the others,
    // who then waits in the barrier and is itself missed by the third.
    group->all_to_all_v(some, bytes, into, bytes);
    // Within the operation: the others have sent, and wait for it.
    const auto started = group->start_all_to_all_v(some, bytes, into, bytes);
    std::raise(how == "hang" || how == "reform-hang" ? SIGSTOP : SIGKILL);
  }
  try {
    while (true) {
      std::vector<std::size_t> bytes(static_cast<std::size_t>(group->size()), 1 << 20);
      std::vector<std::uint8_t> some((1 << 20) * bytes.size()), into(some.size());
      group->all_to_all_v(some, bytes, into, bytes);
    }
  } catch (const Error& error) {
    std::fprintf(stderr, "rank %d: %s\n", group->rank(), error.what());
    if (how.starts_with("reform")) {
      std::unique_ptr<Collective> smaller;
      try {
        smaller = group->reform();
      } catch (const Error& second) {
        std::fprintf(stderr, "rank %d: %s\n", group->rank(), second.what());
        end_launched_ranks(kIslandBroken);
        _exit(kIslandBroken);
      }
      const std::string wrong =
          collective_checks::check_all(*smaller, collective_checks::host_memory());
      std::fprintf(stderr, "rank %d: formed again with %d ranks%s\n", smaller->rank(),
                   smaller->size(), wrong.empty() ? ", all right" : wrong.c_str());
      if (wrong.empty()) return 0;  // through MPI's own end
    }
    end_launched_ranks(kIslandBroken);
    _exit(kIslandBroken);  // not through MPI's own end, which waits for the lost rank
  }
}

}  // namespace
}  // namespace yumoe

int main(int argc, char** argv) {
  const std::string backend = argc > 1 ? argv[1] : "", what = argc > 2 ? argv[2] : "";
  try {
    if (what == "matrix") return yumoe::matrix(backend);
    if (argc == 4) return yumoe::lose(what, std::atoi(argv[3]));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  std::fprintf(stderr,
               "usage: collective_peer mpi|nccl matrix | mpi "
               "hang|kill|reform|reform-hang RANK\n");
  return 2;
}

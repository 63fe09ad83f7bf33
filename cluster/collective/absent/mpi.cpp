#include "cluster/collective.hpp"
#include "cluster/error.hpp"
#include "cluster/launched_ranks.hpp"

namespace yumoe {

bool mpi_is_built() { return false; }

std::unique_ptr<Collective> join_mpi(std::chrono::milliseconds) {
  throw Error(ErrorCode::config_invalid,
              "join the ranks that mpirun started: this build has no MPI; configure with "
              "-DYUMOE_WITH_MPI=ON, or start one process without mpirun");
}

std::vector<std::string> mpi_launcher() { return {"mpirun"}; }

void end_launched_ranks(int) {}

bool given_up_by_others() { return false; }

}  // namespace yumoe

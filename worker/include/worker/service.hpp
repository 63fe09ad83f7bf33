#pragma once
// The loops of a worker and of a validator: follow the coordinator's directives until the run is over.

#include <atomic>
#include <filesystem>
#include <string>
#include <vector>

#include "cluster/collective.hpp"
#include "cluster/identity.hpp"
#include "cluster/transport.hpp"
#include "worker/device_options.hpp"

namespace yumoe {

struct ParticipantSetup {
  CoordinatorAddress coordinator;
  std::string name;
  std::filesystem::path data;   // the run's token set, or the worker's own
  bool own_data = false;        // then its digest need not be the run's
  std::filesystem::path state;  // what must survive a restart; made if missing
  DeviceOptions device;
  TransportOptions transport;
  std::uint32_t experts_max = 0;
  std::uint64_t memory_mib_max = 0;
  std::uint32_t inner_steps_max = 0;
  std::string tier = "open";
  std::string region;
  std::chrono::milliseconds join_wait{60'000};
  Collective* island = nullptr;  // of which this process is rank 0; the other ranks follow
  // For tests of the run's defences alone: how a worker misbehaves, a name of the attack library; "": not.
  std::string behaviour;
};

// Both return when the run is finished or `stop` is set. They throw Error if the coordinator refuses or
// stays silent, if the data is another set than the run's, or if the device fails.
void run_worker(ParticipantSetup setup, Keypair keys, const std::atomic<bool>& stop);
// Trains the last of some shards again. JOB holds, as `yumoe replay` writes them, `welcome`, `base` of the
// first shard, `shard-0` (a directive), and for each further one `aggregate-0`, which leads to the next
// base, and `shard-1`. The digest of the last pseudo-gradient goes to JOB/delta. Throws Error.
void recompute_shard(const std::filesystem::path& job, const std::filesystem::path& data,
                     const DeviceOptions& device);

// Exit status of a rank whose island lost another one.
inline constexpr int kIslandBroken = 75;

// Starts `ranks` processes of `command` by mpirun and, when one is lost, the rest of them again: the island
// goes on with one rank less from the round it was in. Returns mpirun's exit status of the last time, 0
// when `stop` was set.
struct IslandSetup {
  std::string mpirun = "mpirun";
  std::vector<std::string> mpirun_options;
  int ranks = 2;
  std::vector<std::string> command;  // program and arguments
};
int run_island(const IslandSetup& setup, const std::atomic<bool>& stop);

void run_validator(ParticipantSetup setup, Keypair keys, const std::atomic<bool>& stop);

}  // namespace yumoe

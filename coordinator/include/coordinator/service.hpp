#pragma once
// The coordinator's impure loop: transport -> event -> journal -> core -> transport. It decides nothing
// about rounds; if you want to write an `if` about rounds, it belongs in coordinator/run.

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cluster/clock.hpp"
#include "cluster/identity.hpp"
#include "cluster/transport.hpp"
#include "coordinator/run.hpp"
#include "coordinator/setup.hpp"
#include "coordinator/store_options.hpp"

namespace yumoe {

// What is happening now, for a terminal or a status page. Nothing here is journaled.
struct Progress {
  struct Member {
    Uid uid;
    std::string name;
    std::string hotkey;  // SS58
    Role role = Role::worker;
    bool active = false;
    Answer answer = Answer::missing;
    std::uint32_t steps_done = 0, steps = 0;  // of the shard in work
    double loss = 0;                          // of its newest inner step
    double tokens_per_s = 0;
    Standing standing;
    std::uint64_t tokens = 0, steps_total = 0;
    double seconds_training = 0;
    std::size_t experts = 0;
    std::string reason;
  };
  Phase phase = Phase::gathering;
  RoundId round;
  std::uint64_t rounds_total = 0;
  double heldout_loss = 0;  // NaN until measured
  double heldout_bits_per_byte = 0;
  RoundId heldout_version;
  std::uint64_t tokens = 0;               // accepted, in the whole run
  double tokens_per_s = 0;                // of the whole run
  double elapsed_s = 0, remaining_s = 0;  // remaining: 0 until it can be told
  std::uint64_t update_bytes_up = 0;      // contributions, counted at the socket
  std::uint64_t update_bytes_down = 0;    // aggregates, counted at the socket
  std::uint64_t dense_bytes = 0;  // what fp32 would have taken up for the same contributions
  std::uint64_t socket_bytes_in = 0, socket_bytes_out = 0;  // everything
  double compute_share = 0;  // of the workers' time between first and last round
  std::uint64_t ledger_block = 0;
  std::uint64_t chain_block = 0;  // newest that the ledger was told, 0: none
  bool chain_followed = false;    // the ledger's blocks pass as the chain's do, now
  Digest state;                   // of the newest base version
  std::vector<Member> members;    // by uid
};

class Coordinator {
 public:
  // Starts a run in an empty `folder`, or goes on with the one that is there: recovers the core from
  // the journal, the model from the newest good checkpoint and the rounds since.
  // Throws Error{config_invalid} if the folder holds a run of another configuration.
  Coordinator(RunSetup setup, const StoreOptions& store, const TransportOptions& transport_options,
              std::filesystem::path folder, Keypair keys, ServerTransport& transport, Clock& clock);
  ~Coordinator();

  // Handles what arrives within `wait_max` and the deadlines that pass. False when the run is
  // finished and everybody was told. Throws what the journal throws; then nothing that was not
  // durable has been said to anybody.
  bool step(std::chrono::milliseconds wait_max);

  // Tells the run's ledger, as `teller`, that the chain it follows has this many blocks now. Nothing
  // happens where the ledger follows no chain, another account tells, or it is told already.
  void tell_chain_block(std::uint64_t number, const Keypair& teller);

  bool finished() const;
  Progress progress() const;
  const Run& core() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace yumoe

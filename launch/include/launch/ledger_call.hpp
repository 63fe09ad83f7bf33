#pragma once
// Asking something of a run's ledger with an account's key: of the coordinator while the run is live, by
// the run's journal, under the run's lock, while it is not.

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>

#include "cluster/identity.hpp"
#include "cluster/transport.hpp"
#include "coordinator/chain_rpc.hpp"
#include "router/protocol.hpp"

namespace yumoe {

// Where a live run's coordinator is, as it wrote it into the run's folder.
// Throws Error{peer_unreachable} if it did not.
CoordinatorAddress address_in(const std::filesystem::path& run_folder);

// `operation` is the bytes of an operation (coordinator/operation.hpp) or of chain_block_call().

// Signs, sends and waits until the coordinator has answered: then the call is durable, or was refused.
// A lost answer is asked for again under the same number, so the call is taken once or not at all.
// What the ledger refuses stands in the answer's `error` and is not recorded.
// Throws Error{peer_refused} if the coordinator does not let it speak, Error{peer_unreachable} after
// `wait_max`.
LedgerAnswer call_coordinator(const CoordinatorAddress& address, const Keypair& account,
                              const Bytes& operation, std::chrono::milliseconds wait_max);

struct CallReport {
  LedgerAnswer answer;  // `error` is "" if the call was taken
  bool live = false;    // a coordinator answered
  // Of a stopped run: what the ledger caught up with before the call.
  std::uint64_t blocks_passed = 0, epochs_passed = 0;
};

// Reads the run, tries the call on its ledger as it stands now, by the wall clock, and appends it to the
// journal. What the ledger refuses stands in the answer's `error` and is not recorded. Throws
// Error{usage} if the run has no first record yet, and what Journal::open throws: Error{run_locked} if a
// coordinator is at work.
CallReport call_stopped_run(const std::filesystem::path& run_folder, const Keypair& account,
                            const Bytes& operation);

// `run` is a run's folder or a coordinator's address ("tcp://...").
CallReport call_run(const std::string& run, const Keypair& account, const Bytes& operation);

// Tells the run, as `owner`, each block that the chain finalises, from the newest on; `told` hears of each
// and says whether to go on. A coordinator that is away for a moment is told of the next one.
// Throws what the chain's node throws, and Error{peer_refused} with the ledger's reason.
void follow_chain(ChainNode& node, const std::string& run, const Keypair& owner,
                  const std::function<bool(std::uint64_t number, const CallReport&)>& told);

}  // namespace yumoe

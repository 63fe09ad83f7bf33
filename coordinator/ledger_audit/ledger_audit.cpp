#include "coordinator/ledger_audit.hpp"

#include <map>

#include "cluster/error.hpp"
#include "coordinator/history.hpp"
#include "coordinator/run_ledger.hpp"
#include "coordinator/setup.hpp"

namespace yumoe {
namespace {

// What checkpoints keep of the ledger, by the record after which it was so.
std::multimap<std::uint64_t, std::pair<RoundId, Bytes>> kept_snapshots(const RunRecord& record) {
  std::multimap<std::uint64_t, std::pair<RoundId, Bytes>> kept;
  for (const RoundId round : record.checkpoints()) {
    Checkpoint checkpoint = record.checkpoint(round);
    if (checkpoint.ledger_state.empty()) continue;  // written before checkpoints kept it
    kept.emplace(checkpoint.journal_sequence, std::pair(round, std::move(checkpoint.ledger_state)));
  }
  return kept;
}

void compare(const RunLedger& computed, RoundId round, ByteView kept) {
  const Bytes snapshot = computed.snapshot();
  if (std::equal(snapshot.begin(), snapshot.end(), kept.begin(), kept.end())) return;
  std::string where =
      ledger::first_difference(RunLedger::ledger_in(kept).state(), computed.ledger().state());
  if (where.empty()) where = "what accounts called";
  throw Error(ErrorCode::replay_differs, "the ledger in the checkpoint of round " +
                                             std::to_string(round.value) + ": " + where);
}

}  // namespace

LedgerAudit audit_ledger(const RunRecord& record) {
  const RunSetup setup = RunSetup::from_journal(record.run(), record.metadata());
  const Layout layout = Layout::of(setup.model);
  Run core(layout, setup.settings);
  RunLedger ledger(setup.ledger, setup.economy);
  const auto kept = kept_snapshots(record);
  LedgerAudit audit;
  drive(record, core, [&](const Record& r, const Event& event) {
    if (const auto* called = std::get_if<Called>(&event)) {
      check_evidence(*called, record.run());
      ++audit.calls;
    }
    ledger.apply(event, core, r.time);
    for (auto [at, end] = kept.equal_range(r.sequence); at != end; ++at) {
      compare(ledger, at->second.first, at->second.second);
      ++audit.snapshots;
    }
  });
  ledger.ledger().audit();
  const Bytes snapshot = ledger.ledger().snapshot();
  if (ledger::Ledger::restore(snapshot).digest() != ledger.ledger().digest()) {
    throw Error(ErrorCode::invariant_broken,
                "a snapshot of the ledger does not read back to the same");
  }
  audit.blocks = ledger.ledger().state().block;
  audit.epochs = ledger.epochs().size();
  audit.issuance = ledger.ledger().state().issuance;
  audit.digest = ledger.ledger().digest();
  return audit;
}

}  // namespace yumoe

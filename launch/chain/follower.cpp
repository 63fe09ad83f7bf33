#include "cluster/error.hpp"
#include "launch/settle_run.hpp"

namespace yumoe {

RunFollower::RunFollower(const std::filesystem::path& run)
    : RunFollower(open_run_record(run), nullptr, Keep::pays) {}

RunFollower::RunFollower(const RunRecord& record, Keep keep)
    : RunFollower(nullptr, &record, keep) {}

RunFollower::RunFollower(std::unique_ptr<RunRecord> owned, const RunRecord* record, Keep keep)
    : owned_(std::move(owned)),
      record_(record != nullptr ? *record : *owned_),
      keep_(keep),
      setup_(RunSetup::from_journal(record_.run(), record_.metadata())),
      layout_(Layout::of(setup_.model)),
      core_(layout_, setup_.settings),
      ledger_(setup_.ledger, setup_.economy) {
  ledger_.watch_epochs([this](const RunLedger::Epoch& epoch) { note(epoch); });
}

bool RunFollower::advance(const std::function<bool()>& stop) {
  bool stopped = false;
  record_.for_each(next_, [&](const Record& record) {
    if (stop && stop()) {
      stopped = true;
      return false;
    }
    const Event event = decode_event(record.payload);
    if (const auto refused = core_.refusal_of(event, record.time)) {
      throw Error(ErrorCode::journal_corrupt,
                  "record " + std::to_string(record.sequence) + " can not be: " + refused->message);
    }
    core_.apply(event, record.time);
    ledger_.apply(event, core_, record.time);
    next_ = record.sequence + 1;
    return true;
  });
  return !stopped;
}

// Right after the epoch: a run that was away catches up over several in one event, and each has its own
// shares, stakes and weights.
void RunFollower::note(const RunLedger::Epoch& from) {
  const ledger::Subnet& subnet = ledger_.ledger().state().subnets.at(RunLedger::kNetuid);
  const ledger::Mechanism& mechanism = subnet.mechanisms.front();
  RunEpoch epoch;
  epoch.number = epochs_.size() + 1;
  epoch.block = from.report.block;
  epoch.first_round = from.first_round;
  epoch.last_round = from.last_round;
  for (const auto& [uid, participant] : core_.participants()) {
    const auto neuron = ledger_.neuron_of(participant.hotkey);
    if (!neuron) continue;
    PredictedPay pay;
    pay.hotkey = participant.hotkey;
    pay.name = participant.name;
    pay.neuron = *neuron;
    pay.dividends = subnet.neurons.at(*neuron).dividends;
    if (*neuron < mechanism.incentive.size()) pay.incentive = mechanism.incentive[*neuron];
    for (const ledger::Payout& payout : from.report.payouts) {
      if (payout.uid == *neuron) pay.emission = payout.emission;
    }
    pay.stake = ledger_.alpha_of(participant.hotkey);
    if (keep_ == Keep::weights && *neuron < mechanism.weights.size()) {
      for (const auto& [target, value] : mechanism.weights[*neuron]) {
        pay.weights.emplace_back(target, value);
      }
    }
    epoch.pays.push_back(std::move(pay));
  }
  epochs_.push_back(std::move(epoch));
}

std::vector<std::pair<PublicKey, std::uint16_t>> RunFollower::weights_of(
    const PublicKey& validator) const {
  std::vector<std::pair<PublicKey, std::uint16_t>> out;
  const auto uid = core_.uid_of(validator);
  if (!uid) return out;
  bool any = false;
  for (const auto& [worker, weight] : core_.scoring().weights(*uid)) {
    out.emplace_back(core_.participants().at(worker).hotkey, weight);
    any |= weight > 0;
  }
  if (!any) out.clear();
  return out;
}

std::string RunFollower::name_of(const PublicKey& hotkey) const {
  const auto uid = core_.uid_of(hotkey);
  return uid ? core_.participants().at(*uid).name : "";
}

}  // namespace yumoe

#include "cluster/error.hpp"
#include "launch/settle_run.hpp"

namespace yumoe {

RunFollower::RunFollower(const std::filesystem::path& run)
    : record_(open_run_record(run)),
      setup_(RunSetup::from_journal(record_->run(), record_->metadata())),
      layout_(Layout::of(setup_.model)),
      core_(layout_, setup_.settings),
      ledger_(setup_.ledger, setup_.economy) {}

void RunFollower::advance() {
  record_->for_each(next_, [this](const Record& record) {
    const Event event = decode_event(record.payload);
    if (const auto refused = core_.refusal_of(event, record.time)) {
      throw Error(ErrorCode::journal_corrupt,
                  "record " + std::to_string(record.sequence) + " can not be: " + refused->message);
    }
    core_.apply(event, record.time);
    ledger_.apply(event, core_, record.time);
    next_ = record.sequence + 1;
    note_epochs();
    return true;
  });
}

void RunFollower::note_epochs() {
  const auto& epochs = ledger_.epochs();
  if (epochs.size() == epochs_.size()) return;
  const ledger::Subnet& subnet = ledger_.ledger().state().subnets.at(RunLedger::kNetuid);
  while (epochs_.size() < epochs.size()) {
    const RunLedger::Epoch& from = epochs[epochs_.size()];
    RunEpoch epoch;
    epoch.number = epochs_.size() + 1;
    epoch.block = from.report.block;
    epoch.first_round = from.first_round;
    epoch.last_round = from.last_round;
    for (const auto& [uid, participant] : core_.participants()) {
      const auto neuron = ledger_.neuron_of(participant.hotkey);
      if (!neuron) continue;
      PredictedPay pay{participant.hotkey, participant.name};
      pay.dividends = subnet.neurons.at(*neuron).dividends;
      const auto& incentive = subnet.mechanisms.front().incentive;
      if (*neuron < incentive.size()) pay.incentive = incentive[*neuron];
      for (const ledger::Payout& payout : from.report.payouts) {
        if (payout.uid == *neuron) pay.emission = payout.emission;
      }
      pay.stake = ledger_.alpha_of(participant.hotkey);
      epoch.pays.push_back(std::move(pay));
    }
    epochs_.push_back(std::move(epoch));
  }
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

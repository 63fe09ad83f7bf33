#include "coordinator/replay.hpp"

#include "cluster/error.hpp"

namespace yumoe {
namespace {

void compare(RoundId round, const char* what, const Digest& recorded, const Digest& reached) {
  if (recorded == reached) return;
  throw Error(ErrorCode::replay_differs, std::string(what) + " of round " +
                                             std::to_string(round.value) + " is " + reached.hex() +
                                             ", recorded is " + recorded.hex());
}

}  // namespace

Replayed replay(const Layout& layout, const RunSetup& setup, const ForEachRecord& records,
                const FindBlob& find_blob, std::optional<Checkpoint> checkpoint,
                const ReplayWatcher& watcher, std::uint64_t last_round) {
  Replayed state;
  state.core = std::make_unique<Run>(layout, setup.settings);
  state.model = checkpoint ? std::make_unique<ModelState>(layout, setup, *checkpoint)
                           : std::make_unique<ModelState>(layout, setup);
  if (watcher.model) watcher.model(*state.model);
  records([&](const Record& record) {
    const auto spoilt = [&](const std::string& why) {
      throw Error(ErrorCode::journal_corrupt,
                  "record " + std::to_string(record.sequence) + " (" + record.kind + "): " + why);
    };
    std::optional<Event> event;
    try {
      event = decode_event(record.payload);
    } catch (const Error& error) {
      spoilt(error.what());
    }
    if (record.time < state.last_time) spoilt("its time is before the one before it");
    if (const auto refused = state.core->refusal_of(*event, record.time)) spoilt(refused->message);
    if (const auto* aggregated = std::get_if<Aggregated>(&*event);
        aggregated != nullptr && aggregated->round > state.model->base().round() &&
        aggregated->round.value <= last_round) {
      if (state.core->phase() != Phase::aggregating || aggregated->round != state.core->round()) {
        spoilt("an aggregate that was not due");
      }
      const ModelState::Result result =
          state.model->aggregate(state.core->aggregation(), find_blob);
      compare(aggregated->round, "aggregate", aggregated->blob, digest_of(result.aggregate));
      compare(aggregated->round, "base version", aggregated->version, result.version);
      if (watcher.aggregated) watcher.aggregated(aggregated->round, result);
    }
    state.core->apply(*event, record.time);
    state.records = record.sequence;
    state.last_time = record.time;
    if (watcher.event) watcher.event(record, *event, *state.core);
    return true;
  });
  return state;
}

}  // namespace yumoe

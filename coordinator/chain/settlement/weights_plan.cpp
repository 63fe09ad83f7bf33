#include "coordinator/weights_plan.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>

#include "cluster/error.hpp"
#include "coordinator/scale.hpp"
#include "coordinator/timelock.hpp"

namespace yumoe::settlement {
namespace {

using nlohmann::json;

constexpr std::uint32_t kNever = 0xffff'ffff;

std::uint32_t clamp_block(std::uint64_t block) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(block, kNever));
}

std::string hex(ByteView bytes) { return "0x" + to_hex(bytes); }

Intent intent_of(std::string id, const PublicKey& signer, std::string call, json arguments,
                 std::string event) {
  Intent intent;
  intent.id = std::move(id);
  intent.signer = signer;
  intent.pallet = "SubtensorModule";
  intent.call = std::move(call);
  intent.arguments = arguments.dump();
  intent.effect_event = std::move(event);
  return intent;
}

std::string settlement_id(const SubnetWeights& weights, std::string_view step) {
  return settlement_prefix(weights.netuid, weights.validator) + "epoch " +
         std::to_string(weights.ledger_epoch) +
         (weights.turn > 1 ? "/turn " + std::to_string(weights.turn) : "") + "/" +
         std::string(step);
}

std::vector<std::uint16_t> salt_of(ByteView seed, const std::string& id) {
  const Digest digest =
      Digester().update(as_bytes("yumoe commit salt")).update(seed).update(as_bytes(id)).finish();
  std::vector<std::uint16_t> salt;
  for (std::size_t i = 0; i < 16; i += 2) {
    salt.push_back(static_cast<std::uint16_t>(digest.bytes[i] | digest.bytes[i + 1] << 8));
  }
  return salt;
}

}  // namespace

std::uint64_t EpochClock::epoch_at(std::uint32_t block) const {
  if (tempo == 0) return 0;
  if (kind == Kind::from_block_number) {
    return (std::uint64_t{block} + netuid.value + 1) / (std::uint64_t{tempo} + 1);
  }
  if (block <= last_epoch_block) return epoch_index;
  return epoch_index + (block - last_epoch_block) / tempo;
}

std::uint32_t EpochClock::first_block_of(std::uint64_t epoch) const {
  if (tempo == 0) return kNever;
  if (kind == Kind::from_block_number) {
    const std::uint64_t start = epoch * (std::uint64_t{tempo} + 1);
    const std::uint64_t shift = std::uint64_t{netuid.value} + 1;
    return clamp_block(start > shift ? start - shift : 0);
  }
  if (epoch <= epoch_index) return last_epoch_block;
  return clamp_block(last_epoch_block + (epoch - epoch_index) * tempo);
}

std::uint64_t EpochClock::paid_by(std::uint32_t block) const {
  return kind == Kind::counted ? epoch_index : epoch_at(block + 1);
}

std::uint32_t EpochClock::next_run_after(std::uint32_t block) const {
  if (tempo == 0) return kNever;
  if (kind == Kind::from_block_number) {  // (block + netuid + 1) mod (tempo + 1) == tempo
    const std::uint64_t period = std::uint64_t{tempo} + 1;
    const std::uint64_t phase = (std::uint64_t{block} + 1 + netuid.value + 1) % period;
    return clamp_block(std::uint64_t{block} + 1 + (tempo + period - phase) % period);
  }
  if (block < last_epoch_block) return last_epoch_block;
  return clamp_block(last_epoch_block +
                     ((std::uint64_t{block} - last_epoch_block) / tempo + 1) * tempo);
}

std::uint32_t EpochClock::last_run_by(std::uint32_t block) const {
  if (tempo == 0) return 0;
  if (kind == Kind::counted) return epoch_index == 0 ? 0 : last_epoch_block;
  const std::uint64_t paid = paid_by(block);
  const std::uint32_t first = paid == 0 ? 0 : first_block_of(paid);
  return first == 0 ? 0 : first - 1;
}

std::uint32_t EpochClock::last_block_of_epoch(std::uint32_t block) const {
  return tempo == 0 ? kNever : first_block_of(epoch_at(block) + 1) - 1;
}

std::string settlement_prefix(Netuid netuid, const PublicKey& validator) {
  return "weights/" + std::to_string(netuid.value) + "/" + to_ss58(validator) + "/";
}

Digest commit_hash(const PublicKey& who, std::uint16_t index, std::span<const std::uint16_t> uids,
                   std::span<const std::uint16_t> values, std::span<const std::uint16_t> salt,
                   std::uint64_t version_key) {
  ScaleWriter writer;
  writer.raw(who.bytes);
  writer.u16(index);
  for (const auto list : {uids, values, salt}) {
    writer.compact(list.size());
    for (const std::uint16_t item : list) writer.u16(item);
  }
  writer.u64(version_key);
  return digest_of(writer.view());
}

Intent plan_weights(const SubnetRule& rule, const SubnetWeights& weights, std::uint32_t block,
                    TimeMs now, ByteView salt_seed) {
  YUMOE_ASSERT(weights.uids.size() == weights.values.size());
  const json netuid = weights.netuid.value;
  Intent intent;
  switch (rule.rule) {
    case WeightsRule::plain:
      intent = intent_of(settlement_id(weights, "set"), weights.validator, "set_weights",
                         {{"netuid", netuid},
                          {"dests", weights.uids},
                          {"weights", weights.values},
                          {"version_key", rule.version_key}},
                         "SubtensorModule.WeightsSet");
      break;
    case WeightsRule::hash_commit: {
      const std::string id = settlement_id(weights, "commit");
      const auto salt = salt_of(salt_seed, id);
      const Digest hash = commit_hash(weights.validator, weights.netuid.value, weights.uids,
                                      weights.values, salt, rule.version_key);
      intent = intent_of(id, weights.validator, "commit_weights",
                         {{"netuid", netuid}, {"commit_hash", hex(hash.bytes)}},
                         "SubtensorModule.WeightsCommitted");
      intent.note = json{{"reveal",
                          {{"netuid", netuid},
                           {"uids", weights.uids},
                           {"values", weights.values},
                           {"salt", salt},
                           {"version_key", rule.version_key}}}}
                        .dump();
      break;
    }
    case WeightsRule::timelocked_commit: {
      const std::uint64_t reveal_epoch = rule.epochs.epoch_at(block) + rule.reveal_period;
      const std::uint32_t reveal_block = rule.epochs.first_block_of(reveal_epoch);
      const std::uint32_t blocks = reveal_block > block ? reveal_block - block : 0;
      const std::uint64_t round = drand_reveal_round(now, blocks, rule.block_time);
      const Bytes sealed =
          timelock_seal(timelock_weights_payload(weights.validator.bytes, weights.uids,
                                                 weights.values, rule.version_key),
                        round);
      intent = intent_of(settlement_id(weights, "timelocked"), weights.validator,
                         "commit_timelocked_weights",
                         {{"netuid", netuid},
                          {"commit", hex(sealed)},
                          {"reveal_round", round},
                          {"commit_reveal_version", rule.commit_version}},
                         "SubtensorModule.TimelockedWeightsCommitted");
      // Only the chain can open it; we must know what it holds to see whether it did.
      intent.note = json{{"sealed",
                          {{"uids", weights.uids},
                           {"values", weights.values},
                           {"reveal_epoch", reveal_epoch}}}}
                        .dump();
      break;
    }
  }
  // The last block in which the vector still counts for the running epoch.
  intent.latest = rule.epochs.last_block_of_epoch(block);
  intent.pause_blocks = rule.rate_limit;
  return intent;
}

Intent plan_reveal(const SubnetRule& rule, const Intent& commit, std::uint32_t commit_block) {
  try {
    const json arguments = json::parse(commit.note).at("reveal");
    std::string id = commit.id;
    id.replace(id.rfind("/commit"), std::string::npos, "/reveal");
    Intent intent = intent_of(id, commit.signer, "reveal_weights", arguments,
                              "SubtensorModule.WeightsRevealed");
    const std::uint64_t epoch = rule.epochs.epoch_at(commit_block) + rule.reveal_period;
    intent.earliest = rule.epochs.first_block_of(epoch);
    intent.latest = rule.epochs.first_block_of(epoch + 1) - 1;
    intent.pause_blocks = 2;  // a reveal that is early by an epoch's shift is tried again soon
    intent.after = commit.id;
    return intent;
  } catch (const std::exception& error) {
    throw Error(ErrorCode::journal_corrupt,
                "commit " + commit.id + " does not say what it committed: " + error.what());
  }
}

// ---- what is in force ------------------------------------------------------------------------

std::optional<CarriedWeights> carried_weights(const Intent& intent) {
  CarriedWeights out;
  const auto take = [&](const json& from, const char* uids, const char* values) {
    out.uids = from.at(uids).get<std::vector<std::uint16_t>>();
    out.values = from.at(values).get<std::vector<std::uint16_t>>();
    return out.uids.size() == out.values.size() ? std::optional(out) : std::nullopt;
  };
  try {
    if (intent.call == "set_weights")
      return take(json::parse(intent.arguments), "dests", "weights");
    if (intent.call == "reveal_weights") {
      return take(json::parse(intent.arguments), "uids", "values");
    }
    if (intent.note.empty()) return std::nullopt;
    const json note = json::parse(intent.note);
    if (intent.call == "commit_weights") return take(note.at("reveal"), "uids", "values");
    if (intent.call == "commit_timelocked_weights") {
      out.reveal_epoch = note.at("sealed").at("reveal_epoch").get<std::uint64_t>();
      out.reveal_round = json::parse(intent.arguments).at("reveal_round").get<std::uint64_t>();
      return take(note.at("sealed"), "uids", "values");
    }
  } catch (const json::exception& error) {
    throw Error(ErrorCode::journal_corrupt,
                "settlement " + intent.id + " does not say its weights: " + error.what());
  }
  return std::nullopt;
}

bool is_kept_as(const CarriedWeights& weights, const ChainRow& row) {
  std::map<std::uint16_t, std::int64_t> expected;
  const std::int64_t largest =
      weights.values.empty() ? 0 : *std::ranges::max_element(weights.values);
  for (std::size_t i = 0; i < weights.uids.size(); ++i) {
    if (weights.values[i] == 0) continue;
    expected[weights.uids[i]] = (std::int64_t{weights.values[i]} * 65'535 + largest / 2) / largest;
  }
  std::size_t found = 0;
  for (const auto& [uid, value] : row) {
    if (value == 0) continue;
    const auto place = expected.find(uid);
    if (place == expected.end() || std::abs(place->second - value) > 1) return false;
    ++found;
  }
  return found == expected.size() && found > 0;
}

std::vector<StandingWeights> standing_weights(const std::vector<IntentStatus>& settlements,
                                              std::string_view prefix) {
  std::map<std::string, std::uint32_t> reveals;  // by the commit's id
  for (const IntentStatus& status : settlements) {
    if (status.intent.call == "reveal_weights" && status.phase == "effected") {
      reveals.emplace(status.intent.after, status.outcome->block);
    }
  }
  std::vector<StandingWeights> out;
  for (const IntentStatus& status : settlements) {
    const std::string& call = status.intent.call;
    if (!status.intent.id.starts_with(prefix) || call == "reveal_weights") continue;
    if (status.phase != "effected") continue;
    auto weights = carried_weights(status.intent);
    if (!weights) continue;
    const std::uint32_t block = status.outcome->block;
    const auto reveal = reveals.find(status.intent.id);
    const std::uint32_t opened = call == "set_weights"     ? block
                                 : reveal != reveals.end() ? reveal->second
                                                           : 0;
    out.push_back({&status, *std::move(weights), block, opened});
  }
  return out;
}

const IntentStatus* in_force(const std::vector<StandingWeights>& standing, const RanEpoch& epoch) {
  for (auto one = standing.rbegin(); one != standing.rend(); ++one) {
    if (one->block >= epoch.block || one->opened >= epoch.block) continue;
    if (!is_kept_as(one->weights, epoch.row)) continue;
    const bool opened =
        one->opened != 0 || (one->weights.reveal_epoch && *one->weights.reveal_epoch < epoch.paid);
    if (opened) return one->status;
  }
  return nullptr;
}

std::vector<std::string> schedule_warnings(const SubnetRule& rule) {
  std::vector<std::string> warnings;
  const std::uint64_t tempo = rule.epochs.tempo;
  if (tempo == 0) {
    warnings.push_back("tempo is 0: the subnet runs no epochs and pays nothing");
    return warnings;
  }
  if (rule.rule != WeightsRule::plain && rule.immunity_period != 0 &&
      rule.reveal_period * tempo >= rule.immunity_period) {
    warnings.push_back("weights are revealed after " + std::to_string(rule.reveal_period * tempo) +
                       " blocks, but a new miner is immune for " +
                       std::to_string(rule.immunity_period) +
                       ": it can be pruned before it is ever scored");
  }
  if (rule.rate_limit > tempo) {
    warnings.push_back("weights_rate_limit (" + std::to_string(rule.rate_limit) +
                       " blocks) is longer than the tempo (" + std::to_string(tempo) +
                       "): not every epoch gets new weights");
  }
  return warnings;
}

// ---- other calls -----------------------------------------------------------------------------

Intent register_intent(std::string id, const PublicKey& coldkey, Netuid netuid,
                       const PublicKey& hotkey) {
  return intent_of(std::move(id), coldkey, "burned_register",
                   {{"netuid", netuid.value}, {"hotkey", to_ss58(hotkey)}},
                   "SubtensorModule.NeuronRegistered");
}

Intent serve_intent(std::string id, const PublicKey& hotkey, Netuid netuid, const std::string& ip,
                    std::uint16_t port) {
  std::array<std::uint8_t, 16> bytes{};
  std::size_t size = 0;
  if (inet_pton(AF_INET, ip.c_str(), bytes.data()) == 1) {
    size = 4;
  } else if (inet_pton(AF_INET6, ip.c_str(), bytes.data()) == 1) {
    size = 16;
  } else {
    throw Error(ErrorCode::usage, "'" + ip + "' is neither an IPv4 nor an IPv6 address");
  }
  // The chain's u128: the address's bytes, big-endian.
  const json arguments{{"netuid", netuid.value},
                       {"version", 1},
                       {"ip", hex(ByteView(bytes).first(size))},
                       {"port", port},
                       {"ip_type", size == 4 ? 4 : 6},
                       {"protocol", 4},
                       {"placeholder1", 0},
                       {"placeholder2", 0}};
  return intent_of(std::move(id), hotkey, "serve_axon", arguments, "SubtensorModule.AxonServed");
}

Intent add_stake_intent(std::string id, const PublicKey& coldkey, const PublicKey& hotkey,
                        Netuid netuid, std::uint64_t tao) {
  return intent_of(std::move(id), coldkey, "add_stake",
                   {{"hotkey", to_ss58(hotkey)}, {"netuid", netuid.value}, {"amount_staked", tao}},
                   "SubtensorModule.StakeAdded");
}

Intent remove_stake_intent(std::string id, const PublicKey& coldkey, const PublicKey& hotkey,
                           Netuid netuid, std::uint64_t alpha) {
  return intent_of(
      std::move(id), coldkey, "remove_stake",
      {{"hotkey", to_ss58(hotkey)}, {"netuid", netuid.value}, {"amount_unstaked", alpha}},
      "SubtensorModule.StakeRemoved");
}

Intent transfer_intent(std::string id, const PublicKey& from, const PublicKey& to,
                       std::uint64_t amount) {
  Intent intent = intent_of(std::move(id), from, "transfer_keep_alive",
                            {{"dest", to_ss58(to)}, {"value", amount}}, "Balances.Transfer");
  intent.pallet = "Balances";
  return intent;
}

// ---- ledger against chain --------------------------------------------------------------------

namespace {

// Why weights that stand in a block are not those by which the chain paid.
std::string delay_cause(const IntentStatus& status, const ReconcileFacts& facts) {
  const std::uint32_t block = status.outcome->block;
  const std::string where = "in block " + std::to_string(block);
  const std::string& call = status.intent.call;
  if (call == "commit_timelocked_weights") {
    const auto sealed = carried_weights(status.intent);
    return "not in force yet: committed " + where +
           (sealed ? ", the chain opens it in its epoch " + std::to_string(*sealed->reveal_epoch) +
                         " with drand round " + std::to_string(sealed->reveal_round)
                   : ", for the chain to open");
  }
  const std::string done = call == "reveal_weights" ? "revealed " : "set ";
  if (call == "commit_weights" || facts.epoch_block == 0) return "";
  if (block < facts.epoch_block && !facts.has_our_row) {
    return done + where +
           "; whether they were in force is not known: the node has the state before block " +
           std::to_string(facts.epoch_block) + " no more";
  }
  if (block < facts.epoch_block) {
    return done + where + ", but the chain's epoch of block " + std::to_string(facts.epoch_block) +
           " had other weights of this hotkey: is another program setting them?";
  }
  return "not in force yet: " + done + where + ", the chain's epoch ran in block " +
         std::to_string(facts.epoch_block);
}

// Why our weights may not be what the chain used; empty if they took effect.
std::string settlement_cause(const ReconcileFacts& facts) {
  for (const IntentStatus& status : facts.intents) {
    const std::string& call = status.intent.call;
    if (status.phase == "refused") return "our " + call + " was refused: " + status.outcome->reason;
    if (status.phase != "effected") {
      const std::string why = status.problem.empty() ? "" : " (" + status.problem + ")";
      return (call == "reveal_weights" ? "missing reveal: our " : "not yet settled: our ") + call +
             " is " + status.phase + why;
    }
    if (call == "commit_weights") {
      const bool revealed = std::ranges::any_of(facts.intents, [](const IntentStatus& other) {
        return other.intent.call == "reveal_weights";
      });
      if (!revealed)
        return "missing reveal: committed in block " + std::to_string(status.outcome->block) +
               ", nothing revealed yet";
    }
    if (std::string cause = delay_cause(status, facts); !cause.empty()) return cause;
  }
  return "";
}

std::string cause_for(Uid uid, std::string_view field, const ReconcileFacts& facts) {
  if (field == "stake") return "stake was added or removed on the chain";
  if (!facts.in_force) {
    if (const std::string cause = settlement_cause(facts); !cause.empty()) return cause;
  }
  const bool ours_count = !facts.our_uid || facts.chain_weights.empty() ||
                          std::ranges::any_of(facts.chain_weights, [&](const auto& row) {
                            return row.first == *facts.our_uid && !row.second.empty();
                          });
  if (!ours_count) return "no weights of ours are on the chain";
  const std::string since =
      facts.in_force && !facts.same_weights ? "scores changed the ledger's weights since; " : "";
  std::size_t others = 0;
  for (const auto& [validator, row] : facts.chain_weights) {
    if (facts.our_uid && validator == *facts.our_uid) continue;
    others += std::ranges::any_of(
        row, [&](const auto& weight) { return weight.first == uid.value && weight.second > 0; });
  }
  if (others > 0)
    return since + std::to_string(others) + " other validators' weights name this uid";
  if (!facts.chain_weights.empty()) {
    return since + "other validators give this uid no weight; consensus clips ours";
  }
  return since + "the chain's epoch used stakes or weights that the ledger does not have";
}

}  // namespace

std::vector<Difference> reconcile(const std::vector<NeuronResult>& predicted,
                                  const std::vector<NeuronResult>& chain,
                                  const ReconcileFacts& facts) {
  std::map<Uid, std::pair<const NeuronResult*, const NeuronResult*>> pairs;
  for (const NeuronResult& neuron : predicted) pairs[neuron.uid].first = &neuron;
  for (const NeuronResult& neuron : chain) pairs[neuron.uid].second = &neuron;
  std::vector<Difference> differences;
  for (const auto& pair : pairs) {  // clang 14 captures no structured bindings
    const Uid uid = pair.first;
    const NeuronResult *ours = pair.second.first, *theirs = pair.second.second;
    if (!ours || !theirs) {
      const std::string hotkey = ours ? ours->hotkey : theirs->hotkey;
      differences.push_back({uid, hotkey, "missing", ours ? "there" : "", theirs ? "there" : "",
                             ours ? "not registered on the chain" : "not in the ledger"});
      continue;
    }
    if (ours->hotkey != theirs->hotkey) {
      differences.push_back({uid, ours->hotkey, "hotkey", ours->hotkey, theirs->hotkey,
                             "the uid was given to another hotkey"});
      continue;
    }
    const auto compare = [&](const char* field, std::uint64_t a, std::uint64_t b) {
      if (a == b) return;
      differences.push_back({uid, ours->hotkey, field, std::to_string(a), std::to_string(b),
                             cause_for(uid, field, facts)});
    };
    compare("incentive", ours->incentive, theirs->incentive);
    compare("dividend", ours->dividend, theirs->dividend);
    compare("emission", ours->emission, theirs->emission);
    compare("stake", ours->stake, theirs->stake);
  }
  return differences;
}

}  // namespace yumoe::settlement

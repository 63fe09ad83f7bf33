// A script of weight calls drawn from the fuzzer's bytes against one mechanism of a subnet: set, commit,
// reveal, timelocked, batches, with the rules and the time between them drawn too. A refused call changes
// nothing, stored rows are always ones that the epoch takes, and the epoch then runs on them.

#include <cstdint>
#include <cstdlib>

#include "coordinator/weights.hpp"

namespace {

using namespace yumoe::ledger;

void require(bool holds) {
  if (!holds) std::abort();
}

class Script {
 public:
  Script(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}
  bool over() const { return at_ >= size_; }
  std::uint64_t below(std::uint64_t limit) { return next() % limit; }
  std::uint8_t next() { return at_ < size_ ? data_[at_++] : 0; }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  std::size_t at_ = 0;
};

AccountId account(std::uint64_t name) {
  AccountId id{};
  id[0] = static_cast<std::uint8_t>(name + 1);
  return id;
}

struct World {
  std::size_t n;
  std::vector<AccountId> hotkeys;
  std::vector<I64F64> stake;
  std::vector<std::uint8_t> permit;
  std::vector<Row> weights;
  std::vector<std::uint64_t> last_update;
  WeightCommits commits;
  WeightFacts facts;
  WeightEvents events;

  explicit World(Script& script) : n(1 + script.below(12)), weights(n), last_update(n) {
    for (std::size_t i = 0; i < n; ++i) {
      hotkeys.push_back(account(i));
      stake.push_back(I64F64::from_integer(script.next()));
      permit.push_back(static_cast<std::uint8_t>(script.below(2)));
    }
    facts.netuid = static_cast<std::uint16_t>(script.below(3));
    facts.mechanism = static_cast<std::uint8_t>(script.below(2));
    facts.exists = script.below(16) != 0;
    facts.block = 1'000;
    facts.epoch = script.below(4);
    facts.commit_reveal = script.below(2) == 0;
    facts.reveal_period = 1 + script.below(3);
    facts.version_key = script.below(3);
    facts.rate_limit = script.below(4);
    facts.min_allowed_weights = static_cast<std::uint16_t>(script.below(4));
    facts.max_weights_limit = static_cast<std::uint16_t>(script.next() * 257U);
    facts.stake_threshold = script.below(3) * 100;
    if (script.below(2) == 0) facts.owner_hotkey = account(script.below(n + 1));
    facts.hotkeys = hotkeys;
    facts.stake = stake;
    facts.permit = permit;
  }
  WeightSlot slot() { return {weights, last_update, commits}; }
};

WeightVector vector_from(Script& script) {
  WeightVector weights;
  weights.version_key = script.below(3);
  for (std::uint64_t left = script.below(8); left > 0; --left) {
    weights.uids.push_back(static_cast<std::uint16_t>(script.below(14)));
    weights.values.push_back(static_cast<std::uint16_t>(script.next() * 256U + script.next()));
  }
  if (script.below(16) == 0) weights.values.push_back(1);
  return weights;
}

void check_rows(const World& world) {
  for (const Row& row : world.weights) {
    require(row.size() <= world.n);
    std::uint64_t seen = 0;
    for (const Entry& entry : row) {
      require(entry.uid < world.n);
      require((seen >> entry.uid & 1) == 0);
      seen |= std::uint64_t{1} << entry.uid;
    }
  }
  for (const auto& [who, queue] : world.commits.hashed)
    require(!queue.empty() && queue.size() <= kOpenCommitsMax);
}

void run_epoch_on(const World& world) {
  EpochInput input;
  input.block = world.facts.block;
  input.emission = 1'000'000;
  for (std::size_t i = 0; i < world.n; ++i) {
    input.stake.push_back(world.stake[i]);
    input.permit.push_back(world.permit[i]);
    input.registered_at.push_back(0);
  }
  MechanismInput mechanism;
  mechanism.weights = world.weights;
  mechanism.bonds.resize(world.n);
  mechanism.last_update = world.last_update;
  input.mechanisms = {mechanism};
  const EpochOutput out = run_epoch(input);
  std::uint64_t paid = 0;
  for (const std::uint64_t rao : out.emission) paid += rao;
  require(paid <= input.emission);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Script script(data, size);
  World world(script);
  std::vector<std::pair<std::uint64_t, WeightReveal>> committed;
  for (int steps = 0; !script.over() && steps < 200; ++steps) {
    const std::uint64_t name = script.below(world.n + 1);  // the last is a stranger
    const AccountId who = account(name);
    const std::vector<Row> weights = world.weights;
    const std::vector<std::uint64_t> last_update = world.last_update;
    const WeightCommits commits = world.commits;
    bool done = true;
    switch (script.below(8)) {
      case 0:
        done = bool(set_weights(world.facts, world.slot(), who, vector_from(script), world.events));
        break;
      case 1: {
        const WeightReveal reveal{vector_from(script), {static_cast<std::uint16_t>(script.next())}};
        const yumoe::Digest hash =
            commit_hash(who, mechanism_index(world.facts.netuid, world.facts.mechanism), reveal);
        done = bool(commit_weights(world.facts, world.slot(), who, hash, world.events));
        if (done) committed.emplace_back(name, reveal);
        break;
      }
      case 2:
        if (committed.empty()) continue;
        {
          const auto& [sender, reveal] = committed[script.below(committed.size())];
          done = bool(
              reveal_weights(world.facts, world.slot(), account(sender), reveal, world.events));
        }
        break;
      case 3: {
        std::vector<WeightReveal> batch;
        for (std::uint64_t left = script.below(4); left > 0 && !committed.empty(); --left) {
          batch.push_back(committed[script.below(committed.size())].second);
        }
        done = bool(batch_reveal_weights(world.facts, world.slot(), who, batch, world.events));
        break;
      }
      case 4: {
        yumoe::Bytes text;
        if (script.below(2) == 0) {
          text = timelocked_plaintext(account(script.below(world.n)), vector_from(script));
          if (script.below(4) == 0 && !text.empty())
            text[script.below(text.size())] ^= script.next();
        } else {
          for (std::uint64_t left = script.below(64); left > 0; --left)
            text.push_back(script.next());
        }
        done = bool(commit_timelocked_weights(
            world.facts, world.slot(), who, {1, 2, 3}, text, script.below(8),
            static_cast<std::uint16_t>(3 + script.below(2)), script.below(4), world.events));
        break;
      }
      case 5: {
        const std::uint64_t known = script.below(8);
        reveal_timelocked_weights(
            world.facts, world.slot(), [known](std::uint64_t round) { return round <= known; },
            world.events);
        break;
      }
      case 6:
        world.facts.block += script.below(4);
        world.facts.epoch += script.below(2);
        break;
      default: world.facts.commit_reveal = script.below(2) == 0;
    }
    if (!done) {
      require(world.weights == weights && world.last_update == last_update &&
              world.commits == commits);
    }
    check_rows(world);
    world.events.clear();
  }
  run_epoch_on(world);
  return 0;
}

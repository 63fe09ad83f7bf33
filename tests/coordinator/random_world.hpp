#pragma once
// A ledger with a few subnets, and every operation at random: what property tests and benchmarks feed
// on. Everything derives from the seed.

#include <string>
#include <vector>

#include "cluster/random.hpp"
#include "coordinator/ledger.hpp"

namespace yumoe::ledger {

inline AccountId account_of(char kind, std::uint64_t number) {
  AccountId id{};
  id[0] = static_cast<std::uint8_t>(kind);
  for (std::size_t i = 0; i < 8; ++i) id[i + 1] = static_cast<std::uint8_t>(number >> (8 * i));
  return id;
}

constexpr std::uint64_t kTao = 1'000'000'000;

class RandomWorld {
 public:
  explicit RandomWorld(std::uint64_t seed, LedgerOptions options = quick_options())
      : random_(seed), ledger(options) {
    if (seed % 2 == 0) ledger.override_parameter(std::nullopt, "commit_reveal_weights_enabled", 1);
    for (std::uint64_t i = 0; i < kColdkeys; ++i) {
      run(Fund{coldkey(i), (1'000 + random_.below(100'000)) * kTao});
    }
    for (std::uint64_t i = 0; i < 2; ++i) {
      ledger.step_block();
      run(RegisterNetwork{coldkey(i), hotkey(i), 1});
      run(StartCall{coldkey(i), static_cast<std::uint16_t>(i + 1)});
    }
  }

  // Small numbers, so that rare events are common.
  static LedgerOptions quick_options() {
    LedgerOptions options;
    options.tempo = 12;
    options.max_allowed_uids = 8;
    options.max_allowed_validators = 4;
    options.immunity_period = 20;
    options.weights_set_rate_limit = 0;
    options.network_lock = 100 * static_cast<std::int64_t>(kTao);
    options.network_rate_limit = 400;
    options.proposal_delay = 50;
    options.commit_reveal = false;
    return options;
  }

  static AccountId coldkey(std::uint64_t i) { return account_of('c', i); }
  static AccountId hotkey(std::uint64_t i) { return account_of('h', i); }

  // Applies one random operation; returns it with its outcome.
  std::pair<Operation, Outcome<Done>> act() {
    Operation operation = any_operation();
    Outcome<Done> outcome = ledger.apply(operation);
    return {std::move(operation), std::move(outcome)};
  }

  Operation any_operation();
  Random& random() { return random_; }

 private:
  static constexpr std::uint64_t kColdkeys = 12;
  static constexpr std::uint64_t kHotkeys = 24;

  void run(const Operation& operation) { static_cast<void>(ledger.apply(operation)); }
  AccountId some_coldkey() { return coldkey(random_.below(kColdkeys)); }
  // A hotkey with its owner, mostly.
  std::pair<AccountId, AccountId> some_pair() {
    const std::uint64_t number = random_.below(kHotkeys);
    const AccountId owner = coldkey(number % kColdkeys);
    return {random_.below(3) == 0 ? some_coldkey() : owner, hotkey(number)};
  }
  AccountId some_hotkey() { return hotkey(random_.below(kHotkeys)); }
  std::uint16_t some_netuid() {
    const auto& subnets = ledger.state().subnets;
    if (random_.below(50) == 0) return 77;
    auto at = subnets.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(random_.below(subnets.size())));
    return at->first;
  }
  // Over many magnitudes; sometimes absurd.
  std::uint64_t some_amount() {
    switch (random_.below(10)) {
      case 0: return random_.below(10);
      case 1: return random_();
      case 2: return 2'000'000 + random_.below(5'000);
      default: return random_.below(std::uint64_t{1} << (20 + random_.below(26)));
    }
  }
  std::optional<Limit> some_limit() {
    if (random_.below(3) != 0) return std::nullopt;
    return Limit{random_.below(std::uint64_t{1} << (10 + random_.below(40))),
                 random_.below(2) == 0};
  }
  // What the account really has, now and then, so that the deep ends are reached.
  std::uint64_t some_stake(const AccountId& hot, const AccountId& cold, std::uint16_t netuid) {
    const auto subnet = ledger.state().subnets.find(netuid);
    if (subnet == ledger.state().subnets.end() || random_.below(4) == 0) return some_amount();
    const auto pool = subnet->second.stakes.find(hot);
    const std::uint64_t owned =
        pool == subnet->second.stakes.end() ? 0 : pool->second.value_of(cold);
    return random_.below(3) == 0 ? owned : random_.below(owned + 1);
  }
  std::vector<Relation> some_children() {
    std::vector<Relation> children;
    for (std::uint64_t left = random_.below(4); left > 0; --left) {
      children.push_back({random_() >> random_.below(8), some_hotkey()});
    }
    return children;
  }
  SetWeights some_weights();
  RevealWeights some_hidden(const RevealWeights& otherwise);
  Operation some_sealed();
  Operation some_batch();
  Operation some_choice();

  Random random_;
  std::vector<std::pair<std::uint64_t, RevealWeights>> hidden_;  // with the block of the commit
  std::uint64_t pulse_ = 0;

 public:
  Ledger ledger;
};

inline SetWeights RandomWorld::some_weights() {
  SetWeights call{some_hotkey(), some_netuid(), 0, {}, {}, 0};
  const auto subnet = ledger.state().subnets.find(call.netuid);
  const std::size_t n = subnet == ledger.state().subnets.end() ? 3 : subnet->second.neurons.size();
  if (subnet != ledger.state().subnets.end() && n > 0 && random_.below(6) != 0) {
    call.hotkey = subnet->second.neurons[random_.below(n)].hotkey;
  }
  for (std::size_t uid = 0; uid < n; ++uid) {
    if (random_.below(3) == 0) continue;
    call.uids.push_back(static_cast<std::uint16_t>(uid));
    call.values.push_back(static_cast<std::uint16_t>(random_.below(65536)));
  }
  return call;
}

// A reveal that may be due: the one committed about a tempo ago, if there is one.
inline RevealWeights RandomWorld::some_hidden(const RevealWeights& otherwise) {
  for (const auto& [block, reveal] : hidden_) {
    const std::uint64_t age = ledger.state().block - block;
    if (age >= 8 && age < 24 && random_.below(2) == 0) return reveal;
  }
  return hidden_.empty() ? otherwise : hidden_[random_.below(hidden_.size())].second;
}

// Commits remember what they hide, so that some reveals are right.
inline Operation RandomWorld::some_sealed() {
  const SetWeights call = some_weights();
  RevealWeights reveal{call.hotkey, call.netuid, 0, call.uids, call.values, {7, 9}, 0};
  switch (random_.below(6)) {
    case 0: {
      hidden_.emplace_back(ledger.state().block, reveal);
      if (hidden_.size() > 6) hidden_.erase(hidden_.begin());
      const Digest hash = commit_hash(call.hotkey, mechanism_index(call.netuid, 0),
                                      {{call.uids, call.values, 0}, reveal.salt});
      return CommitWeights{call.hotkey, call.netuid, 0, hash.bytes};
    }
    case 1:
    case 4:
    case 5: return some_hidden(reveal);
    case 2: {
      const Bytes plain = timelocked_plaintext(call.hotkey, {call.uids, call.values, 0});
      return CommitTimelocked{
          call.hotkey, call.netuid, 0, {1, 2, 3}, plain, pulse_ + random_.below(4), 4};
    }
    default: return Pulse{++pulse_};
  }
}

inline Operation RandomWorld::some_batch() {
  const SetWeights first = some_weights();
  const SetWeights second = some_weights();
  switch (random_.below(3)) {
    case 0: return BatchSet{first.hotkey, {first, second}};
    case 1: return BatchCommit{first.hotkey, {CommitWeights{first.hotkey, first.netuid, 0, {}}}};
    default: {
      const RevealWeights hidden = some_hidden({});
      return BatchReveal{hidden.hotkey, hidden.netuid, 0, {hidden}};
    }
  }
}

inline Operation RandomWorld::some_choice() {
  static const char* const kNames[] = {
      "kappa",           "bonds_penalty", "liquid_alpha_on",
      "tempo",           "yuma",          "recycle",
      "mechanism_count", "min_burn",      "commit_reveal_weights_enabled",
      "nonsense"};
  const auto [cold, hot] = some_pair();
  const std::uint16_t netuid = some_netuid();
  const auto subnet = ledger.state().subnets.find(netuid);
  const AccountId owner = subnet == ledger.state().subnets.end() || random_.below(4) == 0
                              ? cold
                              : subnet->second.owner_coldkey;
  switch (random_.below(11)) {
    case 0:
      return SetTake{cold, hot, static_cast<std::uint16_t>(random_.below(20000)),
                     random_.below(2) == 0};
    case 1:
      return SetChildkeyTake{cold, hot, netuid, static_cast<std::uint16_t>(random_.below(14000))};
    case 2: return SetChildren{cold, hot, netuid, some_children()};
    case 3: return SetAutostake{some_coldkey(), some_netuid(), some_hotkey()};
    case 4:
      return SetHyperparameter{owner, netuid, kNames[random_.below(10)],
                               random_.below(4) == 0 ? random_.below(3) : random_.below(65536)};
    case 5: return SetEmissionSplit{owner, netuid, {}};
    case 6: return TriggerEpoch{owner, netuid};
    case 7: return ClaimRoot{some_coldkey(), {some_netuid(), some_netuid()}};
    case 8:
      return SetClaimKind{
          some_coldkey(), static_cast<ClaimKind>(random_.below(3)), {some_netuid()}};
    case 9:
      return Propose{some_coldkey(), random_.below(2) == 0 ? "owner_cut" : "childkey_burn",
                     random_.below(40000) << random_.below(48)};
    default: return Vote{some_coldkey(), random_.below(20), random_.below(2) == 0};
  }
}

inline Operation RandomWorld::any_operation() {
  const auto [cold, hot] = some_pair();
  const std::uint16_t a = some_netuid();
  const std::uint16_t b = some_netuid();
  switch (random_.below(24)) {
    case 0: return TransferBalance{cold, some_coldkey(), some_amount()};
    case 1:
    case 2:
    case 3:
      return Register{
          cold, hot, a,
          random_.below(4) == 0 ? std::optional<std::uint64_t>(some_amount()) : std::nullopt};
    case 4:
    case 5:
    case 6:
    case 7: return AddStake{cold, hot, a, some_amount(), some_limit()};
    case 8:
    case 9: return RemoveStake{cold, hot, a, some_stake(hot, cold, a), some_limit()};
    case 10:
      if (random_.below(8) == 0) {
        return RemoveStakeFull{
            cold, hot, a,
            random_.below(2) == 0 ? std::optional<std::uint64_t>(some_amount()) : std::nullopt};
      }
      return random_.below(8) == 0 ? Operation(UnstakeAll{cold, hot, random_.below(2) == 0})
                                   : some_choice();
    case 11: return MoveStake{cold, hot, some_hotkey(), a, b, some_stake(hot, cold, a)};
    case 12: return TransferStake{cold, some_coldkey(), hot, a, b, some_stake(hot, cold, a)};
    case 13: return SwapStake{cold, hot, a, b, some_stake(hot, cold, a), some_limit()};
    case 14:
      return random_.below(10) == 0 ? Operation(RegisterNetwork{cold, hot, 1})
                                    : Operation(StartCall{cold, a});
    case 15:
    case 16:
    case 17: return some_choice();
    case 18: return some_sealed();
    case 19: return some_batch();
    default: return some_weights();
  }
}

}  // namespace yumoe::ledger

#include <algorithm>
#include <array>

#include "cluster/error.hpp"
#include "launch/attacks.hpp"

namespace yumoe {
namespace {

using enum AttackKind;

constexpr std::array kAttacks = {
    AttackInfo{"zero", idle, "worker", "answers with an empty update and hopes for a base pay",
               "credit: its interval reaches nothing"},
    AttackInfo{"noise", idle, "worker", "answers with random numbers of the usual size",
               "credit; trust in the aggregate"},
    AttackInfo{"scaled", partial, "worker",
               "trains a tenth of its steps and multiplies the result by ten, to weigh more",
               "norm clipping; credit; audit"},
    AttackInfo{"sign_flip", idle, "worker", "sends the opposite of what it trained, to do harm",
               "credit below nothing; trust"},
    AttackInfo{"stale_replay", idle, "worker",
               "trains once and sends the same update in every round", "duplicates; audit"},
    AttackInfo{"zeros_then_noise", idle, "worker", "sends nothing until it is trusted, then noise",
               "credit"},
    AttackInfo{"not_finite", idle, "worker", "sends infinities and NaN, to spoil means of losses",
               "filters: update, finite"},
    AttackInfo{"copy_jitter", idle, "worker",
               "sends another worker's last contribution, values and elements altered",
               "duplicates; audit"},
    AttackInfo{"copy_before_reveal", idle, "worker",
               "commits to another's commitment and reveals the same bytes",
               "commitments bind the hotkey",
               "an honest worker that gives its bytes away (accomplice)"},
    AttackInfo{"fewer_steps", partial, "worker", "trains half of its steps and claims all",
               "credit to a power above 1; audit"},
    AttackInfo{"wrong_data", partial, "worker", "trains on a few windows of its own over and over",
               "credit; audit"},
    AttackInfo{"label_poison", idle, "worker", "trains towards wrong labels",
               "credit below nothing; trust"},
    AttackInfo{"back_door", partial, "worker", "trains half and adds a trigger of its own",
               "norm clipping; audit"},
    AttackInfo{"late_reveal", partial, "worker", "does its work but delivers a round late",
               "staleness discount; presence"},
    AttackInfo{"withheld_reveal", idle, "worker", "commits and never reveals, to see others' first",
               "presence"},
    AttackInfo{"sybil_split", partial, "worker", "trains once and answers under several hotkeys",
               "duplicates: both lose what they share", "two or more with one --pool"},
    AttackInfo{"uid_inheritance", idle, "worker",
               "comes back under a fresh hotkey again and again, for a uid with weights",
               "uids are never given twice; newcomers start unmeasured"},
    AttackInfo{"lazy_cache", partial, "worker",
               "trains every third round and repeats itself between", "duplicates"},
    AttackInfo{"colluding", partial, "worker",
               "takes turns: one trains, its friends send the same, altered, in the same round",
               "duplicates: all lose what they share", "two or more with one --pool"},
    AttackInfo{"friend_liar", validator, "validator", "measures an idle friend as the best of all",
               "stake-weighted median; Yuma's clipping", "idle workers (friend)"},
    AttackInfo{"weight_copier", validator, "validator",
               "measures nothing and repeats last round's weights",
               "private draws; bonds follow who is early",
               "somebody who writes the newest weights to --pool"},
    AttackInfo{"cabal", validator, "validator",
               "several say that their idle friends do all and the others nothing",
               "stake-weighted median; Yuma's clipping",
               "several with one --pool, and idle workers (friend)"},
    AttackInfo{"malformed", idle, "network", "sends oversized and malformed messages",
               "bounds before parsing; filters: schema, size"},
    AttackInfo{"replayed_signature", idle, "network",
               "sends another's signed envelope again as its own",
               "envelopes bind challenge and sender"},
    AttackInfo{"identity_swap", idle, "network",
               "answers with a contribution that another's uid was given", "filter: shard",
               "an honest worker that gives its bytes away (accomplice)"},
    AttackInfo{"slow_loris", idle, "network", "commits and reveals a byte at a time",
               "reveal deadline; presence"},
};

}  // namespace

std::span<const AttackInfo> attacks() { return kAttacks; }

const AttackInfo& attack_named(std::string_view name) {
  const auto found = std::find_if(kAttacks.begin(), kAttacks.end(),
                                  [&](const AttackInfo& info) { return info.name == name; });
  if (found != kAttacks.end()) return *found;
  std::string names;
  for (const AttackInfo& info : kAttacks)
    names += (names.empty() ? "" : ", ") + std::string(info.name);
  throw Error(ErrorCode::usage,
              "no attack is called '" + std::string(name) + "'; there are " + names);
}

std::string_view name_of(PartPlayed part) {
  constexpr std::string_view kNames[] = {"honest",   "slow",      "late",           "odd",
                                         "attacker", "validator", "lying validator"};
  return kNames[static_cast<std::size_t>(part)];
}

}  // namespace yumoe

#pragma once
// Everything that can be asked of the ledger, as plain data, so that a journal can hold it. The
// signer stands in each operation; whoever applies it has checked the signature.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "cluster/bytes.hpp"
#include "coordinator/ledger_state.hpp"

namespace yumoe::ledger {

// Price limits are TAO per alpha times 10^9 (for a swap between subnets: origin price / destination
// price times 10^9). Without `partial`, an order that the limit would cut is refused.
struct Limit {
  std::uint64_t price = 0;
  bool partial = false;
  friend bool operator==(const Limit&, const Limit&) = default;
  template <typename Archive>
  void visit(Archive& a) {
    a(price, partial);
  }
};

// Every struct lists its fields once: visit() is its encoding.
#define YUMOE_OPERATION(Name, ...)                            \
  friend bool operator==(const Name&, const Name&) = default; \
  template <typename Archive>                                 \
  void visit(Archive& a) {                                    \
    a(__VA_ARGS__);                                           \
  }

// Genesis money. Only in block 0; later FaucetDisabled.
struct Fund {
  AccountId account{};
  std::uint64_t amount = 0;
  YUMOE_OPERATION(Fund, account, amount)
};

struct TransferBalance {
  AccountId from{};
  AccountId to{};
  std::uint64_t amount = 0;
  YUMOE_OPERATION(TransferBalance, from, to, amount)
};

// Registers a hotkey as a neuron; on netuid 0 this is root_register.
struct Register {
  AccountId coldkey{};
  AccountId hotkey{};
  std::uint16_t netuid = 0;
  std::optional<std::uint64_t> burn_limit;
  YUMOE_OPERATION(Register, coldkey, hotkey, netuid, burn_limit)
};

struct AddStake {
  AccountId coldkey{};
  AccountId hotkey{};
  std::uint16_t netuid = 0;
  std::uint64_t tao = 0;
  std::optional<Limit> limit;
  YUMOE_OPERATION(AddStake, coldkey, hotkey, netuid, tao, limit)
};

struct RemoveStake {
  AccountId coldkey{};
  AccountId hotkey{};
  std::uint16_t netuid = 0;
  std::uint64_t alpha = 0;
  std::optional<Limit> limit;
  YUMOE_OPERATION(RemoveStake, coldkey, hotkey, netuid, alpha, limit)
};

// Sells all of one hotkey's stake on every subnet the pools allow; with `to_root`, all alpha is
// staked on root again.
struct UnstakeAll {
  AccountId coldkey{};
  AccountId hotkey{};
  bool to_root = false;
  YUMOE_OPERATION(UnstakeAll, coldkey, hotkey, to_root)
};

// Another hotkey.
struct MoveStake {
  AccountId coldkey{};
  AccountId origin_hotkey{};
  AccountId destination_hotkey{};
  std::uint16_t origin_netuid = 0;
  std::uint16_t destination_netuid = 0;
  std::uint64_t alpha = 0;
  YUMOE_OPERATION(MoveStake, coldkey, origin_hotkey, destination_hotkey, origin_netuid,
                  destination_netuid, alpha)
};

// Another owner.
struct TransferStake {
  AccountId coldkey{};
  AccountId destination_coldkey{};
  AccountId hotkey{};
  std::uint16_t origin_netuid = 0;
  std::uint16_t destination_netuid = 0;
  std::uint64_t alpha = 0;
  YUMOE_OPERATION(TransferStake, coldkey, destination_coldkey, hotkey, origin_netuid,
                  destination_netuid, alpha)
};

// Another subnet.
struct SwapStake {
  AccountId coldkey{};
  AccountId hotkey{};
  std::uint16_t origin_netuid = 0;
  std::uint16_t destination_netuid = 0;
  std::uint64_t alpha = 0;
  std::optional<Limit> limit;
  YUMOE_OPERATION(SwapStake, coldkey, hotkey, origin_netuid, destination_netuid, alpha, limit)
};

struct SetTake {
  AccountId coldkey{};
  AccountId hotkey{};
  std::uint16_t take = 0;  // / 65535
  bool increase = false;   // which of the chain's two calls: increase_take or decrease_take
  YUMOE_OPERATION(SetTake, coldkey, hotkey, take, increase)
};

struct SetChildkeyTake {
  AccountId coldkey{};
  AccountId hotkey{};
  std::uint16_t netuid = 0;
  std::uint16_t take = 0;
  YUMOE_OPERATION(SetChildkeyTake, coldkey, hotkey, netuid, take)
};

struct SetChildren {
  AccountId coldkey{};
  AccountId hotkey{};
  std::uint16_t netuid = 0;
  std::vector<Relation> children;
  YUMOE_OPERATION(SetChildren, coldkey, hotkey, netuid, children)
};

struct SetAutostake {
  AccountId coldkey{};
  std::uint16_t netuid = 0;
  AccountId hotkey{};
  YUMOE_OPERATION(SetAutostake, coldkey, netuid, hotkey)
};

struct RegisterNetwork {
  AccountId coldkey{};
  AccountId hotkey{};
  std::uint16_t mechanism = 1;
  YUMOE_OPERATION(RegisterNetwork, coldkey, hotkey, mechanism)
};

struct StartCall {
  AccountId coldkey{};
  std::uint16_t netuid = 0;
  YUMOE_OPERATION(StartCall, coldkey, netuid)
};

// The subnet's owner changes one of its parameters; set_tempo also starts a new period.
struct SetHyperparameter {
  AccountId coldkey{};
  std::uint16_t netuid = 0;
  std::string name;
  std::uint64_t value = 0;
  YUMOE_OPERATION(SetHyperparameter, coldkey, netuid, name, value)
};

struct SetEmissionSplit {
  AccountId coldkey{};
  std::uint16_t netuid = 0;
  std::vector<std::uint16_t> split;  // over mechanisms, sums to 65535; empty: even
  YUMOE_OPERATION(SetEmissionSplit, coldkey, netuid, split)
};

struct TriggerEpoch {
  AccountId coldkey{};
  std::uint16_t netuid = 0;
  YUMOE_OPERATION(TriggerEpoch, coldkey, netuid)
};

struct ClaimRoot {
  AccountId coldkey{};
  std::vector<std::uint16_t> netuids;  // 1..5
  YUMOE_OPERATION(ClaimRoot, coldkey, netuids)
};

struct SetClaimKind {
  AccountId coldkey{};
  ClaimKind kind = ClaimKind::swap;
  std::set<std::uint16_t> keep;
  YUMOE_OPERATION(SetClaimKind, coldkey, kind, keep)
};

// Asks for a change of a network parameter, or of a subnet's emission switch ("emission_enabled/7").
// Enacted after the network's delay if more root stake is for it than against it.
struct Propose {
  AccountId coldkey{};
  std::string name;
  std::uint64_t value = 0;
  YUMOE_OPERATION(Propose, coldkey, name, value)
};

struct Vote {
  AccountId coldkey{};
  std::uint64_t proposal = 0;
  bool approve = false;
  YUMOE_OPERATION(Vote, coldkey, proposal, approve)
};

struct SetWeights {
  AccountId hotkey{};
  std::uint16_t netuid = 0;
  std::uint8_t mechanism = 0;
  std::vector<std::uint16_t> uids;
  std::vector<std::uint16_t> values;
  std::uint64_t version_key = 0;
  YUMOE_OPERATION(SetWeights, hotkey, netuid, mechanism, uids, values, version_key)
};

struct CommitWeights {
  AccountId hotkey{};
  std::uint16_t netuid = 0;
  std::uint8_t mechanism = 0;
  std::array<std::uint8_t, 32> hash{};
  YUMOE_OPERATION(CommitWeights, hotkey, netuid, mechanism, hash)
};

struct RevealWeights {
  AccountId hotkey{};
  std::uint16_t netuid = 0;
  std::uint8_t mechanism = 0;
  std::vector<std::uint16_t> uids;
  std::vector<std::uint16_t> values;
  std::vector<std::uint16_t> salt;
  std::uint64_t version_key = 0;
  YUMOE_OPERATION(RevealWeights, hotkey, netuid, mechanism, uids, values, salt, version_key)
};

// Sealed until a round of the public beacon; `plaintext` is what the seal holds, for a ledger whose
// keeper knows it (empty: it will be dropped as unreadable).
struct CommitTimelocked {
  AccountId hotkey{};
  std::uint16_t netuid = 0;
  std::uint8_t mechanism = 0;
  std::vector<std::uint8_t> sealed;
  std::vector<std::uint8_t> plaintext;
  std::uint64_t round = 0;
  std::uint16_t version = 4;
  YUMOE_OPERATION(CommitTimelocked, hotkey, netuid, mechanism, sealed, plaintext, round, version)
};

// All or none.
struct BatchReveal {
  AccountId hotkey{};
  std::uint16_t netuid = 0;
  std::uint8_t mechanism = 0;
  std::vector<RevealWeights> reveals;  // their own signer and place are not read
  YUMOE_OPERATION(BatchReveal, hotkey, netuid, mechanism, reveals)
};

// Every item alone; the call itself succeeds whatever becomes of them.
struct BatchSet {
  AccountId hotkey{};
  std::vector<SetWeights> items;  // their own signer is not read
  YUMOE_OPERATION(BatchSet, hotkey, items)
};

struct BatchCommit {
  AccountId hotkey{};
  std::vector<CommitWeights> items;
  YUMOE_OPERATION(BatchCommit, hotkey, items)
};

// The public beacon has reached a round.
struct Pulse {
  std::uint64_t round = 0;
  YUMOE_OPERATION(Pulse, round)
};

// Sells all of one hotkey's stake on one subnet, at no worse than the limit or not at all.
struct RemoveStakeFull {
  AccountId coldkey{};
  AccountId hotkey{};
  std::uint16_t netuid = 0;
  std::optional<std::uint64_t> limit_price;
  YUMOE_OPERATION(RemoveStakeFull, coldkey, hotkey, netuid, limit_price)
};

#undef YUMOE_OPERATION

using Operation =
    std::variant<Fund, TransferBalance, Register, AddStake, RemoveStake, UnstakeAll, MoveStake,
                 TransferStake, SwapStake, SetTake, SetChildkeyTake, SetChildren, SetAutostake,
                 RegisterNetwork, StartCall, SetHyperparameter, SetEmissionSplit, TriggerEpoch,
                 ClaimRoot, SetClaimKind, Propose, Vote, SetWeights, CommitWeights, RevealWeights,
                 CommitTimelocked, BatchReveal, BatchSet, BatchCommit, Pulse, RemoveStakeFull>;

inline constexpr std::size_t kOperationBytesMax = 64 * 1024;

// The operation's name as the journal and the command line show it ("AddStake").
std::string_view name_of(const Operation& operation);

// One byte a kind, then the fields in order, little-endian; lists have a u32 length.
Bytes encode(const Operation& operation);
// Throws Error{message_malformed} on anything encode() does not write, Error{message_too_large} above
// kOperationBytesMax.
Operation decode_operation(ByteView bytes);

}  // namespace yumoe::ledger

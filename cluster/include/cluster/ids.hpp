#pragma once
// Identifiers that cannot be mixed up: a RoundId does not convert to a Netuid, nor to an int.

#include <compare>
#include <cstdint>
#include <functional>

namespace yumoe {

template <typename Tag, typename Value>
struct Id {
  Value value = 0;
  friend constexpr auto operator<=>(const Id&, const Id&) = default;
};

// Counts rounds from 1 within a run; 0 is "no round". Base version r is the state after round r;
// version 0 is the initial model.
using RoundId = Id<struct RoundTag, std::uint64_t>;

// A subnet of the run; 0 is the ledger's root subnet and trains nothing.
using Netuid = Id<struct NetuidTag, std::uint16_t>;

// Position of a participant in a subnet, 0-based, given at registration.
using Uid = Id<struct UidTag, std::uint16_t>;

}  // namespace yumoe

template <typename Tag, typename Value>
struct std::hash<yumoe::Id<Tag, Value>> {
  std::size_t operator()(const yumoe::Id<Tag, Value>& id) const noexcept {
    return std::hash<Value>{}(id.value);
  }
};

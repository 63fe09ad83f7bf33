#pragma once
// The accounts of a run's ledger: participants' keys, and those that no key can sign for. Private to
// run_ledger.

#include <cmath>
#include <string>

#include "cluster/identity.hpp"
#include "coordinator/ledger.hpp"

namespace yumoe {

inline ledger::AccountId account_of(const PublicKey& key) { return key.bytes; }

inline ledger::AccountId keyless(const std::string& name) {
  return digest_of(as_bytes(name)).bytes;
}
inline ledger::AccountId treasury() { return keyless("yumoe treasury"); }
inline ledger::AccountId owner_hotkey() { return keyless("yumoe subnet owner hotkey"); }
inline ledger::AccountId other_owner_hotkey(const std::string& subnet) {
  return keyless("yumoe owner hotkey of " + subnet);
}
inline ledger::AccountId other_owner(const std::string& subnet) {
  return keyless("yumoe owner of " + subnet);
}
inline ledger::AccountId other_judge(const std::string& subnet) {
  return keyless("yumoe validator of " + subnet);
}
inline ledger::AccountId other_miner(const std::string& subnet, unsigned number) {
  return keyless("yumoe miner " + std::to_string(number) + " of " + subnet);
}

// To the nearest rao; nothing after this is a double.
inline std::uint64_t rao_of(double tao) {
  return static_cast<std::uint64_t>(std::llround(tao * 1e9));
}

}  // namespace yumoe

#pragma once
// Vector kinds that need a whole ledger: coinbase_ledger, distribute_emission, network_prune,
// pool_start and the block-by-block files of chain/epoch.

#include "conformance/conformance.hpp"

namespace yumoe::conformance {

Handlers block_handlers();
Handlers legacy_handlers();

}  // namespace yumoe::conformance

#include "conformance/ledger_blocks.hpp"

#include <nlohmann/json.hpp>

namespace yumoe::conformance {

Handlers block_handlers() { return {}; }

}  // namespace yumoe::conformance

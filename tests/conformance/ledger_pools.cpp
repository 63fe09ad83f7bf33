// Vector kinds of pools, share pools, coinbase, registration and networks.

#include <nlohmann/json.hpp>

#include "conformance/conformance.hpp"

namespace yumoe::conformance {

Handlers pool_handlers() { return {}; }

}  // namespace yumoe::conformance

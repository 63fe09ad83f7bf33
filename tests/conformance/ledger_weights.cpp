// Vector kinds of setting weights.

#include <nlohmann/json.hpp>

#include "conformance/conformance.hpp"

namespace yumoe::conformance {

Handlers weights_handlers() { return {}; }

}  // namespace yumoe::conformance

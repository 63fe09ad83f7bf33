// yumoe-conformance chain: keys, extrinsics, metadata, proofs, transcripts.

#include <stdexcept>

#include "conformance/conformance.hpp"

namespace yumoe::conformance {

int conformance_chain(const std::vector<std::string>&) {
  throw std::runtime_error("the chain vectors are not built into this program yet");
}

}  // namespace yumoe::conformance

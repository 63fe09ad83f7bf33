#pragma once
// Substrate's secret URI: PHRASE or 0xSEED, then //hard and /soft junctions, then ///password.

#include <string_view>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/identity.hpp"
#include "identity/sr25519.hpp"

namespace yumoe {

struct Junction {
  bool hard = false;
  sr25519::Key32 chain_code{};
};

struct SecretUri {
  std::string_view phrase;  // empty: the public development phrase
  std::vector<Junction> path;
  std::string_view password;
};

// Views into `uri`. Throws Error{key_invalid} if the text is not a secret URI.
SecretUri parse_secret_uri(std::string_view uri);

inline constexpr std::string_view kDevelopmentPhrase =
    "bottom drive obey lake curtain smoke basket hold race lonely fit walk";

}  // namespace yumoe

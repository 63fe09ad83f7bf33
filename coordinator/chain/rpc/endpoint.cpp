#include "chain/rpc/endpoint.hpp"

#include <algorithm>

#include "cluster/error.hpp"

namespace yumoe {

Endpoint endpoint_from(std::string_view text) {
  const auto refuse = [&](std::string_view why) {
    throw Error(ErrorCode::config_invalid, "chain endpoint '" + std::string(text) + "' " +
                                               std::string(why) +
                                               " (write ws://host:9944 or wss://host)");
  };
  Endpoint endpoint;
  endpoint.text = text;
  std::string_view rest = text;
  if (rest.starts_with("wss://")) {
    endpoint.tls = true;
    rest.remove_prefix(6);
  } else if (rest.starts_with("ws://")) {
    rest.remove_prefix(5);
  } else {
    refuse("does not begin with ws:// or wss://");
  }
  const auto bad_character = [](unsigned char c) { return c <= ' ' || c >= 0x7f; };
  if (std::ranges::any_of(rest, bad_character)) refuse("has a blank or a control character");
  const std::size_t slash = rest.find('/');
  endpoint.path = slash == std::string_view::npos ? "/" : std::string(rest.substr(slash));
  std::string_view authority = rest.substr(0, slash);
  std::string_view port;
  if (authority.starts_with('[')) {
    const std::size_t close = authority.find(']');
    if (close == std::string_view::npos) refuse("has no closing bracket");
    endpoint.host = authority.substr(1, close - 1);
    port = authority.substr(close + 1);
  } else {
    const std::size_t colon = authority.find(':');
    endpoint.host = authority.substr(0, colon);
    port = colon == std::string_view::npos ? std::string_view{} : authority.substr(colon);
  }
  if (endpoint.host.empty() || endpoint.host.find('@') != std::string::npos) refuse("has no host");
  if (port.empty()) {
    endpoint.port = endpoint.tls ? "443" : "80";
    return endpoint;
  }
  if (port[0] != ':' || port.size() < 2 || port.size() > 6 ||
      !std::ranges::all_of(port.substr(1), [](char c) { return c >= '0' && c <= '9'; }) ||
      std::stoi(std::string(port.substr(1))) > 65'535) {
    refuse("has a bad port");
  }
  endpoint.port = port.substr(1);
  return endpoint;
}

}  // namespace yumoe

#pragma once
// ws://host:port/path taken apart. Internal to chain/rpc.

#include <string>
#include <string_view>

namespace yumoe {

struct Endpoint {
  bool tls = false;
  std::string host;  // without the brackets of an IPv6 address
  std::string port;
  std::string path;  // begins with '/'
  std::string text;  // as it was written
};

// Throws Error{config_invalid} saying what is wrong with it.
Endpoint endpoint_from(std::string_view text);

}  // namespace yumoe

#pragma once
// Recorded chain data for tests: the runtimes' metadata and values, committed compressed.

#include <zlib.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "coordinator/metadata.hpp"

namespace yumoe {

inline std::string read_chain_data(const std::string& name) {
  const std::string path = std::string(YUMOE_SOURCE_DIR) + "/tests/conformance/data/chain/" + name;
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) throw std::runtime_error("cannot open " + path);
  std::string text;
  char buffer[1 << 16];
  for (int n = 0; (n = gzread(file.get(), buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(n));
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

inline const Json& golden() {
  static const Json data = parse_json_exact(read_chain_data("golden_spec461.json.gz"));
  return data;
}

// The bytes as a node answered them: Option<Vec<u8>> around version 15.
inline const Bytes& golden_metadata_bytes() {
  static const Bytes bytes =
      from_hex(golden()["metadata"]["v15_hex"].get_ref<const std::string&>());
  return bytes;
}

inline const Metadata& golden_metadata() {
  static const Metadata metadata = Metadata::parse(golden_metadata_bytes());
  return metadata;
}

}  // namespace yumoe

#pragma once
// The files that settlement keeps beside the journal, for records and exports: whole, as bytes.

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>

#include "cluster/bytes.hpp"
#include "cluster/error.hpp"

namespace yumoe {

inline constexpr const char* kSettlementFiles[] = {"journal", "readings.jsonl"};

// Its writer only appends, so what was read is a beginning of what it will be. nullopt: there is none.
// Throws Error{journal_io}.
inline std::optional<Bytes> read_settlement_file(const std::filesystem::path& folder,
                                                 std::string_view name) {
  const std::filesystem::path file = folder / name;
  std::error_code failed;
  if (!std::filesystem::exists(file, failed)) return std::nullopt;
  std::ifstream in(file, std::ios::binary);
  Bytes bytes{std::istreambuf_iterator<char>(in), {}};
  if (!in || in.bad()) {
    throw Error(ErrorCode::journal_io, "read " + file.string() + ": " + std::strerror(errno));
  }
  return bytes;
}

}  // namespace yumoe

// yumoe-conformance ledger: finds the files, tells their kinds and hands every vector to its check.

#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "conformance/conformance.hpp"

namespace yumoe::conformance {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// Reads plain and gzip files alike.
std::string read_file(const std::string& path) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) throw std::runtime_error("cannot open " + path);
  std::string text;
  char buffer[1 << 16];
  int count = 0;
  while ((count = gzread(file.get(), buffer, sizeof buffer)) > 0) {
    text.append(buffer, static_cast<std::size_t>(count));
  }
  if (count < 0) throw std::runtime_error("cannot read " + path);
  return text;
}

bool is_vector_file(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.ends_with(".json") || name.ends_with(".json.gz");
}

std::vector<std::string> files_of(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    if (!fs::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      if (entry.is_regular_file() && is_vector_file(entry.path()))
        files.push_back(entry.path().string());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

// The kind of a file of chain/epoch, from the shape of its first case: such files name no kind.
std::string chain_kind(const json& first) {
  const auto has = [&](const char* key) { return first.contains(key); };
  if (has("issuance") && has("emission")) return "chain_block_emission";
  if (has("globals") && has("subnets")) return "chain_coinbase_terms";
  if (has("stored_weights")) return "chain_set_weights";
  if (has("inputs") && has("epochs")) return "chain_epoch_148";
  if (has("config") && has("actions")) return "chain_dtao_233";
  if (has("config") && has("accounts")) return "chain_dtao_218";
  if (has("case") && has("params"))
    return first.contains("kind") ? "chain_epoch_head" : "chain_epoch_233";
  return "unknown shape";
}

// The cases of epoch_chain148.json beside `file`, by their id without the file's prefix
// ("y2s148-").
json base_cases(const fs::path& file) {
  json cases = json::object();
  for (const char* name : {"epoch_chain148.json", "epoch_chain148.json.gz"}) {
    const fs::path path = file.parent_path() / name;
    if (!fs::exists(path)) continue;
    for (const json& one : json::parse(read_file(path.string()))) {
      const std::string id = one.at("id").get<std::string>();
      cases[id.substr(id.find_last_of('-') + 1)] = one;
    }
    return cases;
  }
  throw std::runtime_error(file.string() +
                           " refers to cases of epoch_chain148.json, which is not beside it");
}

void run_vector(const Handlers& handlers, const std::string& kind, const std::string& name,
                const json& vector, Tally& tally) {
  const auto handler = handlers.find(kind);
  if (handler == handlers.end()) {
    tally.unsupported("kind " + kind);
    return;
  }
  try {
    handler->second(vector, tally);
  } catch (const std::exception& error) {
    tally.check(false, name + ": " + error.what());
  }
}

void run_document(const Handlers& handlers, const std::string& path, const json& document,
                  Tally& tally) {
  if (document.is_object() && document.contains("vectors")) {
    for (const json& vector : document.at("vectors")) {
      const std::string kind = vector.at("kind").get<std::string>();
      run_vector(handlers, kind, kind, vector, tally);
    }
    return;
  }
  if (!document.is_array() || document.empty()) {
    tally.unsupported("neither an object with vectors nor a list of cases");
    return;
  }
  const std::string kind = chain_kind(document.front());
  const bool refers = kind == "chain_epoch_head" || kind == "chain_epoch_233";
  const json bases = refers ? base_cases(path) : json();
  for (json one : document) {
    if (refers) one["base"] = bases.at(one.at("case").get<std::string>());
    run_vector(handlers, kind, one.value("id", kind), one, tally);
  }
}

}  // namespace

void Tally::check(bool ok, const std::string& difference) {
  ++(ok ? passed_ : failed_);
  if (!ok && first_difference_.empty()) first_difference_ = difference;
}

void Tally::unsupported(const std::string& reason) {
  ++unsupported_;
  if (first_unsupported_.empty()) first_unsupported_ = reason;
}

std::string Tally::line(const std::string& file) const {
  nlohmann::ordered_json row = {{"file", file},
                                {"cases", passed_ + failed_ + unsupported_},
                                {"passed", passed_},
                                {"failed", failed_},
                                {"unsupported", unsupported_},
                                {"first_difference", nullptr}};
  if (!first_difference_.empty()) row["first_difference"] = first_difference_;
  if (!first_unsupported_.empty()) row["first_unsupported"] = first_unsupported_;
  return row.dump();
}

Int128 i128_of(const json& value) {
  if (value.is_number_unsigned()) return static_cast<Int128>(value.get<std::uint64_t>());
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  const std::string text = value.get<std::string>();
  const bool negative = text.starts_with('-');
  Int128 magnitude = 0;
  if (text.size() == (negative ? 1U : 0U) || text.size() > 39)
    throw std::runtime_error("not an integer: " + text);
  for (const char c : text.substr(negative ? 1 : 0)) {
    if (c < '0' || c > '9') throw std::runtime_error("not an integer: " + text);
    magnitude = magnitude * 10 + (c - '0');
  }
  return negative ? -magnitude : magnitude;
}

std::uint64_t u64_of(const json& value) { return static_cast<std::uint64_t>(i128_of(value)); }
std::int64_t i64_of(const json& value) { return static_cast<std::int64_t>(i128_of(value)); }

std::string decimal(Int128 value) {
  if (value == 0) return "0";
  __extension__ typedef unsigned __int128 UInt128;
  UInt128 size = value < 0 ? UInt128{0} - static_cast<UInt128>(value) : static_cast<UInt128>(value);
  std::string text;
  for (; size != 0; size /= 10)
    text.push_back(static_cast<char>('0' + static_cast<int>(size % 10)));
  if (value < 0) text.push_back('-');
  return {text.rbegin(), text.rend()};
}

int print_expectations(const std::string& path) {
  std::printf("%s\n", with_plain_expectations(json::parse(read_file(path))).dump(1).c_str());
  return 0;
}

int conformance_ledger(const std::vector<std::string>& paths) {
  Handlers handlers = epoch_handlers();
  handlers.merge(pool_handlers());
  bool failed = false;
  for (const std::string& path : files_of(paths)) {
    Tally tally;
    run_document(handlers, path, json::parse(read_file(path)), tally);
    failed = failed || tally.failed();
    std::printf("%s\n", tally.line(path).c_str());
    std::fflush(stdout);
  }
  return failed ? 1 : 0;
}

}  // namespace yumoe::conformance

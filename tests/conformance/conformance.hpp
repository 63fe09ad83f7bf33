#pragma once
// What the subcommands of yumoe-conformance share: counting cases and the table from a vector's
// kind to its check.

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace yumoe::conformance {

// The cases of one file.
class Tally {
 public:
  // One case: passed when `ok`, else failed; the first failure's text is kept.
  void check(bool ok, const std::string& difference);
  // One case: passed when `difference` is empty.
  void check(const std::string& difference) { check(difference.empty(), difference); }
  // One case that no rule of ours covers; docs/ledger.md must say why.
  void unsupported(const std::string& reason);
  // One JSON line: file, cases, passed, failed, unsupported, first_difference.
  std::string line(const std::string& file) const;
  bool failed() const { return failed_ > 0; }

 private:
  std::int64_t passed_ = 0;
  std::int64_t failed_ = 0;
  std::int64_t unsupported_ = 0;
  std::string first_difference_;
  std::string first_unsupported_;
};

// Checks one vector (an entry of "vectors" with its "kind"), adding one case a target of it.
using Handler = void (*)(const nlohmann::json& vector, Tally& tally);
using Handlers = std::map<std::string, Handler>;

// ledger_epoch.cpp: numbers, epochs, mechanisms, and the files of chain/epoch that concern them.
Handlers epoch_handlers();
// ledger_math.cpp and ledger_weights.cpp: matrix functions, weight calls.
Handlers math_handlers();
Handlers weights_handlers();
// ledger_pools.cpp: pools, shares, coinbase, registration, networks; likewise.
Handlers pool_handlers();

// What the plain epoch makes of the cases of a document of kind epoch_case, as their `expected`.
nlohmann::json with_plain_expectations(nlohmann::json document);

// Files of chain/epoch are arrays of cases without a kind: "epoch_head", "epoch_chain148", ... is
// told from the shape of the first case (see chain_kind in ledger.cpp). The handler is given one
// case. A case that refers to another file (epoch_head takes stakes from the case of that id in
// epoch_chain148.json of the same folder) has that case under "base".

// Integers over 2^53 are decimal strings in the vectors; both forms are read. Throws std::exception
// on anything else.
std::uint64_t u64_of(const nlohmann::json& value);
std::int64_t i64_of(const nlohmann::json& value);
__extension__ typedef __int128 Int128;
Int128 i128_of(const nlohmann::json& value);
std::string decimal(Int128 value);

int conformance_ledger(const std::vector<std::string>& paths);
int conformance_chain(const std::vector<std::string>& paths);
// Prints the vector file with what the plain epoch makes of its cases of kind epoch_case.
int print_expectations(const std::string& path);

}  // namespace yumoe::conformance

#pragma once
// The ledger's rules by name, for people: what each counts in, who changes it, how a value is read and
// shown. The rules themselves are the parameters of coordinator/ledger_parameters.hpp.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/ledger.hpp"

namespace yumoe {

struct LedgerRule {
  std::string name;         // the chain's
  std::string option;       // its name in the configuration's [ledger], if that is another; else ""
  bool network = false;     // of the whole network, changed by proposal; else of a subnet
  bool owner = false;       // a subnet's owner may set it
  bool flag = false;        // true or false
  std::uint64_t whole = 0;  // what the chain counts a share of 1.0 as; 0: the rule is no share
  std::uint64_t min = 0, max = 0;  // of the chain's integer
};

// In the order of their declaration, a subnet's first.
const std::vector<LedgerRule>& ledger_rules();
// By either name; nullptr if there is none.
const LedgerRule* ledger_rule(std::string_view name);

// "kappa=0.6" as the rule's name on the chain and the chain's integer. A share is written with a point
// (0.6, 1.0), as 0, or as the chain counts it, N/65535; a bare 1 would be a share of 1/65535 or of 1.0,
// so it is refused. Everything else is a whole number, a switch is true or false. The name may be
// "emission_enabled/NETUID".
// Throws Error{usage}: no such rule, no such value, out of its bounds.
std::pair<std::string, std::uint64_t> rule_from(std::string_view text);

// One share as the chain counts it, of `whole`; written as in rule_from(). `what` begins the complaint.
// Throws Error{usage}.
std::uint64_t share_units(std::string_view text, std::uint64_t whole, const std::string& what);

// "kappa = 0.6 (39321/65535)", "tempo = 360", "recycle = true".
std::string rule_text(const std::string& name, std::uint64_t value);

// "a share, 0.0 to 1.0", "a whole number, 0 to 50400", "true or false".
std::string bounds_text(const LedgerRule& rule);

// Sets one of the rules that are chosen before the first block ("pool=constant_product"): blocks, pool,
// shares, schedule. False if the text names none of them. Throws Error{usage} if there is no such choice.
bool choose_rule(ledger::LedgerOptions& options, std::string_view text);

}  // namespace yumoe

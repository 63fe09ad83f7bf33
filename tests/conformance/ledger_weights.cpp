// Vector kinds of setting weights.

#include <nlohmann/json.hpp>

#include "conformance/conformance.hpp"
#include "coordinator/weights.hpp"

namespace yumoe::conformance {
namespace {

using nlohmann::json;
using namespace yumoe::ledger;

std::vector<std::uint16_t> u16s(const json& values) {
  return values.get<std::vector<std::uint16_t>>();
}

// A signed call on the real runtime: what was stored, or the error.
void chain_set_weights(const json& one, Tally& tally) {
  const auto n = one.at("n").get<std::size_t>();
  const auto uid = one.at("uid").get<std::size_t>();
  std::vector<AccountId> hotkeys(n);
  for (std::size_t i = 0; i < n; ++i) {
    hotkeys[i][0] = static_cast<std::uint8_t>(i);
    hotkeys[i][1] = static_cast<std::uint8_t>(i >> 8);
  }
  const std::vector<I64F64> stake(n, I64F64::from_integer(u64_of(one.at("stake"))));
  const std::vector<std::uint8_t> permit(n, 1);
  std::vector<Row> weights(n);
  std::vector<std::uint64_t> last_update(n, 0);
  WeightCommits commits;
  WeightFacts facts;
  facts.netuid = 2;
  facts.block = 3000;
  facts.version_key = u64_of(one.at("version_key_storage"));
  facts.min_allowed_weights = one.at("min_allowed_weights").get<std::uint16_t>();
  facts.max_weights_limit = one.at("max_weights_limit").get<std::uint16_t>();
  facts.hotkeys = hotkeys;
  facts.stake = stake;
  facts.permit = permit;
  WeightEvents events;
  const auto done = set_weights(
      facts, {weights, last_update, commits}, hotkeys.at(uid),
      {u16s(one.at("uids")), u16s(one.at("values")), u64_of(one.at("version_key"))}, events);
  json stored = json::array();
  for (const Entry& e : weights.at(uid)) stored.push_back({e.uid, e.value});
  const std::string error = done ? "" : std::string(name_of(done.error()));
  const std::string expected =
      one.at("error").is_null() ? "" : one.at("error").at("name").get<std::string>();
  tally.check(error == expected && stored == one.at("stored_weights"),
              one.at("id").get<std::string>() + ": error '" + error + "', stored " + stored.dump());
}

template <bool (*check)(const json& one)>
void each_case(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    tally.check(check(one) == one.at("expected").get<bool>(), one.dump());
  }
}

std::uint16_t u16(const json& one, const char* name) { return one.at(name).get<std::uint16_t>(); }

bool self_case(const json& one) {
  return is_self_weight(u16(one, "uid"), u16s(one.at("uids")), u16s(one.at("weights")));
}
bool length_case(const json& one) {
  return has_enough_weights(u16(one, "subnet_n"), u16(one, "min_allowed"), u16(one, "uid"),
                            u16s(one.at("uids")), u16s(one.at("weights")));
}
bool limit_case(const json& one) {
  return is_within_weight_limit(u16(one, "limit"), u16(one, "uid"), u16s(one.at("uids")),
                                u16s(one.at("weights")));
}

}  // namespace

Handlers weights_handlers() {
  return {{"chain_set_weights", chain_set_weights},
          {"is_self_weight", each_case<self_case>},
          {"check_length", each_case<length_case>},
          {"max_weight_limited", each_case<limit_case>}};
}

}  // namespace yumoe::conformance

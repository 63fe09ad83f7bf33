// Vector kinds of numbers, epochs and mechanisms. Numbers are checked bit by bit against the
// reference model's output where a vector has one, and within the vector's tolerance against the
// chain's own expectation.

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "conformance/conformance.hpp"
#include "conformance/plain_epoch.hpp"
#include "coordinator/epoch.hpp"

namespace yumoe::conformance {
namespace {

using nlohmann::json;
using namespace yumoe::ledger;

std::vector<Row> rows_of(const json& rows, std::size_t n) {
  std::vector<Row> out(n);
  for (std::size_t i = 0; i < rows.size() && i < n; ++i) {
    for (const json& entry : rows.at(i)) {
      out[i].push_back({entry.at(0).get<std::uint16_t>(), entry.at(1).get<std::uint16_t>()});
    }
  }
  return out;
}

template <typename T>
std::vector<T> numbers_of(const json& values) {
  std::vector<T> out;
  for (const json& v : values) out.push_back(static_cast<T>(i128_of(v)));
  return out;
}

// The subnet of a case of epoch_chain148.json, before any rules are chosen.
EpochInput input_of_chain_case(const json& in) {
  EpochInput input;
  const auto n = in.at("n").get<std::size_t>();
  EpochParameters& p = input.parameters;
  p.yuma = 2;
  p.kappa = in.at("Kappa").get<std::uint16_t>();
  p.bonds_moving_average = u64_of(in.at("BondsMovingAverage"));
  p.max_allowed_validators = in.at("MaxAllowedValidators").get<std::uint16_t>();
  p.activity_cutoff = u64_of(in.at("ActivityCutoff"));
  p.tempo = in.at("Tempo").get<std::uint16_t>();
  for (const json& v : in.at("TotalHotkeyStake"))
    input.stake.push_back(I64F64::from_integer(u64_of(v)));
  input.registered_at = numbers_of<std::uint64_t>(in.at("BlockAtRegistration"));
  input.permit = numbers_of<std::uint8_t>(in.at("ValidatorPermit"));
  input.mechanisms.resize(1);
  input.mechanisms[0].last_update = numbers_of<std::uint64_t>(in.at("LastUpdate"));
  input.mechanisms[0].weights = rows_of(in.at("Weights"), n);
  input.mechanisms[0].bonds = rows_of(in.at("Bonds"), n);
  return input;
}

template <typename T>
std::string difference_of(const std::string& name, const std::vector<T>& got,
                          const json& expected) {
  if (got.size() != expected.size()) {
    return name + ": length " + std::to_string(got.size()) + ", expected " +
           std::to_string(expected.size());
  }
  for (std::size_t i = 0; i < got.size(); ++i) {
    const Int128 want = i128_of(expected.at(i));
    if (static_cast<Int128>(got[i]) != want) {
      return name + "[" + std::to_string(i) + "]: " + decimal(static_cast<Int128>(got[i])) +
             ", expected " + decimal(want);
    }
  }
  return "";
}

std::string difference_of_rows(const std::string& name, const std::vector<Row>& got,
                               const json& expected) {
  if (got.size() != expected.size()) return name + ": row count";
  for (std::size_t i = 0; i < got.size(); ++i) {
    json row = json::array();
    for (const Entry& e : got[i]) row.push_back({e.uid, e.value});
    if (row != expected.at(i)) {
      return name + "[" + std::to_string(i) + "]: " + row.dump() + ", expected " +
             expected.at(i).dump();
    }
  }
  return "";
}

std::string difference_of_epoch(const EpochOutput& got, const json& expected) {
  const MechanismOutput& m = got.mechanisms.at(0);
  std::string found;
  const auto compare = [&](const char* name, const auto& values) {
    if (found.empty() && expected.contains(name))
      found = difference_of(name, values, expected.at(name));
  };
  compare("Active", got.active);
  compare("Consensus", got.consensus);
  compare("Incentive", m.incentive);
  compare("Rank", m.incentive);
  compare("Trust", m.trust);
  compare("Dividends", got.dividends);
  compare("ValidatorTrust", got.validator_trust);
  compare("PruningScores", m.pruning_scores);
  compare("ValidatorPermit", got.permit);
  compare("StakeWeight", got.stake_weight);
  compare("Emission", got.emission);
  compare("ServerEmission", got.server_emission);
  compare("ValidatorEmission", got.validator_emission);
  if (found.empty()) found = difference_of_rows("Bonds", m.bonds, expected.at("Bonds"));
  return found;
}

// Both the product's epoch and the plain one are held to every vector.
std::string difference_of_run(const EpochInput& input, const json& expected, EpochOutput& out) {
  out = run_epoch(input);
  std::string found = difference_of_epoch(out, expected);
  if (!found.empty()) return found;
  found = difference_of_epoch(plain::run_epoch(input), expected);
  return found.empty() ? "" : "plain epoch: " + found;
}

void carry_over(EpochInput& input, const EpochOutput& out) {
  input.permit = out.permit;
  input.mechanisms[0].bonds = out.mechanisms[0].bonds;
}

void chain_epoch_148(const json& one, Tally& tally) {
  const std::string id = one.at("id").get<std::string>();
  const json& in = one.at("inputs");
  EpochInput input = input_of_chain_case(in);
  input.rules = EpochRules::spec148();
  const std::uint64_t per_block = u64_of(in.at("EmissionValues"));
  std::uint64_t incoming = per_block;
  if (!in.at("SubnetOwner").is_null()) {
    const I96F32 all = I96F32::from_integer(per_block);
    const I96F32 share = I96F32::from_integer(11796).safe_div(I96F32::from_integer(65535));
    incoming = all.saturating_sub(all.saturating_mul(share)).to_u64();
  }
  std::uint64_t pending = u64_of(in.at("PendingEmission"));
  std::uint64_t last_block = 0;
  for (const json& expected : one.at("epochs")) {
    input.block = u64_of(expected.at("block"));
    const std::uint64_t blocks = last_block == 0 ? 1 : input.block - last_block;
    input.emission = pending + incoming * blocks;
    EpochOutput out;
    std::vector<std::uint64_t> stake;
    for (const I64F64 v : input.stake) stake.push_back(v.to_u64());
    std::string found = difference_of_run(input, expected, out);
    if (found.empty())
      found = difference_of("TotalHotkeyStake", stake, expected.at("TotalHotkeyStake"));
    tally.check(found.empty(), id + " at block " + std::to_string(input.block) + ": " + found);
    pending = 0;
    last_block = input.block;
    carry_over(input, out);
    // The payout list: dropped whole when its sum is larger than what was drained.
    UInt128 paid = 0;
    for (std::size_t i = 0; i < out.stake.size(); ++i)
      paid += out.server_emission[i] + out.validator_emission[i];
    json list = json::array();
    for (std::size_t i = 0; paid <= input.emission && i < out.stake.size(); ++i) {
      list.push_back({in.at("hotkeys").at(i), std::to_string(out.server_emission[i]),
                      std::to_string(out.validator_emission[i])});
      // Paid into stake in the block after the epoch.
      input.stake[i] += I64F64::from_integer(out.server_emission[i] + out.validator_emission[i]);
    }
    tally.check(list == expected.at("LoadedEmission"), id + ": LoadedEmission " + list.dump());
  }
}

void chain_epoch_233(const json& one, Tally& tally) {
  const json& params = one.at("params");
  EpochInput input = input_of_chain_case(one.at("base").at("inputs"));
  input.rules = EpochRules::spec233();
  input.parameters.liquid_alpha = params.at("liquid_alpha_on").get<bool>();
  input.parameters.alpha_low = params.at("alpha_low").get<std::uint16_t>();
  input.parameters.alpha_high = params.at("alpha_high").get<std::uint16_t>();
  input.parameters.bonds_penalty = params.at("bonds_penalty").get<std::uint16_t>();
  input.emission = u64_of(params.at("emission"));
  input.block = u64_of(params.at("block"));
  EpochOutput out;
  const std::string found = difference_of_run(input, one.at("outputs"), out);
  tally.check(found.empty(), one.at("id").get<std::string>() + ": " + found);
}

void chain_epoch_head(const json& one, Tally& tally) {
  const json& params = one.at("params");
  EpochInput input = input_of_chain_case(one.at("base").at("inputs"));
  EpochParameters& p = input.parameters;
  p.yuma = params.at("yuma3_on").get<bool>() ? 3 : 2;
  p.liquid_alpha = params.at("liquid_alpha_on").get<bool>();
  p.bonds_penalty = params.at("bonds_penalty").get<std::uint16_t>();
  p.alpha_low = params.at("alpha_low").get<std::uint16_t>();
  p.alpha_high = params.at("alpha_high").get<std::uint16_t>();
  p.alpha_sigmoid_steepness = params.at("alpha_sigmoid_steepness").get<std::int16_t>();
  p.stake_threshold = u64_of(params.at("stake_threshold"));
  if (!params.at("owner_uid").is_null())
    input.owner_uid = params.at("owner_uid").get<std::uint16_t>();
  if (!params.at("root_stake").is_null()) {
    const json& alpha = one.at("base").at("inputs").at("TotalHotkeyStake");
    for (std::size_t i = 0; i < input.stake.size(); ++i) {
      input.stake[i] = total_stake(u64_of(alpha.at(i)), u64_of(params.at("root_stake").at(i)),
                                   u64_of(params.at("tao_weight")));
    }
  }
  input.last_step_block = u64_of(params.at("last_mechanism_step_block"));
  input.emission = u64_of(params.at("emission"));
  for (const json& expected : one.at("outputs")) {
    input.block = u64_of(expected.at("block"));
    EpochOutput out;
    const std::string found = difference_of_run(input, expected, out);
    tally.check(found.empty(), one.at("id").get<std::string>() + " at block " +
                                   std::to_string(input.block) + ": " + found);
    carry_over(input, out);
    input.last_step_block = input.block;
  }
}

EpochInput input_of_config(const json& config) {
  EpochInput input;
  const auto n = config.at("n").get<std::size_t>();
  EpochParameters& p = input.parameters;
  p.yuma = config.at("yuma3").get<bool>() ? 3 : 2;
  p.kappa = config.at("kappa").get<std::uint16_t>();
  p.bonds_penalty = config.at("bonds_penalty").get<std::uint16_t>();
  p.bonds_moving_average = u64_of(config.at("bonds_moving_average"));
  p.liquid_alpha = config.at("liquid_alpha").get<bool>();
  p.alpha_low = config.at("alpha_low_u16").get<std::uint16_t>();
  p.alpha_high = config.at("alpha_high_u16").get<std::uint16_t>();
  p.alpha_sigmoid_steepness = config.at("alpha_sigmoid_steepness").get<std::int16_t>();
  p.max_allowed_validators = config.at("max_allowed_validators").get<std::uint16_t>();
  p.tempo = config.at("tempo").get<std::uint16_t>();
  p.activity_cutoff = std::max<std::uint64_t>(
      1, u64_of(config.at("activity_cutoff_factor_milli")) * p.tempo / 1000);
  p.stake_threshold = u64_of(config.at("stake_threshold"));
  p.commit_reveal = config.at("commit_reveal").get<bool>();
  input.last_step_block = u64_of(config.at("last_step_block"));
  input.emission = u64_of(config.at("rao_emission"));
  if (!config.at("owner_uid").is_null())
    input.owner_uid = config.at("owner_uid").get<std::uint16_t>();
  const json& registered = config.at("registered_at");
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t alpha = u64_of(config.at("stake_alpha").at(i));
    const std::uint64_t tao =
        config.contains("stake_tao") ? u64_of(config.at("stake_tao").at(i)) : 0;
    input.stake.push_back(total_stake(alpha, tao, u64_of(config.at("tao_weight"))));
    input.registered_at.push_back(u64_of(registered.is_array() ? registered.at(i) : registered));
  }
  input.permit.assign(n, 0);
  MechanismInput m;
  m.last_update = input.registered_at;
  m.weights.resize(n);
  m.bonds.resize(n);
  input.mechanisms.push_back(m);
  return input;
}

// As a call would store them: upscaled, in call order.
void set_weights(EpochInput& input, std::size_t uid, const json& uids, const json& values) {
  std::vector<I32F32> raw;
  for (const json& v : values) raw.push_back(I32F32::from_integer(v.get<std::uint16_t>()));
  const auto scaled = upscale_to_u16(raw);
  Row row;
  for (std::size_t k = 0; k < uids.size(); ++k)
    row.push_back({uids.at(k).get<std::uint16_t>(), scaled.at(k)});
  input.mechanisms[0].weights.at(uid) = row;
  input.mechanisms[0].last_update.at(uid) = input.block;
}

std::string near(const std::string& name, double got, double want, double eps) {
  return std::abs(got - want) <= eps
             ? ""
             : name + ": " + std::to_string(got) + ", expected " + std::to_string(want);
}

std::uint16_t bond_of(const EpochOutput& out, std::size_t i, std::uint16_t j) {
  for (const Entry& e : out.mechanisms.at(0).bonds.at(i)) {
    if (e.uid == j) return e.value;
  }
  return 0;
}

std::string difference_of_table(const EpochOutput& out, const json& expect, double eps) {
  std::string found;
  for (const auto& [name, table] : expect.items()) {
    for (std::size_t i = 0; found.empty() && i < table.size(); ++i) {
      if (name == "dividends") {
        found = near(name, out.dividends.at(i) / 65535.0, table.at(i).get<double>(), eps);
      } else if (name.starts_with("bonds_from_uid")) {
        const int first = std::stoi(name.substr(14));
        for (std::size_t k = 0; found.empty() && k < table.at(i).size(); ++k) {
          const auto j = static_cast<std::uint16_t>(first + static_cast<int>(k));
          found = near("bond " + std::to_string(i) + "," + std::to_string(j),
                       bond_of(out, i, j) / 65535.0, table.at(i).at(k).get<double>(), eps);
        }
      } else {
        throw std::runtime_error("unknown expectation " + name);
      }
    }
  }
  return found;
}

void run_scenario(const json& vector, bool dense_variant, Tally& tally) {
  const json& config = vector.at("config");
  const auto run = [&](const EpochInput& input) {
    return dense_variant ? plain::run_epoch(input, true) : run_epoch(input);
  };
  EpochInput input = input_of_config(config);
  const bool liquid = input.parameters.liquid_alpha;
  input.block = u64_of(config.at("registered_at").is_array() ? config.at("registered_at").at(0)
                                                             : config.at("registered_at")) +
                1;
  input.parameters.liquid_alpha = config.value("liquid_alpha_during_setup_epoch", liquid);
  carry_over(input, run(input));
  input.parameters.liquid_alpha = liquid;
  for (const json& step : vector.at("steps")) {
    for (const json& call : step.value("set_weights", json::array())) {
      set_weights(input, call.at("uid").get<std::size_t>(), call.at("uids"), call.at("values"));
    }
    if (step.contains("reset_bonds_to_uid")) {
      const auto uid = step.at("reset_bonds_to_uid").get<std::uint16_t>();
      for (Row& row : input.mechanisms[0].bonds) {
        std::erase_if(row, [&](const Entry& e) { return e.uid == uid; });
      }
    }
    ++input.block;
    const EpochOutput out = run(input);
    std::string found;
    if (!dense_variant || !step.contains("expect")) {
      if (step.contains("model_dividends_u16") && !dense_variant) {
        found = difference_of("dividends", out.dividends, step.at("model_dividends_u16"));
        if (found.empty())
          found = difference_of("emission", out.emission, step.at("model_emission"));
        if (found.empty())
          found = difference_of_rows("bonds", out.mechanisms[0].bonds, step.at("model_bonds_u16"));
      }
    }
    if (found.empty() && step.contains("expect")) {
      found = difference_of_table(out, step.at("expect"), vector.at("eps").get<double>());
    }
    tally.check(found.empty(), std::string(dense_variant ? "dense" : "sparse") + " step " +
                                   step.at("epoch").dump() + ": " + found);
    carry_over(input, out);
  }
}

void epoch_scenario(const json& vector, Tally& tally) {
  for (const json& variant : vector.value("variants", json::array({"sparse"}))) {
    run_scenario(vector, variant == "dense", tally);
  }
}

std::string difference_of_script(const EpochOutput& out, const json& values, Int128 eps) {
  const auto check = [&](const std::string& name, Int128 got, const json& want) {
    const Int128 gap = got - i128_of(want);
    return gap <= eps && -gap <= eps
               ? ""
               : name + ": " + decimal(got) + ", expected " + decimal(i128_of(want));
  };
  for (const auto& [name, by_uid] : values.items()) {
    for (const auto& [key, want] : by_uid.items()) {
      const auto uid = static_cast<std::size_t>(std::stoul(key));
      std::string found;
      if (name == "bonds") {
        for (const auto& [target, bond] : want.items()) {
          if (found.empty()) {
            found = check("bond " + key + "," + target,
                          bond_of(out, uid, static_cast<std::uint16_t>(std::stoul(target))), bond);
          }
        }
      } else if (name == "emission") {
        found = check(name + " of " + key, out.emission.at(uid), want);
      } else if (name == "dividends") {
        found = check(name + " of " + key, out.dividends.at(uid), want);
      } else if (name == "consensus") {
        found = check(name + " of " + key, out.consensus.at(uid), want);
      } else if (name == "incentive") {
        found = check(name + " of " + key, out.mechanisms[0].incentive.at(uid), want);
      } else if (name == "validator_trust") {
        found = check(name + " of " + key, out.validator_trust.at(uid), want);
      } else if (name == "stake_weight") {
        found = check(name + " of " + key, out.stake_weight.at(uid), want);
      } else if (name == "validator_permit") {
        found = check(name + " of " + key, out.permit.at(uid), want);
      } else if (name == "active") {
        found = check(name + " of " + key, out.active.at(uid), want);
      } else {
        throw std::runtime_error("unknown expectation " + name);
      }
      if (!found.empty()) return found;
    }
  }
  return "";
}

// A neuron takes over the uid: its rows go, weights towards it become 0, it is registered now.
void replace(EpochInput& input, const json& op) {
  const auto uid = op.at("uid").get<std::size_t>();
  MechanismInput& m = input.mechanisms[0];
  input.stake.at(uid) = I64F64::from_integer(u64_of(op.at("stake")));
  input.registered_at.at(uid) = input.block;
  input.permit.at(uid) = 0;
  m.last_update.at(uid) = input.block;
  m.weights.at(uid).clear();
  m.bonds.at(uid).clear();
  for (Row& row : m.weights) {
    for (Entry& e : row) {
      if (e.uid == uid) e.value = 0;
    }
  }
}

void epoch_script(const json& vector, Tally& tally) {
  EpochInput input = input_of_config(vector.at("config"));
  input.block = u64_of(vector.at("config").at("start_block"));
  EpochOutput out;
  std::size_t number = 0;
  for (const json& op : vector.at("ops")) {
    const std::string name = op.at("op").get<std::string>();
    ++number;
    const auto range = [&](const auto& each) {
      for (auto u = op.at("uid_from").get<std::size_t>(); u < op.at("uid_to").get<std::size_t>();
           ++u)
        each(u);
    };
    if (name == "block") {
      input.block = op.contains("to") ? u64_of(op.at("to")) : input.block + 1;
    } else if (name == "set_weights") {
      set_weights(input, op.at("uid").get<std::size_t>(), op.at("uids"), op.at("values"));
    } else if (name == "set_weights_range") {
      json uids = json::array();
      json values = json::array();
      for (auto t = op.at("target_from").get<std::size_t>();
           t < op.at("target_to").get<std::size_t>(); ++t) {
        uids.push_back(t);
        values.push_back(op.at("value"));
      }
      range([&](std::size_t u) { set_weights(input, u, uids, values); });
    } else if (name == "set_self_weight_range") {
      range([&](std::size_t u) {
        set_weights(input, u, json::array({u}), json::array({op.at("value")}));
      });
    } else if (name == "replace") {
      replace(input, op);
    } else if (name == "add_stake") {
      const auto uid = op.at("uid").get<std::size_t>();
      input.stake.at(uid) +=
          I64F64::from_integer(u64_of(op.contains("amount") ? op.at("amount") : op.at("stake")));
    } else if (name == "epoch") {
      out = run_epoch(input);
      carry_over(input, out);
    } else if (name == "expect") {
      const std::string found =
          difference_of_script(out, op.at("values"), i128_of(vector.value("eps", json(0))));
      tally.check(found.empty(), "op " + std::to_string(number) + ": " + found);
    } else {
      tally.unsupported("op " + name);
      return;
    }
  }
}

// One epoch with everything that it reads written out: our own vectors, for what no vector of the chain
// decides. `source` says who computed what is expected.
EpochInput input_of_case(const json& one) {
  EpochInput input = input_of_config(one.at("config"));
  const std::size_t n = input.stake.size();
  input.block = u64_of(one.at("block"));
  input.permit = numbers_of<std::uint8_t>(one.at("permit"));
  MechanismInput& m = input.mechanisms[0];
  m.last_update = numbers_of<std::uint64_t>(one.at("last_update"));
  m.weights = rows_of(one.at("weights"), n);
  m.bonds = rows_of(one.value("bonds", json::array()), n);
  for (const json& first : one.value("first_commit", json::array())) {
    m.first_commit.push_back(first.is_null() ? kNoCommit : u64_of(first));
  }
  return input;
}

void epoch_case(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    EpochOutput out;
    const std::string found = difference_of_run(input_of_case(one), one.at("expected"), out);
    tally.check(found.empty(), one.at("id").get<std::string>() + ": " + found);
  }
}

void compute_bonds_pair(const json& vector, Tally& tally) {
  const auto matrix = [](const json& rows) {
    plain::Mat out;
    for (const json& row : rows) {
      out.emplace_back();
      for (const json& v : row) out.back().push_back(I32F32::from_bits(i64_of(v)));
    }
    return out;
  };
  const plain::Mat weights = matrix(vector.at("weights_bits"));
  const plain::Mat bonds = matrix(vector.at("bonds_bits"));
  const I32F32 low = share_of_u16(vector.at("alpha_low_u16").get<std::uint16_t>());
  const I32F32 high = share_of_u16(vector.at("alpha_high_u16").get<std::uint16_t>());
  plain::Mat rates = weights;
  plain::Mat plain_rates = weights;
  const I32F32 plain_rate =
      I32F32::one() - I64F64::from_integer(u64_of(vector.at("bonds_moving_average")))
                          .safe_div(I64F64::from_integer(1000000))
                          .convert<I32F32>();
  for (std::size_t i = 0; i < rates.size(); ++i) {
    for (std::size_t j = 0; j < rates[i].size(); ++j) {
      const I32F32 consensus = I32F32::from_bits(i64_of(vector.at("consensus_bits").at(j)));
      rates[i][j] = liquid_rate(consensus, weights[i][j], bonds[i][j], low, high,
                                vector.value("alpha_sigmoid_steepness", std::int16_t{1000}));
      plain_rates[i][j] = plain_rate;
    }
  }
  const plain::Mat got = plain::ema_alpha_dense(weights, bonds, rates);
  const plain::Mat want = plain::ema_alpha_dense(weights, bonds, plain_rates);
  const double eps = vector.at("eps").get<double>();
  std::string found;
  for (std::size_t i = 0; i < got.size(); ++i) {
    for (std::size_t j = 0; j < got[i].size() && found.empty(); ++j) {
      found = near("bond", static_cast<double>(got[i][j].bits()) / 4294967296.0,
                   static_cast<double>(want[i][j].bits()) / 4294967296.0, eps);
    }
  }
  tally.check(found);
}

using CaseCheck = std::string (*)(const json& one, const json& vector);

template <CaseCheck check>
void each_case(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const std::string found = check(one, vector);
    tally.check(found.empty(), one.dump() + ": " + found);
  }
}

std::string same(Int128 got, const json& want, Int128 eps = 0) {
  const Int128 gap = got - i128_of(want);
  return gap <= eps && -gap <= eps ? "" : "got " + decimal(got);
}

std::string exp_case(const json& one, const json&) {
  const auto got = exp(I32F32::from_bits(i64_of(one.at("x_bits"))));
  return got ? same(got->bits(), one.at("value_bits")) : "overflow";
}
std::string ln_case(const json& one, const json&) {
  const auto got = ln(I32F32::from_bits(i64_of(one.at("x_bits"))));
  return got ? same(got->bits(), one.at("value_bits")) : "no logarithm";
}
std::string sigmoid_case(const json& one, const json& vector) {
  const auto bits = [](const json& v) { return I32F32::from_bits(i64_of(v)); };
  const I32F32 rate =
      liquid_rate(bits(one.at("consensus_bits")), bits(one.at("weight_bits")),
                  bits(one.at("bond_bits")), bits(vector.at("low_bits")),
                  bits(vector.at("high_bits")), vector.at("steepness").get<std::int16_t>());
  return same(rate.bits(), one.at("value_bits"));
}
std::string tao_weight_case(const json& one, const json&) {
  return same(static_cast<Int128>(share_of_u64(u64_of(one.at("u64"))).bits()), one.at("bits"));
}
std::string kappa_case(const json& one, const json&) {
  return same(share_of_u16(one.at("u16").get<std::uint16_t>()).bits(), one.at("bits"));
}
std::string split_case(const json& one, const json&) {
  std::vector<std::uint16_t> split;
  if (!one.at("split").is_null()) split = numbers_of<std::uint16_t>(one.at("split"));
  return difference_of(
      "parts", split_emission(u64_of(one.at("alpha")), one.at("count").get<std::size_t>(), split),
      one.at("expected"));
}
std::string index_case(const json& one, const json&) {
  return same(
      mechanism_index(one.at("netuid").get<std::uint16_t>(), one.at("mecid").get<std::uint8_t>()),
      one.at("expected"));
}
std::string from_index_case(const json& one, const json&) {
  const auto index = one.at("index").get<std::uint16_t>();
  const std::string netuid = same(index % kMechanismStride, one.at("expected_netuid"));
  return netuid.empty() ? same(index / kMechanismStride, one.at("expected_mecid")) : netuid;
}
std::string inherited_case(const json& one, const json& vector) {
  std::vector<ParentStake> parents;
  for (const json& p : one.at("parents")) parents.push_back({u64_of(p.at(0)), u64_of(p.at(1))});
  const auto children = numbers_of<std::uint64_t>(one.at("children"));
  const auto got = static_cast<Int128>(inherited_stake(u64_of(one.at("own")), children, parents));
  if (one.contains("model") && !same(got, one.at("model")).empty())
    return same(got, one.at("model"));
  return same(got, one.at("expected"), i128_of(vector.value("eps", json(0))));
}
std::string blocks_until_case(const json& one, const json&) {
  return same(static_cast<Int128>(blocks_until_next_auto_epoch(one.at("tempo").get<std::uint16_t>(),
                                                               u64_of(one.at("last_epoch_block")),
                                                               u64_of(one.at("block")))),
              one.at("expected"));
}
std::string first_block_case(const json& one, const json&) {
  return same(static_cast<Int128>(legacy_first_block_of_epoch(one.at("netuid").get<std::uint16_t>(),
                                                              one.at("tempo").get<std::uint16_t>(),
                                                              u64_of(one.at("epoch")))),
              one.at("expected"));
}

}  // namespace

Handlers epoch_handlers() {
  Handlers handlers = {{"chain_epoch_148", chain_epoch_148},
                       {"chain_epoch_233", chain_epoch_233},
                       {"chain_epoch_head", chain_epoch_head},
                       {"epoch_scenario", epoch_scenario},
                       {"epoch_script", epoch_script},
                       {"epoch_case", epoch_case},
                       {"compute_bonds_pair", compute_bonds_pair},
                       {"exp_i32f32", each_case<exp_case>},
                       {"ln_i32f32", each_case<ln_case>},
                       {"alpha_sigmoid", each_case<sigmoid_case>},
                       {"tao_weight_u96f32", each_case<tao_weight_case>},
                       {"kappa_i32f32", each_case<kappa_case>},
                       {"split_emissions", each_case<split_case>},
                       {"mechanism_index", each_case<index_case>},
                       {"mechanism_from_index", each_case<from_index_case>},
                       {"inherited_stake", each_case<inherited_case>},
                       {"blocks_until_next_auto_epoch", each_case<blocks_until_case>},
                       {"legacy_first_block_of_epoch", each_case<first_block_case>}};
  handlers.merge(math_handlers());
  handlers.merge(weights_handlers());
  return handlers;
}

nlohmann::json with_plain_expectations(nlohmann::json document) {
  for (json& vector : document.at("vectors")) {
    if (vector.at("kind") != "epoch_case")
      throw std::runtime_error("only kind epoch_case is computed");
    for (json& one : vector.at("cases")) {
      const EpochOutput out = plain::run_epoch(input_of_case(one));
      json bonds = json::array();
      for (const Row& row : out.mechanisms.at(0).bonds) {
        bonds.push_back(json::array());
        for (const Entry& e : row) bonds.back().push_back({e.uid, e.value});
      }
      one["expected"] = {{"Active", out.active},
                         {"Consensus", out.consensus},
                         {"Incentive", out.mechanisms.at(0).incentive},
                         {"Dividends", out.dividends},
                         {"ValidatorTrust", out.validator_trust},
                         {"ValidatorPermit", out.permit},
                         {"StakeWeight", out.stake_weight},
                         {"Emission", out.emission},
                         {"Bonds", bonds}};
    }
  }
  return document;
}

}  // namespace yumoe::conformance

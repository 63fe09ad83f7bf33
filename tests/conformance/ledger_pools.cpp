// Vector kinds of pools, share pools, coinbase, registration and networks.

#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "conformance/conformance.hpp"
#include "conformance/ledger_blocks.hpp"
#include "coordinator/coinbase.hpp"
#include "coordinator/pool.hpp"
#include "coordinator/share_pool.hpp"

namespace yumoe::conformance {
namespace {

using nlohmann::json;
using namespace yumoe::ledger;

UInt128 u128_of(const json& value) {
  if (!value.is_string()) return u64_of(value);
  UInt128 number = 0;
  for (const char c : value.get<std::string>()) {
    if (c < '0' || c > '9') throw std::runtime_error("not a number");
    number = number * 10 + static_cast<unsigned>(c - '0');
  }
  return number;
}

std::string text_of(UInt128 value) {
  std::string text;
  do {
    text.insert(text.begin(), static_cast<char>('0' + static_cast<int>(value % 10)));
    value /= 10;
  } while (value != 0);
  return text;
}

double double_of(U64F64 value) { return std::ldexp(static_cast<double>(value.bits()), -64); }

void expect(Tally& tally, const std::string& what, UInt128 got, UInt128 want, double eps = 0) {
  const UInt128 apart = got > want ? got - want : want - got;
  tally.check(static_cast<double>(apart) <= eps,
              what + ": got " + text_of(got) + ", expected " + text_of(want));
}

// A decimal number of the vector as a truncated fixed-point one: 0.2 is 2/10, not a double.
U64F64 fixed_of(const json& value) {
  const std::string text = value.dump();
  if (text.find('e') != std::string::npos) return U64F64::from_literal(value.get<double>());
  UInt128 digits = 0;
  UInt128 scale = 1;
  bool fraction = false;
  for (const char c : text) {
    if (c == '.') {
      fraction = true;
    } else {
      digits = digits * 10 + static_cast<unsigned>(c - '0');
      if (fraction) scale *= 10;
    }
  }
  const UInt128 whole = digits / scale;
  const UInt128 part = wide_divide(shift_left(Wide{0, digits % scale}, 64), scale)->quotient;
  return U64F64::from_bits((whole << 64) + part);
}

std::uint64_t limit_of(const json& value) {
  if (value == "minimum") return kSwapPriceMin;
  if (value == "maximum") return kSwapPriceMax;
  return static_cast<std::uint64_t>(std::llround(value.get<double>() * 1e9));
}

Side side_of(const json& one) { return one.at("side") == "buy" ? Side::buy : Side::sell; }

// --- balancer ---

void pow_ratio(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const UInt128 got = pow_ratio_scaled(u128_of(one.at("num")), u128_of(one.at("den")),
                                         u64_of(one.at("exp_num")), u64_of(one.at("exp_den")),
                                         static_cast<unsigned>(u64_of(one.at("precision"))),
                                         u64_of(one.at("scale")));
    const char* target = one.contains("model") ? "model" : "expected";
    expect(tally, "power", got, u128_of(one.at(target)));
  }
}

void perquintill_product(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    expect(tally, "product",
           multiply_perquintill(u64_of(one.at("parts")), u128_of(one.at("value"))),
           u128_of(one.at("expected")));
  }
}

void balancer_price(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const U64F64 price =
        spot_price({u64_of(one.at("x")), u64_of(one.at("y")), u64_of(one.at("w_quote"))});
    if (one.contains("model_bits"))
      expect(tally, "price", price.bits(), u128_of(one.at("model_bits")));
    const double eps = vector.value("eps", 1e-9);
    tally.check(std::abs(double_of(price) - one.at("expected").get<double>()) <= eps, "price off");
  }
}

// The share that remains after `delta` entered the named side.
U64F64 base_quote(const json& w, std::uint64_t x, std::uint64_t dx) {
  return remaining_share({x, 0, u64_of(w)}, Side::sell, dx);
}
U64F64 quote_base(const json& w, std::uint64_t y, std::uint64_t dy) {
  return remaining_share({0, y, u64_of(w)}, Side::buy, dy);
}

void balancer_exp(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const std::uint64_t x = u64_of(one.at("x"));
    const std::uint64_t dx = u64_of(one.at("dx"));
    const double y = static_cast<double>(u64_of(one.at("y")));
    for (const bool base : {true, false}) {
      const std::string name = base ? "base_quote" : "quote_base";
      const U64F64 got =
          base ? base_quote(one.at("w_quote"), x, dx) : quote_base(one.at("w_quote"), x, dx);
      expect(tally, name, got.bits(), u128_of(one.at("model_exp_" + name + "_bits")));
      if (!one.contains("expected_dy_" + name)) {
        tally.check(got <= U64F64::one(), name + " is above 1");
        continue;
      }
      const double dy = y * double_of(U64F64::one() - got);
      const double want = one.at("expected_dy_" + name).get<double>();
      tally.check(
          std::abs(dy - want) <= one.at("eps_" + name).get<double>() + std::abs(want) * 1e-15,
          "dy of " + name + " is " + std::to_string(dy));
    }
  }
}

void balancer_exp_scaled(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const std::uint64_t reserve = u64_of(one.at("reserve"));
    const std::uint64_t delta = u64_of(one.at("delta"));
    const U64F64 got = one.at("base_quote").get<bool>()
                           ? base_quote(one.at("w_quote"), reserve, delta)
                           : quote_base(one.at("w_quote"), reserve, delta);
    expect(tally, "exp_scaled", got.bits(), u128_of(one.at("model_bits")));
    tally.check(
        std::abs(double_of(got) - one.at("expected").get<double>()) <= vector.value("eps", 1e-9),
        "exp_scaled is " + std::to_string(double_of(got)));
  }
}

void balancer_dy_order(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const auto dy = [&](const char* x, const char* dx, const char* w) {
      const Reserves reserves{u64_of(one.at(x)), u64_of(one.at("y")), u64_of(one.at(w))};
      return unrounded_output(reserves, Side::sell, u64_of(one.at(dx)));
    };
    const U64F64 first = dy("x1", "dx1", "w_quote1");
    const U64F64 second = dy("x2", "dx2", "w_quote2");
    expect(tally, "dy1", first.bits(), u128_of(one.at("model_dy1_bits")));
    expect(tally, "dy2", second.bits(), u128_of(one.at("model_dy2_bits")));
    tally.check(first > second && second > U64F64::zero(), "order of dy");
  }
}

void balancer_limit_delta(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const Side side = side_of(one);
    const std::uint64_t reserve = u64_of(one.at("reserve"));
    const Reserves reserves{reserve, reserve, u64_of(one.at("w_quote"))};
    const std::uint64_t got =
        input_to_price(reserves, side, U64F64::from_bits(u128_of(one.at("price_current_bits"))),
                       U64F64::from_bits(u128_of(one.at("price_target_bits"))));
    expect(tally, "delta", got, u64_of(one.at("model")));
    expect(tally, "delta", got, u64_of(one.at("expected")), vector.value("eps", 0.0));
  }
}

void balancer_reverse(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    Reserves reserves{u64_of(one.at("alpha_reserve")), u64_of(one.at("tao_reserve")),
                      u64_of(one.at("w_quote"))};
    const std::uint64_t dy = input_to_price(reserves, Side::buy, fixed_of(one.at("price_current")),
                                            fixed_of(one.at("price_target")));
    expect(tally, "dy", dy, u64_of(one.at("model_dy")));
    const std::uint64_t out = output_of(reserves, Side::buy, dy);
    reserves.tao += dy;
    reserves.alpha -= out;
    const double price = double_of(spot_price(reserves));
    tally.check(
        std::abs(price - one.at("expected_price_after").get<double>()) <= vector.value("eps", 1e-9),
        "price after is " + std::to_string(price));
  }
}

void adjust_liquidity(const json& vector, Tally& tally) {
  const auto field = [&](const json& one, const char* name) {
    return u64_of(one.contains(name) ? one.at(name) : vector.at(name));
  };
  for (const json& one : vector.at("cases")) {
    Reserves reserves{field(one, "alpha_reserve"), field(one, "tao_reserve")};
    if (one.contains("w_quote") || vector.contains("w_quote")) {
      reserves.quote_weight = field(one, "w_quote");
    }
    const std::uint64_t tao = u64_of(one.at("tao_delta"));
    const std::uint64_t alpha = u64_of(one.at("alpha_delta"));
    reserves.quote_weight =
        weight_after_injection(reserves, tao, alpha).value_or(reserves.quote_weight);
    expect(tally, "weight", reserves.quote_weight, u64_of(one.at("model_quote_weight")));
    // The test moves the reserves itself, also where the pool refuses to.
    reserves.tao += tao;
    reserves.alpha += alpha;
    const double price = double_of(spot_price(reserves));
    const double want = one.at("expected_price").get<double>();
    tally.check(std::abs(price - want) <= 1e-9 + 1e-6 * std::abs(want),
                "price is " + std::to_string(price));
  }
}

void swap_init(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    Reserves reserves{u64_of(one.at("alpha_reserve")), u64_of(one.at("tao_reserve"))};
    if (!one.at("price_given").is_null()) {
      reserves.quote_weight =
          weight_for_price(reserves, fixed_of(one.at("price_given"))).value_or(0);
    }
    expect(tally, "weight", reserves.quote_weight, u64_of(one.at("model_w_quote")));
    tally.check(std::abs(double_of(spot_price(reserves)) -
                         one.at("expected_price").get<double>()) <= vector.value("eps", 1e-9),
                "price off");
  }
}

SwapOrder order_of(const json& one) {
  SwapOrder order;
  order.side = side_of(one);
  order.amount = u64_of(one.at("amount"));
  order.limit_price = one.contains("limit_price") ? limit_of(one.at("limit_price"))
                      : order.side == Side::buy   ? kSwapPriceMax
                                                  : kSwapPriceMin;
  order.fee_rate = static_cast<std::uint16_t>(one.value("fee_rate_u16", 33));
  order.drop_fees = one.value("drop_fees", false);
  order.reserve_min = 1'000;  // the chain's test world has a smaller minimum than production
  return order;
}

Reserves reserves_of(const json& one) {
  Reserves reserves{u64_of(one.at("alpha_reserve")), u64_of(one.at("tao_reserve"))};
  if (one.contains("w_quote")) reserves.quote_weight = u64_of(one.at("w_quote"));
  return reserves;
}

void swap(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const auto got = quote_swap(reserves_of(one), order_of(one));
    if (!got) {
      tally.check(false, "refused: " + std::string(name_of(got.error())));
      continue;
    }
    const double eps = vector.value("eps", 0.0);
    if (one.contains("model")) {
      const json& model = one.at("model");
      expect(tally, "paid_in", got->paid_in, u64_of(model.at("paid_in")));
      expect(tally, "paid_out", got->paid_out, u64_of(model.at("paid_out")));
      expect(tally, "fee", got->fee, u64_of(model.at("fee")));
    }
    if (one.contains("expected_out"))
      expect(tally, "out", got->paid_out, u64_of(one.at("expected_out")), eps);
    if (one.contains("expected_in_net")) {
      expect(tally, "in", got->paid_in, u64_of(one.at("expected_in_net")), eps);
    }
    if (one.value("expected", "") == "paid_out > 0")
      tally.check(got->paid_out > 0, "paid_out is 0");
  }
}

void swap_error(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const auto got = quote_swap(reserves_of(one), order_of(one));
    const std::string name = got ? "ok" : std::string(name_of(got.error()));
    tally.check(name == one.at("expected").get<std::string>(), "answered " + name);
  }
}

// --- share pools ---

SafeFloat float_of(const json& one, const char* mantissa, const char* exponent) {
  return SafeFloat::normalised(u128_of(one.at(mantissa)), i64_of(one.at(exponent)));
}

std::string text_of(const SafeFloat& value) {
  return text_of(value.mantissa) + "e" + std::to_string(value.exponent);
}

void expect_float(Tally& tally, const std::optional<SafeFloat>& got, const json& mantissa,
                  const json& exponent) {
  const SafeFloat want{u128_of(mantissa), i64_of(exponent)};
  tally.check(got == want,
              "got " + (got ? text_of(*got) : "nothing") + ", expected " + text_of(want));
}

void expect_model(Tally& tally, const std::optional<SafeFloat>& got, const json& one) {
  if (one.contains("model")) {
    expect_float(tally, got, one.at("model").at(0), one.at("model").at(1));
  } else {
    tally.check(!got.has_value(), "expected nothing");
  }
}

void safefloat_normalize(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    expect_float(tally, float_of(one, "m", "e"), one.at("expected_m"), one.at("expected_e"));
  }
}

void safefloat_add(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    expect_float(tally, add(float_of(one, "ma", "ea"), float_of(one, "mb", "eb")),
                 one.at("expected_m"), one.at("expected_e"));
  }
}

void safefloat_sub(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    expect_float(tally, subtract(float_of(one, "ma", "ea"), float_of(one, "mb", "eb")),
                 one.at("expected_m"), one.at("expected_e"));
  }
}

void safefloat_div(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    expect_model(tally, divide(float_of(one, "ma", "ea"), float_of(one, "mb", "eb")), one);
  }
}

void safefloat_mul_div(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    expect_model(tally,
                 multiply_divide(float_of(one, "ma", "ea"), float_of(one, "mb", "eb"),
                                 float_of(one, "mc", "ec")),
                 one);
  }
}

AccountId account_named(const std::string& name) {
  AccountId account{};
  for (std::size_t i = 0; i < name.size() && i < account.size(); ++i) {
    account[i] = static_cast<std::uint8_t>(name[i]);
  }
  return account;
}

SharePool pool_set(const json& set) {
  std::map<AccountId, SafeFloat> shares;
  for (const auto& [name, share] : set.at("c").items()) {
    shares[account_named(name)] = SafeFloat::normalised(u128_of(share), 0);
  }
  return SharePool::restored(u64_of(set.at("V")), SafeFloat::normalised(u128_of(set.at("D")), 0),
                             shares);
}

void share_pool(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    SharePool pool;
    for (const json& op : one.at("ops")) {
      if (op.contains("set")) pool = pool_set(op.at("set"));
      if (op.contains("all")) pool.deposit_for_all(u64_of(op.at("all")));
      if (!op.contains("one")) continue;
      for (const json& step : op.at("one")) {
        const AccountId owner = account_named(step.at(0).dump());
        const std::int64_t change = i64_of(step.at(1));
        const bool done = change >= 0 ? pool.deposit(owner, static_cast<std::uint64_t>(change))
                                      : pool.withdraw(owner, static_cast<std::uint64_t>(-change));
        if (!done) tally.check(false, "a change of the pool was refused");
      }
    }
    const double eps = vector.value("eps", 0.0);
    for (const auto& [name, want] : one.at("expected_value").items()) {
      expect(tally, "value of " + name, pool.value_of(account_named(name)), u64_of(want), eps);
    }
    if (!one.contains("model_value")) continue;
    for (const auto& [name, want] : one.at("model_value").items()) {
      expect(tally, "value of " + name, pool.value_of(account_named(name)), u64_of(want));
    }
  }
}

void shares_per_update(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const SharePool pool =
        SharePool::restored(u64_of(one.at("shared_value")), float_of(one, "den_m", "den_e"), {});
    expect_float(tally, pool.shares_for(u64_of(one.at("update"))), one.at("model").at(0),
                 one.at("model").at(1));
  }
}

// --- coinbase arithmetic ---

void emission_curve(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    expect(tally, "emission at " + text_of(u64_of(one.at("issuance"))),
           block_emission(u64_of(one.at("issuance"))), u64_of(one.at("value")));
  }
}

void emission_curve_native(const json& one, Tally& tally) {
  expect(tally, "emission at " + one.at("issuance").dump(),
         block_emission(u64_of(one.at("issuance"))), u64_of(one.at("emission")));
}

void decay_factors(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    expect(tally, "factor", decay_factor(static_cast<std::uint16_t>(u64_of(one.at("half_life")))),
           u64_of(one.at("value")));
  }
}

void tao_weights(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    expect(tally, "tao weight", share_of_u64(u64_of(one.at("u64"))).bits(),
           u128_of(one.at("bits")));
  }
}

void burn_dynamics(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const auto half_life = static_cast<std::uint16_t>(u64_of(one.at("half_life")));
    const std::uint64_t low = u64_of(one.at("min_burn"));
    const std::uint64_t high = u64_of(one.at("max_burn"));
    std::uint64_t burn = u64_of(one.at("burn"));
    if (one.contains("model_factor_q32")) {
      expect(tally, "factor", decay_factor(half_life), u64_of(one.at("model_factor_q32")));
    }
    for (const json& step : one.at("steps")) {
      burn = step.at("op") == "register" ? raised_price(burn, fixed_of(one.at("mult")), low, high)
                                         : decayed_price(burn, half_life, low, high);
      expect(tally, "burn", burn, u64_of(step.at("expected")), vector.value("eps", 0.0));
    }
  }
}

void moving_price(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    I96F32 price = I96F32::from_literal(one.at("old").get<double>());
    for (std::uint64_t i = 0; i < one.value("repeat", 1U); ++i) {
      price = moving_price_after(price, fixed_of(one.at("spot")),
                                 I96F32::from_literal(one.at("moving_alpha").get<double>()),
                                 u64_of(one.at("block")), u64_of(one.at("first_emission_block")),
                                 u64_of(one.at("halving")));
    }
    if (one.contains("model_i96f32_bits")) {
      expect(tally, "moving price", static_cast<UInt128>(price.bits()),
             u128_of(one.at("model_i96f32_bits")));
    }
    const double got = std::ldexp(static_cast<double>(price.bits()), -32);
    if (one.at("expected").is_string()) {
      const std::string bound = one.at("expected").get<std::string>();
      if (!bound.starts_with("< ")) throw std::runtime_error("expectation " + bound);
      tally.check(got < std::stod(bound.substr(2)), "moving price is not " + bound);
    } else {
      tally.check(std::abs(got - one.at("expected").get<double>()) <= one.at("eps").get<double>(),
                  "moving price is " + std::to_string(got));
    }
  }
}

void root_proportions(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const U96F32 weight = one.contains("tao_weight_bits")
                              ? U96F32::from_bits(u128_of(one.at("tao_weight_bits")))
                              : share_of_u64(u64_of(one.at("tao_weight_u64")));
    const U96F32 got = root_proportion(u64_of(one.at("root_tao")), weight,
                                       u64_of(one.at("alpha_in")), u64_of(one.at("alpha_out")));
    const char* bits = one.contains("model_bits") ? "model_bits" : "bits";
    expect(tally, "root proportion", got.bits(), u128_of(one.at(bits)));
  }
}

void shares_price_burn(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    std::vector<ShareInput> inputs;
    for (std::size_t i = 0; i < one.at("moving_price").size(); ++i) {
      inputs.push_back({I96F32::from_literal(one.at("moving_price").at(i).get<double>()),
                        U96F32::from_literal(one.at("miner_burned").at(i).get<double>())});
    }
    const auto shares = emission_shares(inputs, true);
    for (std::size_t i = 0; i < shares.size(); ++i) {
      tally.check(std::abs(double_of(shares[i]) - one.at("expected").at(i).get<double>()) <=
                      vector.value("eps", 0.0),
                  "share is " + std::to_string(double_of(shares[i])));
    }
  }
}

void pow_normalize(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    std::vector<U64F64> values;
    for (const json& value : one.at("values"))
      values.push_back(U64F64::from_literal(value.get<double>()));
    pow_normalise(values, U64F64::from_literal(one.at("exponent").get<double>()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (one.contains("model_bits")) {
        expect(tally, "power " + one.at("exponent").dump(), values[i].bits(),
               u128_of(one.at("model_bits").at(i)));
      }
    }
  }
}

void parent_child(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    std::vector<std::uint64_t> children;
    for (const json& child : one.at("children")) children.push_back(u64_of(child));
    std::vector<ParentShare> parents;
    for (const json& parent : one.at("parents")) {
      parents.push_back(
          {u64_of(parent.at("proportion")),
           {u64_of(parent.at("alpha")), parent.contains("tao") ? u64_of(parent.at("tao")) : 0},
           parent.value("same_owner", false)});
    }
    const U96F32 take = U96F32::from_integer(u64_of(one.at("childkey_take_u16")))
                            .safe_div(U96F32::from_integer(65535));
    const auto got =
        divide_among_parents(u64_of(one.at("dividend")),
                             {u64_of(one.at("alpha_stake")),
                              one.contains("tao_stake") ? u64_of(one.at("tao_stake")) : 0},
                             children, parents, U96F32::zero(), take, U96F32::zero());
    std::vector<std::uint64_t> amounts = got.parents;
    amounts.push_back(got.own);
    for (std::size_t i = 0; i < amounts.size(); ++i) {
      expect(tally, "dividend", amounts[i], u64_of(one.at("expected").at(i)),
             vector.value("eps", 0.0));
      if (one.contains("model"))
        expect(tally, "dividend", amounts[i], u64_of(one.at("model").at(i)));
    }
  }
}

void dividend_distribution(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    std::map<AccountId, U96F32> dividends;
    std::map<AccountId, OwnStake> stakes;
    for (const auto& [name, value] : one.at("dividends").items()) {
      dividends[account_named(name)] = U96F32::from_integer(u64_of(value));
      const json& stake = one.at("stake").at(name);
      stakes[account_named(name)] = {u64_of(stake.at(0)), u64_of(stake.at(1))};
    }
    const auto got = split_dividends(dividends, stakes, u64_of(one.at("pending_validator_alpha")),
                                     u64_of(one.at("pending_root_alpha")),
                                     U96F32::from_bits(u128_of(one.at("tao_weight_bits"))));
    U96F32 alpha;
    U96F32 root;
    for (const auto& [name, want] : one.at("model_alpha_u96f32_bits").items()) {
      const AccountId account = account_named(name);
      expect(tally, "alpha of " + name, got.alpha.at(account).bits(), u128_of(want));
      expect(tally, "root of " + name, got.root.at(account).bits(),
             u128_of(one.at("model_root_u96f32_bits").at(name)));
      alpha += got.alpha.at(account);
      root += got.root.at(account);
    }
    const double eps = vector.value("eps", 0.0);
    expect(tally, "alpha in total", alpha.to_u64(), u64_of(one.at("expected_total_alpha")), eps);
    expect(tally, "root in total", root.to_u64(), u64_of(one.at("expected_total_root")), eps);
  }
}

void dividends_and_incentives(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const auto got = divide_among_parents(u64_of(one.at("dividend")), {}, {}, {}, U96F32::zero(),
                                          U96F32::zero(), U96F32::zero());
    expect(tally, "dividend", got.own, u64_of(one.at("expected_dividend")));
    // An incentive never meets a parent: it is handed on as it is.
    expect(tally, "incentive", u64_of(one.at("incentive")), u64_of(one.at("expected_incentive")));
  }
}

// --- chain/epoch/coinbase_terms_head.json ---

struct TermsCheck {
  const json& subnet;
  const json& want;
  Tally& tally;
  std::string name;

  void is(const std::string& key, UInt128 got) const {
    if (want.contains(key)) expect(tally, name + " " + key, got, u128_of(want.at(key)));
  }
};

void coinbase_terms(const json& one, Tally& tally) {
  const json& globals = one.at("globals");
  const std::uint64_t block = u64_of(globals.at("block"));
  const U96F32 weight = share_of_u64(u64_of(globals.at("tao_weight")));
  const std::uint64_t root_tao = u64_of(globals.at("root_tao"));
  std::vector<ShareInput> inputs;
  U64F64 prices;
  for (const json& subnet : one.at("subnets")) {
    ShareInput input;
    input.moving_price = subnet.at("mechanism") == 0
                             ? I96F32::one()
                             : I96F32::from_bits(static_cast<ledger::Int128>(
                                   u128_of(subnet.at("moving_price_i96f32_bits"))));
    input.miner_burned = U96F32::from_bits(u128_of(subnet.at("miner_burned_u96f32_bits")));
    input.enabled = subnet.at("emission_enabled").get<bool>();
    prices = prices.saturating_add(input.moving_price.convert<U64F64>());
    inputs.push_back(input);
  }
  // The vectors show the shares before the emission switch and the root proportion after the block.
  const auto shares = emission_shares(inputs, true);
  for (ShareInput& input : inputs) input.enabled = true;
  const auto before_switch = emission_shares(inputs, true);
  const bool root_sell = prices > U64F64::one();
  const json& output = one.at("output");
  tally.check(output.at("root_sell_flag").get<bool>() == root_sell, "root sell flag");
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const json& subnet = one.at("subnets").at(i);
    const std::string netuid = subnet.at("netuid").dump();
    const TermsCheck check{subnet, output.at("subnets").at(netuid), tally, "subnet " + netuid};
    std::uint64_t x = u64_of(subnet.at("SubnetAlphaIn"));
    std::uint64_t y = u64_of(subnet.at("SubnetTAO"));
    std::uint64_t out = u64_of(subnet.at("SubnetAlphaOut"));
    const U64F64 price = U64F64::from_bits(u128_of(subnet.at("price_u64f64_bits")));
    const std::uint64_t alpha_emission = block_emission(x + out);
    const U96F32 before = root_proportion(root_tao, weight, x, out);
    const U96F32 emission = U64F64::from_integer(u64_of(globals.at("block_emission")))
                                .saturating_mul(shares[i])
                                .convert<U96F32>();
    const PoolTerms terms = pool_terms(emission, price, before, alpha_emission);
    check.is("share_bits", before_switch[i].bits());
    check.is("tao_emission_bits", emission.bits());
    check.is("tao_in_bits", terms.tao_in.bits());
    check.is("alpha_in_bits", terms.alpha_in.bits());
    check.is("alpha_out_bits", U96F32::from_integer(alpha_emission).bits());
    check.is("excess_tao_bits", terms.excess.bits());
    check.is("root_proportion_before_bits", before.bits());
    x += terms.alpha_in.to_u64();
    y += terms.tao_in.to_u64();
    out += alpha_emission;
    const U96F32 after = root_proportion(root_tao, weight, x, out);
    const PendingSplit split =
        split_alpha(alpha_emission, subnet.at("owner_cut_enabled").get<bool>(),
                    static_cast<std::uint16_t>(u64_of(globals.at("subnet_owner_cut"))), after);
    if (!root_sell) out -= split.root;
    check.is("root_proportion_after_bits", root_proportion(root_tao, weight, x, out).bits());
    check.is("SubnetTAO", y);
    check.is("SubnetAlphaIn", x);
    check.is("SubnetAlphaOut", out);
    check.is("PendingOwnerCut", split.owner_cut);
    check.is("PendingServerEmission", split.server);
    check.is("PendingValidatorEmission", split.validator);
    check.is("PendingRootAlphaDivs", root_sell ? split.root : 0);
    check.is("recycled", root_sell ? 0 : split.root);
    const I96F32 moved = moving_price_after(
        I96F32::from_bits(
            static_cast<ledger::Int128>(u128_of(subnet.at("moving_price_i96f32_bits")))),
        price, I96F32::from_literal(0.000003), block, u64_of(subnet.at("first_emission_block")),
        u64_of(subnet.at("ema_halving_blocks")));
    expect(tally, "subnet " + netuid + " moving price", static_cast<UInt128>(moved.bits()),
           u128_of(output.at("moving_price_after_bits").at(netuid)));
  }
}

}  // namespace

Handlers pool_handlers() {
  Handlers handlers = {{"pow_ratio_scaled", pow_ratio},
                       {"mul_perquintill_round", perquintill_product},
                       {"balancer_price", balancer_price},
                       {"balancer_exp", balancer_exp},
                       {"balancer_exp_scaled", balancer_exp_scaled},
                       {"balancer_dy_order", balancer_dy_order},
                       {"balancer_limit_delta", balancer_limit_delta},
                       {"balancer_reverse", balancer_reverse},
                       {"adjust_liquidity", adjust_liquidity},
                       {"swap_init", swap_init},
                       {"swap", swap},
                       {"swap_error", swap_error},
                       {"safefloat_normalize", safefloat_normalize},
                       {"safefloat_add", safefloat_add},
                       {"safefloat_sub", safefloat_sub},
                       {"safefloat_div", safefloat_div},
                       {"safefloat_mul_div", safefloat_mul_div},
                       {"share_pool", share_pool},
                       {"shares_per_update", shares_per_update},
                       {"block_emission", emission_curve},
                       {"chain_block_emission", emission_curve_native},
                       {"decay_factor_q32", decay_factors},
                       {"tao_weight_u96f32", tao_weights},
                       {"burn_dynamics", burn_dynamics},
                       {"moving_price", moving_price},
                       {"root_proportion", root_proportions},
                       {"shares_price_burn", shares_price_burn},
                       {"pow_normalize", pow_normalize},
                       {"parent_child_dividends", parent_child},
                       {"dividend_distribution", dividend_distribution},
                       {"dividends_and_incentives", dividends_and_incentives},
                       {"chain_coinbase_terms", coinbase_terms}};
  handlers.merge(block_handlers());
  handlers.merge(legacy_handlers());
  return handlers;
}

}  // namespace yumoe::conformance

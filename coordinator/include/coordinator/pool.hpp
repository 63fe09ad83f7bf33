#pragma once
// Pools of TAO against alpha: the balancer (weighted constant product) and the older plain constant
// product. Pure functions of the reserves. Source: the chain's swap pallet, newest rules; spec 233
// for the plain one.
//
// x is the alpha reserve, y the TAO reserve (rao). The quote weight w2 is a count of 10^-18; the
// base weight is w1 = 10^18 - w2. Prices are TAO per alpha.

#include <cstdint>
#include <optional>

#include "coordinator/fixed.hpp"
#include "coordinator/outcome.hpp"

namespace yumoe::ledger {

inline constexpr std::uint64_t kPoolWeightMin = Perquintill::kOne / 100;
inline constexpr std::uint64_t kPoolReserveMin = 1'000'000;            // rao
inline constexpr std::uint64_t kSwapPriceMax = 1'000'000'000'000'000;  // 10^6 TAO, times 10^9
inline constexpr std::uint64_t kSwapPriceMin = 1'000;                  // 10^-6 TAO, times 10^9
inline constexpr std::uint64_t kSwapInputFactorMax = 1'000;

enum class Side : std::uint8_t { buy, sell };  // buy: TAO in, alpha out

struct Reserves {
  std::uint64_t alpha = 0;  // x
  std::uint64_t tao = 0;    // y
  std::uint64_t quote_weight = Perquintill::kOne / 2;
  friend bool operator==(const Reserves&, const Reserves&) = default;
};

// floor(scale * (num/den)^(exponent_num/exponent_den)) with `precision` bits or a few more before
// the last floor; exact when the reduced exponent's terms are at most 1024. den and exponent_den are
// not 0. Clamped to 2^128-1. Cost: about 20 us at 256 bits.
UInt128 pow_ratio_scaled(UInt128 num, UInt128 den, std::uint64_t exponent_num,
                         std::uint64_t exponent_den, unsigned precision,
                         std::uint64_t scale = Perquintill::kOne);

// value * parts / 10^18 to nearest, half up; parts at most 10^18.
UInt128 multiply_perquintill(std::uint64_t parts, UInt128 value);

// (w1/w2) * (y/x); 0 if x = 0.
U64F64 spot_price(const Reserves& reserves);

// What share of the paying reserve remains when `amount` enters the other one: at most 1.
U64F64 remaining_share(const Reserves& reserves, Side side, std::uint64_t amount);
// reserve * (1 - share), the unrounded output.
U64F64 unrounded_output(const Reserves& reserves, Side side, std::uint64_t net);
// Output for a net input, floored, without any check.
std::uint64_t output_of(const Reserves& reserves, Side side, std::uint64_t net);
// Input that moves the price from `from` to `to` (buy: upwards).
std::uint64_t input_to_price(const Reserves& reserves, Side side, U64F64 from, U64F64 to);

// Quote weight after injecting unbalanced amounts at an unchanged price; nullopt if a weight would
// leave [0.01, 0.99], and then nothing may be injected.
std::optional<std::uint64_t> weight_after_injection(const Reserves& reserves, std::uint64_t tao,
                                                    std::uint64_t alpha);

// Quote weight at which the reserves have the price; nullopt if out of bounds.
std::optional<std::uint64_t> weight_for_price(const Reserves& reserves, U64F64 price);

struct SwapOrder {
  Side side = Side::buy;
  std::uint64_t amount = 0;       // gross
  std::uint64_t limit_price = 0;  // price * 10^9
  std::uint16_t fee_rate = 0;     // / 65535
  bool drop_fees = false;
  std::uint64_t reserve_min = kPoolReserveMin;
};

struct SwapResult {
  std::uint64_t paid_in = 0;  // net of the fee; less than ordered when the limit is reached
  std::uint64_t paid_out = 0;
  std::uint64_t fee = 0;  // in the input's token
};

// What the order would do; changes nothing. Errors, in this order: SwapInputTooLarge,
// ReservesTooLow, PriceLimitExceeded, ReservesTooLow (no output), InsufficientLiquidity.
Outcome<SwapResult> quote_swap(const Reserves& reserves, const SwapOrder& order);

// The plain constant product of the first dTAO releases: out = reserve_out - k/(reserve_in + amount).
// Spec 233 keeps 18 fraction bits and refuses (nullopt) to leave less than 10^7 rao; spec 218 keeps
// 32 and refuses nothing.
enum class ConstantProduct : std::uint8_t { spec218, spec233 };
std::optional<std::uint64_t> constant_product_output(ConstantProduct rule, std::uint64_t reserve_in,
                                                     std::uint64_t reserve_out,
                                                     std::uint64_t amount);

}  // namespace yumoe::ledger

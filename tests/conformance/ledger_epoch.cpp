// Vector kinds of numbers, epochs, mechanisms and weights.

#include <nlohmann/json.hpp>

#include "conformance/conformance.hpp"
#include "coordinator/fixed.hpp"

namespace yumoe::conformance {
namespace {

using nlohmann::json;
using namespace yumoe::ledger;

void exp_i32f32(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const I32F32 x = I32F32::from_bits(i64_of(one.at("x_bits")));
    const auto got = exp(x);
    tally.check(got && got->bits() == i64_of(one.at("value_bits")), "exp of " + decimal(x.bits()));
  }
}

void ln_i32f32(const json& vector, Tally& tally) {
  for (const json& one : vector.at("cases")) {
    const I32F32 x = I32F32::from_bits(i64_of(one.at("x_bits")));
    const auto got = ln(x);
    tally.check(got && got->bits() == i64_of(one.at("value_bits")), "ln of " + decimal(x.bits()));
  }
}

}  // namespace

Handlers epoch_handlers() {
  return {{"exp_i32f32", exp_i32f32}, {"ln_i32f32", ln_i32f32}};
}

}  // namespace yumoe::conformance

#include "coordinator/share_pool.hpp"

#include <utility>

namespace yumoe::ledger {
namespace {

constexpr UInt128 power_of_ten(int exponent) {
  UInt128 power = 1;
  for (int i = 0; i < exponent; ++i) power *= 10;
  return power;
}

constexpr UInt128 kMantissaMax = power_of_ten(21);
constexpr UInt128 kMantissaFloor = power_of_ten(20);  // exclusive
constexpr std::int64_t kDigitsApartMax = 22;

// Both numbers at the larger exponent.
struct Aligned {
  UInt128 a;
  UInt128 b;
  std::int64_t exponent;
};

UInt128 lowered(UInt128 mantissa, std::int64_t digits) {
  return mantissa /
         power_of_ten(static_cast<int>(digits > kDigitsApartMax ? kDigitsApartMax : digits));
}

Aligned align(const SafeFloat& a, const SafeFloat& b) {
  if (a.exponent >= b.exponent) {
    return {a.mantissa, lowered(b.mantissa, a.exponent - b.exponent), a.exponent};
  }
  return {lowered(a.mantissa, b.exponent - a.exponent), b.mantissa, b.exponent};
}

}  // namespace

SafeFloat SafeFloat::normalised(UInt128 mantissa, std::int64_t exponent) {
  if (mantissa == 0) return {};
  while (mantissa > kMantissaMax) {
    mantissa /= 10;
    ++exponent;
  }
  while (mantissa <= kMantissaFloor) {
    mantissa *= 10;
    --exponent;
  }
  return {mantissa, exponent};
}

std::uint64_t SafeFloat::to_u64() const {
  constexpr std::uint64_t kMax = ~std::uint64_t{0};
  if (exponent > 0) return mantissa == 0 ? 0 : kMax;  // at least 10^21
  if (exponent < -kDigitsApartMax) return 0;
  const UInt128 whole = mantissa / power_of_ten(static_cast<int>(-exponent));
  return whole > kMax ? kMax : static_cast<std::uint64_t>(whole);
}

SafeFloat add(const SafeFloat& a, const SafeFloat& b) {
  if (a.is_zero()) return b;
  if (b.is_zero()) return a;
  const Aligned both = align(a, b);
  return SafeFloat::normalised(both.a + both.b, both.exponent);
}

std::optional<SafeFloat> subtract(const SafeFloat& a, const SafeFloat& b) {
  if (b.is_zero()) return a;
  if (a.is_zero()) return std::nullopt;
  const Aligned both = align(a, b);
  if (both.b >= both.a) return SafeFloat{};
  return SafeFloat::normalised(both.a - both.b, both.exponent);
}

std::optional<SafeFloat> multiply_divide(const SafeFloat& a, const SafeFloat& b,
                                         const SafeFloat& c) {
  if (c.is_zero()) return std::nullopt;
  if (a.is_zero() || b.is_zero()) return SafeFloat{};
  // a*b < 2^140 and c > 2^66, so the quotient fits 128 bits.
  const auto quotient = wide_divide(wide_product(a.mantissa, b.mantissa), c.mantissa);
  return SafeFloat::normalised(quotient->quotient, a.exponent + b.exponent - c.exponent);
}

std::optional<SafeFloat> divide(const SafeFloat& a, const SafeFloat& b) {
  return multiply_divide(a, SafeFloat::of(1), b);
}

SafeFloat SharePool::sum(const SafeFloat& a, const SafeFloat& b) const {
  if (form_ == ShareForm::decimal) return add(a, b);
  return {U64F64::from_bits(a.mantissa).saturating_add(U64F64::from_bits(b.mantissa)).bits(), 0};
}

SafeFloat SharePool::difference(const SafeFloat& a, const SafeFloat& b) const {
  if (form_ == ShareForm::decimal) return subtract(a, b).value_or(a);
  return {U64F64::from_bits(a.mantissa).saturating_sub(U64F64::from_bits(b.mantissa)).bits(), 0};
}

SafeFloat SharePool::first_share(std::uint64_t amount) const {
  if (form_ == ShareForm::decimal) return SafeFloat::of(amount);
  return {U64F64::from_integer(amount).bits(), 0};
}

std::uint64_t SharePool::value_of(const AccountId& owner) const {
  const auto found = shares_.find(owner);
  if (found == shares_.end()) return 0;
  if (form_ == ShareForm::fixed) {
    return U64F64::from_integer(total_)
        .safe_div(U64F64::from_bits(denominator_.mantissa))
        .saturating_mul(U64F64::from_bits(found->second.mantissa))
        .to_u64();
  }
  const auto value = multiply_divide(SafeFloat::of(total_), found->second, denominator_);
  return value ? value->to_u64() : 0;
}

SafeFloat SharePool::shares_for(std::uint64_t amount) const {
  if (form_ == ShareForm::fixed) {
    const U64F64 value_per_share =
        U64F64::from_integer(total_).safe_div(U64F64::from_bits(denominator_.mantissa));
    return {U64F64::from_integer(amount).safe_div(value_per_share).bits(), 0};
  }
  return multiply_divide(SafeFloat::of(amount), denominator_, SafeFloat::of(total_))
      .value_or(SafeFloat{});
}

bool SharePool::deposit(const AccountId& owner, std::uint64_t amount) {
  if (amount == 0) return true;
  if (total_ + amount < total_) return false;
  if (denominator_.is_zero()) {
    denominator_ = first_share(amount);
    shares_[owner] = denominator_;
  } else {
    const SafeFloat change = shares_for(amount);
    if (change.is_zero()) return false;
    denominator_ = sum(denominator_, change);
    SafeFloat& share = shares_[owner];
    share = sum(share, change);
  }
  total_ += amount;
  return true;
}

bool SharePool::withdraw(const AccountId& owner, std::uint64_t amount) {
  if (amount == 0) return true;
  const auto found = shares_.find(owner);
  if (found == shares_.end() || value_of(owner) < amount) return false;
  const SafeFloat change = shares_for(amount);
  denominator_ = difference(denominator_, change);
  found->second = difference(found->second, change);
  if (found->second.is_zero()) shares_.erase(found);
  total_ -= amount;
  if (total_ == 0) {  // dust of rounded shares would bar the next deposit
    denominator_ = {};
    shares_.clear();
  }
  return true;
}

SharePool SharePool::restored(std::uint64_t total, const SafeFloat& denominator,
                              std::map<AccountId, SafeFloat> shares) {
  SharePool pool;
  pool.total_ = total;
  pool.denominator_ = denominator;
  pool.shares_ = std::move(shares);
  return pool;
}

}  // namespace yumoe::ledger

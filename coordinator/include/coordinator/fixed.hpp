#pragma once
// The chain's fixed-point numbers. A number holds an integer `bits` and means bits / 2^fraction.
//
// Rounding, everywhere: a product is exact and then floored (toward minus infinity), a quotient is
// truncated toward zero, a conversion to fewer fraction bits or to an integer is floored and
// clamped. Nothing depends on the machine's floating point. All functions are constexpr and never
// throw. Source: the chain's `substrate-fixed` rules as restated in the project's ledger
// specification, section 0. Cost: 64-bit types one multiplication; 128-bit types four, and a
// division at most two 128/64-bit ones.

#include <bit>
#include <compare>
#include <cstdint>
#include <optional>
#include <type_traits>

namespace yumoe::ledger {

__extension__ typedef __int128 Int128;
__extension__ typedef unsigned __int128 UInt128;

// 256 bits as two halves: the exact product of two 128-bit numbers.
struct Wide {
  UInt128 high = 0;
  UInt128 low = 0;
  friend constexpr bool operator==(const Wide&, const Wide&) = default;
};

constexpr Wide wide_product(UInt128 a, UInt128 b) {
  constexpr UInt128 kMask = ~std::uint64_t{0};
  const UInt128 low = (a & kMask) * (b & kMask);
  const UInt128 cross = (a >> 64) * (b & kMask) + (low >> 64);
  const UInt128 other = (a & kMask) * (b >> 64) + (cross & kMask);
  return {(a >> 64) * (b >> 64) + (cross >> 64) + (other >> 64), (other << 64) | (low & kMask)};
}

constexpr Wide shift_right(Wide x, int count) {
  if (count == 0) return x;
  if (count >= 128) return {0, count >= 256 ? UInt128{0} : x.high >> (count - 128)};
  return {x.high >> count, (x.low >> count) | (x.high << (128 - count))};
}

constexpr Wide shift_left(Wide x, int count) {
  if (count == 0) return x;
  if (count >= 128) return {count >= 256 ? UInt128{0} : x.low << (count - 128), 0};
  return {(x.high << count) | (x.low >> (128 - count)), x.low << count};
}

constexpr int leading_zeros(UInt128 x) {
  const auto high = static_cast<std::uint64_t>(x >> 64);
  return high != 0 ? std::countl_zero(high) : 64 + std::countl_zero(static_cast<std::uint64_t>(x));
}

struct Quotient {
  UInt128 quotient = 0;
  UInt128 remainder = 0;
};

// floor(n / d) and the remainder; nothing when d is 0 or the quotient does not fit 128 bits.
constexpr std::optional<Quotient> wide_divide(Wide n, UInt128 d) {
  if (n.high >= d) return std::nullopt;  // also d == 0
  if (n.high == 0) return Quotient{n.low / d, n.low % d};
  // Two digits of 64 bits each, as in long division by hand (Knuth, TAOCP vol. 2, 4.3.1, D).
  constexpr UInt128 kMask = ~std::uint64_t{0};
  const int shift = leading_zeros(d);
  d <<= shift;
  n = shift_left(n, shift);
  const UInt128 d_high = d >> 64;
  const UInt128 d_low = d & kMask;
  UInt128 rest = n.high;
  UInt128 quotient = 0;
  for (const UInt128 digit_below : {n.low >> 64, n.low & kMask}) {
    UInt128 digit = rest / d_high;
    UInt128 over = rest % d_high;
    while (digit > kMask || digit * d_low > ((over << 64) | digit_below)) {
      --digit;
      over += d_high;
      if (over > kMask) break;
    }
    rest = ((rest << 64) | digit_below) - digit * d;  // wraps back into range by construction
    quotient = (quotient << 64) | digit;
  }
  return Quotient{quotient, rest >> shift};
}

template <typename Raw, int kFractionBits>
class Fixed {
 public:
  static constexpr int kFraction = kFractionBits;
  static constexpr int kBits = static_cast<int>(sizeof(Raw)) * 8;
  static constexpr bool kSigned = Raw(-1) < Raw(0);
  using Bits = Raw;

  constexpr Fixed() = default;
  static constexpr Fixed from_bits(Raw bits) { return Fixed(bits); }
  constexpr Raw bits() const { return bits_; }

  static constexpr Fixed zero() { return Fixed(0); }
  static constexpr Fixed one() { return Fixed(Raw(1) << kFraction); }
  static constexpr Fixed max() {
    return Fixed(
        static_cast<Raw>(kSigned ? ~UInt128{0} >> (129 - kBits) : ~UInt128{0} >> (128 - kBits)));
  }
  static constexpr Fixed min() {
    return kSigned ? Fixed(static_cast<Raw>(~max().bits_)) : Fixed(0);
  }

  // Exact, clamped to the range.
  template <typename Integer>
  static constexpr Fixed from_integer(Integer value) {
    const bool negative = value < Integer(0);
    const UInt128 size =
        negative ? UInt128{0} - static_cast<UInt128>(value) : static_cast<UInt128>(value);
    return from_size(shift_left(Wide{0, size}, kFraction), negative);
  }

  // For literals of the rules: nearest, ties to even, clamped. Not for measured values.
  static constexpr Fixed from_literal(double value) {
    const auto image = std::bit_cast<std::uint64_t>(value);
    const int exponent = static_cast<int>((image >> 52) & 0x7ff);
    std::uint64_t mantissa = image & ((std::uint64_t{1} << 52) - 1);
    if (exponent != 0) mantissa |= std::uint64_t{1} << 52;
    const int shift = (exponent == 0 ? 1 : exponent) - 1075 + kFraction;
    const bool negative = (image >> 63) != 0;
    if (shift >= 0) {
      return shift > 200 ? (negative ? min() : max())
                         : from_size(shift_left(Wide{0, mantissa}, shift), negative);
    }
    if (shift < -63) return zero();
    const std::uint64_t whole = mantissa >> -shift;
    const std::uint64_t rest = mantissa - (whole << -shift);
    const std::uint64_t half = std::uint64_t{1} << (-shift - 1);
    const bool up = rest > half || (rest == half && (whole & 1) != 0);
    return from_size(Wide{0, whole + (up ? 1 : 0)}, negative);
  }

  // Floor, clamped to the range of Integer (a negative number becomes 0 when Integer is unsigned).
  template <typename Integer>
  constexpr Integer to() const {
    constexpr bool kToSigned = Integer(-1) < Integer(0);
    constexpr int kWidth = static_cast<int>(sizeof(Integer)) * 8;
    const Raw whole = bits_ >> kFraction;  // arithmetic: floor
    if (whole < Raw(0)) {
      if (!kToSigned) return 0;
      const UInt128 size = ~static_cast<UInt128>(whole);  // -whole - 1
      const UInt128 limit = ~UInt128{0} >> (129 - kWidth);
      return static_cast<Integer>(~(size > limit ? limit : size));
    }
    const UInt128 limit = kToSigned ? ~UInt128{0} >> (129 - kWidth) : ~UInt128{0} >> (128 - kWidth);
    const UInt128 size = static_cast<UInt128>(whole);
    return static_cast<Integer>(size > limit ? limit : size);
  }
  constexpr std::uint64_t to_u64() const { return to<std::uint64_t>(); }
  constexpr std::uint16_t to_u16() const { return to<std::uint16_t>(); }

  // Floors when the other type has fewer fraction bits, clamps when it has fewer whole ones.
  template <typename Other>
  constexpr Other convert() const {
    if constexpr (Other::kFraction <= kFraction) {
      constexpr int kDrop = kFraction - Other::kFraction;
      const Raw cut = bits_ >> kDrop;
      const bool negative = cut < Raw(0);
      return Other::from_size(Wide{0, size_of(cut)}, negative);
    } else {
      return Other::from_size(shift_left(Wide{0, size_of(bits_)}, Other::kFraction - kFraction),
                              bits_ < Raw(0));
    }
  }

  // To the nearest whole number, ties away from zero; clamped.
  constexpr Fixed round() const {
    const bool negative = bits_ < Raw(0);
    const UInt128 half =
        kFraction == 0 ? UInt128{0} : UInt128{1} << (kFraction == 0 ? 0 : kFraction - 1);
    const UInt128 size = size_of(bits_);
    const UInt128 whole = ((size >> kFraction) + ((size & half) != 0 ? 1 : 0));
    return from_size(shift_left(Wide{0, whole}, kFraction), negative);
  }

  constexpr Fixed absolute() const {
    return bits_ < Raw(0) ? from_size(Wide{0, size_of(bits_)}, false) : *this;
  }
  constexpr Fixed operator-() const {
    return Fixed(static_cast<Raw>(UInt128{0} - static_cast<UInt128>(bits_)));
  }

  friend constexpr auto operator<=>(const Fixed&, const Fixed&) = default;

  // Plain addition and subtraction wrap, as the chain's release build does; sane inputs never reach
  // that.
  friend constexpr Fixed operator+(Fixed a, Fixed b) {
    return Fixed(static_cast<Raw>(static_cast<UInt128>(a.bits_) + static_cast<UInt128>(b.bits_)));
  }
  friend constexpr Fixed operator-(Fixed a, Fixed b) {
    return Fixed(static_cast<Raw>(static_cast<UInt128>(a.bits_) - static_cast<UInt128>(b.bits_)));
  }
  constexpr Fixed& operator+=(Fixed b) { return *this = *this + b; }
  constexpr Fixed& operator-=(Fixed b) { return *this = *this - b; }

  constexpr std::optional<Fixed> checked_add(Fixed b) const {
    const Fixed sum = *this + b;
    if (kSigned ? (b.bits_ < Raw(0)) != (sum.bits_ < bits_) : sum.bits_ < bits_)
      return std::nullopt;
    return sum;
  }
  constexpr std::optional<Fixed> checked_sub(Fixed b) const {
    const Fixed rest = *this - b;
    if (kSigned ? (b.bits_ < Raw(0)) != (rest.bits_ > bits_) : b.bits_ > bits_) return std::nullopt;
    return rest;
  }
  constexpr std::optional<Fixed> checked_mul(Fixed b) const {
    if constexpr (kBits <= 32) {
      return narrow((std::int64_t{bits_} * b.bits_) >> kFraction);
    } else if constexpr (kBits == 64 && kSigned) {
      return narrow((Int128{bits_} * b.bits_) >> kFraction);
    } else {
      return signed_size(product_size(b), (bits_ < Raw(0)) != (b.bits_ < Raw(0)));
    }
  }
  // Nothing when b is 0 or the quotient is out of range.
  constexpr std::optional<Fixed> checked_div(Fixed b) const {
    if (b.bits_ == 0) return std::nullopt;
    if constexpr (kBits <= 32) {
      return narrow((std::int64_t{bits_} * (std::int64_t{1} << kFraction)) / b.bits_);
    } else if constexpr (kBits == 64 && kSigned) {
      const Int128 up = Int128{bits_} * (Int128{1} << kFraction);
      if (up == static_cast<std::int64_t>(up))
        return narrow(Int128{static_cast<std::int64_t>(up) / b.bits_});
      return narrow(up / b.bits_);
    } else {
      const auto q = wide_divide(shift_left(Wide{0, size_of(bits_)}, kFraction), size_of(b.bits_));
      if (!q) return std::nullopt;
      return signed_size(Wide{0, q->quotient}, (bits_ < Raw(0)) != (b.bits_ < Raw(0)));
    }
  }

  constexpr Fixed saturating_add(Fixed b) const {
    if (const auto sum = checked_add(b)) return *sum;
    return kSigned && b.bits_ < Raw(0) ? min() : max();
  }
  constexpr Fixed saturating_sub(Fixed b) const {
    if (const auto rest = checked_sub(b)) return *rest;
    return kSigned && b.bits_ < Raw(0) ? max() : min();
  }
  constexpr Fixed saturating_mul(Fixed b) const {
    if (const auto product = checked_mul(b)) return *product;
    return (bits_ < Raw(0)) != (b.bits_ < Raw(0)) ? min() : max();
  }
  // A division by 0 clamps by the sign of this number.
  constexpr Fixed saturating_div(Fixed b) const {
    if (const auto quotient = checked_div(b)) return *quotient;
    return (bits_ < Raw(0)) != (b.bits_ < Raw(0)) ? min() : max();
  }
  // 0 (or `other`) when b is 0 or the quotient is out of range.
  constexpr Fixed safe_div(Fixed b) const { return safe_div_or(b, zero()); }
  constexpr Fixed safe_div_or(Fixed b, Fixed other) const { return checked_div(b).value_or(other); }

 private:
  template <typename, int>
  friend class Fixed;

  constexpr explicit Fixed(Raw bits) : bits_(bits) {}

  static constexpr UInt128 size_of(Raw bits) {
    return bits < Raw(0) ? UInt128{0} - static_cast<UInt128>(bits) : static_cast<UInt128>(bits);
  }
  template <typename Big>
  static constexpr std::optional<Fixed> narrow(Big value) {
    if (value != static_cast<Raw>(value)) return std::nullopt;
    return Fixed(static_cast<Raw>(value));
  }
  static constexpr std::optional<Fixed> signed_size(Wide size, bool negative) {
    const UInt128 limit = static_cast<UInt128>(max().bits_) + (negative && kSigned ? 1 : 0);
    if (negative && !kSigned && (size.high != 0 || size.low != 0)) return std::nullopt;
    if (size.high != 0 || size.low > limit) return std::nullopt;
    return Fixed(static_cast<Raw>(negative ? UInt128{0} - size.low : size.low));
  }
  static constexpr Fixed from_size(Wide size, bool negative) {
    if (const auto fits = signed_size(size, negative)) return *fits;
    return negative ? min() : max();
  }
  // |a * b| shifted so that the signed result is the floor.
  constexpr Wide product_size(Fixed b) const {
    const Wide exact = wide_product(size_of(bits_), size_of(b.bits_));
    Wide size = shift_right(exact, kFraction);
    const bool negative = (bits_ < Raw(0)) != (b.bits_ < Raw(0));
    if (negative && shift_left(size, kFraction) != exact) {
      size.low += 1;
      if (size.low == 0) size.high += 1;
    }
    return size;
  }

  Raw bits_ = 0;
};

using I32F32 = Fixed<std::int64_t, 32>;
using I64F64 = Fixed<Int128, 64>;
using U64F64 = Fixed<UInt128, 64>;
using I96F32 = Fixed<Int128, 32>;
using U96F32 = Fixed<UInt128, 32>;
using I110F18 = Fixed<Int128, 18>;
using I9F23 = Fixed<std::int32_t, 23>;

// The series of the chain, term by term, not libm: visibly short of the true value near |x| = 20.
// Nothing when a step overflows.
template <typename F>
constexpr std::optional<F> exp(F x) {
  using Raw = typename F::Bits;
  if (x == F::zero()) return F::one();
  if (x == F::one()) return F::from_bits(Raw(22802600) << (F::kFraction - 23));
  const F a = x.absolute();
  const auto start = F::one().checked_add(a);
  if (!start) return std::nullopt;
  F sum = *start;
  F term = a;
  for (int i = 2; i < F::kFraction; ++i) {
    const auto next = term.checked_mul(a);
    if (!next) return std::nullopt;
    term = F::from_bits(next->bits() / Raw(i));
    if (term == F::zero()) break;  // all further terms are 0
    const auto total = sum.checked_add(term);
    if (!total) return std::nullopt;
    sum = *total;
  }
  return x < F::zero() ? F::one().checked_div(sum) : std::optional<F>(sum);
}

// exp of x clamped to [-20, 20]; on failure 0 for x <= 0 and the maximum otherwise.
template <typename F>
constexpr F exp_safe(F x) {
  const F limit = F::from_integer(20);
  const F clamped = x < -limit ? -limit : (x > limit ? limit : x);
  return exp(clamped).value_or(clamped <= F::zero() ? F::zero() : F::max());
}

// Nothing for x <= 0. Below 1 it is -log2(1/x); the reciprocal is taken in 128 bits, where it
// always fits.
template <typename F>
constexpr std::optional<F> log2(F x) {
  using Raw = typename F::Bits;
  if (x <= F::zero()) return std::nullopt;
  if constexpr (F::kBits < 128) {
    const auto power = log2(x.template convert<Fixed<Int128, F::kFraction>>());
    return power->template convert<F>();
  } else {
    if (x < F::one()) {
      const auto inverse = F::one().checked_div(x);
      if (!inverse) return std::nullopt;
      return -*log2(*inverse);
    }
    const auto halve = [](F y) {
      return F::from_bits(static_cast<Raw>((y.bits() >> 1) + (y.bits() & 1)));
    };
    const F two = F::from_integer(2);
    Raw answer = 0;
    while (x >= two) {
      answer += 1;
      x = halve(x);
    }
    if (x == F::one()) return F::from_integer(answer);
    for (int i = 0; i < F::kFraction; ++i) {
      x = x.saturating_mul(x);
      answer = static_cast<Raw>(answer << 1);
      if (x >= two) {
        answer |= 1;
        x = halve(x);
      }
    }
    return F::from_bits(answer);
  }
}

template <typename F>
constexpr std::optional<F> ln(F x) {
  const auto power = log2(x);
  if (!power) return std::nullopt;
  using Raw = typename F::Bits;
  return power->checked_div(F::from_bits(Raw(12102203) << (F::kFraction - 23)));
}

// A u16 or u64 as a share of its maximum. A u64 share keeps 32 fraction bits and no more: 1.0 is
// exact.
constexpr I32F32 share_of_u16(std::uint16_t value) {
  return I32F32::from_integer(value).safe_div(I32F32::from_integer(65535));
}
constexpr U96F32 share_of_u64(std::uint64_t value) {
  return U96F32::from_integer(value).safe_div(U96F32::from_integer(~std::uint64_t{0}));
}

// Parts of 10^18.
struct Perquintill {
  static constexpr std::uint64_t kOne = 1'000'000'000'000'000'000;
  std::uint64_t parts = 0;

  // floor(p * 10^18 / q), exact; 1.0 when p > q or q = 0.
  static constexpr Perquintill from_rational(UInt128 p, UInt128 q) {
    if (q == 0 || p >= q) return {kOne};
    return {static_cast<std::uint64_t>(wide_divide(wide_product(p, kOne), q)->quotient)};
  }
  friend constexpr auto operator<=>(const Perquintill&, const Perquintill&) = default;
};

}  // namespace yumoe::ledger

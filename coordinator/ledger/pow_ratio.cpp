// Powers of ratios for the balancer: exact roots where the exponent is simple, else the chain's
// guarded series. All integers; every right shift and small division floors toward minus infinity.

#include <algorithm>
#include <bit>
#include <boost/multiprecision/cpp_int.hpp>
#include <map>
#include <numeric>
#include <type_traits>

#include "coordinator/pool.hpp"

namespace yumoe::ledger {
namespace {

namespace mp = boost::multiprecision;
using Big = mp::cpp_int;
// Wide enough for every series of at most kFastPrecision bits whose exponent stays under 16, and
// without an allocation a term.
using Fast = mp::number<mp::cpp_int_backend<1536, 1536, mp::signed_magnitude, mp::unchecked, void>>;

constexpr unsigned kGuardBits = 24;
constexpr unsigned kFastPrecision = 288;
constexpr std::uint64_t kExactExponentMax = 1024;

template <typename N>
N floor_shift(const N& value, unsigned count) {
  if (value >= 0) return N(value >> count);
  const N bias = (N(1) << count) - 1;
  return N(-((bias - value) >> count));
}

template <typename N>
N floor_divide(const N& value, unsigned divisor) {
  if (value >= 0) return N(value / divisor);
  return N(-((divisor - 1 - value) / divisor));
}

template <typename N>
unsigned bits_of(const N& value) {
  return value == 0 ? 0 : static_cast<unsigned>(mp::msb(value)) + 1;
}

template <typename N>
class Series {
 public:
  explicit Series(unsigned precision)
      : precision_(precision),
        shift_(precision + kGuardBits),
        one_(N(1) << shift_),
        terms_(std::min(4096U, shift_ + 128)) {}

  const N& one() const { return one_; }
  unsigned shift() const { return shift_; }

  // ln(1 + x), x in (-1, 1).
  N ln_of_one_plus(const N& x) const {
    N term = x;
    N sum = x;
    N shown = rounded(sum);
    for (unsigned n = 2; n < terms_; ++n) {
      term = floor_shift(N(term * x), shift_);
      if (term == 0) break;
      const N next = floor_divide(term, n);
      if (next == 0) break;
      if (n % 2 == 0) {
        sum -= next;
      } else {
        sum += next;
      }
      if (settled(next, sum, shown)) break;
    }
    return sum;
  }

  // ln of a positive integer, given ln 2.
  N ln(const N& value, const N& ln_two) const {
    unsigned exponent = bits_of(value) - 1;
    N mantissa = N(value << shift_) >> exponent;
    if (mantissa >= one_ + (one_ >> 1)) {
      mantissa >>= 1;
      ++exponent;
    }
    return N(ln_of_one_plus(N(mantissa - one_)) + ln_two * exponent);
  }

  N exp(const N& power) const {
    N term = one_;
    N sum = one_;
    N shown = rounded(sum);
    for (unsigned n = 1; n < terms_; ++n) {
      // floor(t*e / (one*n)) equals two nested floors.
      term = floor_divide(floor_shift(N(term * power), shift_), n);
      if (term == 0) break;
      sum += term;
      if (settled(term, sum, shown)) break;
    }
    return sum;
  }

  // To `precision` fraction bits, nearest, half away from zero.
  N rounded(const N& value) const {
    const N half = N(1) << (kGuardBits - 1);
    if (value >= 0) return N(N(value + half) >> kGuardBits);
    return N(-(N(half - value) >> kGuardBits));
  }

 private:
  bool settled(const N& change, const N& sum, N& shown) const {
    const N now = rounded(sum);
    const bool unchanged = now == shown;
    shown = now;
    return unchanged || bits_of(N(abs(change))) <= kGuardBits;
  }

  unsigned precision_;
  unsigned shift_;
  N one_;
  unsigned terms_;
};

template <typename N>
N to_number(UInt128 value) {
  return (N(static_cast<std::uint64_t>(value >> 64)) << 64) | N(static_cast<std::uint64_t>(value));
}

// A series cut short at a large negative exponent may end below zero. The chain's conversion then
// keeps the magnitude if it fits 64 bits and gives 0 otherwise; so do we.
template <typename N>
UInt128 clamp_to_u128(const N& value) {
  if (value < 0) return bits_of(N(-value)) > 64 ? UInt128{0} : clamp_to_u128(N(-value));
  if (bits_of(value) > 128) return ~UInt128{0};
  const N mask = ~std::uint64_t{0};
  return (static_cast<UInt128>(static_cast<std::uint64_t>(N(value >> 64))) << 64) |
         static_cast<std::uint64_t>(N(value & mask));
}

// ln 2 depends on the precision alone; the balancer uses two of them all the time.
template <typename N>
const N& ln_two(const Series<N>& series) {
  thread_local std::map<unsigned, N> known;
  const auto [at, fresh] = known.try_emplace(series.shift());
  if (fresh) at->second = N(-series.ln_of_one_plus(N(-N(series.one() >> 1))));
  return at->second;
}

// Greatest r with r^degree <= value.
Big root_floor(const Big& value, unsigned degree) {
  if (degree == 1 || value <= 1) return value;
  Big r = Big(1) << (bits_of(value) / degree + 1);  // not below the root
  while (true) {
    const Big below = value / mp::pow(r, degree - 1);
    const Big next = ((degree - 1) * r + below) / degree;
    if (next >= r) return r;
    r = next;
  }
}

UInt128 exact_power(UInt128 num, UInt128 den, unsigned up, unsigned down, std::uint64_t scale) {
  if (up == 1 && down == 1) {
    const Wide product = wide_product(num, scale);
    const auto quotient = wide_divide(product, den);
    return quotient ? quotient->quotient : ~UInt128{0};
  }
  const Big top = mp::pow(to_number<Big>(num), up) * mp::pow(Big(scale), down);
  return clamp_to_u128(root_floor(Big(top / mp::pow(to_number<Big>(den), up)), down));
}

template <typename N>
struct Exponent {
  N value;
  bool small;  // |value| < 16
};

template <typename N>
UInt128 series_power(UInt128 num, UInt128 den, std::uint64_t up, std::uint64_t down,
                     unsigned precision, std::uint64_t scale) {
  const Series<N> series(precision);
  const N& two = ln_two(series);
  const N product =
      N(series.ln(to_number<N>(num), two) - series.ln(to_number<N>(den), two)) * N(up);
  N power = product / N(down);
  if (product < 0 && power * N(down) != product) power -= 1;
  if constexpr (!std::is_same_v<N, Big>) {
    // A large exponent outgrows the fixed width: start again without it.
    if (bits_of(N(abs(power))) > series.shift() + 4) {
      return series_power<Big>(num, den, up, down, precision, scale);
    }
  }
  const N result = series.rounded(series.exp(power)) * N(scale);
  return clamp_to_u128(floor_shift(result, precision));
}

}  // namespace

UInt128 pow_ratio_scaled(UInt128 num, UInt128 den, std::uint64_t exponent_num,
                         std::uint64_t exponent_den, unsigned precision, std::uint64_t scale) {
  YUMOE_ASSERT(den != 0 && exponent_den != 0);
  if (num == 0) return 0;
  if (exponent_num == 0) return scale;
  const std::uint64_t common = std::gcd(exponent_num, exponent_den);
  const std::uint64_t up = exponent_num / common;
  const std::uint64_t down = exponent_den / common;
  if (up <= kExactExponentMax && down <= kExactExponentMax) {
    return exact_power(num, den, static_cast<unsigned>(up), static_cast<unsigned>(down), scale);
  }
  const auto scale_bits = static_cast<unsigned>(std::bit_width(scale));
  const unsigned used = std::max({precision, 32U, scale_bits + 8});
  if (used <= kFastPrecision) return series_power<Fast>(num, den, up, down, used, scale);
  return series_power<Big>(num, den, up, down, used, scale);
}

}  // namespace yumoe::ledger

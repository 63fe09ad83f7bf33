#include "identity/ristretto.hpp"

#include <sodium.h>

#include <cstring>
#include <optional>

namespace yumoe::ristretto {
namespace {

__extension__ using Wide = unsigned __int128;
constexpr std::uint64_t kMask = (std::uint64_t{1} << 51) - 1;

// An element of GF(2^255 - 19) in five limbs of 51 bits. Sums may grow to 2^54 a limb before the
// next product, which brings them back under 2^52.
struct Field {
  std::uint64_t v[5];
};

constexpr Field kZero{{0, 0, 0, 0, 0}};
constexpr Field kOne{{1, 0, 0, 0, 0}};

// Limbs under 2^51 + 2^18 from any limbs; every carry at once, so none waits for another.
Field carried(const Field& a) {
  return {{(a.v[0] & kMask) + 19 * (a.v[4] >> 51), (a.v[1] & kMask) + (a.v[0] >> 51),
           (a.v[2] & kMask) + (a.v[1] >> 51), (a.v[3] & kMask) + (a.v[2] >> 51),
           (a.v[4] & kMask) + (a.v[3] >> 51)}};
}

Field operator+(const Field& a, const Field& b) {
  Field sum;
  for (int i = 0; i < 5; ++i) sum.v[i] = a.v[i] + b.v[i];
  return sum;
}

Field operator-(const Field& a, const Field& b) {
  // 16 p keeps every limb positive for b up to 2^54.
  constexpr std::uint64_t kLow = 16 * (kMask - 18), kHigh = 16 * kMask;
  Field difference;
  for (int i = 0; i < 5; ++i) difference.v[i] = a.v[i] + (i == 0 ? kLow : kHigh) - b.v[i];
  return carried(difference);
}

Field operator-(const Field& a) { return kZero - a; }

Field folded(const Wide (&column)[5]) {
  Field out;
  std::uint64_t carry = 0;  // a column stays under 2^113
  for (int i = 0; i < 5; ++i) {
    const Wide sum = column[i] + carry;
    out.v[i] = static_cast<std::uint64_t>(sum) & kMask;
    carry = static_cast<std::uint64_t>(sum >> 51);
  }
  const Wide low = out.v[0] + static_cast<Wide>(carry) * 19;
  out.v[0] = static_cast<std::uint64_t>(low) & kMask;
  out.v[1] += static_cast<std::uint64_t>(low >> 51);
  return out;
}

Field operator*(const Field& a, const Field& b) {
  const std::uint64_t b1 = b.v[1] * 19, b2 = b.v[2] * 19, b3 = b.v[3] * 19, b4 = b.v[4] * 19;
  const auto m = [](std::uint64_t x, std::uint64_t y) { return static_cast<Wide>(x) * y; };
  const Wide column[5] = {
      m(a.v[0], b.v[0]) + m(a.v[4], b1) + m(a.v[3], b2) + m(a.v[2], b3) + m(a.v[1], b4),
      m(a.v[1], b.v[0]) + m(a.v[0], b.v[1]) + m(a.v[4], b2) + m(a.v[3], b3) + m(a.v[2], b4),
      m(a.v[2], b.v[0]) + m(a.v[1], b.v[1]) + m(a.v[0], b.v[2]) + m(a.v[4], b3) + m(a.v[3], b4),
      m(a.v[3], b.v[0]) + m(a.v[2], b.v[1]) + m(a.v[1], b.v[2]) + m(a.v[0], b.v[3]) + m(a.v[4], b4),
      m(a.v[4], b.v[0]) + m(a.v[3], b.v[1]) + m(a.v[2], b.v[2]) + m(a.v[1], b.v[3]) +
          m(a.v[0], b.v[4])};
  return folded(column);
}

Field squared(const Field& a) {
  const std::uint64_t a3 = a.v[3] * 19, a4 = a.v[4] * 19;
  const auto m = [](std::uint64_t x, std::uint64_t y) { return static_cast<Wide>(x) * y; };
  const Wide column[5] = {m(a.v[0], a.v[0]) + 2 * (m(a.v[1], a4) + m(a.v[2], a3)),
                          m(a.v[3], a3) + 2 * (m(a.v[0], a.v[1]) + m(a.v[2], a4)),
                          m(a.v[1], a.v[1]) + 2 * (m(a.v[0], a.v[2]) + m(a.v[4], a3)),
                          m(a.v[4], a4) + 2 * (m(a.v[0], a.v[3]) + m(a.v[1], a.v[2])),
                          m(a.v[2], a.v[2]) + 2 * (m(a.v[0], a.v[4]) + m(a.v[1], a.v[3]))};
  return folded(column);
}

Field squared(Field a, int times) {
  for (int i = 0; i < times; ++i) a = squared(a);
  return a;
}

// a^(2^252 - 3), the exponent of the square root.
Field power_p58(const Field& a) {
  const Field a2 = squared(a), a9 = squared(a2, 2) * a, a11 = a9 * a2;
  const Field a31 = squared(a11) * a9;             // 2^5 - 1
  const Field b10 = squared(a31, 5) * a31;         // 2^10 - 1
  const Field b20 = squared(b10, 10) * b10;        // 2^20 - 1
  const Field b40 = squared(b20, 20) * b20;        // 2^40 - 1
  const Field b50 = squared(b40, 10) * b10;        // 2^50 - 1
  const Field b100 = squared(b50, 50) * b50;       // 2^100 - 1
  const Field b200 = squared(b100, 100) * b100;    // 2^200 - 1
  return squared(squared(b200, 50) * b50, 2) * a;  // 2^252 - 3
}

Encoded bytes_of(const Field& a) {
  Field r = carried(carried(a));
  std::uint64_t q = (r.v[0] + 19) >> 51;  // 1 if r >= p
  for (int i = 1; i < 5; ++i) q = (r.v[i] + q) >> 51;
  r.v[0] += 19 * q;
  for (int i = 0; i < 4; ++i) {
    r.v[i + 1] += r.v[i] >> 51;
    r.v[i] &= kMask;
  }
  r.v[4] &= kMask;
  const std::uint64_t word[4] = {r.v[0] | r.v[1] << 51, r.v[1] >> 13 | r.v[2] << 38,
                                 r.v[2] >> 26 | r.v[3] << 25, r.v[3] >> 39 | r.v[4] << 12};
  Encoded out;
  std::memcpy(out.data(), word, 32);
  return out;
}

Field from_bytes(const Encoded& bytes) {
  std::uint64_t w[4];
  std::memcpy(w, bytes.data(), 32);
  return {{w[0] & kMask, (w[0] >> 51 | w[1] << 13) & kMask, (w[1] >> 38 | w[2] << 26) & kMask,
           (w[2] >> 25 | w[3] << 39) & kMask, w[3] >> 12 & kMask}};
}

bool is_negative(const Field& a) { return (bytes_of(a)[0] & 1) != 0; }
bool equal(const Field& a, const Field& b) { return bytes_of(a) == bytes_of(b); }
Field absolute(const Field& a) { return is_negative(a) ? -a : a; }

Field small(std::uint64_t value) { return {{value, 0, 0, 0, 0}}; }

Field inverted(const Field& a) {
  // a^(p-2) = (a^(2^252-3))^8 * a^3
  return squared(power_p58(a), 3) * squared(a) * a;
}

struct Constants {
  Field d, d2, sqrt_minus_one, inverse_sqrt_a_minus_d;
};
const Constants& constants();

struct Root {
  bool was_square;
  Field value;
};

// The non-negative square root of 1/v (RFC 9496, 4.2 with u = 1).
Root inverse_square_root(const Field& v, const Field& sqrt_minus_one) {
  const Field v3 = squared(v) * v;
  const Field v7 = squared(v3) * v;
  Field root = v3 * power_p58(v7);
  const Field check = v * squared(root);
  const bool correct = equal(check, kOne);
  const bool flipped = equal(check, -kOne);
  const bool flipped_i = equal(check, -sqrt_minus_one);
  if (flipped || flipped_i) root = root * sqrt_minus_one;
  return {correct || flipped, absolute(root)};
}

Constants make_constants() {
  Constants c;
  c.d = -small(121665) * inverted(small(121666));
  c.d2 = carried(c.d + c.d);
  // 2 is not a square, so 2^((p-1)/4) squares to -1; (p-1)/4 = 2 * (2^252 - 3) + 1.
  c.sqrt_minus_one = absolute(squared(power_p58(small(2))) * small(2));
  c.inverse_sqrt_a_minus_d = inverse_square_root(-kOne - c.d, c.sqrt_minus_one).value;
  return c;
}

const Constants& constants() {
  static const Constants made = make_constants();
  return made;
}

struct Extended {
  Field x, y, z, t;
};
struct Projective {
  Field x, y, z;
};
struct Completed {  // ((x : z), (y : t))
  Field x, y, z, t;
};
struct Cached {  // a point prepared to be added
  Field y_plus_x, y_minus_x, z, t2d;
};

constexpr Projective kIdentity{kZero, kOne, kOne};

Projective projective(const Completed& p) { return {p.x * p.t, p.y * p.z, p.z * p.t}; }
Extended extended(const Completed& p) { return {p.x * p.t, p.y * p.z, p.z * p.t, p.x * p.y}; }

Cached cached(const Extended& p) {
  return {carried(p.y + p.x), p.y - p.x, p.z, p.t * constants().d2};
}

Completed doubled(const Projective& p) {
  const Field xx = squared(p.x), yy = squared(p.y), zz = squared(p.z);
  const Field sum = squared(p.x + p.y);
  const Field plus = yy + xx, minus = yy - xx;
  return {sum - plus, plus, minus, carried(zz + zz) - minus};
}

Completed added(const Extended& p, const Cached& q, bool negative) {
  const Field& plus = negative ? q.y_minus_x : q.y_plus_x;
  const Field& minus = negative ? q.y_plus_x : q.y_minus_x;
  const Field a = (p.y + p.x) * plus, b = (p.y - p.x) * minus;
  const Field c = p.t * q.t2d, zz = p.z * q.z;
  const Field d = zz + zz;
  if (negative) return {a - b, a + b, d - c, d + c};
  return {a - b, a + b, d + c, d - c};
}

std::optional<Extended> decoded(const Encoded& bytes) {
  const Field s = from_bytes(bytes);
  if (bytes_of(s) != bytes || is_negative(s)) return std::nullopt;
  const Field ss = squared(s);
  const Field u1 = kOne - ss, u2 = kOne + ss, u2_squared = squared(u2);
  const Field v = -(constants().d * squared(u1)) - u2_squared;
  const Root root = inverse_square_root(v * u2_squared, constants().sqrt_minus_one);
  const Field den_x = root.value * u2;
  const Field den_y = root.value * den_x * v;
  const Field x = absolute((s + s) * den_x);
  const Field y = u1 * den_y;
  const Field t = x * y;
  if (!root.was_square || is_negative(t) || equal(y, kZero)) return std::nullopt;
  return Extended{x, y, kOne, t};
}

Encoded encoded(const Extended& p) {
  const Constants& c = constants();
  const Field u1 = (p.z + p.y) * (p.z - p.y), u2 = p.x * p.y;
  const Field root = inverse_square_root(u1 * squared(u2), c.sqrt_minus_one).value;
  const Field den1 = root * u1, den2 = root * u2;
  const Field z_inverse = den1 * den2 * p.t;
  const bool rotate = is_negative(p.t * z_inverse);
  const Field x = rotate ? p.y * c.sqrt_minus_one : p.x;
  Field y = rotate ? p.x * c.sqrt_minus_one : p.y;
  const Field den = rotate ? den1 * c.inverse_sqrt_a_minus_d : den2;
  if (is_negative(x * z_inverse)) y = -y;
  return bytes_of(absolute(den * (p.z - y)));
}

// Signed digits of a scalar, odd or zero, below 2^(width-1) in magnitude and `width` apart.
struct Digits {
  std::int8_t d[256];
  int top = -1;  // highest digit that is not zero
};

Digits non_adjacent_form(const Encoded& scalar, int width) {
  Digits digits{};
  std::uint64_t word[5] = {};
  std::memcpy(word, scalar.data(), 32);
  const std::uint64_t window = (std::uint64_t{1} << width) - 1;
  std::uint64_t carry = 0;
  for (int at = 0; at < 256;) {
    const int index = at / 64, bit = at % 64;
    std::uint64_t bits = word[index] >> bit;
    if (bit > 64 - width) bits |= word[index + 1] << (64 - bit);
    const std::uint64_t value = carry + (bits & window);
    if ((value & 1) == 0) {
      ++at;
      continue;
    }
    const bool high = value >= (std::uint64_t{1} << (width - 1));
    carry = high ? 1 : 0;
    digits.d[at] = static_cast<std::int8_t>(static_cast<int>(value) - (high ? 1 << width : 0));
    digits.top = at;
    at += width;
  }
  return digits;
}

// 1P, 3P, 5P, ...
template <int count>
struct OddMultiples {
  Cached multiple[count];
  explicit OddMultiples(const Extended& p) {
    const Extended twice = extended(doubled({p.x, p.y, p.z}));
    Extended running = p;
    multiple[0] = cached(p);
    for (int i = 1; i < count; ++i) {
      running = extended(added(twice, multiple[i - 1], false));
      multiple[i] = cached(running);
    }
  }
  const Cached& of(int digit) const { return multiple[(digit < 0 ? -digit : digit) / 2]; }
};

constexpr int kKeyWidth = 5, kBaseWidth = 8;

const OddMultiples<64>& base_multiples() {
  static const OddMultiples<64> table = [] {
    Encoded one{1}, base;
    (void)!crypto_scalarmult_ristretto255_base(base.data(), one.data());
    return OddMultiples<64>(*decoded(base));
  }();
  return table;
}

}  // namespace

bool equals_combination(const Encoded& point, const Encoded& s, const Encoded& c,
                        const Encoded& key) noexcept {
  if (key == Encoded{}) return false;  // everyone could sign for the identity
  const std::optional<Extended> a = decoded(key);
  if (!a) return false;
  const OddMultiples<8> key_multiples(*a);
  const OddMultiples<64>& base = base_multiples();
  const Digits c_digits = non_adjacent_form(c, kKeyWidth);
  const Digits s_digits = non_adjacent_form(s, kBaseWidth);

  Projective sum = kIdentity;
  Extended last{kZero, kOne, kOne, kZero};
  for (int i = c_digits.top > s_digits.top ? c_digits.top : s_digits.top; i >= 0; --i) {
    Completed step = doubled(sum);
    if (const int digit = c_digits.d[i]; digit != 0) {
      step = added(extended(step), key_multiples.of(digit), digit > 0);
    }
    if (const int digit = s_digits.d[i]; digit != 0) {
      step = added(extended(step), base.of(digit), digit < 0);
    }
    if (i == 0) last = extended(step);
    sum = projective(step);
  }
  return encoded(last) == point;
}

}  // namespace yumoe::ristretto

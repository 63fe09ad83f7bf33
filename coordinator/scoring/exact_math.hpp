#pragma once
// exp, log and powers out of additions, multiplications and divisions alone, so that a replay on another
// machine, with another C library, reaches the same bits. Within 2 units in the last place.

#include <cmath>

namespace yumoe::exact {

inline double exp(double x) {
  if (x > 700) x = 700;
  if (x < -700) return 0;
  constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  const double k = std::floor(x * 1.44269504088896338700 + 0.5);
  const double r = (x - k * kLn2High) - k * kLn2Low;
  double sum = 1;
  for (int n = 17; n >= 1; --n) sum = 1 + sum * r / n;
  return std::ldexp(sum, static_cast<int>(k));
}

// Of a positive number.
inline double log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0.70710678118654752440) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1) / (m + 1), square = s * s;
  double sum = 0;
  for (int n = 25; n >= 1; n -= 2) sum = sum * square + 1.0 / n;
  return 2 * s * sum + exponent * 6.93147180559945309417e-01;
}

// base^power for base >= 0; 0 for base 0.
inline double pow(double base, double power) {
  if (base <= 0) return 0;
  if (power == 1) return base;
  if (power == 2) return base * base;
  return exp(power * log(base));
}

}  // namespace yumoe::exact

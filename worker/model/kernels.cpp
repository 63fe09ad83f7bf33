#include "model/kernels.hpp"

#include <cmath>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define YUMOE_CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define YUMOE_CLONES
#endif
#define YUMOE_INLINE static inline __attribute__((always_inline))

namespace yumoe::kernels {
namespace {

constexpr std::int64_t kLanes = 16;
using Vector = float __attribute__((vector_size(64)));
using Integers = std::int32_t __attribute__((vector_size(64)));

YUMOE_INLINE Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
YUMOE_INLINE void store(float* to, Vector v) { std::memcpy(to, &v, sizeof v); }

// The last, short vector of a row: lanes beyond it are zero and are not written back.
YUMOE_INLINE Vector load_part(const float* from, std::int64_t lanes) {
  Vector v{};
  std::memcpy(&v, from, static_cast<std::size_t>(lanes) * sizeof(float));
  return v;
}
YUMOE_INLINE void store_part(float* to, Vector v, std::int64_t lanes) {
  std::memcpy(to, &v, static_cast<std::size_t>(lanes) * sizeof(float));
}

YUMOE_INLINE Vector all(float value) { return Vector{} + value; }
YUMOE_INLINE Vector choose(Integers mask, Vector a, Vector b) {
  return reinterpret_cast<Vector>((mask & reinterpret_cast<Integers>(a)) |
                                  (~mask & reinterpret_cast<Integers>(b)));
}
YUMOE_INLINE Vector at_least(Vector a, Vector b) { return choose(a > b, a, b); }
YUMOE_INLINE Vector at_most(Vector a, Vector b) { return choose(a < b, a, b); }

// Pairwise, so the order does not depend on the processor.
YUMOE_INLINE float total(Vector v) {
  float lane[kLanes];
  std::memcpy(lane, &v, sizeof v);
  for (std::int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::int64_t i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}

// exp with relative error below 2e-7 on [-87, 88], clamped outside; NaN stays NaN.
// Cody-Waite reduction and the Cephes polynomial.
YUMOE_INLINE Vector exponential(Vector x) {
  const Integers is_nan = x != x;
  const Vector bounded = at_most(at_least(x, all(-87.3F)), all(88.3F));
  const Vector shifted = bounded * 1.44269504F + 12582912.0F;
  const Vector whole = shifted - 12582912.0F;
  const Vector r = (bounded - whole * 0.693359375F) + whole * 2.12194440e-4F;
  Vector p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * (r * r) + r + 1.0F;
  const Integers exponent = (reinterpret_cast<Integers>(shifted) - 0x4B400000 + 127) << 23;
  return choose(is_nan, x, p * reinterpret_cast<Vector>(exponent));
}

YUMOE_INLINE Vector logistic(Vector x) { return 1.0F / (1.0F + exponential(-x)); }

// Standard normal distribution function, and its density in `density`.
// erf by Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
YUMOE_INLINE Vector normal_distribution(Vector x, Vector& density) {
  const Vector gauss = exponential(x * x * -0.5F);
  const Vector magnitude = at_least(x, -x) * 0.70710678F;
  const Vector t = 1.0F / (1.0F + magnitude * 0.3275911F);
  Vector p = t * 1.061405429F - 1.453152027F;
  p = p * t + 1.421413741F;
  p = p * t - 0.284496736F;
  p = p * t + 0.254829592F;
  const Vector upper_tail = p * t * gauss * 0.5F;
  density = gauss * 0.39894228F;
  return choose(x < 0.0F, upper_tail, 1.0F - upper_tail);
}

YUMOE_INLINE Vector gelu(Vector x) {
  Vector density;
  return x * normal_distribution(x, density);
}

}  // namespace

YUMOE_CLONES
void rms_norm(const float* x, const float* weight, float* y, float* inverse, std::int64_t rows,
              std::int64_t width, float epsilon) {
  const std::int64_t body = width / kLanes * kLanes;
  for (std::int64_t r = 0; r < rows; ++r, x += width, y += width) {
    Vector squares{};
    for (std::int64_t i = 0; i < body; i += kLanes) squares += load(x + i) * load(x + i);
    if (body < width) {
      const Vector v = load_part(x + body, width - body);
      squares += v * v;
    }
    const float scale = 1.0F / std::sqrt(total(squares) / static_cast<float>(width) + epsilon);
    inverse[r] = scale;
    for (std::int64_t i = 0; i < body; i += kLanes)
      store(y + i, load(x + i) * scale * load(weight + i));
    for (std::int64_t i = body; i < width; ++i) y[i] = x[i] * scale * weight[i];
  }
}

YUMOE_CLONES
void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* inverse,
                       float* dx, float* weight_gradient, std::int64_t rows, std::int64_t width) {
  const std::int64_t body = width / kLanes * kLanes;
  for (std::int64_t r = 0; r < rows; ++r, x += width, dy += width, dx += width) {
    Vector products{};
    for (std::int64_t i = 0; i < body; i += kLanes) {
      products += load(dy + i) * load(weight + i) * load(x + i);
    }
    if (body < width) {
      products += load_part(dy + body, width - body) * load_part(weight + body, width - body) *
                  load_part(x + body, width - body);
    }
    const float scale = inverse[r];
    const float pull = total(products) * scale * scale * scale / static_cast<float>(width);
    for (std::int64_t i = 0; i < body; i += kLanes) {
      const Vector d = load(dy + i);
      const Vector v = load(x + i);
      store(weight_gradient + i, load(weight_gradient + i) + d * v * scale);
      store(dx + i, d * load(weight + i) * scale - v * pull);
    }
    for (std::int64_t i = body; i < width; ++i) {
      weight_gradient[i] += dy[i] * x[i] * scale;
      dx[i] = dy[i] * weight[i] * scale - x[i] * pull;
    }
  }
}

YUMOE_CLONES
void rotate(float* x, std::int64_t row_stride, std::int64_t heads, std::int64_t head_width,
            const float* cosine, const float* sine, std::int64_t first_row, std::int64_t rows,
            std::int64_t context, float direction) {
  const std::int64_t half = head_width / 2;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t position = (first_row + r) % context;
    const float* c = cosine + position * half;
    const float* s = sine + position * half;
    for (std::int64_t head = 0; head < heads; ++head) {
      float* a = x + r * row_stride + head * head_width;
      float* b = a + half;
      for (std::int64_t i = 0; i < half; ++i) {
        const float first = a[i], second = b[i], turn = direction * s[i];
        a[i] = first * c[i] - second * turn;
        b[i] = second * c[i] + first * turn;
      }
    }
  }
}

void gather_rows(const float* from, const std::int32_t* index, float* to, std::int64_t rows,
                 std::int64_t width) {
  for (std::int64_t r = 0; r < rows; ++r) {
    std::memcpy(to + r * width, from + index[r] * width,
                static_cast<std::size_t>(width) * sizeof(float));
  }
}

YUMOE_CLONES
void scatter_add_rows(const float* from, const std::int32_t* index, const float* factor, float* to,
                      std::int64_t rows, std::int64_t width) {
  const std::int64_t body = width / kLanes * kLanes;
  for (std::int64_t r = 0; r < rows; ++r, from += width) {
    float* row = to + index[r] * width;
    const float scale = factor ? factor[r] : 1.0F;
    for (std::int64_t i = 0; i < body; i += kLanes)
      store(row + i, load(row + i) + load(from + i) * scale);
    for (std::int64_t i = body; i < width; ++i) row[i] += from[i] * scale;
  }
}

YUMOE_CLONES
void activate(Activation activation, const float* hidden, float* out, std::int64_t rows,
              std::int64_t width) {
  const std::int64_t body = width / kLanes * kLanes;
  const std::int64_t rest = width - body;
  if (activation == Activation::gelu) {
    for (std::int64_t r = 0; r < rows; ++r, hidden += width, out += width) {
      for (std::int64_t i = 0; i < body; i += kLanes) store(out + i, gelu(load(hidden + i)));
      if (rest) store_part(out + body, gelu(load_part(hidden + body, rest)), rest);
    }
    return;
  }
  for (std::int64_t r = 0; r < rows; ++r, hidden += 2 * width, out += width) {
    const float* up = hidden + width;
    for (std::int64_t i = 0; i < body; i += kLanes) {
      const Vector g = load(hidden + i);
      store(out + i, g * logistic(g) * load(up + i));
    }
    if (rest) {
      const Vector g = load_part(hidden + body, rest);
      store_part(out + body, g * logistic(g) * load_part(up + body, rest), rest);
    }
  }
}

namespace {

struct Slopes {
  Vector out;     // factor * activation
  Vector d_gate;  // or d_hidden for gelu
  Vector d_up;
  Vector product;  // d * activation
};

YUMOE_INLINE Slopes gelu_slopes(Vector x, Vector d, float factor) {
  Vector density;
  const Vector below = normal_distribution(x, density);
  const Vector value = x * below;
  return {value * factor, d * factor * (below + x * density), Vector{}, d * value};
}

YUMOE_INLINE Slopes swiglu_slopes(Vector gate, Vector up, Vector d, float factor) {
  const Vector s = logistic(gate);
  const Vector silu = gate * s;
  const Vector value = silu * up;
  const Vector scaled = d * factor;
  return {value * factor, scaled * up * (s + silu * (1.0F - s)), scaled * silu, d * value};
}

}  // namespace

YUMOE_CLONES
void activate_backward(Activation activation, const float* hidden, const float* factor,
                       float* d_out, float* d_hidden, float* d_factor, std::int64_t rows,
                       std::int64_t width) {
  const std::int64_t body = width / kLanes * kLanes;
  const std::int64_t rest = width - body;
  const bool two = activation == Activation::swiglu;
  const std::int64_t columns = two ? 2 * width : width;
  for (std::int64_t r = 0; r < rows; ++r, hidden += columns, d_hidden += columns, d_out += width) {
    const float scale = factor ? factor[r] : 1.0F;
    Vector products{};
    if (two) {
      for (std::int64_t i = 0; i < body; i += kLanes) {
        const Slopes s =
            swiglu_slopes(load(hidden + i), load(hidden + width + i), load(d_out + i), scale);
        store(d_out + i, s.out);
        store(d_hidden + i, s.d_gate);
        store(d_hidden + width + i, s.d_up);
        products += s.product;
      }
      if (rest) {
        const Slopes s =
            swiglu_slopes(load_part(hidden + body, rest), load_part(hidden + width + body, rest),
                          load_part(d_out + body, rest), scale);
        store_part(d_out + body, s.out, rest);
        store_part(d_hidden + body, s.d_gate, rest);
        store_part(d_hidden + width + body, s.d_up, rest);
        products += s.product;
      }
    } else {
      for (std::int64_t i = 0; i < body; i += kLanes) {
        const Slopes s = gelu_slopes(load(hidden + i), load(d_out + i), scale);
        store(d_out + i, s.out);
        store(d_hidden + i, s.d_gate);
        products += s.product;
      }
      if (rest) {
        const Slopes s =
            gelu_slopes(load_part(hidden + body, rest), load_part(d_out + body, rest), scale);
        store_part(d_out + body, s.out, rest);
        store_part(d_hidden + body, s.d_gate, rest);
        products += s.product;
      }
    }
    if (d_factor) d_factor[r] = total(products);
  }
}

YUMOE_CLONES
void sigmoid(const float* x, float* y, std::int64_t count) {
  const std::int64_t body = count / kLanes * kLanes;
  for (std::int64_t i = 0; i < body; i += kLanes) store(y + i, logistic(load(x + i)));
  if (body < count) {
    store_part(y + body, logistic(load_part(x + body, count - body)), count - body);
  }
}

YUMOE_CLONES
void cross_entropy(float* logits, const std::int32_t* targets, float* loss, std::int64_t rows,
                   std::int64_t columns, float scale) {
  const std::int64_t body = columns / kLanes * kLanes;
  const std::int64_t rest = columns - body;
  for (std::int64_t r = 0; r < rows; ++r, logits += columns) {
    Vector high = all(logits[0]);
    for (std::int64_t i = 0; i < body; i += kLanes) high = at_least(load(logits + i), high);
    float largest = high[0];
    for (std::int64_t i = 1; i < kLanes; ++i) largest = high[i] > largest ? high[i] : largest;
    for (std::int64_t i = body; i < columns; ++i) largest = std::fmax(largest, logits[i]);
    const float target = logits[targets[r]];
    Vector sums{};
    float sum = 0;
    for (std::int64_t i = 0; i < body; i += kLanes) {
      const Vector e = exponential(load(logits + i) - largest);
      sums += e;
      if (scale != 0) store(logits + i, e);
    }
    if (rest) {
      const Vector e = exponential(load_part(logits + body, rest) - largest);
      for (std::int64_t i = 0; i < rest; ++i) sum += e[i];
      if (scale != 0) store_part(logits + body, e, rest);
    }
    sum += total(sums);
    loss[r] = std::log(sum) + largest - target;
    if (scale == 0) continue;
    const float share = scale / sum;
    for (std::int64_t i = 0; i < body; i += kLanes) store(logits + i, load(logits + i) * share);
    for (std::int64_t i = body; i < columns; ++i) logits[i] *= share;
    logits[targets[r]] -= scale;
  }
}

YUMOE_CLONES
double sum_of_squares(const float* x, std::int64_t count) {
  constexpr std::int64_t kBlock = 4'096;  // fp32 within a block, double across
  double sum = 0;
  for (std::int64_t begin = 0; begin < count; begin += kBlock) {
    const std::int64_t end = begin + kBlock < count ? begin + kBlock : count;
    Vector a{}, b{};
    std::int64_t i = begin;
    for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
      a += load(x + i) * load(x + i);
      b += load(x + i + kLanes) * load(x + i + kLanes);
    }
    float rest = 0;
    for (; i < end; ++i) rest += x[i] * x[i];
    sum += static_cast<double>(total(a + b)) + rest;
  }
  return sum;
}

namespace {

YUMOE_INLINE float root(float x) { return std::sqrt(x); }

}  // namespace

YUMOE_CLONES
void adam(const AdamStep& step, float* __restrict parameter, const float* __restrict gradient,
          float* __restrict first, float* __restrict second, std::int64_t count) {
  const AdamStep s = step;
  for (std::int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] * s.gradient_scale;
    const float m = first[i] + (1.0F - s.beta1) * (g - first[i]);
    const float v = s.beta2 * second[i] + (1.0F - s.beta2) * g * g;
    first[i] = m;
    second[i] = v;
    parameter[i] = parameter[i] * s.keep - s.step_size * m / (root(v) * s.inverse_root + s.epsilon);
  }
}

}  // namespace yumoe::kernels

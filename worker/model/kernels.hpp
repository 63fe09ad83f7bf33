#pragma once
// The CPU loops between matrix products: norms, rotary positions, activations, routing, loss.
//
// Everything works on rows, in row-major fp32, over a caller's share of the rows, so that threads
// never change a result: no function here adds up across rows unless it says in which order.
// Vectors have 16 lanes on every processor; the compiler maps them to what the machine has.

#include <cstdint>

namespace yumoe::kernels {

enum class Activation { swiglu, gelu };

// Width of an expert's first product: gate and up side by side, or one.
inline std::int64_t hidden_columns(Activation activation, std::int64_t width) {
  return activation == Activation::swiglu ? 2 * width : width;
}

// y = x * weight / rms(x); `inverse` [rows] keeps 1 / rms for backward.
void rms_norm(const float* x, const float* weight, float* y, float* inverse, std::int64_t rows,
              std::int64_t width, float epsilon);

// Writes dx [rows, width] and adds each row's share to weight_gradient [width], rows ascending.
void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* inverse,
                       float* dx, float* weight_gradient, std::int64_t rows, std::int64_t width);

// Rotates pairs (i, i + head_width / 2) of `heads` heads a row, in place; `direction` -1 turns back.
// cosine, sine: [context, head_width / 2]; row r stands at position (first_row + r) % context.
void rotate(float* x, std::int64_t row_stride, std::int64_t heads, std::int64_t head_width,
            const float* cosine, const float* sine, std::int64_t first_row, std::int64_t rows,
            std::int64_t context, float direction);

// to[i] = from[index[i]], whole rows.
void gather_rows(const float* from, const std::int32_t* index, float* to, std::int64_t rows,
                 std::int64_t width);

// to[index[i]] += factor[i] * from[i]; every index at most once. factor may be null (all 1).
void scatter_add_rows(const float* from, const std::int32_t* index, const float* factor, float* to,
                      std::int64_t rows, std::int64_t width);

// out [rows, width] = activation of hidden [rows, hidden_columns].
void activate(Activation activation, const float* hidden, float* out, std::int64_t rows,
              std::int64_t width);

// Backward of `factor[r] * activate(hidden)[r]` given d(out) before the factor in `d_out`:
// replaces d_out by factor * activation (what the weight gradient of the next product needs),
// writes d_hidden, and d_factor[r] = <d_out[r], activation[r]>. factor, d_factor may be null.
void activate_backward(Activation activation, const float* hidden, const float* factor,
                       float* d_out, float* d_hidden, float* d_factor, std::int64_t rows,
                       std::int64_t width);

// y = 1 / (1 + exp(-x)), elementwise.
void sigmoid(const float* x, float* y, std::int64_t count);

// Cross-entropy of rows of logits against targets. loss [rows] in nats. Unless scale is 0, replaces
// logits by their gradient: scale * (softmax - onehot).
void cross_entropy(float* logits, const std::int32_t* targets, float* loss, std::int64_t rows,
                   std::int64_t columns, float scale);

// Sum of squares in double, in a fixed order.
double sum_of_squares(const float* x, std::int64_t count);

struct AdamStep {
  float gradient_scale;  // clipping
  float beta1, beta2;
  float step_size;     // learning rate / (1 - beta1^t)
  float inverse_root;  // 1 / sqrt(1 - beta2^t)
  float epsilon;
  float keep;  // 1 - learning rate * weight decay
};

// One AdamW step on a range.
void adam(const AdamStep& step, float* parameter, const float* gradient, float* first,
          float* second, std::int64_t count);

}  // namespace yumoe::kernels

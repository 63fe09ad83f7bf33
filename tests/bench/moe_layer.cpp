// The MoE layer, forward and backward, against the chain of dense products of equal FLOPs in the same
// run (by LibTorch, as the bars are meant, and by the library we use), and against PyTorch's best way
// One thread. GELU experts of two matrices, width 512, top-2, as in that script.

#include "model/moe_layer.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "bench/peer.hpp"
#include "bench/row.hpp"
#include "model/product.hpp"
#include "worker/memory.hpp"

namespace {

using namespace yumoe;

constexpr std::int64_t kWidth = 512, kInner = 1'024, kPerToken = 2;

struct Times {
  double ours = 0, dense = 0, dense_reused = 0;  // median seconds
};

// Seconds of this thread on a core: one thread works, and what else the machine does is not counted.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double seconds_of(const std::function<void()>& work) {
  const double start = thread_seconds();
  work();
  return thread_seconds() - start;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

Parameter parameter(std::int64_t rows, std::int64_t columns, double deviation) {
  return {at::randn({rows, columns}).mul_(deviation), at::zeros({rows, columns})};
}

MoeLayer layer_of(std::int64_t experts) {
  MoeLayer layer;
  layer.activation = kernels::Activation::gelu;
  layer.routing.experts_per_token = kPerToken;
  layer.gate = parameter(experts, kWidth, 1 / std::sqrt(kWidth));
  for (std::int64_t e = 0; e < experts; ++e) {
    layer.held.push_back(static_cast<std::uint32_t>(e));
    layer.experts.push_back({parameter(kInner, kWidth, 1 / std::sqrt(kWidth)),
                             parameter(kWidth, kInner, 1 / std::sqrt(kInner))});
  }
  return layer;
}

Times measure(std::int64_t experts, std::int64_t tokens, int repeats) {
  const MoeLayer layer = layer_of(experts);
  const at::Tensor x = at::randn({tokens, kWidth}).set_requires_grad(true);
  const at::Tensor residual = at::zeros({tokens, kWidth});
  const at::Tensor dy = at::randn({tokens, kWidth});
  const auto ours = [&] {
    MoeReport report;
    x.mutable_grad() = at::Tensor();
    apply_moe(layer, residual, x, {}, report).backward(dy);
  };
  const at::Tensor rows = at::randn({tokens * kPerToken, kWidth});
  const at::Tensor first = at::randn({kWidth, kInner}), second = at::randn({kInner, kWidth});
  const auto dense = [&] {  // the script's chain
    const at::Tensor h = at::mm(rows, first), y = at::mm(h, second);
    const at::Tensor dh = at::mm(y, second.t()), d_second = at::mm(h.t(), y);
    const at::Tensor dx = at::mm(dh, first.t()), d_first = at::mm(rows.t(), dh);
  };
  at::Tensor h = at::mm(rows, first), y = at::mm(h, second), dh = at::mm(y, second.t()),
             d_second = at::mm(h.t(), y), dx = at::mm(dh, first.t()),
             d_first = at::mm(rows.t(), dh);
  const auto dense_reused = [&] {  // the same by our library, into memory that is there already
    product(h, rows, first);
    product(y, h, second);
    product(dh, y, second.t());
    product(d_second, h.t(), y);
    product(dx, dh, first.t());
    product(d_first, rows.t(), dh);
  };
  ours();
  dense();
  dense_reused();
  std::vector<double> a, b, c;
  for (int i = 0; i < repeats; ++i) {
    a.push_back(seconds_of(ours));
    b.push_back(seconds_of(dense));
    c.push_back(seconds_of(dense_reused));
  }
  return {median(a), median(b), median(c)};
}

struct Case {
  std::int64_t experts, tokens;
  double bar;
};

}  // namespace

int main() {
  at::set_num_threads(1);
  keep_freed_memory();
  bench::Report report;
  for (const Case& c : {Case{8, 4'096, 0.95}, {64, 4'096, 0.85}, {8, 512, 0.80}}) {
    const std::string name = "moe_layer " + std::to_string(c.experts) + " experts d_ff 1024 " +
                             std::to_string(c.tokens) + " tokens";
    const Times times = measure(c.experts, c.tokens, c.tokens > 1'000 ? 7 : 31);
    report.row(name + ", dense chain / ours", times.dense, times.ours, bench::Bar::at_least, c.bar,
               "seconds of a core; dense chain as in the peer script");
    report.row(name + ", dense chain by our library into reused memory / ours", times.dense_reused,
               times.ours, bench::Bar::none, 0);
    const auto peer = bench::run_peer(
        "moe_layer.py", "--threads 1 --dff 1024 --dtypes fp32 --experts " +
                            std::to_string(c.experts) + " --tokens " + std::to_string(c.tokens));
    if (!peer) continue;
    double best = 0;
    for (const char* variant : {"loop", "grouped", "gmm"}) {
      best = std::max(best, peer->number_after("frac_of_dense", variant));
    }
    report.row(name + ", share of dense: ours / best PyTorch variant", times.dense / times.ours,
               best, bench::Bar::at_least, 1.0);
  }
  return report.finish();
}

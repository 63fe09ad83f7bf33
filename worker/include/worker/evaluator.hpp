#pragma once
// Measures what models lose on given windows: what a validator runs, and held-out evaluation.
//
// Losses are returned by window, so that a caller can compare two models on the same windows (common
// random numbers) and give an interval. Deterministic as Trainer is.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "router/codec.hpp"
#include "router/layout.hpp"
#include "worker/device_options.hpp"
#include "worker/remote_experts.hpp"

namespace yumoe {

struct WindowLosses {
  std::vector<double> losses;  // a window: mean over its tokens, nats; may be infinite or NaN
  bool is_finite = true;       // whether all are
  double mean() const;         // over windows
};

// Edits a copy of the base's parameters [layout.parameters()] before a measurement.
using Change = std::function<void(std::span<float> parameters)>;

// What of a contribution is applied.
struct Part {
  bool trunk = true;
  std::vector<std::uint32_t> experts;  // sorted; those of the update's that are applied
  static Part whole(const Update& update) { return {true, update.experts()}; }
};

// parameters -= scale * update, for one part: the change that accepting the contribution alone would
// make. `layout` and `update` must outlive the change.
Change change_by(const Layout& layout, const Update& update, float scale, Part part);

// The same with each tensor's norm clipped to the one given for it (by index in the layout; 0: not at all),
// as the aggregate would clip it.
Change change_by(const Layout& layout, const Update& update, float scale, Part part,
                 std::vector<double> usual_norms);

// Mean loss in nats a token, as bits a byte of text.
double bits_per_byte(double nats_per_token, double bytes_per_token);

class Evaluator {
 public:
  // Experts of `elsewhere` are called by `remote`, which must outlive this; all others are here.
  Evaluator(const ModelOptions& model, const DeviceOptions& device, RemoteExperts* remote = nullptr,
            const ExpertSet& elsewhere = {});
  Evaluator(Evaluator&&) noexcept;
  Evaluator& operator=(Evaluator&&) noexcept;
  ~Evaluator();

  // As Trainer::load_base.
  void load_base(std::span<const float> parameters, std::span<const float> gate_bias);

  // The base's losses on windows [count * (context + 1)], one after the other. Remembered: asking
  // again for the same windows under the same base costs a comparison of the tokens.
  const WindowLosses& base(std::span<const std::uint16_t> windows);

  // The losses with a change applied; the base is as before afterwards.
  WindowLosses with(const Change& change, std::span<const std::uint16_t> windows);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace yumoe

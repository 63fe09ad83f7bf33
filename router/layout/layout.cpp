#include "router/layout.hpp"

#include <cmath>
#include <numeric>

#include "cluster/error.hpp"
#include "cluster/random.hpp"

namespace yumoe {
namespace {

void check(const ModelOptions& model) {
  const auto refuse = [](const std::string& what) {
    throw Error(ErrorCode::config_invalid, "model." + what);
  };
  for (const auto& [name, value] : {std::pair{"vocabulary", model.vocabulary},
                                    {"context", model.context},
                                    {"width", model.width},
                                    {"layers", model.layers},
                                    {"heads", model.heads},
                                    {"key_value_heads", model.key_value_heads},
                                    {"experts", model.experts},
                                    {"experts_per_token", model.experts_per_token},
                                    {"expert_width", model.expert_width}}) {
    if (value < 1) refuse(std::string(name) + " must be at least 1");
  }
  if (model.shared_expert_width < 0) refuse("shared_expert_width must not be negative");
  if (model.width % model.heads != 0) {
    refuse("heads = " + std::to_string(model.heads) +
           " must divide width = " + std::to_string(model.width));
  }
  if (model.width / model.heads % 2 != 0) {
    refuse("width / heads = " + std::to_string(model.width / model.heads) +
           " must be even: rotary positions turn pairs");
  }
  if (model.heads % model.key_value_heads != 0) {
    refuse("key_value_heads = " + std::to_string(model.key_value_heads) +
           " must divide heads = " + std::to_string(model.heads));
  }
  if (model.experts_per_token > model.experts) {
    refuse("experts_per_token = " + std::to_string(model.experts_per_token) +
           " must not exceed experts = " + std::to_string(model.experts));
  }
}

// Appends tensors one after the other in the flat vector.
class Builder {
 public:
  Builder(const ModelOptions& model, std::vector<TensorSpec>& tensors)
      : branch_(1.0 / std::sqrt(2.0 * static_cast<double>(model.layers))), tensors_(tensors) {}

  void place(std::int32_t layer, std::int32_t expert) {
    layer_ = layer;
    expert_ = expert;
  }
  void embedding(const std::string& name, std::int64_t rows, std::int64_t columns) {
    add(name, {rows, columns}, Initial::normal, 0.02);
  }
  void norm(const std::string& name, std::int64_t width) { add(name, {width}, Initial::ones, 0); }
  void matrix(const std::string& name, std::int64_t rows, std::int64_t columns) {
    add(name, {rows, columns}, Initial::normal, 1.0 / std::sqrt(static_cast<double>(columns)));
  }
  // A matrix that writes into the residual stream.
  void branch_end(const std::string& name, std::int64_t rows, std::int64_t columns) {
    add(name, {rows, columns}, Initial::normal, branch_ / std::sqrt(static_cast<double>(columns)));
  }
  std::uint64_t elements() const { return offset_; }

 private:
  void add(const std::string& name, std::vector<std::int64_t> shape, Initial initial,
           double deviation) {
    TensorSpec spec;
    if (layer_ >= 0) spec.name.append("layer.").append(std::to_string(layer_)).append(".");
    spec.name += name;
    spec.offset = offset_;
    spec.elements = 1;
    for (const std::int64_t extent : shape) spec.elements *= static_cast<std::uint64_t>(extent);
    spec.shape = std::move(shape);
    spec.layer = layer_;
    spec.expert = expert_;
    spec.initial = initial;
    spec.initial_deviation = static_cast<float>(deviation);
    offset_ += spec.elements;
    tensors_.push_back(std::move(spec));
  }

  double branch_;
  std::vector<TensorSpec>& tensors_;
  std::uint64_t offset_ = 0;
  std::int32_t layer_ = -1;
  std::int32_t expert_ = -1;
};

void add_trunk(const ModelOptions& model, Builder& build) {
  const std::int64_t width = model.width;
  const std::int64_t key_value_width = model.key_value_heads * (width / model.heads);
  build.place(-1, -1);
  build.embedding("embedding", model.vocabulary, width);
  if (!model.tied_embedding) build.embedding("output", model.vocabulary, width);
  build.norm("final_norm", width);
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    build.place(static_cast<std::int32_t>(layer), -1);
    build.norm("attention_norm", width);
    build.matrix("query", width, width);
    build.matrix("key", key_value_width, width);
    build.matrix("value", key_value_width, width);
    build.branch_end("attention_out", width, width);
    build.norm("expert_norm", width);
    build.matrix("gate", model.experts, width);
    if (model.shared_expert_width > 0) {
      build.matrix("shared.gate_up", 2 * model.shared_expert_width, width);
      build.branch_end("shared.down", width, model.shared_expert_width);
    }
  }
}

void add_expert(const ModelOptions& model, std::int64_t expert, Builder& build) {
  const std::string name = std::string("expert.").append(std::to_string(expert));
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    build.place(static_cast<std::int32_t>(layer), static_cast<std::int32_t>(expert));
    build.matrix(name + ".gate_up", 2 * model.expert_width, model.width);
    build.branch_end(name + ".down", model.width, model.expert_width);
  }
}

Digest digest_of_names(std::span<const TensorSpec> tensors) {
  Digester digester;
  for (const TensorSpec& tensor : tensors) {
    std::string line = tensor.name;
    for (const std::int64_t extent : tensor.shape) line.append(" ").append(std::to_string(extent));
    digester.update(as_bytes(line + "\n"));
  }
  return digester.finish();
}

// Sum of the four 16-bit numbers in a word.
std::int32_t lanes_of(std::uint64_t word) {
  word = (word & 0x0000ffff0000ffff) + (word >> 16 & 0x0000ffff0000ffff);
  return static_cast<std::int32_t>((word & 0xffffffff) + (word >> 32));
}

// Approximately normal: the sum of eight 16-bit uniforms (Irwin-Hall) from two draws, an integer that
// a float holds exactly, times one factor. No libm and one rounding, so equal on every machine;
// a sixth of the draws that Random::normal takes. Reaches 4.9 deviations.
void fill_normal(Random& random, float deviation, std::span<float> values) {
  constexpr std::int32_t kMean = 8 * 65'535 / 2;
  constexpr double kVariance = 8.0 * (65'536.0 * 65'536.0 - 1.0) / 12.0;
  const float factor = static_cast<float>(static_cast<double>(deviation) / std::sqrt(kVariance));
  for (float& value : values) {
    const std::int32_t first = lanes_of(random());
    value = static_cast<float>(first + lanes_of(random()) - kMean) * factor;
  }
}

}  // namespace

ExpertSet all_experts(const ModelOptions& options) {
  ExpertSet experts(static_cast<std::size_t>(options.experts));
  std::iota(experts.begin(), experts.end(), 0u);
  return experts;
}

Layout Layout::of(const ModelOptions& options) {
  check(options);
  Layout layout;
  layout.model_ = options;
  Builder build(options, layout.tensors_);
  add_trunk(options, build);
  layout.trunk_parameters_ = build.elements();
  for (std::int64_t expert = 0; expert < options.experts; ++expert) {
    add_expert(options, expert, build);
  }
  layout.parameters_ = build.elements();
  layout.expert_parameters_ =
      (layout.parameters_ - layout.trunk_parameters_) / static_cast<std::uint64_t>(options.experts);
  layout.digest_ = digest_of_names(layout.tensors_);
  return layout;
}

std::vector<const TensorSpec*> Layout::tensors_of(const ExpertSet& held) const {
  std::vector<const TensorSpec*> chosen;
  auto next = held.begin();
  for (const TensorSpec& tensor : tensors_) {
    if (tensor.expert >= 0) {
      const auto expert = static_cast<std::uint32_t>(tensor.expert);
      while (next != held.end() && *next < expert) ++next;
      if (next == held.end()) break;
      if (*next != expert) continue;
    }
    chosen.push_back(&tensor);
  }
  return chosen;
}

void initialise(const Layout& layout, std::uint64_t seed, std::span<float> parameters) {
  YUMOE_ASSERT(parameters.size() == layout.parameters());
  for (std::size_t i = 0; i < layout.tensors().size(); ++i) {
    const TensorSpec& tensor = layout.tensors()[i];
    const std::span<float> values = parameters.subspan(tensor.offset, tensor.elements);
    switch (tensor.initial) {
      case Initial::zeros:
      case Initial::ones:
        std::fill(values.begin(), values.end(), tensor.initial == Initial::ones ? 1.0f : 0.0f);
        break;
      case Initial::normal: {
        Random random(derive_seed("initial", {seed, i}));
        fill_normal(random, tensor.initial_deviation, values);
        break;
      }
    }
  }
}

Digest digest_of_parameters(const Layout& layout, std::span<const float> parameters) {
  YUMOE_ASSERT(parameters.size() == layout.parameters());
  return Digester().update(layout.digest().bytes).update(as_bytes(parameters)).finish();
}

}  // namespace yumoe

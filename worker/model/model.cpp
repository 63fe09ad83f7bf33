#include "model/model.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <iterator>

#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "model/tokens.hpp"

namespace yumoe {
namespace {

const TensorSpec& find(const Layout& layout, const std::string& name) {
  const auto tensors = layout.tensors();
  const auto at = std::find_if(tensors.begin(), tensors.end(),
                               [&](const TensorSpec& tensor) { return tensor.name == name; });
  YUMOE_ASSERT(at != tensors.end());
  return *at;
}

std::string of_layer(std::int64_t layer, const std::string& name) {
  return "layer." + std::to_string(layer) + "." + name;
}

void check_held(const ExpertSet& held, const ModelOptions& model) {
  if (held.empty())
    throw Error(ErrorCode::config_invalid, "a worker must hold at least one expert");
  for (std::size_t i = 0; i < held.size(); ++i) {
    if (held[i] >= model.experts || (i > 0 && held[i] <= held[i - 1])) {
      throw Error(ErrorCode::config_invalid,
                  "experts held must be ascending and below " + std::to_string(model.experts));
    }
  }
}

// The order of an island's exchanges and the products around them is kept on that stream.
void check_default_stream(c10::Device device) {
  const c10::impl::VirtualGuardImpl guard(device.type());
  YUMOE_ASSERT(guard.getStream(device) == guard.getDefaultStream(device));
}

bool every_rank_holds(const ExpertShare& share) {
  std::vector<bool> holds(static_cast<std::size_t>(share.group->size()));
  for (const std::int32_t owner : share.owner) {
    if (owner == ExpertShare::kEverywhere) return true;
    holds[static_cast<std::size_t>(owner)] = true;
  }
  return std::find(holds.begin(), holds.end(), false) == holds.end();
}

}  // namespace

double BatchResult::mean() const {
  double sum = 0;
  for (const float loss : losses) sum += loss;
  return sum / static_cast<double>(losses.size());
}

Model::Model(const Layout& layout, ExpertSet held, const RoutingOptions& routing,
             c10::Device device, bool trains, std::optional<ExpertShare> share,
             std::optional<RemoteShare> remote)
    : layout_(layout),
      held_(std::move(held)),
      share_(std::move(share)),
      remote_(std::move(remote)),
      device_(device),
      trains_(trains),
      plain_(!device.is_cpu()),
      rotary_(layout.model().context, layout.model().width / layout.model().heads,
              layout.model().rope_base) {
  check_held(held_, layout_.model());
  if (share_ && !device.is_cpu() && !share_->group->on_device()) {
    throw Error(ErrorCode::config_invalid,
                "an island on GPUs exchanges rows by NCCL: its group must be of GPUs too");
  }
  if (share_ && share_->group->on_device()) plain_ = true;
  if (!device.is_cpu()) check_default_stream(device);
  if (remote_ && (plain_ || share_)) {
    throw Error(ErrorCode::config_invalid,
                "experts elsewhere are called by one process on a CPU: not by an island, and "
                "--device must be cpu");
  }
  if (remote_) elsewhere_ = remote_->elsewhere;
  std::ranges::set_difference(held_, elsewhere_, std::back_inserter(trained_));
  YUMOE_ASSERT(trained_.size() + elsewhere_.size() == held_.size());
  placed_ = trained_;
  if (share_) {
    YUMOE_ASSERT(share_->owner.size() == held_.size());
    placed_.clear();
    for (std::size_t i = 0; i < held_.size(); ++i) {
      if (share_->is_here(i)) placed_.push_back(held_[i]);
    }
    if (!every_rank_holds(*share_)) {  // every rank sees the same and throws alike
      throw Error(ErrorCode::config_invalid,
                  "an island of " + std::to_string(share_->group->size()) + " ranks cannot share " +
                      std::to_string(held_.size()) + " experts: start fewer ranks");
    }
  }
  std::uint64_t own = layout_.trunk_parameters();
  places_.push_back({0, 0, own});
  for (const std::uint32_t expert : placed_) {
    places_.push_back({layout_.trunk_parameters() + expert * layout_.expert_parameters(), own,
                       layout_.expert_parameters()});
    own += layout_.expert_parameters();
  }
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device_);
  parameters_ = at::zeros({static_cast<std::int64_t>(own)}, options);
  if (trains_) gradients_ = at::zeros_like(parameters_);

  std::int64_t offset = 0;
  for (const TensorSpec* tensor : layout_.tensors_of(placed_)) {
    const auto count = static_cast<std::int64_t>(tensor->elements);
    const bool decays = tensor->shape.size() > 1;
    if (!ranges_.empty() && ranges_.back().decays == decays) {
      ranges_.back().count += count;
    } else {
      ranges_.push_back({offset, count, decays});
    }
    offset += count;
  }
  YUMOE_ASSERT(offset == parameters_.numel());
  build_blocks(routing);
}

Parameter Model::joined(const std::string& first, const std::string& last) const {
  const TensorSpec &from = find(layout_, first), &to = find(layout_, last);
  const auto place = std::find_if(places_.begin(), places_.end(), [&](const Place& p) {
    return from.offset >= p.whole && from.offset < p.whole + p.count;
  });
  YUMOE_ASSERT(place != places_.end());
  const auto begin = static_cast<std::int64_t>(from.offset - place->whole + place->own);
  const auto count = static_cast<std::int64_t>(to.offset + to.elements - from.offset);
  std::vector<std::int64_t> shape = from.shape;
  if (shape.size() == 2) shape[0] = count / shape[1];
  Parameter parameter;
  parameter.value = parameters_.narrow(0, begin, count).view(shape);
  if (trains_) parameter.gradient = gradients_.narrow(0, begin, count).view(shape);
  return parameter;
}

bool Model::is_trained(std::uint32_t expert) const {
  return std::binary_search(trained_.begin(), trained_.end(), expert);
}

Parameter Model::view(const std::string& name) const { return joined(name, name); }

void Model::build_blocks(const RoutingOptions& routing) {
  const ModelOptions& model = layout_.model();
  embedding_ = view("embedding");
  output_ = model.tied_embedding ? embedding_ : view("output");
  final_norm_ = view("final_norm");
  for (std::int64_t l = 0; l < model.layers; ++l) {
    Block block;
    block.attention_norm = view(of_layer(l, "attention_norm"));
    block.expert_norm = view(of_layer(l, "expert_norm"));
    block.attention = {model.context,
                       model.heads,
                       model.key_value_heads,
                       &rotary_,
                       joined(of_layer(l, "query"), of_layer(l, "value")),
                       view(of_layer(l, "attention_out"))};
    block.moe.routing = routing;
    block.moe.routing.experts_per_token = model.experts_per_token;
    block.moe.gate = view(of_layer(l, "gate"));
    block.moe.held = held_;
    if (share_) block.moe.share = &*share_;
    if (remote_) block.moe.remote = &*remote_;
    block.moe.index = static_cast<std::uint32_t>(l);
    for (const std::uint32_t expert : placed_) {
      const std::string name = of_layer(l, "expert." + std::to_string(expert));
      block.moe.experts.push_back({view(name + ".gate_up"), view(name + ".down")});
    }
    if (model.shared_expert_width > 0) {
      block.moe.shared = {view(of_layer(l, "shared.gate_up")), view(of_layer(l, "shared.down"))};
    }
    blocks_.push_back(std::move(block));
  }
}

namespace {

at::Tensor over(std::span<float> values) {
  return at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, at::kFloat);
}

at::Tensor over(std::span<const float> values) {  // read only
  return at::from_blob(const_cast<float*>(values.data()),
                       {static_cast<std::int64_t>(values.size())}, at::kFloat);
}

}  // namespace

void Model::load(std::span<const float> whole) {
  YUMOE_ASSERT(whole.size() == layout_.parameters());
  for (const Place& place : places_) {
    parameters_
        .narrow(0, static_cast<std::int64_t>(place.own), static_cast<std::int64_t>(place.count))
        .copy_(over(whole.subspan(place.whole, place.count)));
  }
}

void Model::store(std::span<float> whole) const {
  YUMOE_ASSERT(whole.size() == layout_.parameters());
  for (const Place& place : places_) {
    over(whole.subspan(place.whole, place.count))
        .copy_(parameters_.narrow(0, static_cast<std::int64_t>(place.own),
                                  static_cast<std::int64_t>(place.count)));
  }
}

void Model::store_difference(std::span<const float> base, std::span<float> whole) const {
  YUMOE_ASSERT(base.size() == layout_.parameters());
  store(whole);
  for (const Place& place : places_) {
    for (std::uint64_t i = place.whole; i < place.whole + place.count; ++i)
      whole[i] = base[i] - whole[i];
  }
}

std::span<float> Model::parameters_of(std::uint32_t expert) {
  const std::uint64_t whole = layout_.trunk_parameters() + expert * layout_.expert_parameters();
  for (const Place& place : places_) {
    if (place.whole == whole && place.own > 0) {
      return {parameters_.mutable_data_ptr<float>() + place.own, place.count};
    }
  }
  YUMOE_ASSERT(false);
  return {};
}

void Model::copy_expert(std::uint32_t expert, std::span<float> out) {
  const std::int64_t begin = parameters_of(expert).data() - parameters_.const_data_ptr<float>();
  over(out).copy_(parameters_.narrow(0, begin, static_cast<std::int64_t>(out.size())));
}

std::size_t Model::place_in_held(std::uint32_t expert) const {
  return static_cast<std::size_t>(std::lower_bound(held_.begin(), held_.end(), expert) -
                                  held_.begin());
}

BatchResult Model::train(std::span<const std::uint16_t> rows, std::span<const float> bias) {
  YUMOE_ASSERT(trains_);
  return run(Tokens(rows, layout_.model()), bias, true);
}

BatchResult Model::evaluate(std::span<const std::uint16_t> rows, std::span<const float> bias) {
  const at::NoGradGuard no_gradients;
  return run(Tokens(rows, layout_.model()), bias, false);
}

BatchResult Model::run(const Tokens& tokens, std::span<const float> bias, bool trains) {
  const ModelOptions& model = layout_.model();
  YUMOE_ASSERT(bias.empty() ||
               bias.size() == static_cast<std::size_t>(model.layers * model.experts));
  if (trains) squares_.reset();
  if (remote_) return run_remote(tokens, bias, trains);
  if (!share_) return plain_ ? run_plain(tokens, bias, trains) : run_fused(tokens, bias, trains);
  share_->tokens = static_cast<std::int64_t>(tokens.targets.size());
  BatchResult result =
      plain_ ? run_plain(part_of(tokens), bias, trains) : run_fused(part_of(tokens), bias, trains);
  if (trains && !plain_) sum_gradients();
  share_losses(result, tokens.targets.size());
  return result;
}

// Each time at least one more expert is left out, so this ends.
BatchResult Model::run_remote(const Tokens& tokens, std::span<const float> bias, bool trains) {
  remote_->lost.clear();
  while (true) {
    const std::size_t lost = remote_->lost.size();
    BatchResult result = run_fused(tokens, bias, trains);
    if (remote_->lost.size() == lost) return result;
    log_warning(
        "experts elsewhere answered forward and not backward: the step is done again "
        "without " +
        std::to_string(remote_->lost.size()) + " of them");
  }
}

BatchResult Model::run_fused(const Tokens& tokens, std::span<const float> bias, bool trains) {
  const auto experts = static_cast<std::size_t>(layout_.model().experts);
  BatchResult result;
  const at::Tensor start = embed(embedding_.value, tokens.inputs);
  start.set_requires_grad(trains);
  at::Tensor x = start;
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    x = apply_attention(block.attention, x, apply_norm(block.attention_norm, x));
    MoeReport report;
    x = apply_moe(block.moe, x, apply_norm(block.expert_norm, x),
                  bias.empty() ? bias : bias.subspan(l * experts, experts), report);
    result.auxiliary += report.auxiliary;
    result.counts.insert(result.counts.end(), report.counts.begin(), report.counts.end());
  }
  x = apply_norm(final_norm_, x);
  result.losses.resize(tokens.targets.size());
  const at::Tensor end = x.detach();
  const at::Tensor d_end = trains ? at::empty_like(end) : at::Tensor();
  const std::int64_t batch_tokens =
      share_ ? share_->tokens : static_cast<std::int64_t>(tokens.targets.size());
  output_loss(output_, end, tokens.targets, batch_tokens, result.losses, d_end);
  if (trains) {
    torch::autograd::backward({x}, {d_end});
    if (!layout_.model().tied_embedding) embedding_.gradient.zero_();
    add_embedding_gradient(embedding_.gradient, tokens.inputs, start.grad().contiguous());
  }
  return result;
}

}  // namespace yumoe

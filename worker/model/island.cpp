// What a model does with the other ranks of its island, besides the experts' exchange: shares a batch's
// sequences out, sums gradients, and tells everyone the losses.

#include <algorithm>

#include "cluster/error.hpp"
#include "model/kernels.hpp"
#include "model/model.hpp"
#include "model/tokens.hpp"

namespace yumoe {
namespace {

// Sequences [first, last) of `all` that a rank takes.
std::pair<std::size_t, std::size_t> sequences_of(std::size_t all, int rank, int ranks) {
  const auto r = static_cast<std::size_t>(rank), n = static_cast<std::size_t>(ranks);
  return {all * r / n, all * (r + 1) / n};
}

constexpr std::int64_t kPiece = 1 << 16;

double squares_of(const float* data, std::int64_t count) {
  double sum = 0;
  for (std::int64_t at = 0; at < count; at += kPiece) {
    sum += kernels::sum_of_squares(data + at, std::min(kPiece, count - at));
  }
  return sum;
}

}  // namespace

Model::Tokens Model::part_of(const Tokens& batch) const {
  const auto context = static_cast<std::size_t>(layout_.model().context);
  const std::size_t sequences = batch.targets.size() / context;
  const auto ranks = static_cast<std::size_t>(share_->group->size());
  if (sequences < ranks) {
    throw Error(ErrorCode::config_invalid,
                "a batch of " + std::to_string(sequences) + " sequences cannot be shared by " +
                    std::to_string(ranks) +
                    " ranks: start fewer, or raise training.batch_sequences");
  }
  const auto [first, last] = sequences_of(sequences, share_->group->rank(), share_->group->size());
  const auto cut = [&](const std::vector<std::int32_t>& from) {
    return std::vector<std::int32_t>(from.begin() + static_cast<std::ptrdiff_t>(first * context),
                                     from.begin() + static_cast<std::ptrdiff_t>(last * context));
  };
  return Tokens(cut(batch.inputs), cut(batch.targets));
}

void Model::sum_gradients() {
  float* all = gradients_.mutable_data_ptr<float>();
  share_->group->all_reduce_sum({all, layout_.trunk_parameters()});
  for (std::size_t i = 0; i < held_.size(); ++i) {
    if (share_->owner[i] != ExpertShare::kEverywhere) continue;
    const std::span<float> expert = parameters_of(held_[i]);
    share_->group->all_reduce_sum(
        {all + (expert.data() - parameters_.const_data_ptr<float>()), expert.size()});
  }
}

void Model::share_losses(BatchResult& result, std::size_t batch_tokens) const {
  Collective& group = share_->group->host();
  const auto context = static_cast<std::size_t>(layout_.model().context);
  std::vector<std::size_t> send, receive;
  std::vector<float> mine;
  for (int r = 0; r < group.size(); ++r) {
    const auto [first, last] = sequences_of(batch_tokens / context, r, group.size());
    send.push_back(result.losses.size() * sizeof(float));
    receive.push_back((last - first) * context * sizeof(float));
    mine.insert(mine.end(), result.losses.begin(), result.losses.end());
  }
  std::vector<float> all(batch_tokens);
  group.all_to_all_v(as_bytes(std::span(mine)), send, as_writable(std::span(all)), receive);
  result.losses = std::move(all);
  std::vector<double> parts(static_cast<std::size_t>(group.size()));
  group.all_gather(as_bytes(std::span<const double>(&result.auxiliary, 1)),
                   as_writable(std::span(parts)));
  result.auxiliary = 0;
  for (const double part : parts) result.auxiliary += part;
}

double Model::gradient_squares() const {
  YUMOE_ASSERT(share_.has_value() || squares_.has_value());
  // The trunk, and experts that are everywhere, are the same on every rank: they count once.
  double common = 0, own = 0;
  if (squares_) {
    common = (*squares_)[0];
    own = (*squares_)[1];
  } else {
    const float* all = gradients_.const_data_ptr<float>();
    common = squares_of(all, static_cast<std::int64_t>(layout_.trunk_parameters()));
    auto& self = const_cast<Model&>(*this);
    for (std::size_t i = 0; i < held_.size(); ++i) {
      if (!share_->is_here(i)) continue;
      const std::span<float> expert = self.parameters_of(held_[i]);
      const double squares = squares_of(all + (expert.data() - parameters_.const_data_ptr<float>()),
                                        static_cast<std::int64_t>(expert.size()));
      (share_->owner[i] == ExpertShare::kEverywhere ? common : own) += squares;
    }
  }
  if (!share_) return common + own;
  Collective& group = share_->group->host();
  std::vector<double> parts(static_cast<std::size_t>(group.size()));
  group.all_gather(as_bytes(std::span<const double>(&own, 1)), as_writable(std::span(parts)));
  for (const double part : parts) common += part;
  return common;
}

}  // namespace yumoe

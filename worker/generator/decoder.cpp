#include <ATen/Parallel.h>

#include <algorithm>

#include "cluster/error.hpp"
#include "model/device.hpp"
#include "model/model.hpp"
#include "worker/generator.hpp"
#include "worker/memory.hpp"

namespace yumoe {

struct Decoder::State {
  Layout layout;
  std::vector<float> bias;
  Model model;
  KeyValueCache cache;
  std::vector<std::vector<std::int32_t>> tokens;  // [sequences]: those in the cache
  at::Tensor logits;
  std::uint64_t slides = 0;

  State(const ModelOptions& options, std::span<const float> gate_bias, std::size_t sequences,
        RemoteExperts* remote, const ExpertSet& elsewhere)
      : layout(Layout::of(options)),
        bias(gate_bias.begin(), gate_bias.end()),
        model(layout, all_experts(options), {}, open_device("cpu"), false, std::nullopt,
              elsewhere.empty() ? std::nullopt : std::optional(RemoteShare{remote, elsewhere})),
        cache(sequences, options.layers, options.key_value_heads, options.context,
              options.width / options.heads),
        tokens(sequences) {}

  NewTokens place(const Piece& piece);
};

// The tokens to compute: the new ones, or after a slide the newest half of those before as well.
NewTokens Decoder::State::place(const Piece& piece) {
  const auto context = static_cast<std::size_t>(layout.model().context);
  if (piece.tokens.empty() || piece.tokens.size() > context) {
    throw Error(ErrorCode::data_invalid, std::to_string(piece.tokens.size()) +
                                             " tokens at once for a context of " +
                                             std::to_string(context));
  }
  NewTokens fresh{.sequence = piece.sequence, .tokens = {}};
  for (const std::uint16_t token : piece.tokens) {
    if (token >= layout.model().vocabulary) {
      throw Error(ErrorCode::data_invalid, "token " + std::to_string(token) +
                                               " is beyond the model's vocabulary of " +
                                               std::to_string(layout.model().vocabulary));
    }
    fresh.tokens.push_back(token);
  }
  std::vector<std::int32_t>& before = tokens[piece.sequence];
  if (before.size() + fresh.tokens.size() > context) {
    const std::size_t kept = std::min({before.size(), context / 2, context - fresh.tokens.size()});
    fresh.tokens.insert(fresh.tokens.begin(), before.end() - static_cast<std::ptrdiff_t>(kept),
                        before.end());
    before.clear();
    cache.clear(piece.sequence);
    ++slides;
  }
  before.insert(before.end(), fresh.tokens.begin(), fresh.tokens.end());
  return fresh;
}

Decoder::Decoder(const ModelOptions& model, std::span<const float> parameters,
                 std::span<const float> gate_bias, std::size_t sequences,
                 const DeviceOptions& device, RemoteExperts* remote, const ExpertSet& elsewhere)
    : state_(std::make_unique<State>(model, gate_bias, sequences, remote, elsewhere)) {
  keep_freed_memory();
  at::set_num_threads(static_cast<int>(device.threads));
  state_->model.load(parameters);
}
Decoder::~Decoder() = default;

std::span<const float> Decoder::append(std::span<const Piece> pieces) {
  for (const Piece& piece : pieces) {
    YUMOE_ASSERT(std::ranges::count(pieces, piece.sequence, &Piece::sequence) == 1);
  }
  std::vector<NewTokens> fresh;
  for (const Piece& piece : pieces) fresh.push_back(state_->place(piece));
  state_->logits = state_->model.extend(fresh, state_->bias, state_->cache);
  return {state_->logits.const_data_ptr<float>(), static_cast<std::size_t>(state_->logits.numel())};
}

void Decoder::clear(std::size_t sequence) {
  state_->tokens[sequence].clear();
  state_->cache.clear(sequence);
}

std::uint64_t Decoder::slides() const { return state_->slides; }

}  // namespace yumoe

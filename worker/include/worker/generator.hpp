#pragma once
// Text that a model writes: a decoder with a cache of keys and values, the choice of the next token, and
// the way of tokens to a stream of text.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/random.hpp"
#include "router/layout.hpp"
#include "router/tokenizer.hpp"
#include "worker/device_options.hpp"
#include "worker/remote_experts.hpp"

namespace yumoe {

// Continues several sequences at a time, on a CPU. Each token is computed once, with the keys and values of
// those before it; rows of all sequences go to an expert together, also to one elsewhere.
//
// A sequence that reaches the model's context slides: its newest half is read again from position 0, and
// goes on from there. Positions are rotary, so only the forgotten half is missed.
class Decoder {
 public:
  // `parameters` [layout.parameters()] and `gate_bias` as Trainer::load_base takes them, copied. Experts of
  // `elsewhere` are called by `remote`, which must outlive this; all others are here.
  Decoder(const ModelOptions& model, std::span<const float> parameters,
          std::span<const float> gate_bias, std::size_t sequences, const DeviceOptions& device,
          RemoteExperts* remote = nullptr, const ExpertSet& elsewhere = {});
  ~Decoder();

  struct Piece {
    std::size_t sequence = 0;
    std::span<const std::uint16_t> tokens;  // 1 to context, each below the vocabulary
  };
  // Appends each piece to its sequence and returns logits [pieces, vocabulary] of what follows, valid until
  // the next call. A sequence at most once a call. Throws what RemoteExperts throws, and
  // Error{data_invalid} for tokens that are none; the sequences of the call are then to be cleared
  // before they are used again.
  std::span<const float> append(std::span<const Piece> pieces);

  void clear(std::size_t sequence);  // forgets its tokens
  std::uint64_t slides() const;      // how often a sequence was read again

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct SamplingOptions {
  double temperature = 0.8;  // 0: always the likeliest, of equals the lowest
  std::int64_t top_k = 0;    // of the k likeliest; 0: of all
  double top_p = 1;          // of the fewest likeliest that have this probability together
  std::uint64_t seed = 0;
};

// Draws a token. Throws Error{not_finite} if no logit is a number above -infinity or one is NaN or +infinity.
std::uint16_t choose_token(std::span<const float> logits, const SamplingOptions& options,
                           Random& random);

// Tokens in, text out, as early as it is certain: a character whose bytes come in several tokens is given
// whole, and what may be the beginning of the stop text waits.
class TextStream {
 public:
  // `tokenizer` must outlive it. `stop` is UTF-8; "": none.
  TextStream(const Tokenizer& tokenizer, std::string stop);

  // What can be shown now: valid UTF-8.
  std::string push(std::uint16_t token);
  std::string finish();  // the rest
  bool is_stopped() const {
    return stopped_;
  }  // the stop text came: it and what follows is not given

 private:
  std::string release(std::string text);

  const Tokenizer& tokenizer_;
  const std::string stop_;
  std::vector<std::uint16_t> anchor_;  // text before, so that a word's leading space is kept
  std::size_t anchor_bytes_ = 0;
  std::vector<std::uint16_t> pending_;  // not a whole character yet
  std::string held_;                    // may begin the stop text
  bool stopped_ = false;
};

// Whether bytes are well-formed UTF-8 (RFC 3629).
bool is_utf8(std::string_view bytes);

}  // namespace yumoe

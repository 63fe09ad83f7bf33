#include "model/expert_parallel.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "cluster/error.hpp"
#include "model/moe_layer.hpp"
#include "model/product.hpp"
#include "model/rows.hpp"

namespace yumoe {
namespace {

using rows::buffer;

// Rows an expert should have in a piece: with fewer, its products are slower than what overlap saves.
constexpr std::int64_t kRowsOfPiece = 384;
constexpr std::int64_t kPiecesMax = 4;

std::int64_t pieces_of(const ExpertShare& share, std::int64_t experts_per_token) {
  const auto held = static_cast<std::int64_t>(share.owner.size());
  if (share.group->size() == 1) return 1;
  return std::clamp<std::int64_t>(share.tokens * experts_per_token / held / kRowsOfPiece, 1,
                                  kPiecesMax);
}

std::vector<std::size_t> scaled(std::span<const std::size_t> row_counts, std::size_t bytes) {
  std::vector<std::size_t> result(row_counts.begin(), row_counts.end());
  for (std::size_t& count : result) count *= bytes;
  return result;
}

// Starts the exchange of rows of `columns` numbers each.
std::unique_ptr<Exchange> start(Collective& group, std::span<const float> from,
                                std::span<const std::size_t> send, std::span<float> to,
                                std::span<const std::size_t> receive, std::int64_t columns) {
  const auto bytes = static_cast<std::size_t>(columns) * sizeof(float);
  return group.start_all_to_all_v(as_bytes(from), scaled(send, bytes), as_writable(to),
                                  scaled(receive, bytes));
}

std::span<float> numbers_of(const at::Tensor& tensor) {
  return {tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())};
}

enum class Toward { by_expert, received };

void regroup(const float* from, float* to, std::span<const IslandPass::Segment> segments,
             std::int64_t columns, Toward toward) {
  for (const IslandPass::Segment& segment : segments) {
    const bool forth = toward == Toward::by_expert;
    std::memcpy(to + (forth ? segment.by_expert : segment.received) * columns,
                from + (forth ? segment.received : segment.by_expert) * columns,
                static_cast<std::size_t>(segment.count * columns) * sizeof(float));
  }
}

// How many of this rank's rows each expert has in each piece: [pieces, held]; and which they are.
std::vector<std::int32_t> choose_rows(const Routing& routing, std::int64_t tokens,
                                      IslandPass& pass) {
  const std::size_t held = routing.begin.size() - 1, pieces = pass.pieces.size();
  std::vector<std::int32_t> counts(pieces * held);
  for (std::size_t p = 0; p < pieces; ++p) {
    const auto first = static_cast<std::int32_t>(tokens * static_cast<std::int64_t>(p) /
                                                 static_cast<std::int64_t>(pieces));
    const auto last = static_cast<std::int32_t>(tokens * static_cast<std::int64_t>(p + 1) /
                                                static_cast<std::int64_t>(pieces));
    IslandPass::Piece& piece = pass.pieces[p];
    piece.sent.resize(held);
    for (const std::size_t e : pass.order) {
      const auto token = routing.token.begin();
      const auto begin =
          std::lower_bound(token + routing.begin[e], token + routing.begin[e + 1], first);
      const auto end = std::lower_bound(begin, token + routing.begin[e + 1], last);
      for (auto at = begin; at != end; ++at) {
        piece.rows.push_back(static_cast<std::int32_t>(at - token));
      }
      piece.sent[e] = end - begin;
      counts[p * held + e] = static_cast<std::int32_t>(end - begin);
    }
  }
  return counts;
}

// What comes from where, and where it lies by expert. `all` [ranks, pieces, held].
void plan_piece(const ExpertShare& share, std::span<const std::int32_t> all, std::size_t p,
                const IslandPass& pass, IslandPass::Piece& piece) {
  const auto ranks = static_cast<std::size_t>(share.group->size());
  const auto self = static_cast<std::size_t>(share.group->rank());
  const std::size_t held = share.owner.size(), pieces = pass.pieces.size();
  const auto count = [&](std::size_t from, std::size_t e) {
    const bool own_only = share.owner[e] == ExpertShare::kEverywhere;
    return own_only && from != self
               ? std::int64_t{0}
               : static_cast<std::int64_t>(all[(from * pieces + p) * held + e]);
  };
  piece.send.assign(ranks, 0);
  piece.receive.assign(ranks, 0);
  std::vector<std::size_t> here;
  for (const std::size_t e : pass.order) {
    const std::size_t to = share.owner[e] == ExpertShare::kEverywhere
                               ? self
                               : static_cast<std::size_t>(share.owner[e]);
    piece.send[to] += static_cast<std::size_t>(piece.sent[e]);
    if (share.is_here(e)) here.push_back(e);
  }
  std::sort(here.begin(), here.end());
  piece.begin.assign(1, 0);
  for (const std::size_t e : here) {
    std::int64_t sum = 0;
    for (std::size_t from = 0; from < ranks; ++from) sum += count(from, e);
    piece.begin.push_back(piece.begin.back() + sum);
  }
  // A sender sends a rank's experts in ascending order, as `order` has them.
  std::vector<std::int64_t> next(piece.begin.begin(), piece.begin.end() - 1);
  std::int64_t received = 0;
  for (std::size_t from = 0; from < ranks; ++from) {
    for (std::size_t i = 0; i < here.size(); ++i) {
      const std::int64_t n = count(from, here[i]);
      if (n == 0) continue;
      piece.segments.push_back({received, next[i], n});
      piece.receive[from] += static_cast<std::size_t>(n);
      received += n;
      next[i] += n;
    }
  }
}

void plan(const ExpertShare& share, const Routing& routing, std::int64_t tokens, IslandPass& pass) {
  const std::size_t held = share.owner.size();
  const auto ranks = static_cast<std::size_t>(share.group->size());
  const std::int32_t self = share.group->rank();
  pass.order.resize(held);
  std::iota(pass.order.begin(), pass.order.end(), std::size_t{0});
  const auto to = [&](std::size_t e) {
    return share.owner[e] == ExpertShare::kEverywhere ? self : share.owner[e];
  };
  std::stable_sort(pass.order.begin(), pass.order.end(),
                   [&](std::size_t a, std::size_t b) { return to(a) < to(b); });
  pass.pieces.resize(static_cast<std::size_t>(pieces_of(share, routing.experts_per_token)));
  const std::vector<std::int32_t> mine = choose_rows(routing, tokens, pass);
  std::vector<std::int32_t> all(mine.size() * ranks);
  share.group->all_gather(as_bytes(std::span(mine)), as_writable(std::span(all)));
  pass.counts.assign(held, 0);
  for (std::size_t i = 0; i < all.size(); ++i) pass.counts[i % held] += all[i];
  for (std::size_t p = 0; p < pass.pieces.size(); ++p) {
    plan_piece(share, all, p, pass, pass.pieces[p]);
  }
}

std::vector<std::int32_t> tokens_of(const Routing& routing, const IslandPass::Piece& piece) {
  std::vector<std::int32_t> tokens;
  tokens.reserve(piece.rows.size());
  for (const std::int32_t row : piece.rows)
    tokens.push_back(routing.token[static_cast<std::size_t>(row)]);
  return tokens;
}

// to[token] += factor * returned rows, expert by expert: a token comes once in each.
void add_returned(const IslandPass& pass, const IslandPass::Piece& piece,
                  const at::Tensor& returned, std::span<const std::int32_t> tokens,
                  const float* factor, const at::Tensor& to) {
  std::int64_t at = 0;
  for (const std::size_t e : pass.order) {
    const std::int64_t n = piece.sent[e];
    if (n == 0) continue;
    rows::scatter_add(returned.narrow(0, at, n), tokens.data() + at, factor ? factor + at : nullptr,
                      to);
    at += n;
  }
}

std::int64_t most_rows(const IslandPass& pass) {
  std::int64_t most = 0;
  for (const IslandPass::Piece& piece : pass.pieces) {
    for (std::size_t i = 0; i + 1 < piece.begin.size(); ++i) {
      most = std::max(most, piece.begin[i + 1] - piece.begin[i]);
    }
  }
  return most;
}

}  // namespace

std::vector<std::int32_t> share_experts(std::span<const std::int64_t> counts, std::size_t held,
                                        int ranks, std::size_t everywhere_max) {
  YUMOE_ASSERT(counts.empty() || counts.size() == held);
  std::vector<std::int64_t> load(held, 1);
  if (std::any_of(counts.begin(), counts.end(), [](std::int64_t c) { return c > 0; })) {
    // An expert that saw nothing still takes memory.
    for (std::size_t e = 0; e < held; ++e) load[e] = std::max<std::int64_t>(counts[e], 1);
  }
  std::vector<std::size_t> order(held);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return load[a] > load[b]; });
  const auto most = (held + static_cast<std::size_t>(ranks) - 1) / static_cast<std::size_t>(ranks);
  const auto share_rest = [&](std::size_t everywhere, std::vector<std::int32_t>& owner) {
    owner.assign(held, ExpertShare::kEverywhere);
    std::vector<std::int64_t> busy(static_cast<std::size_t>(ranks));
    std::vector<std::size_t> held_by(busy.size());
    for (std::size_t i = everywhere; i < held; ++i) {
      std::size_t best = busy.size();
      for (std::size_t r = 0; r < busy.size(); ++r) {
        if (held_by[r] >= most) continue;  // memory is shared evenly too
        if (best == busy.size() || busy[r] < busy[best]) best = r;
      }
      owner[order[i]] = static_cast<std::int32_t>(best);
      busy[best] += load[order[i]];
      ++held_by[best];
    }
    // What is everywhere is shared as the tokens are: evenly.
    std::int64_t shared = 0;
    for (std::size_t i = 0; i < everywhere; ++i) shared += load[order[i]];
    return static_cast<double>(*std::max_element(busy.begin(), busy.end())) +
           static_cast<double>(shared) / ranks;
  };
  std::vector<std::int32_t> owner, candidate;
  double busiest = share_rest(0, owner);
  for (std::size_t n = 1; ranks > 1 && n <= std::min(everywhere_max, held); ++n) {
    const double with = share_rest(n, candidate);
    if (with >= 0.98 * busiest) break;  // its gradient has to be summed: it must be worth that
    busiest = with;
    owner = candidate;
  }
  return owner;
}

struct IslandForward::Flight {
  std::vector<std::int32_t> tokens;
  at::Tensor sent, received;               // rows of x on their way to experts
  at::Tensor results, returned;            // and back
  std::vector<float> weights, weights_in;  // of the rows, for backward
  std::unique_ptr<Exchange> there, weights_there, back;
};

IslandForward::~IslandForward() = default;

IslandForward::IslandForward(const MoeLayer& layer, const Routing& routing, const at::Tensor& x,
                             bool keep, IslandPass& pass)
    : layer_(layer), routing_(routing), keep_(keep), pass_(pass) {
  const ExpertShare& share = *layer.share;
  plan(share, routing, x.size(0), pass);
  const std::int64_t width = x.size(1);
  flights_.resize(pass.pieces.size());
  for (std::size_t p = 0; p < pass.pieces.size(); ++p) {
    const IslandPass::Piece& piece = pass.pieces[p];
    Flight& flight = flights_[p];
    flight.tokens = tokens_of(routing, piece);
    flight.sent = buffer(static_cast<std::int64_t>(piece.rows.size()), width);
    rows::gather(x, flight.tokens.data(), flight.sent);
    flight.received = buffer(piece.begin.back(), width);
    flight.there = start(*share.group, numbers_of(flight.sent), piece.send,
                         numbers_of(flight.received), piece.receive, width);
    for (const std::int32_t row : piece.rows) {
      flight.weights.push_back(routing.weight[static_cast<std::size_t>(row)]);
    }
    if (!keep) continue;
    flight.weights_in.resize(static_cast<std::size_t>(piece.begin.back()));
    flight.weights_there =
        start(*share.group, flight.weights, piece.send, flight.weights_in, piece.receive, 1);
  }
}

void IslandForward::compute(std::size_t p) {
  IslandPass::Piece& piece = pass_.pieces[p];
  Flight& flight = flights_[p];
  Collective& group = *layer_.share->group;
  const std::int64_t width = flight.received.size(1), all = piece.begin.back();
  const std::int64_t inner = layer_.experts.at(0).second.value.size(1);
  const std::int64_t columns = kernels::hidden_columns(layer_.activation, inner);
  flight.there->wait();
  const at::Tensor input = buffer(all, width), hidden = buffer(all, columns);
  const at::Tensor active = buffer(most_rows(pass_), inner);
  regroup(flight.received.const_data_ptr<float>(), input.mutable_data_ptr<float>(), piece.segments,
          width, Toward::by_expert);
  const at::Tensor results = keep_ ? buffer(all, width) : input;  // then the input is not needed
  for (std::size_t i = 0; i < layer_.experts.size(); ++i) {
    const std::int64_t begin = piece.begin[i], n = piece.begin[i + 1] - begin;
    if (n == 0) continue;
    const at::Tensor h = hidden.narrow(0, begin, n), a = active.narrow(0, 0, n);
    product(h, input.narrow(0, begin, n), layer_.experts[i].first.value.t());
    rows::activate(layer_.activation, h, a);
    product(results.narrow(0, begin, n), a, layer_.experts[i].second.value.t());
    group.progress();
  }
  flight.results = flight.received;  // as they came
  regroup(results.const_data_ptr<float>(), flight.results.mutable_data_ptr<float>(), piece.segments,
          width, Toward::received);
  if (!keep_) return;
  flight.weights_there->wait();
  piece.weight.resize(static_cast<std::size_t>(all));
  regroup(flight.weights_in.data(), piece.weight.data(), piece.segments, 1, Toward::by_expert);
  piece.input = input;
  piece.hidden = hidden;
}

void IslandForward::finish(const at::Tensor& out) {
  Collective& group = *layer_.share->group;
  for (std::size_t p = 0; p < flights_.size(); ++p) {
    Flight& flight = flights_[p];
    const IslandPass::Piece& piece = pass_.pieces[p];
    compute(p);
    flight.returned = flight.sent;  // what was sent is not needed any more
    flight.back = start(group, numbers_of(flight.results), piece.receive,
                        numbers_of(flight.returned), piece.send, out.size(1));
  }
  for (std::size_t p = 0; p < flights_.size(); ++p) {
    Flight& flight = flights_[p];
    flight.back->wait();
    add_returned(pass_, pass_.pieces[p], flight.returned, flight.tokens, flight.weights.data(),
                 out);
  }
}

namespace {

struct BackFlight {
  std::vector<std::int32_t> tokens;
  at::Tensor sent, received;
  std::vector<float> d_weight, d_weight_back;  // as received; as sent
  std::unique_ptr<Exchange> there, back, d_weight_there;
};

// Experts' backward on one piece: replaces the received rows of d(out) by those of d(x).
void backward_piece(const MoeLayer& layer, const IslandPass::Piece& piece, const at::Tensor& active,
                    const at::Tensor& d_hidden, std::vector<bool>& written, BackFlight& flight) {
  const std::int64_t width = flight.received.size(1), all = piece.begin.back();
  const at::Tensor wide = buffer(all, width);
  std::vector<float> d_weight(static_cast<std::size_t>(all));
  regroup(flight.received.const_data_ptr<float>(), wide.mutable_data_ptr<float>(), piece.segments,
          width, Toward::by_expert);
  for (std::size_t i = 0; i < layer.experts.size(); ++i) {
    const FeedForward& expert = layer.experts[i];
    const std::int64_t begin = piece.begin[i], n = piece.begin[i + 1] - begin;
    if (n == 0) continue;
    const at::Tensor d = wide.narrow(0, begin, n), a = active.narrow(0, 0, n),
                     dh = d_hidden.narrow(0, 0, n);
    product(a, d, expert.second.value);
    rows::activate_backward(layer.activation, piece.hidden.narrow(0, begin, n),
                            piece.weight.data() + begin, a, dh, d_weight.data() + begin);
    const auto into = written[i] ? [](const at::Tensor& out, const at::Tensor& l,
                                      const at::Tensor& r) { add_product(out, l, r); }
                                 : [](const at::Tensor& out, const at::Tensor& l,
                                      const at::Tensor& r) { product(out, l, r); };
    into(expert.second.gradient, d.t(), a);
    into(expert.first.gradient, dh.t(), piece.input.narrow(0, begin, n));
    written[i] = true;
    product(d, dh, expert.first.value);
    layer.share->group->progress();
  }
  regroup(wide.const_data_ptr<float>(), flight.received.mutable_data_ptr<float>(), piece.segments,
          width, Toward::received);
  flight.d_weight.resize(d_weight.size());
  regroup(d_weight.data(), flight.d_weight.data(), piece.segments, 1, Toward::received);
}

}  // namespace

void island_backward(const MoeLayer& layer, const Routing& routing, const IslandPass& pass,
                     const at::Tensor& d_out, const at::Tensor& dx, std::span<float> d_weight) {
  Collective& group = *layer.share->group;
  const std::int64_t width = d_out.size(1), most = most_rows(pass);
  std::vector<BackFlight> flights(pass.pieces.size());
  for (std::size_t p = 0; p < flights.size(); ++p) {
    const IslandPass::Piece& piece = pass.pieces[p];
    BackFlight& flight = flights[p];
    flight.tokens = tokens_of(routing, piece);
    flight.sent = buffer(static_cast<std::int64_t>(piece.rows.size()), width);
    rows::gather(d_out, flight.tokens.data(), flight.sent);
    flight.received = buffer(piece.begin.back(), width);
    flight.there = start(group, numbers_of(flight.sent), piece.send, numbers_of(flight.received),
                         piece.receive, width);
  }
  const std::int64_t inner = layer.experts.at(0).second.value.size(1);
  const at::Tensor active = buffer(most, inner),
                   d_hidden = buffer(most, kernels::hidden_columns(layer.activation, inner));
  std::vector<bool> written(layer.experts.size());
  for (std::size_t p = 0; p < flights.size(); ++p) {
    const IslandPass::Piece& piece = pass.pieces[p];
    BackFlight& flight = flights[p];
    flight.there->wait();
    backward_piece(layer, piece, active, d_hidden, written, flight);
    flight.back = start(group, numbers_of(flight.received), piece.receive, numbers_of(flight.sent),
                        piece.send, width);
    flight.d_weight_back.resize(piece.rows.size());
    flight.d_weight_there =
        start(group, flight.d_weight, piece.receive, flight.d_weight_back, piece.send, 1);
  }
  for (std::size_t i = 0; i < layer.experts.size(); ++i) {
    if (written[i]) continue;
    layer.experts[i].first.gradient.zero_();
    layer.experts[i].second.gradient.zero_();
  }
  for (std::size_t p = 0; p < flights.size(); ++p) {
    BackFlight& flight = flights[p];
    flight.back->wait();
    add_returned(pass, pass.pieces[p], flight.sent, flight.tokens, nullptr, dx);
    flight.d_weight_there->wait();
    for (std::size_t i = 0; i < flight.d_weight_back.size(); ++i) {
      d_weight[static_cast<std::size_t>(pass.pieces[p].rows[i])] = flight.d_weight_back[i];
    }
  }
}

}  // namespace yumoe

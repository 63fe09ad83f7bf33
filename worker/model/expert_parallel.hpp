#pragma once
// The experts of one layer, spread over an island's ranks: tokens go to the rank that holds their
// expert and come back, by all-to-all. No token is dropped; the result is one process's within
// rounding, and the same bits on every run with as many ranks.
//
// A batch is cut into pieces whose exchanges are all under way while experts compute on those that
// have arrived.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cluster/collective.hpp"
#include "model/routing.hpp"

namespace yumoe {

struct MoeLayer;

// Where the experts that a layer's gate chooses among are. An expert everywhere is held by every rank,
// which computes its own tokens; its gradient is summed like the trunk's.
struct ExpertShare {
  static constexpr std::int32_t kEverywhere = -1;
  Collective* group = nullptr;
  std::vector<std::int32_t> owner;  // [held]: rank or kEverywhere
  std::int64_t tokens = 0;          // of the batch, over all ranks

  bool is_here(std::size_t position) const {
    return owner[position] == kEverywhere || owner[position] == group->rank();
  }
};

// Shares experts out by how many tokens each saw before (`counts` [held], empty or all zero: alike):
// the busiest first, each to the rank with least to do. One that has more than a rank's fair share is
// put everywhere, at most `everywhere_max` of them, as long as that lowers the busiest rank's load.
// Deterministic; ties go to the lower expert and rank. Every rank gets something to hold if there are
// enough experts.
std::vector<std::int32_t> share_experts(std::span<const std::int64_t> counts, std::size_t held,
                                        int ranks, std::size_t everywhere_max);

// What one forward leaves for its backward, and the counts of all ranks.
struct IslandPass {
  struct Segment {  // rows that lie together both as received and by expert
    std::int64_t received, by_expert, count;
  };
  struct Piece {
    std::vector<std::int32_t> rows;          // of the routing, in the order they are sent
    std::vector<std::int64_t> sent;          // [held]: of them, by expert in that order
    std::vector<std::size_t> send, receive;  // [ranks]: rows
    std::vector<std::int64_t> begin;         // [experts here + 1]: rows of each, by expert
    std::vector<Segment> segments;
    at::Tensor input, hidden;   // by expert
    std::vector<float> weight;  // likewise
  };
  std::vector<std::size_t> order;  // positions in held, in the order their rows are sent
  std::vector<Piece> pieces;
  std::vector<std::int64_t> counts;  // [held], all ranks
};

// Starts sending x's rows; finish() computes, brings the results back and adds them to `out`.
class IslandForward {
 public:
  IslandForward(const MoeLayer& layer, const Routing& routing, const at::Tensor& x, bool keep,
                IslandPass& pass);
  ~IslandForward();
  void finish(const at::Tensor& out);

 private:
  struct Flight;
  void compute(std::size_t piece);
  const MoeLayer& layer_;
  const Routing& routing_;
  const bool keep_;
  IslandPass& pass_;
  std::vector<Flight> flights_;
};

// Adds to dx, fills d_weight in the routing's order, and overwrites the gradients of experts here.
void island_backward(const MoeLayer& layer, const Routing& routing, const IslandPass& pass,
                     const at::Tensor& d_out, const at::Tensor& dx, std::span<float> d_weight);

}  // namespace yumoe

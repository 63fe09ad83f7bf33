#pragma once
// What the plain path keeps on the device between passes, and how an island's ranks exchange rows there.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "model/expert_parallel.hpp"

namespace yumoe {

// On `device` without making the host wait for it: by way of pinned memory where it is a GPU.
at::Tensor to_device(std::span<const float> values, at::IntArrayRef shape, c10::Device device);
at::Tensor to_device(std::span<const std::int32_t> values, c10::Device device);
at::Tensor to_device(std::span<const std::int64_t> values, c10::Device device);

struct PlainConstants {
  at::Tensor cosine, sine;  // [context, head_width / 2]
  at::Tensor held;          // [held]: expert
  // On an island. Rows are sent in the order of `place`: by rank, then expert.
  at::Tensor place;    // [held]
  at::Tensor here;     // [experts here]: position in held, ascending
  at::Tensor comes;    // [ranks, experts here]: 1 where rows for it come from that rank
  at::Tensor numbers;  // [ranks * experts here]: 0, 1, ... experts here - 1, once a rank
};
void add_island(const ExpertShare& share, c10::Device device, PlainConstants& constants);

// Where the rows of one layer and pass go. The only point of a layer where the host waits for the device:
// lengths of an exchange are the host's to know.
class IslandRows {
 public:
  // counts [held], int64: this rank's assignments.
  IslandRows(const ExpertShare& share, const PlainConstants& constants, const at::Tensor& counts);

  const at::Tensor& counts() const { return counts_; }  // [held]: of all ranks
  const at::Tensor& ends() const {
    return ends_;
  }  // [experts here], int32: as grouped products want

  // Rows in the order of `place` to the ranks of their experts, there by expert; and back. Through autograd.
  at::Tensor there(const at::Tensor& rows) const;
  at::Tensor back(const at::Tensor& rows) const;

 private:
  Collective& group_;
  std::vector<std::int64_t> send_, receive_;  // [ranks]: rows
  at::Tensor counts_, ends_;
  at::Tensor by_expert_, as_received_;  // permutations of the rows that come here
};

}  // namespace yumoe

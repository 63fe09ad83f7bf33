#pragma once
// What a worker must not lose when it is killed: the residual of its updates (what it has not sent
// yet) and the contribution it has committed to.

#include <filesystem>
#include <optional>
#include <vector>

#include "cluster/bytes.hpp"
#include "router/shard.hpp"

namespace yumoe {

class WorkerState {
 public:
  // `elements` of the residual. Damaged files are named in the log and left out.
  WorkerState(std::filesystem::path folder, std::string run, std::size_t elements);

  std::span<float> residual() { return residual_; }

  struct Saved {
    RoundId round;
    Digest shard;  // digest_of_shard
    Bytes contribution;
  };
  const std::optional<Saved>& saved() const { return saved_; }

  // Makes a contribution and the residual after it durable, together: written beside, synced, renamed.
  // Throws Error{disk_full} or Error{file_io}.
  void save(Saved saved);

 private:
  void load();

  std::filesystem::path file_;
  Digest run_;
  std::vector<float> residual_;
  std::optional<Saved> saved_;
};

}  // namespace yumoe

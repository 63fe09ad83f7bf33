#pragma once
// Checkpoints: the model and the core's state after a round, one HDF5 file each. Layout:
// schemas/run_file.md. A file is written beside its name, synced and renamed, and sealed: checksums
// over every byte, checked before anything in it is believed.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cluster/bytes.hpp"
#include "cluster/error.hpp"
#include "cluster/ids.hpp"
#include "router/layout.hpp"

namespace yumoe {

// What is to be written; nothing is copied or kept.
struct CheckpointView {
  RoundId round;
  std::string run;
  const Layout& layout;
  std::span<const float> parameters;  // [layout.parameters()]
  std::span<const float> momentum;    // [layout.parameters()] or empty
  std::span<const float> residual;    // [layout.parameters()] or empty
  std::span<const float> gate_bias;   // [layers * experts], row-major, or empty
  ByteView core_state;
  ByteView ledger_state;
  Digest version_digest;               // digest_of_parameters(layout, parameters), not recomputed
  std::uint64_t journal_sequence = 0;  // the state is that after this record
};

// Lets a vector be made without filling it: touching new memory only to read over it costs as much
// as the disk does.
template <typename Number>
struct Unfilled : std::allocator<Number> {
  template <typename Other>
  struct rebind {
    using other = Unfilled<Other>;
  };
  template <typename Made>
  void construct(Made* place) noexcept {
    ::new (static_cast<void*>(place)) Made;
  }
  template <typename Made, typename... Arguments>
  void construct(Made* place, Arguments&&... arguments) {
    ::new (static_cast<void*>(place)) Made(std::forward<Arguments>(arguments)...);
  }
};

using Floats = std::vector<float, Unfilled<float>>;

struct Checkpoint {
  RoundId round;
  std::string run;
  Layout layout;
  Floats parameters;
  Floats momentum;
  Floats residual;
  Floats gate_bias;
  Bytes core_state;
  Bytes ledger_state;
  Digest version_digest;
  std::uint64_t journal_sequence = 0;
};

// folder/checkpoint-0000000012.h5
std::filesystem::path checkpoint_path(const std::filesystem::path& folder, RoundId round);

// Writes `path`, making its folder if needed; on the disk, complete, when it returns. An older file
// of that name is replaced at once or not at all.
// Throws Error{disk_full}, Error{file_io}; then `path` is as it was.
// Cost: that of writing and syncing the same bytes raw; checksums run beside the disk.
void write_checkpoint(const std::filesystem::path& path, const CheckpointView& view);

// Reads and checks everything but version_digest (digest_of_parameters costs more than the read).
// Throws Error{checkpoint_corrupt} naming the dataset, Error{version_mismatch},
// Error{file_missing}, Error{file_io}.
Checkpoint read_checkpoint(const std::filesystem::path& path);

struct CheckpointFile {
  RoundId round;
  std::filesystem::path path;
  std::uint64_t bytes = 0;
};

// Checkpoints of a folder by name alone, newest first. A missing folder has none.
std::vector<CheckpointFile> list_checkpoints(const std::filesystem::path& folder);

// The newest checkpoint that reads well and does not know more than the journal (its sequence is at
// most `sequence_max`); nullopt if there is none. `passed_over` hears of each one that does not.
std::optional<Checkpoint> newest_good_checkpoint(
    const std::filesystem::path& folder,
    const std::function<void(const CheckpointFile&, const Error&)>& passed_over,
    std::uint64_t sequence_max = std::numeric_limits<std::uint64_t>::max());

// Removes all but the `keep` newest (at least 1) and what killed writers left behind, except rounds
// for which `spare` says true. Returns how many checkpoints it removed.
std::size_t drop_checkpoints(const std::filesystem::path& folder, std::size_t keep,
                             const std::function<bool(RoundId)>& spare = {});

}  // namespace yumoe

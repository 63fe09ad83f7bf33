#pragma once
// Makes one self-contained HDF5 file of a run: configuration, events, updates, checkpoints and
// tables that the caller decoded. h5py opens it; `open_run_record` reads it as it reads the folder.
// Layout: schemas/run_file.md.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "cluster/error.hpp"
#include "cluster/ids.hpp"
#include "coordinator/table_file.hpp"

namespace yumoe {

struct ExportReport {
  std::uint64_t records = 0;
  std::uint64_t blobs = 0;
  std::uint64_t checkpoints = 0;
  std::uint64_t bytes = 0;  // of the file
};

// Writes `out` (whole or not at all) from the run in `run_folder` as it stands now; a coordinator
// may go on writing it. A checkpoint that fails its check is left out and told to `passed_over`.
// Memory: the largest checkpoint and some 120 bytes an event.
// Throws Error{disk_full}, Error{file_io}, and what JournalReader throws.
ExportReport export_run(
    const std::filesystem::path& run_folder, const std::filesystem::path& out,
    const std::vector<Table>& tables,
    const std::function<void(const std::filesystem::path&, const Error&)>& passed_over);

}  // namespace yumoe

#include "coordinator/checkpoint.hpp"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <future>

#include "schemas/run_file.hpp"
#include "store/checkpoint_group.hpp"
#include "store/structure_image.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::string_view kSuffix = ".h5";
constexpr std::string_view kPartial = ".partial";
// HDF5 makes the structure in memory while a thread of ours writes the numbers into their places.
void write_body(const fs::path& path, const CheckpointView& view) {
  hdf5::print_no_errors();
  StructureImage image;
  hdf5::File structure = image.create();
  std::vector<PlannedSection> planned = reserve_checkpoint(structure.get(), "", view);
  File file(path, O_RDWR | O_CREAT | O_TRUNC);
  std::future<void> numbers = std::async(std::launch::async, [&] { write_planned(file, planned); });
  hdf5::write_attribute(structure.get(), run_file::kFormat,
                        std::string(run_file::kCheckpointFormat));
  hdf5::write_attribute(structure.get(), run_file::kFormatVersion,
                        std::int64_t{run_file::kVersion});
  describe_checkpoint(structure.get(), "", view);
  structure.close("make " + path.string(), ErrorCode::file_io);
  numbers.get();
  std::vector<Section> sections;
  for (PlannedSection& one : planned) sections.push_back(std::move(one.section));
  image.complete(file, std::move(sections));
  file.sync();
}

std::optional<RoundId> round_of(const std::string& name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  const char* begin = name.data() + kPrefix.size();
  const char* end = name.data() + name.size() - kSuffix.size();
  RoundId round;
  const auto parsed = std::from_chars(begin, end, round.value);
  if (parsed.ec != std::errc{} || parsed.ptr != end || begin == end) return std::nullopt;
  return round;
}

}  // namespace

fs::path checkpoint_path(const fs::path& folder, RoundId round) {
  std::string number = std::to_string(round.value);
  if (number.size() < 10) number.insert(0, 10 - number.size(), '0');
  return folder / (std::string(kPrefix) + number + std::string(kSuffix));
}

void write_checkpoint(const fs::path& path, const CheckpointView& view) {
  if (path.has_parent_path()) make_folder(path.parent_path(), ErrorCode::file_io);
  fs::path partial = path;
  partial += kPartial;
  try {
    write_body(partial, view);
    replace_file(partial, path, ErrorCode::file_io);
  } catch (const Error&) {
    std::error_code ignored;  // the next writer or drop_checkpoints removes it
    fs::remove(partial, ignored);
    throw;
  }
}

Checkpoint read_checkpoint(const fs::path& path) {
  const SealedFile sealed(path, ErrorCode::checkpoint_corrupt);
  hdf5::print_no_errors();
  const hdf5::Reader reader(path, ErrorCode::checkpoint_corrupt);
  if (reader.text(reader.root(), run_file::kFormat) != run_file::kCheckpointFormat) {
    reader.refuse("it is not a checkpoint");
  }
  const std::int64_t version = reader.integer(reader.root(), run_file::kFormatVersion);
  if (version != run_file::kVersion) {
    throw Error(ErrorCode::version_mismatch, path.string() + " has layout " +
                                                 std::to_string(version) +
                                                 ": use the release that wrote it");
  }
  return read_checkpoint_group(sealed, reader, "");
}

std::vector<CheckpointFile> list_checkpoints(const fs::path& folder) {
  std::vector<CheckpointFile> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::optional<RoundId> round = round_of(entry->path().filename().string());
    std::error_code gone;
    const std::uint64_t bytes = round ? entry->file_size(gone) : 0;
    if (round && !gone) found.push_back({*round, entry->path(), bytes});
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw_errno(error.value(), "list " + folder.string(), ErrorCode::file_io);
  }
  std::sort(found.begin(), found.end(), [](const CheckpointFile& a, const CheckpointFile& b) {
    return a.round != b.round ? a.round > b.round : a.path > b.path;
  });
  return found;
}

std::optional<Checkpoint> newest_good_checkpoint(
    const fs::path& folder,
    const std::function<void(const CheckpointFile&, const Error&)>& passed_over,
    std::uint64_t sequence_max) {
  for (const CheckpointFile& file : list_checkpoints(folder)) {
    try {
      Checkpoint checkpoint = read_checkpoint(file.path);
      if (checkpoint.journal_sequence <= sequence_max) return checkpoint;
      passed_over(file, Error(ErrorCode::checkpoint_corrupt,
                              file.path.string() + ": it stands after record " +
                                  std::to_string(checkpoint.journal_sequence) +
                                  ", the journal ends at " + std::to_string(sequence_max)));
    } catch (const Error& error) {
      passed_over(file, error);
    }
  }
  return std::nullopt;
}

std::size_t drop_checkpoints(const fs::path& folder, std::size_t keep,
                             const std::function<bool(RoundId)>& spare) {
  YUMOE_ASSERT(keep >= 1);
  std::size_t dropped = 0;
  const std::vector<CheckpointFile> files = list_checkpoints(folder);
  for (std::size_t i = keep; i < files.size(); ++i) {
    if (spare && spare(files[i].round)) continue;
    dropped += fs::remove(files[i].path) ? 1 : 0;
  }
  std::error_code error;
  std::vector<fs::path> partial;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(kPrefix) && name.ends_with(kPartial)) partial.push_back(entry->path());
  }
  for (const fs::path& path : partial) fs::remove(path);
  return dropped;
}

}  // namespace yumoe

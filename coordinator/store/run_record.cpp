#include "coordinator/run_record.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>

#include "schemas/run_file.hpp"
#include "store/chain.hpp"
#include "store/checkpoint_group.hpp"
#include "store/settlement_files.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kRoundPrefix = "round_";

class FolderRecord final : public RunRecord {
 public:
  explicit FolderRecord(const fs::path& folder)
      : checkpoints_(checkpoint_folder(folder)),
        settlement_(settlement_folder(folder)),
        journal_(JournalReader::open(folder)) {}

  const std::string& run() const override { return journal_.run(); }
  const JournalMetadata& metadata() const override { return journal_.metadata(); }
  std::uint64_t size() const override { return journal_.size(); }
  void for_each(std::uint64_t from,
                const std::function<bool(const Record&)>& visit) const override {
    journal_.for_each(from, visit);
  }
  std::optional<Bytes> blob(const Digest& digest) const override { return journal_.blob(digest); }
  std::vector<BlobInfo> blobs() const override { return journal_.blobs(); }
  std::optional<Bytes> settlement_file(std::string_view name) const override {
    return read_settlement_file(settlement_, name);
  }
  std::vector<RoundId> checkpoints() const override {
    std::vector<RoundId> rounds;
    for (const CheckpointFile& file : list_checkpoints(checkpoints_)) rounds.push_back(file.round);
    return rounds;
  }
  Checkpoint checkpoint(RoundId round) const override {
    return read_checkpoint(checkpoint_path(checkpoints_, round));
  }

 private:
  fs::path checkpoints_, settlement_;
  JournalReader journal_;
};

// The rows of one of the two groups that name bytes in a long dataset.
struct Bounds {
  std::vector<std::uint64_t> offsets;
  const Section* bytes = nullptr;  // null: all are empty
};

class FileRecord final : public RunRecord {
 public:
  explicit FileRecord(const fs::path& path)
      : sealed_(path, ErrorCode::journal_corrupt), reader_(path, ErrorCode::journal_corrupt) {
    sealed_.check_all();
    if (reader_.text(reader_.root(), run_file::kFormat) != run_file::kRunFormat) {
      reader_.refuse("it is not an exported run");
    }
    const std::int64_t version = reader_.integer(reader_.root(), run_file::kFormatVersion);
    if (version != run_file::kVersion) {
      throw Error(ErrorCode::version_mismatch, path.string() + " has layout " +
                                                   std::to_string(version) +
                                                   ": use the release that wrote it");
    }
    run_ = reader_.text(reader_.root(), run_file::kRun);
    for (const std::string& name : reader_.names(run_file::kMetadata)) {
      metadata_.emplace_back(name,
                             reader_.text_dataset(std::string(run_file::kMetadata) + "/" + name));
    }
    std::sort(metadata_.begin(), metadata_.end());
    read_events();
    read_blobs();
  }

  const std::string& run() const override { return run_; }
  const JournalMetadata& metadata() const override { return metadata_; }
  std::uint64_t size() const override { return times_.size(); }

  void for_each(std::uint64_t from,
                const std::function<bool(const Record&)>& visit) const override {
    YUMOE_ASSERT(from >= 1);
    if (from > size()) return;
    ChainCheck check(from - 1, from == 1 ? first_link(run_, metadata_) : chains_[from - 2]);
    Record record;
    for (std::uint64_t sequence = from; sequence <= size(); ++sequence) {
      const std::size_t row = sequence - 1;
      record.sequence = sequences_[row];
      record.time = TimeMs{times_[row]};
      record.kind = kinds_[row];
      record.chain = chains_[row];
      record.payload = bytes_of(event_bounds_, row);
      if (!check.accepts(record)) {
        reader_.refuse("record " + std::to_string(sequence) +
                       " does not match its digest: export the run again");
      }
      if (!visit(record)) return;
    }
  }

  std::optional<Bytes> blob(const Digest& digest) const override {
    const auto row = blob_rows_.find(digest);
    if (row == blob_rows_.end()) return std::nullopt;
    Bytes bytes = bytes_of(blob_bounds_, row->second);
    if (digest_of(bytes) != digest) {
      reader_.refuse("blob " + digest.hex() + " does not match its digest: export the run again");
    }
    return bytes;
  }

  std::vector<BlobInfo> blobs() const override { return blobs_; }

  std::optional<Bytes> settlement_file(std::string_view name) const override {
    const std::string dataset = std::string(run_file::kSettlement) + "/" + std::string(name);
    if (!reader_.has(run_file::kSettlement) || !reader_.has(dataset)) return std::nullopt;
    const std::uint64_t size = rows_of(dataset.c_str(), H5T_NATIVE_UINT8);
    Bytes bytes(size);
    if (size > 0) {
      sealed_.read_checked_before(*section_of(sealed_, reader_, dataset, size), 0, bytes);
    }
    return bytes;
  }

  std::vector<RoundId> checkpoints() const override {
    std::vector<RoundId> rounds;
    for (const std::string& name : reader_.names(run_file::kCheckpoints)) {
      RoundId round;
      const char* end = name.data() + name.size();
      if (!name.starts_with(kRoundPrefix) ||
          std::from_chars(name.data() + kRoundPrefix.size(), end, round.value).ptr != end) {
        reader_.refuse("group checkpoints/" + name + " is not a round");
      }
      rounds.push_back(round);
    }
    std::sort(rounds.rbegin(), rounds.rend());
    return rounds;
  }

  Checkpoint checkpoint(RoundId round) const override {
    const std::string stem = checkpoint_path("", round).stem().string();
    const std::string group = std::string(run_file::kCheckpoints) + "/" +
                              std::string(kRoundPrefix) + stem.substr(stem.find('-') + 1) + "/";
    if (!reader_.has(group.substr(0, group.size() - 1))) {
      throw Error(
          ErrorCode::file_missing,
          sealed_.path().string() + " holds no checkpoint of round " + std::to_string(round.value));
    }
    return read_checkpoint_group(sealed_, reader_, group);
  }

 private:
  // Rows of a dataset whose size must be `expected` rows, if that is known by then.
  template <typename Number>
  std::vector<Number> column(const char* name, hid_t type, std::size_t rank, std::uint64_t rows,
                             std::uint64_t wide = 1) const {
    const hdf5::Dataset dataset = reader_.dataset(name);
    const hdf5::Shape shape = reader_.shape_of(dataset, name, type, rank);
    if (shape[0] != rows || (rank == 2 && shape[1] != wide)) {
      reader_.refuse(std::string("dataset ") + name + " has another number of rows");
    }
    std::vector<Number> values(rows * wide);
    if (rows > 0) reader_.read(dataset, type, values.data());
    return values;
  }

  std::uint64_t rows_of(const char* name, hid_t type) const {
    const std::uint64_t rows = reader_.shape_of(reader_.dataset(name), name, type, 1)[0];
    if (rows > sealed_.bytes() / H5Tget_size(type)) {
      reader_.refuse(std::string("dataset ") + name + " is too long");
    }
    return rows;
  }

  std::vector<std::string> texts(const char* name, std::uint64_t rows) const {
    const hdf5::Dataset dataset = reader_.dataset(name);
    const hdf5::Datatype type(H5Dget_type(dataset.get()), name, ErrorCode::journal_corrupt);
    const std::size_t width = H5Tget_size(type.get());
    if (H5Tget_class(type.get()) != H5T_STRING || H5Tis_variable_str(type.get()) > 0 ||
        width > 64 || reader_.shape_of(dataset, name, type.get(), 1)[0] != rows) {
      reader_.refuse(std::string("dataset ") + name + " is of another type or size");
    }
    std::string joined(rows * width, '\0');
    if (rows > 0) reader_.read(dataset, type.get(), joined.data());
    std::vector<std::string> texts;
    for (std::uint64_t row = 0; row < rows; ++row) {
      const char* text = joined.data() + row * width;
      texts.emplace_back(text, strnlen(text, width));
    }
    return texts;
  }

  std::vector<Digest> digests(const char* name, std::uint64_t rows) const {
    const auto bytes = column<std::uint8_t>(name, H5T_NATIVE_UINT8, 2, rows, 32);
    std::vector<Digest> digests(rows);
    for (std::uint64_t row = 0; row < rows; ++row) {
      std::memcpy(digests[row].bytes.data(), bytes.data() + row * 32, 32);
    }
    return digests;
  }

  Bounds bounds(const char* offsets, const char* bytes, std::uint64_t rows) const {
    Bounds bounds{column<std::uint64_t>(offsets, H5T_NATIVE_UINT64, 1, rows + 1), nullptr};
    const std::uint64_t total = rows_of(bytes, H5T_NATIVE_UINT8);
    if (!std::is_sorted(bounds.offsets.begin(), bounds.offsets.end()) ||
        bounds.offsets.front() != 0 || bounds.offsets.back() != total) {
      reader_.refuse(std::string("dataset ") + offsets + " does not cover " + bytes);
    }
    bounds.bytes = section_of(sealed_, reader_, bytes, total);
    return bounds;
  }

  Bytes bytes_of(const Bounds& bounds, std::size_t row) const {
    Bytes bytes(bounds.offsets[row + 1] - bounds.offsets[row]);
    if (!bytes.empty()) sealed_.read_checked_before(*bounds.bytes, bounds.offsets[row], bytes);
    return bytes;
  }

  void read_events() {
    const std::uint64_t rows = rows_of(run_file::kEventSequence, H5T_NATIVE_UINT64);
    sequences_ = column<std::uint64_t>(run_file::kEventSequence, H5T_NATIVE_UINT64, 1, rows);
    times_ = column<std::int64_t>(run_file::kEventTime, H5T_NATIVE_INT64, 1, rows);
    kinds_ = texts(run_file::kEventKind, rows);
    chains_ = digests(run_file::kEventChain, rows);
    event_bounds_ = bounds(run_file::kEventOffset, run_file::kEventPayload, rows);
  }

  void read_blobs() {
    const std::uint64_t rows = rows_of(run_file::kBlobRound, H5T_NATIVE_UINT64);
    const auto rounds = column<std::uint64_t>(run_file::kBlobRound, H5T_NATIVE_UINT64, 1, rows);
    const std::vector<std::string> kinds = texts(run_file::kBlobKind, rows);
    const std::vector<Digest> names = digests(run_file::kBlobDigest, rows);
    blob_bounds_ = bounds(run_file::kBlobOffset, run_file::kBlobBytes, rows);
    for (std::uint64_t row = 0; row < rows; ++row) {
      blobs_.push_back({names[row], RoundId{rounds[row]}, kinds[row],
                        blob_bounds_.offsets[row + 1] - blob_bounds_.offsets[row]});
      blob_rows_.emplace(names[row], row);
    }
  }

  SealedFile sealed_;
  hdf5::Reader reader_;
  std::string run_;
  JournalMetadata metadata_;
  std::vector<std::uint64_t> sequences_;
  std::vector<std::int64_t> times_;
  std::vector<std::string> kinds_;
  std::vector<Digest> chains_;
  Bounds event_bounds_;
  Bounds blob_bounds_;
  std::vector<BlobInfo> blobs_;
  std::map<Digest, std::size_t> blob_rows_;
};

}  // namespace

fs::path checkpoint_folder(const fs::path& run_folder) { return run_folder / "checkpoints"; }
fs::path settlement_folder(const fs::path& run_folder) { return run_folder / "settlement"; }

std::unique_ptr<RunRecord> open_run_record(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) return std::make_unique<FolderRecord>(path);
  if (!fs::exists(path, error)) {
    throw Error(ErrorCode::file_missing,
                path.string() + ": neither a run's folder nor an exported file");
  }
  hdf5::print_no_errors();
  return std::make_unique<FileRecord>(path);
}

}  // namespace yumoe

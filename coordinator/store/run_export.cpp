#include "coordinator/run_export.hpp"

#include <fcntl.h>

#include <algorithm>

#include "coordinator/run_record.hpp"
#include "schemas/run_file.hpp"
#include "store/checkpoint_group.hpp"
#include "store/settlement_files.hpp"
#include "store/structure_image.hpp"
#include "store/tables.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

// Texts of at most `width` bytes, each padded with zeros to that width.
std::string padded(const std::vector<std::string>& texts, std::size_t width) {
  std::string joined;
  for (const std::string& text : texts) {
    joined += text;
    joined.append(width - text.size(), '\0');
  }
  return joined;
}

std::size_t width_of(const std::vector<std::string>& texts) {
  std::size_t width = 1;
  for (const std::string& text : texts) width = std::max(width, text.size());
  return width;
}

class Exporter {
 public:
  Exporter(const fs::path& run_folder, const fs::path& partial)
      : run_folder_(run_folder),
        settlement_(read_settlement(run_folder)),
        reader_(JournalReader::open(run_folder)),
        snapshot_(reader_),
        structure_(image_.create()),
        file_(partial, O_RDWR | O_CREAT | O_TRUNC) {}

  ExportReport write(const std::vector<Table>& tables,
                     const std::function<void(const fs::path&, const Error&)>& passed_over) {
    write_head();
    write_events();
    write_blobs();
    write_checkpoints(passed_over);
    write_settlement();
    hdf5::create_group(at(), run_file::kTables);
    for (const Table& table : tables) {
      put_table(at(), std::string(run_file::kTables) + "/" + table.name, table);
    }
    structure_.close("make " + file_.path().string(), ErrorCode::file_io);
    image_.complete(file_, std::move(sections_));
    file_.sync();
    report_.bytes = file_.size();
    return report_;
  }

 private:
  hid_t at() const { return structure_.get(); }

  void put_column(const std::string& name, hid_t type, const hdf5::Shape& shape, const void* values,
                  const std::string& units, const std::string& meaning) const {
    yumoe::put_column(at(), name, type, shape, values, units, meaning);
  }

  void put_kinds(const std::string& name, const std::vector<std::string>& kinds,
                 const std::string& meaning) const {
    const std::size_t width = width_of(kinds);
    const std::string values = padded(kinds, width);
    put_column(name, hdf5::fixed_text(width).get(), {kinds.size()}, values.data(), "", meaning);
  }

  // A dataset of bytes that `produce` hands out front to back.
  template <typename Produce>
  void stream_bytes(const std::string& name, std::uint64_t bytes, const std::string& meaning,
                    Produce&& produce) {
    const hdf5::Dataset dataset = hdf5::reserve_dataset(at(), name, H5T_STD_U8LE, {bytes});
    describe(dataset, "bytes", meaning);
    if (bytes == 0) return;
    Section section{name, hdf5::offset_of(dataset), bytes, {}};
    SectionWriter writer(file_, section);
    produce(writer);
    writer.finish();
    sections_.push_back(std::move(section));
  }

  void write_head() const {
    hdf5::write_attribute(at(), run_file::kFormat, std::string(run_file::kRunFormat));
    hdf5::write_attribute(at(), run_file::kFormatVersion, std::int64_t{run_file::kVersion});
    hdf5::write_attribute(at(), run_file::kRun, reader_.run());
    hdf5::create_group(at(), run_file::kMetadata);
    for (const auto& [name, value] : reader_.metadata()) {
      hdf5::write_text(at(), std::string(run_file::kMetadata) + "/" + name, value);
    }
  }

  void write_events() {
    hdf5::create_group(at(), run_file::kEvents);
    std::vector<std::uint64_t> sequences, offsets{0};
    std::vector<std::int64_t> times;
    std::vector<std::string> kinds;
    Bytes chains;
    reader_.for_each(1, [&](const Record& record) {
      sequences.push_back(record.sequence);
      times.push_back(record.time.value);
      kinds.push_back(record.kind);
      chains.insert(chains.end(), record.chain.bytes.begin(), record.chain.bytes.end());
      offsets.push_back(offsets.back() + record.payload.size());
      return true;
    });
    const std::uint64_t count = report_.records = sequences.size();
    stream_bytes(run_file::kEventPayload, offsets.back(), "payloads of all events, end to end",
                 [&](SectionWriter& writer) {
                   reader_.for_each(1, [&](const Record& record) {
                     writer.append(record.payload);
                     return true;
                   });
                 });
    put_column(run_file::kEventSequence, H5T_NATIVE_UINT64, {count}, sequences.data(), "1",
               "number of the event, from 1");
    put_column(run_file::kEventTime, H5T_NATIVE_INT64, {count}, times.data(), "ms",
               "when it was recorded, since 1970-01-01 UTC");
    put_kinds(run_file::kEventKind, kinds, "what the event is");
    put_column(run_file::kEventChain, H5T_NATIVE_UINT8, {count, 32}, chains.data(), "1",
               "digest over the previous event's digest and this event");
    put_column(run_file::kEventOffset, H5T_NATIVE_UINT64, {offsets.size()}, offsets.data(), "bytes",
               "event i's payload is payload[offset[i]:offset[i + 1]]");
  }

  void write_blobs() {
    hdf5::create_group(at(), run_file::kBlobs);
    const std::vector<BlobInfo> blobs = reader_.blobs();
    std::vector<std::uint64_t> rounds, offsets{0};
    std::vector<std::string> kinds;
    Bytes digests;
    for (const BlobInfo& blob : blobs) {
      rounds.push_back(blob.round.value);
      kinds.push_back(blob.kind);
      digests.insert(digests.end(), blob.digest.bytes.begin(), blob.digest.bytes.end());
      offsets.push_back(offsets.back() + blob.bytes);
    }
    const std::uint64_t count = report_.blobs = blobs.size();
    stream_bytes(run_file::kBlobBytes, offsets.back(), "all updates, end to end",
                 [&](SectionWriter& writer) {
                   for (const BlobInfo& blob : blobs) writer.append(*reader_.blob(blob.digest));
                 });
    put_column(run_file::kBlobRound, H5T_NATIVE_UINT64, {count}, rounds.data(), "1",
               "last round that needs it");
    put_kinds(run_file::kBlobKind, kinds, "what it is: contribution, aggregate, ...");
    put_column(run_file::kBlobDigest, H5T_NATIVE_UINT8, {count, 32}, digests.data(), "1",
               "BLAKE2b-256 of its bytes, by which events name it");
    put_column(run_file::kBlobOffset, H5T_NATIVE_UINT64, {offsets.size()}, offsets.data(), "bytes",
               "update i is bytes[offset[i]:offset[i + 1]]");
  }

  void write_checkpoints(const std::function<void(const fs::path&, const Error&)>& passed_over) {
    hdf5::create_group(at(), run_file::kCheckpoints);
    for (const CheckpointFile& file : list_checkpoints(checkpoint_folder(run_folder_))) {
      try {
        const Checkpoint checkpoint = read_checkpoint(file.path);
        // Made by a coordinator that goes on: it knows of events that are not exported.
        if (checkpoint.journal_sequence > report_.records) continue;
        write_checkpoint_group(checkpoint, file.path.stem().string());
      } catch (const Error& error) {
        if (error.code() != ErrorCode::checkpoint_corrupt &&
            error.code() != ErrorCode::file_missing) {
          throw;
        }
        passed_over(file.path, error);
      }
    }
  }

  void write_checkpoint_group(const Checkpoint& checkpoint, const std::string& stem) {
    const std::string number = stem.substr(stem.find('-') + 1);
    const std::string group = std::string(run_file::kCheckpoints) + "/round_" + number + "/";
    hdf5::create_group(at(), group);
    const CheckpointView view{checkpoint.round,           checkpoint.run,
                              checkpoint.layout,          checkpoint.parameters,
                              checkpoint.momentum,        checkpoint.residual,
                              checkpoint.gate_bias,       checkpoint.core_state,
                              checkpoint.ledger_state,    checkpoint.version_digest,
                              checkpoint.journal_sequence};
    std::vector<PlannedSection> planned = reserve_checkpoint(at(), group, view);
    describe_checkpoint(at(), group, view);
    write_planned(file_, planned);
    for (PlannedSection& one : planned) sections_.push_back(std::move(one.section));
    ++report_.checkpoints;
  }

  using SettlementFiles = std::vector<std::pair<std::string, Bytes>>;

  // Before the events, so that no settlement is of an epoch that is not exported.
  static SettlementFiles read_settlement(const fs::path& run_folder) {
    SettlementFiles files;
    for (const char* name : kSettlementFiles) {
      auto bytes = read_settlement_file(settlement_folder(run_folder), name);
      if (bytes) files.emplace_back(name, *std::move(bytes));
    }
    return files;
  }

  void write_settlement() {
    if (settlement_.empty()) return;
    hdf5::create_group(at(), run_file::kSettlement);
    for (const auto& [name, bytes] : settlement_) {
      stream_bytes(std::string(run_file::kSettlement) + "/" + name, bytes.size(),
                   "file of this name of the run's folder settlement",
                   [&bytes = bytes](SectionWriter& writer) { writer.append(bytes); });
    }
  }

  fs::path run_folder_;
  SettlementFiles settlement_;
  JournalReader reader_;
  JournalReader::Snapshot snapshot_;
  StructureImage image_;
  hdf5::File structure_;
  File file_;
  std::vector<Section> sections_;
  ExportReport report_;
};

}  // namespace

ExportReport export_run(const fs::path& run_folder, const fs::path& out,
                        const std::vector<Table>& tables,
                        const std::function<void(const fs::path&, const Error&)>& passed_over) {
  hdf5::print_no_errors();
  if (out.has_parent_path()) make_folder(out.parent_path(), ErrorCode::file_io);
  fs::path partial = out;
  partial += ".partial";
  try {
    const ExportReport report = Exporter(run_folder, partial).write(tables, passed_over);
    replace_file(partial, out, ErrorCode::file_io);
    return report;
  } catch (const Error&) {
    std::error_code ignored;  // the next writer truncates it
    fs::remove(partial, ignored);
    throw;
  }
}

}  // namespace yumoe

#include "store/checkpoint_group.hpp"

#include <future>
#include <type_traits>

#include "cluster/option.hpp"
#include "schemas/run_file.hpp"

namespace yumoe {
namespace {

constexpr std::uint64_t kWriteBytes = 8 * kPieceBytes;

struct AttributeWriter {
  hid_t object;
  template <typename Value>
  void operator()(std::string_view name, const Value& value, const OptionInfo&) const {
    hdf5::write_attribute(object, std::string(name).c_str(), value);
  }
};

struct AttributeReader {
  const hdf5::Reader& reader;
  hid_t object;
  template <typename Value>
  void operator()(std::string_view name, Value& value, const OptionInfo& info) const {
    const std::string text(name);
    if constexpr (std::is_same_v<Value, double>) {
      value = reader.number(object, text.c_str());
    } else {
      value = static_cast<Value>(reader.integer(object, text.c_str()));
    }
    if (const std::string rule = broken_rule(value, info); !rule.empty()) {
      reader.refuse("attribute model/" + text + " " + rule);
    }
  }
};

struct StateDataset {
  const char* name;
  const char* meaning;
  hid_t type;
  std::uint64_t elements;
  ByteView bytes;
};

std::vector<StateDataset> datasets_of(const CheckpointView& view) {
  const hid_t f32 = H5T_IEEE_F32LE, u8 = H5T_STD_U8LE;
  const auto floats = [&](const char* name, const char* meaning, std::span<const float> values) {
    return StateDataset{name, meaning, f32, values.size(), as_bytes(values)};
  };
  return {
      floats(run_file::kParameters, "the model: all tensors in layout order", view.parameters),
      floats(run_file::kMomentum, "momentum of the outer step", view.momentum),
      floats(run_file::kResidual, "what the outer step has not yet applied", view.residual),
      floats(run_file::kGateBias, "balancing bias of each layer's experts", view.gate_bias),
      {run_file::kCore, "state of the run, opaque", u8, view.core_state.size(), view.core_state},
      {run_file::kLedger, "state of the ledger, opaque", u8, view.ledger_state.size(),
       view.ledger_state}};
}

template <typename Numbers>
std::span<std::uint8_t> writable_bytes(Numbers& values) {
  return {reinterpret_cast<std::uint8_t*>(values.data()),
          values.size() * sizeof(typename Numbers::value_type)};
}

ModelOptions read_model(const hdf5::Reader& reader, const std::string& group) {
  const hdf5::Group model = reader.group(group + run_file::kModel);
  ModelOptions options;
  const AttributeReader read_option{reader, model.get()};
  options.visit(read_option);
  return options;
}

Digest read_digest(const hdf5::Reader& reader, hid_t object, const char* name) {
  const std::string hex = reader.text(object, name);
  Digest digest;
  Bytes bytes;
  if (hex.size() == 64) {
    try {
      bytes = from_hex(hex);
    } catch (const Error&) {
      bytes.clear();  // reported below, as of this file
    }
  }
  if (bytes.size() != 32) reader.refuse(std::string("attribute ") + name + " is not a digest");
  std::copy(bytes.begin(), bytes.end(), digest.bytes.begin());
  return digest;
}

// Tensors are at least one element each, so options that claim more tensors than there are numbers
// are refused before a layout of them is laid out.
Layout read_layout(const hdf5::Reader& reader, const std::string& group, std::uint64_t parameters,
                   const Digest& digest) {
  const ModelOptions options = read_model(reader, group);
  if (static_cast<std::uint64_t>(options.layers * options.experts) > parameters) {
    reader.refuse("its model does not have the size of its parameters");
  }
  try {
    Layout layout = Layout::of(options);
    if (layout.parameters() != parameters || layout.digest() != digest) {
      reader.refuse("its model is not the one its parameters were laid out for");
    }
    return layout;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::config_invalid) throw;
    reader.refuse(std::string("its model is not usable: ") + error.what());
  }
}

}  // namespace

std::vector<PlannedSection> reserve_checkpoint(hid_t file, const std::string& group,
                                               const CheckpointView& view) {
  const std::uint64_t parameters = view.layout.parameters();
  YUMOE_ASSERT(view.parameters.size() == parameters);
  YUMOE_ASSERT(view.momentum.empty() || view.momentum.size() == parameters);
  YUMOE_ASSERT(view.residual.empty() || view.residual.size() == parameters);
  hdf5::create_group(file, group + run_file::kState);
  std::vector<PlannedSection> planned;
  for (const StateDataset& state : datasets_of(view)) {
    const std::string name = group + state.name;
    const hdf5::Dataset dataset = hdf5::reserve_dataset(file, name, state.type, {state.elements});
    hdf5::write_attribute(dataset.get(), run_file::kUnits, std::string("1"));
    hdf5::write_attribute(dataset.get(), run_file::kMeaning, std::string(state.meaning));
    if (state.bytes.empty()) continue;
    planned.push_back({{name, hdf5::offset_of(dataset), state.bytes.size(), {}}, state.bytes});
  }
  return planned;
}

void describe_checkpoint(hid_t file, const std::string& group, const CheckpointView& view) {
  const hdf5::Group root(H5Gopen2(file, group.empty() ? "/" : group.c_str(), H5P_DEFAULT),
                         "open group " + group, ErrorCode::file_io);
  hdf5::write_attribute(root.get(), run_file::kRun, view.run);
  hdf5::write_attribute(root.get(), run_file::kRound, view.round.value);
  hdf5::write_attribute(root.get(), run_file::kJournalSequence, view.journal_sequence);
  hdf5::write_attribute(root.get(), run_file::kVersionDigest, view.version_digest.hex());
  hdf5::write_attribute(root.get(), run_file::kLayoutDigest, view.layout.digest().hex());

  const hdf5::Group model = hdf5::create_group(file, group + run_file::kModel);
  const AttributeWriter write_option{model.get()};
  ModelOptions options = view.layout.model();
  options.visit(write_option);

  const hdf5::Group tensors = hdf5::create_group(file, group + run_file::kTensors);
  const std::string source = "/" + group + run_file::kParameters;
  for (const TensorSpec& tensor : view.layout.tensors()) {
    hdf5::create_view(tensors.get(), tensor.name, {tensor.shape.begin(), tensor.shape.end()},
                      source, view.layout.parameters(), tensor.offset);
  }
}

void write_planned(File& file, std::vector<PlannedSection>& planned) {
  std::future<void> checksums = std::async(std::launch::async, [&planned] {
    for (PlannedSection& one : planned) one.section.checksums = checksums_of(one.bytes);
  });
  for (const PlannedSection& one : planned) {
    std::uint64_t offset = one.section.offset;
    for (ByteView rest = one.bytes; !rest.empty();) {
      const std::uint64_t bytes = std::min<std::uint64_t>(kWriteBytes, rest.size());
      file.write_at(offset, rest.first(bytes));
      file.begin_writing(offset, bytes);
      offset += bytes;
      rest = rest.subspan(bytes);
    }
  }
  checksums.get();
}

const Section* section_of(const SealedFile& sealed, const hdf5::Reader& reader,
                          const std::string& name, std::uint64_t bytes) {
  if (bytes == 0) return nullptr;
  const Section* section = sealed.find(name);
  const hdf5::Dataset dataset = reader.dataset(name);
  if (section == nullptr || section->bytes != bytes ||
      H5Dget_offset(dataset.get()) != section->offset) {
    reader.refuse("dataset " + name + " is not where its seal says");
  }
  return section;
}

Checkpoint read_checkpoint_group(const SealedFile& sealed, const hdf5::Reader& reader,
                                 const std::string& group) {
  const hdf5::Group root = reader.group(group.empty() ? "/" : group);
  Checkpoint checkpoint;
  checkpoint.round.value = reader.count(root.get(), run_file::kRound);
  checkpoint.run = reader.text(root.get(), run_file::kRun);
  checkpoint.journal_sequence = reader.count(root.get(), run_file::kJournalSequence);
  checkpoint.version_digest = read_digest(reader, root.get(), run_file::kVersionDigest);

  std::vector<SealedFile::Wanted> wanted;
  const auto prepare = [&](auto& values, const char* dataset, hid_t type) {
    const std::string name = group + dataset;
    using Number = typename std::remove_reference_t<decltype(values)>::value_type;
    const std::uint64_t count = reader.shape_of(reader.dataset(name), name, type, 1)[0];
    if (count > sealed.bytes() / sizeof(Number)) reader.refuse("dataset " + name + " is too long");
    const Section* section = section_of(sealed, reader, name, count * sizeof(Number));
    values.resize(count);
    if (section != nullptr) wanted.push_back({section, writable_bytes(values)});
  };
  prepare(checkpoint.parameters, run_file::kParameters, H5T_IEEE_F32LE);
  prepare(checkpoint.momentum, run_file::kMomentum, H5T_IEEE_F32LE);
  prepare(checkpoint.residual, run_file::kResidual, H5T_IEEE_F32LE);
  prepare(checkpoint.gate_bias, run_file::kGateBias, H5T_IEEE_F32LE);
  prepare(checkpoint.core_state, run_file::kCore, H5T_STD_U8LE);
  prepare(checkpoint.ledger_state, run_file::kLedger, H5T_STD_U8LE);
  const std::uint64_t parameters = checkpoint.parameters.size();
  checkpoint.layout = read_layout(reader, group, parameters,
                                  read_digest(reader, root.get(), run_file::kLayoutDigest));
  const auto fits = [&](std::uint64_t size) { return size == 0 || size == parameters; };
  if (!fits(checkpoint.momentum.size()) || !fits(checkpoint.residual.size())) {
    reader.refuse("its momentum or residual does not have the size of its parameters");
  }
  sealed.read(wanted);
  return checkpoint;
}

}  // namespace yumoe

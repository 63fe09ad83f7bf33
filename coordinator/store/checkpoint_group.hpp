#pragma once
// A checkpoint as a group of an HDF5 file: the root of a checkpoint file, or one of many in an
// exported run. Private to coordinator/store.

#include <string>
#include <vector>

#include "coordinator/checkpoint.hpp"
#include "store/hdf5.hpp"
#include "store/seal.hpp"

namespace yumoe {

// Where bytes at hand go in the file.
struct PlannedSection {
  Section section;
  ByteView bytes;
};

// Reserves a checkpoint's datasets below `group` ("" or "checkpoints/round_0000000012/", which must
// exist) and says where their bytes go.
std::vector<PlannedSection> reserve_checkpoint(hid_t file, const std::string& group,
                                               const CheckpointView& view);

// Attributes, the model's options and a view of each tensor.
void describe_checkpoint(hid_t file, const std::string& group, const CheckpointView& view);

// Writes and checksums what is planned, both at once.
void write_planned(File& file, std::vector<PlannedSection>& planned);

// Reads a checkpoint back, checked against `sealed`, which is the same file.
Checkpoint read_checkpoint_group(const SealedFile& sealed, const hdf5::Reader& reader,
                                 const std::string& group);

// The offset and size of a dataset must be those of its section; nullptr if it is empty.
const Section* section_of(const SealedFile& sealed, const hdf5::Reader& reader,
                          const std::string& name, std::uint64_t bytes);

}  // namespace yumoe

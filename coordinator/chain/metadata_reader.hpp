#pragma once
// Reads metadata of versions 14, 15 and 16. Layout: the frame-metadata crate, by version.

#include <optional>
#include <vector>

#include "coordinator/metadata.hpp"

namespace yumoe {

class MetadataReader {
 public:
  static Metadata read(ByteView bytes);

 private:
  explicit MetadataReader(ByteView bytes) : in_(bytes) {}

  void read_all();
  Pallet read_pallet();
  StorageItem read_storage_item(const Pallet& pallet);
  std::vector<TypeId> key_types(TypeId key, std::size_t hashers) const;
  Constant read_constant();
  std::optional<TypeId> read_optional_enum();
  void skip_deprecation();
  void skip_associated_types_and_views();
  std::vector<TypeField> read_inputs();
  std::vector<SignedExtension> read_extensions();
  void read_extrinsic_14();
  void read_extrinsic_15();
  void read_extrinsic_16();
  void read_apis();
  void assign_roles();

  ScaleReader in_;
  std::uint8_t version_ = 0;
  Metadata metadata_;
};

}  // namespace yumoe

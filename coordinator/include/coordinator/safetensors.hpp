#pragma once
// Weights in the safetensors format, as model hubs keep them: u64 length, JSON of names, then
// bytes. Source: the format's page, github.com/huggingface/safetensors, version 0.5.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "router/layout.hpp"

namespace yumoe {

// Writes every tensor of `parameters` [layout.parameters()] under its own name as F32, whole or not
// at all. The model's options go into the file's metadata as "model.width" and so on, beside
// `metadata`. Throws Error{disk_full}, Error{file_io}.
void write_safetensors(const std::filesystem::path& path, const Layout& layout,
                       std::span<const float> parameters,
                       const std::map<std::string, std::string>& metadata = {});

// Reads any safetensors file, ours or another's (a dense model to start experts from). The header
// is checked whole at opening: sizes, order, no overlap, nothing beyond the end.
class SafetensorsReader {
 public:
  struct Tensor {
    std::string dtype;  // "F32", "BF16", ...
    std::vector<std::uint64_t> shape;
    std::uint64_t begin = 0;  // bytes from the start of the file
    std::uint64_t bytes = 0;
  };

  // Throws Error{data_invalid} naming what is wrong, Error{file_missing}, Error{file_io}.
  explicit SafetensorsReader(const std::filesystem::path& path);
  SafetensorsReader(SafetensorsReader&&) noexcept;
  ~SafetensorsReader();

  const std::map<std::string, Tensor>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;

  // The tensor's numbers, row-major, from F32, F16 or BF16.
  // Throws Error{data_invalid} if there is no such tensor or it is of another type.
  std::vector<float> read(const std::string& name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace yumoe

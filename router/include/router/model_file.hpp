#pragma once
// A run's model in one file, for machines that are not in the run: what to compute with (the shared
// configuration) and a base version. `yumoe export --model` writes it; yumoe-worker serves and evaluates it.
//
// Layout, little-endian: "yumodel1", bytes of the configuration (u64), a Welcome message, a base version's
// bytes, BLAKE2b-256 over everything before.

#include <filesystem>

#include "cluster/bytes.hpp"
#include "router/protocol.hpp"

namespace yumoe {

struct ModelFile {
  Welcome facts;  // run, configuration and its digest, token set; the rest is empty
  Bytes base;     // BaseVersion::decode() of the configuration's layout
};

// Written beside its name and renamed. Throws Error{file_io}.
void write_model_file(const std::filesystem::path& path, const ModelFile& file);

// Total: throws Error{file_missing}, or Error{checkpoint_corrupt} saying what is wrong.
ModelFile read_model_file(const std::filesystem::path& path);

// Whether the file begins as one.
bool is_model_file(const std::filesystem::path& path);

}  // namespace yumoe

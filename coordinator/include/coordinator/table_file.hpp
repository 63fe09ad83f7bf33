#pragma once
// Tables for people and their tools: named columns with units, as groups of datasets in an HDF5 file
// that h5py or pandas open.

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace yumoe {

struct Column {
  std::string name;
  std::string units;    // "tokens", "ms"; "1" for pure numbers, "" for text
  std::string meaning;  // one clause
  std::variant<std::vector<double>, std::vector<std::int64_t>, std::vector<std::string>> values;
};

// Columns are equally long.
struct Table {
  std::string name;  // "scores", "rounds"
  std::string meaning;
  std::vector<Column> columns;
};

// Writes `out`, whole or not at all: attributes of the root as given (format and version among them:
// schemas/run_file.md), a group a table, a dataset a column with its units and meaning as attributes.
// Throws Error{disk_full}, Error{file_io}.
void write_table_file(const std::filesystem::path& out,
                      const std::vector<std::pair<std::string, std::string>>& attributes,
                      const std::vector<Table>& tables);

}  // namespace yumoe

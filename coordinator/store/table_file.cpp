#include "coordinator/table_file.hpp"

#include <fcntl.h>

#include "schemas/run_file.hpp"
#include "store/file.hpp"
#include "store/tables.hpp"

namespace yumoe {
namespace {

namespace fs = std::filesystem;

void put_values(hid_t at, const std::string& name, const Column& column) {
  if (const auto* texts = std::get_if<std::vector<std::string>>(&column.values)) {
    describe(hdf5::write_texts(at, name, *texts), column.units, column.meaning);
  } else if (const auto* reals = std::get_if<std::vector<double>>(&column.values)) {
    put_column(at, name, H5T_NATIVE_DOUBLE, {reals->size()}, reals->data(), column.units,
               column.meaning);
  } else {
    const auto& integers = std::get<std::vector<std::int64_t>>(column.values);
    put_column(at, name, H5T_NATIVE_INT64, {integers.size()}, integers.data(), column.units,
               column.meaning);
  }
}

void write_partial(const fs::path& partial,
                   const std::vector<std::pair<std::string, std::string>>& attributes,
                   const std::vector<Table>& tables) {
  const std::string doing = "make " + partial.string();
  hdf5::File file(H5Fcreate(partial.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), doing,
                  ErrorCode::file_io);
  hdf5::write_attribute(file.get(), run_file::kFormatVersion, std::int64_t{run_file::kVersion});
  for (const auto& [name, text] : attributes) hdf5::write_attribute(file.get(), name.c_str(), text);
  for (const Table& table : tables) put_table(file.get(), table.name, table);
  file.close(doing, ErrorCode::file_io);
  yumoe::File(partial, O_RDWR).sync();
}

}  // namespace

void describe(const hdf5::Dataset& dataset, const std::string& units, const std::string& meaning) {
  if (!units.empty()) hdf5::write_attribute(dataset.get(), run_file::kUnits, units);
  hdf5::write_attribute(dataset.get(), run_file::kMeaning, meaning);
}

void put_column(hid_t at, const std::string& name, hid_t type, const hdf5::Shape& shape,
                const void* values, const std::string& units, const std::string& meaning) {
  const hdf5::Dataset dataset = hdf5::reserve_dataset(at, name, type, shape);
  if (shape[0] > 0) hdf5::write_numbers(dataset, type, values);
  describe(dataset, units, meaning);
}

void put_table(hid_t at, const std::string& group, const Table& table) {
  const hdf5::Group made = hdf5::create_group(at, group);
  hdf5::write_attribute(made.get(), run_file::kMeaning, table.meaning);
  for (const Column& column : table.columns) put_values(at, group + "/" + column.name, column);
}

void write_table_file(const fs::path& out,
                      const std::vector<std::pair<std::string, std::string>>& attributes,
                      const std::vector<Table>& tables) {
  hdf5::print_no_errors();
  if (out.has_parent_path()) make_folder(out.parent_path(), ErrorCode::file_io);
  fs::path partial = out;
  partial += ".partial";
  try {
    write_partial(partial, attributes, tables);
    replace_file(partial, out, ErrorCode::file_io);
  } catch (const Error&) {
    std::error_code ignored;  // the next writer truncates it
    fs::remove(partial, ignored);
    throw;
  }
}

}  // namespace yumoe

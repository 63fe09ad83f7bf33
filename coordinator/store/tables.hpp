#pragma once
// Columns of a table as datasets. Private to coordinator/store.

#include <string>

#include "coordinator/table_file.hpp"
#include "store/hdf5.hpp"

namespace yumoe {

void describe(const hdf5::Dataset& dataset, const std::string& units, const std::string& meaning);

void put_column(hid_t at, const std::string& name, hid_t type, const hdf5::Shape& shape,
                const void* values, const std::string& units, const std::string& meaning);

// `group` is made and holds a dataset a column.
void put_table(hid_t at, const std::string& group, const Table& table);

}  // namespace yumoe

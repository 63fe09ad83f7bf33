#include "cluster/error.hpp"

#include <cstdio>
#include <cstdlib>

namespace yumoe {

std::string_view name_of(ErrorCode code) {
  switch (code) {
#define YUMOE_ERROR(name, description) \
  case ErrorCode::name:                \
    return #name;
#include "cluster/error_codes.def"
#undef YUMOE_ERROR
  }
  return "unknown";
}

std::string_view description_of(ErrorCode code) {
  switch (code) {
#define YUMOE_ERROR(name, description) \
  case ErrorCode::name:                \
    return description;
#include "cluster/error_codes.def"
#undef YUMOE_ERROR
  }
  return "unknown error";
}

Error::Error(ErrorCode code, std::string_view context)
    : std::runtime_error(std::string(description_of(code)) + ": " + std::string(context)),
      code_(code) {}

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: bug: expected %s\n", file, line, condition);
  std::abort();
}

}  // namespace yumoe

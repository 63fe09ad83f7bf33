#pragma once
// How this project reports that something went wrong: three channels, chosen by who can act.
//
//   a bug in our own code        YUMOE_ASSERT      stop the process, in release builds too
//   the world misbehaved         throw Error       unwinds to the owner of the connection, file or run
//   an expected, ordinary answer a return value    an enum, std::optional or variant the caller reads
//
// A new ErrorCode is worth adding only when some caller would react to it differently.
// Everything else belongs in the message.

#include <stdexcept>
#include <string>
#include <string_view>

namespace yumoe {

enum class ErrorCode {
#define YUMOE_ERROR(name, description) name,
#include "cluster/error_codes.def"
#undef YUMOE_ERROR
};

// The code's own name, as it stands in logs, on the wire and in JSON ("digest_mismatch").
std::string_view name_of(ErrorCode code);

// One sentence for people ("payload does not match its digest").
std::string_view description_of(ErrorCode code);

class Error : public std::runtime_error {
 public:
  // `context` says what was being done, to what, and what the user can do about it; the code's own
  // description is put before it: "run file could not be read or written: append to /runs/7: ...".
  Error(ErrorCode code, std::string_view context);

  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);

}  // namespace yumoe

// States what must be true here if our own code is correct. Never used on input.
#define YUMOE_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::yumoe::assertion_failed(#condition, __FILE__, __LINE__))

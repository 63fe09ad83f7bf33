#pragma once
// The answer of a ledger call: a value, or the name of the refusal.

#include <utility>
#include <variant>

#include "cluster/error.hpp"
#include "coordinator/ledger_error.hpp"

namespace yumoe::ledger {

struct Done {
  friend constexpr bool operator==(Done, Done) = default;
};

// Either a value or a LedgerError. An outcome must be looked at before its value is taken.
template <typename T>
class [[nodiscard]] Outcome {
 public:
  Outcome(T value) : state_(std::move(value)) {}  // NOLINT: a value is an outcome
  Outcome(LedgerError error) : state_(error) {}   // NOLINT: so is a refusal
  bool ok() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return ok(); }
  const T& value() const {
    YUMOE_ASSERT(ok());
    return std::get<T>(state_);
  }
  const T& operator*() const { return value(); }
  const T* operator->() const { return &value(); }
  LedgerError error() const {
    YUMOE_ASSERT(!ok());
    return std::get<LedgerError>(state_);
  }

 private:
  std::variant<T, LedgerError> state_;
};

}  // namespace yumoe::ledger

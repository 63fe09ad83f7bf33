#pragma once
// Who owns how much of the alpha behind one hotkey on one subnet: shares, so that a dividend
// reaches every nominator by changing one number. Source: the chain's share pool and SafeFloat.

#include <array>
#include <cstdint>
#include <map>
#include <optional>

#include "coordinator/fixed.hpp"

namespace yumoe::ledger {

// An account: the 32 bytes of a public key. Ordered bytewise, as the chain's maps are.
using AccountId = std::array<std::uint8_t, 32>;

// Decimal floating point, mantissa * 10^exponent with 10^20 < mantissa <= 10^21; zero is (0, 0).
// All operations floor the mantissa.
struct SafeFloat {
  UInt128 mantissa = 0;
  std::int64_t exponent = 0;

  static SafeFloat of(std::uint64_t value) { return normalised(value, 0); }
  // Brings any mantissa and exponent into range.
  static SafeFloat normalised(UInt128 mantissa, std::int64_t exponent);

  bool is_zero() const { return mantissa == 0; }
  // Floor; clamped to 2^64-1.
  std::uint64_t to_u64() const;

  friend bool operator==(const SafeFloat&, const SafeFloat&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(mantissa, exponent);
  }
};

// The smaller exponent's mantissa is floored onto the larger's; 22 digits apart or more count as 22.
SafeFloat add(const SafeFloat& a, const SafeFloat& b);
// nullopt when b is nonzero and a is zero; a smaller than b gives zero.
std::optional<SafeFloat> subtract(const SafeFloat& a, const SafeFloat& b);
// a * b / c. nullopt when c is zero.
std::optional<SafeFloat> multiply_divide(const SafeFloat& a, const SafeFloat& b,
                                         const SafeFloat& c);
std::optional<SafeFloat> divide(const SafeFloat& a, const SafeFloat& b);

// How shares are kept: as SafeFloat (since spec 397) or, before, in 64 fraction bits (the mantissa).
enum class ShareForm : std::uint8_t { decimal, fixed };
constexpr ShareForm last_of(ShareForm) { return ShareForm::fixed; }

// Shares of one hotkey's alpha on one subnet.
class SharePool {
 public:
  SharePool() = default;
  explicit SharePool(ShareForm form) : form_(form) {}

  std::uint64_t total() const { return total_; }
  // Floor of the owner's part; 0 for a stranger.
  std::uint64_t value_of(const AccountId& owner) const;

  // Credits one owner. False, and nothing changes, if the shares would round to none or the total
  // would leave 64 bits.
  bool deposit(const AccountId& owner, std::uint64_t amount);
  // Debits one owner; false, and nothing changes, if value_of(owner) < amount.
  bool withdraw(const AccountId& owner, std::uint64_t amount);
  // Credits all owners in proportion: nobody's shares change.
  void deposit_for_all(std::uint64_t amount) { total_ += amount; }

  const std::map<AccountId, SafeFloat>& shares() const { return shares_; }
  const SafeFloat& denominator() const { return denominator_; }
  // How many shares a change of `amount` is worth now.
  SafeFloat shares_for(std::uint64_t amount) const;

  // Sets every number at once, as vectors give them.
  static SharePool restored(std::uint64_t total, const SafeFloat& denominator,
                            std::map<AccountId, SafeFloat> shares);

  friend bool operator==(const SharePool&, const SharePool&) = default;
  template <typename Archive>
  void visit(Archive& archive) {
    archive(form_, total_, denominator_, shares_);
  }

 private:
  SafeFloat sum(const SafeFloat& a, const SafeFloat& b) const;
  SafeFloat difference(const SafeFloat& a, const SafeFloat& b) const;
  SafeFloat first_share(std::uint64_t amount) const;

  ShareForm form_ = ShareForm::decimal;
  std::uint64_t total_ = 0;
  SafeFloat denominator_;
  std::map<AccountId, SafeFloat> shares_;
};

}  // namespace yumoe::ledger

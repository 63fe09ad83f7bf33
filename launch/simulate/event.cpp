#include "simulate/event.hpp"

#include <array>
#include <cmath>
#include <sstream>
#include <utility>

namespace yumoe {
namespace {

constexpr std::uint64_t kBlockMax = 10'000'000;
constexpr std::uint64_t kWholeMax = ~std::uint64_t{0} >> 1;  // TOML's largest
constexpr std::uint64_t kNetuidMax = 4095;

// The operations a scenario may name, and what their fields are called, in the order in which each
// lists them. A name that ends in '?' may be left out. Commits and reveals have no place here: the
// simulation sees every weight in the open.
struct OperationKeys {
  std::string_view operation;
  std::string_view keys;
};
constexpr std::array kOperations = {
    OperationKeys{"TransferBalance", "from to amount_tao"},
    OperationKeys{"Register", "coldkey hotkey subnet burn_limit_tao"},
    OperationKeys{"AddStake", "coldkey hotkey subnet amount_tao limit_price_tao"},
    OperationKeys{"RemoveStake", "coldkey hotkey subnet amount_alpha limit_price_tao"},
    OperationKeys{"UnstakeAll", "coldkey hotkey to_root?"},
    OperationKeys{"RemoveStakeFull", "coldkey hotkey subnet limit_price_tao"},
    OperationKeys{"MoveStake",
                  "coldkey origin_hotkey destination_hotkey origin_subnet "
                  "destination_subnet amount_alpha"},
    OperationKeys{"TransferStake",
                  "coldkey destination_coldkey hotkey origin_subnet "
                  "destination_subnet amount_alpha"},
    OperationKeys{"SwapStake",
                  "coldkey hotkey origin_subnet destination_subnet amount_alpha "
                  "limit_price_tao"},
    OperationKeys{"SetTake", "coldkey hotkey take increase"},
    OperationKeys{"SetChildkeyTake", "coldkey hotkey subnet take"},
    OperationKeys{"SetChildren", "coldkey hotkey subnet children"},
    OperationKeys{"SetAutostake", "coldkey subnet hotkey"},
    OperationKeys{"RegisterNetwork", "coldkey hotkey mechanism?"},
    OperationKeys{"StartCall", "coldkey subnet"},
    OperationKeys{"SetHyperparameter", "coldkey subnet name value"},
    OperationKeys{"SetEmissionSplit", "coldkey subnet split"},
    OperationKeys{"TriggerEpoch", "coldkey subnet"},
    OperationKeys{"ClaimRoot", "coldkey subnets"},
    OperationKeys{"SetClaimKind", "coldkey kind keep_subnets"},
    OperationKeys{"Propose", "coldkey name value"},
    OperationKeys{"Vote", "coldkey proposal approve"},
    OperationKeys{"SetWeights", "hotkey subnet mechanism? uids values version_key?"},
};

// Fills an operation's fields, in their order, from the keys of its line above.
class FieldReader {
 public:
  FieldReader(TableReader& table, std::string_view keys, const SubnetNames& subnets)
      : table_(table), keys_(std::string(keys)), subnets_(subnets) {}

  template <typename... Fields>
  void operator()(Fields&... fields) {
    (next(fields), ...);
  }

 private:
  template <typename Field>
  void next(Field& field) {
    keys_ >> key_;
    may_miss_ = key_.ends_with('?');
    if (may_miss_) key_.pop_back();
    read(field);
  }

  void read(ledger::AccountId& account) { account = ledger::account_named(table_.name(key_)); }
  void read(bool& value) {
    value = table_.flag(key_, may_miss_ ? std::optional(value) : std::nullopt);
  }
  void read(std::string& value) { value = table_.name(key_); }
  void read(std::uint8_t& value) { value = static_cast<std::uint8_t>(whole(value, 255)); }
  void read(std::uint16_t& value) {
    if (key_.ends_with("subnet")) {
      value = subnet_of(*needed());
    } else {
      value = static_cast<std::uint16_t>(whole(value, 65'535));
    }
  }
  void read(std::uint64_t& value) {
    const bool money = key_.ends_with("_tao") || key_.ends_with("_alpha");
    value = money ? table_.amount(key_, std::nullopt) : whole(value, kWholeMax);
  }
  void read(std::optional<std::uint64_t>& amount) {
    if (table_.find(key_) != nullptr) amount = table_.amount(key_, std::nullopt);
  }
  void read(std::optional<ledger::Limit>& limit) {
    const bool partial = table_.flag("limit_partial", false);
    if (table_.find(key_) != nullptr) limit = {table_.amount(key_, std::nullopt), partial};
  }
  void read(std::vector<std::uint16_t>& values) {
    values = key_.ends_with("subnets") ? subnets_of() : table_.numbers(key_);
  }
  void read(std::set<std::uint16_t>& values) {
    for (const std::uint16_t netuid : subnets_of()) values.insert(netuid);
  }
  void read(ledger::ClaimKind& kind) {
    const std::string text = table_.text(key_, std::nullopt);
    if (text == "swap") {
      kind = ledger::ClaimKind::swap;
    } else if (text == "keep") {
      kind = ledger::ClaimKind::keep;
    } else if (text == "keep_subnets") {
      kind = ledger::ClaimKind::keep_subnets;
    } else {
      table_.fail(key_, "must be one of swap|keep|keep_subnets");
    }
  }
  void read(std::vector<ledger::Relation>& children) {
    for (TableReader& child : table_.tables(key_)) {
      double share = 0;
      child.option("share", share, {.min = 0, .max = 1});
      const std::uint64_t proportion =
          share >= 1 ? ~std::uint64_t{0} : static_cast<std::uint64_t>(std::ldexp(share, 64));
      children.push_back({proportion, ledger::account_named(child.name("hotkey"))});
      child.finish();
    }
  }
  // The rest is not open to scenarios, as kOperations says.
  template <typename Other>
  void read(Other&) {
    YUMOE_ASSERT(false);
  }

  std::uint64_t whole(std::uint64_t fallback, std::uint64_t max) {
    return table_.whole(key_, may_miss_ ? std::optional(fallback) : std::nullopt, 0, max);
  }
  const toml::node* needed() {
    const toml::node* node = table_.find(key_);
    if (node == nullptr) table_.fail(key_, "is missing");
    return node;
  }
  std::uint16_t subnet_of(const toml::node& node) const {
    if (const auto text = node.value_exact<std::string>()) {
      const auto found = subnets_.find(*text);
      if (found != subnets_.end()) return found->second;
    }
    const auto netuid = node.value_exact<std::int64_t>();
    if (!netuid || *netuid < 0 || static_cast<std::uint64_t>(*netuid) > kNetuidMax) {
      table_.fail(key_, "must name one of [[subnets]], \"root\" or a netuid from 0 to 4095");
    }
    return static_cast<std::uint16_t>(*netuid);
  }
  std::vector<std::uint16_t> subnets_of() {
    std::vector<std::uint16_t> netuids;
    const toml::node* node = table_.find(key_);
    if (node == nullptr) return netuids;
    if (!node->is_array()) table_.fail(key_, "must be a list of subnets");
    for (const toml::node& item : *node->as_array()) netuids.push_back(subnet_of(item));
    return netuids;
  }

  TableReader& table_;
  std::istringstream keys_;
  const SubnetNames& subnets_;
  std::string key_;
  bool may_miss_ = false;
};

// The operation of that name with nothing filled in.
template <std::size_t... kIndices>
ledger::Operation empty_operation(std::string_view name, std::index_sequence<kIndices...>) {
  ledger::Operation found;
  const auto consider = [&](ledger::Operation candidate) {
    if (ledger::name_of(candidate) == name) found = std::move(candidate);
  };
  (consider(std::variant_alternative_t<kIndices, ledger::Operation>{}), ...);
  YUMOE_ASSERT(ledger::name_of(found) == name);
  return found;
}

const OperationKeys& keys_of(const TableReader& table, const std::string& operation) {
  std::string all;
  for (const OperationKeys& known : kOperations) {
    if (known.operation == operation) return known;
    all += (all.empty() ? "" : "|") + std::string(known.operation);
  }
  table.fail("operation", "must be one of " + all);
}

}  // namespace

ledger::ScenarioEvent read_event(TableReader table, const SubnetNames& subnets) {
  ledger::ScenarioEvent event;
  event.block = table.whole("block", std::nullopt, 1, kBlockMax);
  event.every = table.whole("every", 0, 0, kBlockMax);
  const std::string name = table.text("operation", std::nullopt);
  const OperationKeys& keys = keys_of(table, name);
  event.operation =
      empty_operation(name, std::make_index_sequence<std::variant_size_v<ledger::Operation>>{});
  FieldReader fields(table, keys.keys, subnets);
  std::visit([&](auto& operation) { operation.visit(fields); }, event.operation);
  table.finish();
  return event;
}

}  // namespace yumoe

#pragma once
// What callers left at a server, by age, in bounded memory: a caller's within its own bound, everybody's
// within one; beyond it whoever has most loses the oldest, so that a greedy caller loses its own.

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "cluster/transport.hpp"

namespace yumoe {

template <typename Value>
class Recent {
 public:
  Recent(std::size_t caller_bytes_max, std::size_t bytes_max)
      : caller_bytes_max_(caller_bytes_max), bytes_max_(bytes_max) {}

  // In place of what the caller left under `id` before.
  void add(const CurveKey& caller, std::uint64_t id, Value value, std::size_t bytes) {
    erase(caller, id);
    bytes += kEntryBytes;
    Caller& own = callers_[caller];
    own.entries.emplace(id, Entry{std::move(value), bytes, ++age_});
    own.by_age.emplace(age_, id);
    own.bytes += bytes;
    bytes_ += bytes;
    while (callers_.contains(caller) && callers_.at(caller).bytes > caller_bytes_max_) {
      drop_oldest(caller);
    }
    while (bytes_ > bytes_max_) {
      const auto most = std::max_element(
          callers_.begin(), callers_.end(),
          [](const auto& a, const auto& b) { return a.second.bytes < b.second.bytes; });
      drop_oldest(CurveKey(most->first));
    }
  }

  Value* find(const CurveKey& caller, std::uint64_t id) {
    const auto own = callers_.find(caller);
    if (own == callers_.end()) return nullptr;
    const auto entry = own->second.entries.find(id);
    return entry == own->second.entries.end() ? nullptr : &entry->second.value;
  }

  void erase(const CurveKey& caller, std::uint64_t id) {
    const auto own = callers_.find(caller);
    if (own == callers_.end()) return;
    const auto entry = own->second.entries.find(id);
    if (entry == own->second.entries.end()) return;
    bytes_ -= entry->second.bytes;
    own->second.bytes -= entry->second.bytes;
    own->second.by_age.erase(entry->second.age);
    own->second.entries.erase(entry);
    if (own->second.entries.empty()) callers_.erase(own);
  }

  // Those whose value `is_old` is true of.
  template <typename IsOld>
  void erase_if(const IsOld& is_old) {
    std::vector<std::pair<CurveKey, std::uint64_t>> old;
    for (const auto& [caller, own] : callers_) {
      for (const auto& [id, entry] : own.entries) {
        if (is_old(entry.value)) old.emplace_back(caller, id);
      }
    }
    for (const auto& [caller, id] : old) erase(caller, id);
  }

  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kEntryBytes = 256;  // of the maps themselves
  struct Entry {
    Value value;
    std::size_t bytes = 0;
    std::uint64_t age = 0;
  };
  struct Caller {
    std::map<std::uint64_t, Entry> entries;
    std::map<std::uint64_t, std::uint64_t> by_age;
    std::size_t bytes = 0;
  };

  void drop_oldest(const CurveKey& caller) {
    erase(caller, callers_.at(caller).by_age.begin()->second);
  }

  const std::size_t caller_bytes_max_, bytes_max_;
  std::map<CurveKey, Caller> callers_;
  std::size_t bytes_ = 0;
  std::uint64_t age_ = 0;
};

}  // namespace yumoe

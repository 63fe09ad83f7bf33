#include "coordinator/duplicates.hpp"

#include <algorithm>

namespace yumoe {
namespace {

// SplitMix64's finaliser.
std::uint64_t mixed(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// 0 if a bin of the band is empty: then it says nothing.
std::uint64_t band_key(const Sketch& sketch, std::size_t first, std::size_t bins) {
  std::uint64_t key = first + 1;
  for (std::size_t i = first; i < first + bins; ++i) {
    if (sketch.bins[i] == 0) return 0;
    key = mixed(key ^ sketch.bins[i]);
  }
  return key;
}

}  // namespace

Sketch sketch_of(const Layout& layout, const Update& update) {
  Sketch sketch{};
  for (std::size_t i = 0; i < update.tensors().size(); ++i) {
    const std::uint64_t offset = layout.tensors()[update.tensors()[i]].offset;
    update.for_each(i, [&](std::uint64_t index, float value) {
      const std::uint64_t hash = mixed(2 * (offset + index) + (value < 0 ? 1 : 0));
      const auto low = static_cast<std::uint32_t>(hash) | 1u;
      std::uint32_t& bin = sketch.bins[(hash >> 32) % kSketchBins];
      if (bin == 0 || low < bin) bin = low;
    });
  }
  return sketch;
}

double common_share(const Sketch& a, const Sketch& b) {
  std::size_t filled = 0, equal = 0;
  for (std::size_t i = 0; i < kSketchBins; ++i) {
    filled += a.bins[i] != 0 || b.bins[i] != 0;
    equal += a.bins[i] != 0 && a.bins[i] == b.bins[i];
  }
  if (filled < kSketchBins / 4) return 0;
  return static_cast<double>(equal) / static_cast<double>(filled);
}

std::optional<DuplicateIndex::Match> DuplicateIndex::find(RoundId round, Uid uid,
                                                          const Sketch& sketch) const {
  std::optional<Match> best;
  const auto look_at = [&](const Entry& entry) {
    if (entry.round == round && entry.uid == uid) return;
    const double share = common_share(entry.sketch, sketch);
    if (share >= share_ && (!best || share > best->share))
      best = Match{entry.uid, entry.round, share};
  };
  if (entries_.size() <= kCompareAll) {
    for (const Entry& entry : entries_) look_at(entry);
    return best;
  }
  std::vector<std::uint64_t> numbers;
  for (std::size_t bin = 0; bin < kSketchBins; bin += kBand) {
    const auto found = bands_.find(band_key(sketch, bin, kBand));
    if (found != bands_.end())
      numbers.insert(numbers.end(), found->second.begin(), found->second.end());
  }
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  for (const std::uint64_t number : numbers) look_at(entries_[number - first_]);
  return best;
}

void DuplicateIndex::add(RoundId round, Uid uid, const Sketch& sketch) {
  while (!entries_.empty() && entries_.front().round.value + rounds_ <= round.value) {
    for (std::size_t bin = 0; bin < kSketchBins; bin += kBand) {
      const auto found = bands_.find(band_key(entries_.front().sketch, bin, kBand));
      if (found == bands_.end()) continue;
      std::erase(found->second, first_);
      if (found->second.empty()) bands_.erase(found);
    }
    entries_.pop_front();
    ++first_;
  }
  for (std::size_t bin = 0; bin < kSketchBins; bin += kBand) {
    const std::uint64_t key = band_key(sketch, bin, kBand);
    if (key != 0) bands_[key].push_back(first_ + entries_.size());
  }
  entries_.push_back({round, uid, sketch});
}

}  // namespace yumoe

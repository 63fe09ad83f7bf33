#include "aggregate/tensor_sum.hpp"

#include <algorithm>

namespace yumoe {
namespace {

struct Entry {
  std::uint64_t index;
  std::uint32_t part;  // index into parts
  float value;         // clipped
};

std::vector<Entry> entries_of(std::span<const WeightedUpdate> contributions,
                              std::span<const TensorPart> parts) {
  std::vector<Entry> entries;
  for (std::uint32_t p = 0; p < parts.size(); ++p) {
    if (!parts[p].sent) continue;
    const Update& update = *contributions[parts[p].contribution].update;
    const auto clip = static_cast<float>(parts[p].clip);
    update.for_each(parts[p].position, [&](std::uint64_t index, float value) {
      entries.push_back({index, p, clip * value});
    });
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.index != b.index ? a.index < b.index : a.part < b.part;
  });
  return entries;
}

bool is_supported(const AggregateOptions& options, std::span<const TensorPart> parts,
                  std::span<const Entry> senders) {
  if (senders.size() >= static_cast<std::size_t>(options.support_senders)) return true;
  double share = 0;
  for (const Entry& sender : senders) share += parts[sender.part].share;
  return share >= options.support_weight;
}

float mean_of(std::span<const TensorPart> parts, std::span<const Entry> senders) {
  double sum = 0;
  for (const Entry& sender : senders) sum += parts[sender.part].share * sender.value;
  return static_cast<float>(sum);
}

// Holders that did not send stand between the negative and the positive values as zeros.
float trimmed_mean_of(std::span<const TensorPart> parts, std::span<Entry> senders,
                      std::size_t trimmed) {
  std::sort(senders.begin(), senders.end(), [](const Entry& a, const Entry& b) {
    return a.value != b.value ? a.value < b.value : a.part < b.part;
  });
  double sent_share = 0;
  std::size_t negative = 0;
  for (const Entry& sender : senders) {
    sent_share += parts[sender.part].share;
    negative += sender.value < 0;
  }
  const std::size_t zeros = parts.size() - senders.size();
  const std::size_t end = parts.size() - trimmed;  // ranks [trimmed, end) stay
  double sum = 0;
  double share = 0;
  for (std::size_t i = 0; i < senders.size(); ++i) {
    const std::size_t rank = i < negative ? i : i + zeros;
    if (rank < trimmed || rank >= end) continue;
    sum += parts[senders[i].part].share * senders[i].value;
    share += parts[senders[i].part].share;
  }
  if (zeros > 0) {
    const std::size_t first = std::max(trimmed, negative);
    const std::size_t last = std::min(end, negative + zeros);
    const std::size_t left = last > first ? last - first : 0;
    share +=
        std::max(0.0, 1.0 - sent_share) * static_cast<double>(left) / static_cast<double>(zeros);
  }
  return share > 0 ? static_cast<float>(sum / share) : 0.0f;
}

}  // namespace

void add_by_coordinate(const AggregateOptions& options,
                       std::span<const WeightedUpdate> contributions,
                       std::span<const TensorPart> parts, std::span<float> dense) {
  std::vector<Entry> entries = entries_of(contributions, parts);
  const auto trimmed =
      static_cast<std::size_t>(options.trimmed_share * static_cast<double>(parts.size()));
  for (std::size_t begin = 0; begin < entries.size();) {
    std::size_t end = begin + 1;
    while (end < entries.size() && entries[end].index == entries[begin].index) ++end;
    const std::span<Entry> senders = std::span(entries).subspan(begin, end - begin);
    const std::uint64_t index = entries[begin].index;
    if (is_supported(options, parts, senders)) {
      dense[index] += options.rule == "trimmed_mean" ? trimmed_mean_of(parts, senders, trimmed)
                                                     : mean_of(parts, senders);
    }
    begin = end;
  }
}

}  // namespace yumoe

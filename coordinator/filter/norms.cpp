#include "coordinator/norms.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>

namespace yumoe {
namespace {

// "layer.3.expert.7.down" plays the part "expert.down": numbers and the word "layer" say where, not what.
std::string part_of(const std::string& name) {
  std::string part;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const std::string word = name.substr(begin, end - begin);
    const bool says_where = word == "layer" || (!word.empty() && std::isdigit(word[0]) != 0);
    if (!says_where) part += (part.empty() ? "" : ".") + word;
    begin = end + 1;
  }
  return part;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

NormIndex::NormIndex(const Layout& layout, double bound) : bound_(bound) {
  for (const TensorSpec& tensor : layout.tensors()) {
    const std::string part = part_of(tensor.name);
    const auto found = std::find(groups_.begin(), groups_.end(), part);
    group_of_.push_back(static_cast<std::size_t>(found - groups_.begin()));
    if (found == groups_.end()) groups_.push_back(part);
  }
}

std::vector<double> NormIndex::norms_of(const Update& update) const {
  std::vector<double> squares(groups_.size()), count(groups_.size());
  for (std::size_t i = 0; i < update.tensors().size(); ++i) {
    const std::size_t group = group_of_[update.tensors()[i]];
    squares[group] += update.squared_norm(i);
    ++count[group];
  }
  for (std::size_t g = 0; g < squares.size(); ++g) {
    squares[g] = count[g] > 0 ? std::sqrt(squares[g] / count[g]) : 0;
  }
  return squares;
}

std::optional<NormIndex::Excess> NormIndex::find(RoundId round, Uid uid, std::uint32_t steps,
                                                 const Update& update, std::size_t owners) const {
  if (bound_ <= 0) return std::nullopt;
  std::vector<const Entry*> others;
  for (const auto& [other, entry] : newest_) {
    if (other != uid && entry.round.value + kRounds > round.value) others.push_back(&entry);
  }
  const std::vector<double> norms = norms_of(update);
  std::optional<Excess> worst;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    // Who sends nothing of a group says nothing of how large it may be.
    std::vector<double> sizes, their_steps;
    for (const Entry* entry : others) {
      if (entry->norms[g] <= 0) continue;
      sizes.push_back(entry->norms[g]);
      their_steps.push_back(entry->steps);
    }
    if (sizes.size() < kFewest || 3 * sizes.size() < 2 * owners) continue;
    const std::size_t count = sizes.size();
    const double usual = median(std::move(sizes));
    const double usual_steps = std::max(1.0, median(std::move(their_steps)));
    const double most = bound_ * std::max(1.0, steps / usual_steps) * usual;
    if (norms[g] <= most) continue;
    if (!worst || norms[g] / most > worst->norm / worst->most) {
      worst = Excess{groups_[g], norms[g], usual, most, count};
    }
  }
  return worst;
}

void NormIndex::add(RoundId round, Uid uid, std::uint32_t steps, const Update& update) {
  std::erase_if(newest_, [&](const auto& entry) {
    return entry.second.round.value + kRounds <= round.value;
  });
  Entry& entry = newest_[uid];
  if (entry.round <= round) entry = {round, static_cast<double>(steps), norms_of(update)};
}

}  // namespace yumoe

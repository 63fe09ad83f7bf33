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

NormIndex::NormIndex(const Layout& layout, std::uint64_t rounds, double bound)
    : rounds_(rounds), bound_(bound) {
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
                                                 const Update& update) const {
  if (bound_ <= 0) return std::nullopt;
  std::vector<const Entry*> others;
  for (const auto& [other, entry] : newest_) {
    if (other != uid && entry.round.value + rounds_ > round.value) others.push_back(&entry);
  }
  if (others.size() < kFewest) return std::nullopt;
  const auto median_of = [&](const auto& get) {
    std::vector<double> values;
    for (const Entry* entry : others) values.push_back(get(*entry));
    return median(std::move(values));
  };
  const double usual_steps = median_of([](const Entry& e) { return e.steps; });
  const double more = usual_steps > 0 ? std::max(1.0, steps / usual_steps) : 1;
  const std::vector<double> norms = norms_of(update);
  std::optional<Excess> worst;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    const double usual = median_of([g](const Entry& e) { return e.norms[g]; });
    const double most = bound_ * more * usual;
    // What the others do not send at all says nothing of how large it may be.
    if (usual <= 0 || norms[g] <= most) continue;
    if (!worst || norms[g] / most > worst->norm / worst->most) {
      worst = Excess{groups_[g], norms[g], usual, most, others.size()};
    }
  }
  return worst;
}

void NormIndex::add(RoundId round, Uid uid, std::uint32_t steps, const Update& update) {
  std::erase_if(newest_, [&](const auto& entry) {
    return entry.second.round.value + rounds_ <= round.value;
  });
  Entry& entry = newest_[uid];
  if (entry.round <= round) entry = {round, static_cast<double>(steps), norms_of(update)};
}

}  // namespace yumoe

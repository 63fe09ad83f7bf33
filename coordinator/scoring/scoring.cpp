#include "coordinator/scoring.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

namespace yumoe {
namespace {

std::vector<std::pair<Uid, std::uint16_t>> quantise(const std::map<Uid, double>& values) {
  double largest = 0;
  for (const auto& [uid, value] : values) largest = std::max(largest, value);
  std::vector<std::pair<Uid, std::uint16_t>> weights;
  for (const auto& [uid, value] : values) {
    const double share = largest > 0 ? value / largest : 0;
    weights.emplace_back(uid, static_cast<std::uint16_t>(std::floor(share * 65'535)));
  }
  return weights;
}

}  // namespace

void Scoring::close_round(RoundId, std::span<const ShardOutcome> outcomes) {
  for (const ShardOutcome& outcome : outcomes) {
    if (outcome.contributed) continue;
    for (auto& [validator, workers] : opinions_) {
      if (const auto found = workers.find(outcome.uid); found != workers.end()) {
        found->second.rating *= options_.missing_factor;
      }
    }
  }
  settle();
}

void Scoring::measure(Uid validator, double stake, const Scores& scores) {
  stakes_[validator] = stake;
  for (const ScoreEntry& entry : scores.entries) {
    if (entry.verdict == Verdict::unavailable) continue;
    Opinion& opinion = opinions_[validator][entry.uid];
    const Measurement& measured = entry.private_draw;
    opinion.score = entry.verdict == Verdict::not_finite
                        ? 0
                        : std::max(0.0, measured.reduction -
                                            options_.confidence * measured.standard_error);
    const double keep = opinion.measured == 0 ? 0 : options_.rating_decay;
    opinion.rating = keep * opinion.rating + (1 - keep) * opinion.score;
    ++opinion.measured;
  }
  settle();
}

double Scoring::score(Uid worker) const {
  double sum = 0, stake_sum = 0;
  for (const auto& [validator, workers] : opinions_) {
    if (const auto found = workers.find(worker); found != workers.end()) {
      sum += stakes_.at(validator) * found->second.score;
      stake_sum += stakes_.at(validator);
    }
  }
  return stake_sum > 0 ? sum / stake_sum : 0;
}

double Scoring::rating(Uid worker) const {
  double sum = 0, stake_sum = 0;
  for (const auto& [validator, workers] : opinions_) {
    if (const auto found = workers.find(worker); found != workers.end()) {
      sum += stakes_.at(validator) * found->second.rating;
      stake_sum += stakes_.at(validator);
    }
  }
  return stake_sum > 0 ? sum / stake_sum : 0;
}

std::vector<std::pair<Uid, std::uint16_t>> Scoring::weights(Uid validator) const {
  const auto found = opinions_.find(validator);
  if (found == opinions_.end()) return {};
  std::map<Uid, double> values;
  for (const auto& [worker, opinion] : found->second) {
    values[worker] = std::pow(opinion.rating, options_.weight_power);
  }
  return quantise(values);
}

void Scoring::settle() {
  std::map<Uid, double> values;
  for (const auto& [validator, stake] : stakes_) {
    for (const auto& [worker, weight] : weights(validator)) values[worker] += stake * weight;
  }
  consensus_ = quantise(values);
  weights_descending_.clear();
  largest_rating_ = 0;
  for (const auto& [worker, weight] : consensus_) {
    weights_descending_.push_back(weight);
    largest_rating_ = std::max(largest_rating_, rating(worker));
  }
  std::sort(weights_descending_.rbegin(), weights_descending_.rend());
}

std::uint16_t Scoring::weight(Uid worker) const {
  const auto found = std::lower_bound(
      consensus_.begin(), consensus_.end(), worker,
      [](const auto& entry, Uid uid) { return entry.first < uid; });
  return found != consensus_.end() && found->first == worker ? found->second : 0;
}

std::uint32_t Scoring::rank(std::uint16_t weight) const {
  const auto not_more = std::lower_bound(weights_descending_.begin(), weights_descending_.end(), weight,
                                         std::greater<>());
  return 1 + static_cast<std::uint32_t>(not_more - weights_descending_.begin());
}

double Scoring::trust(Uid worker) const {
  const bool measured = std::any_of(opinions_.begin(), opinions_.end(), [&](const auto& entry) {
    return entry.second.contains(worker);
  });
  if (!measured || largest_rating_ <= 0) return 1;
  return std::clamp(std::sqrt(rating(worker) / largest_rating_), 0.1, 1.0);
}

}  // namespace yumoe

#include "coordinator/scoring.hpp"

#include <algorithm>
#include <cmath>

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

std::vector<std::pair<Uid, std::uint16_t>> Scoring::consensus() const {
  std::map<Uid, double> values;
  for (const auto& [validator, stake] : stakes_) {
    for (const auto& [worker, weight] : weights(validator)) values[worker] += stake * weight;
  }
  return quantise(values);
}

double Scoring::trust(Uid worker) const {
  bool measured = false;
  for (const auto& [validator, workers] : opinions_) measured |= workers.contains(worker);
  if (!measured) return 1;
  double largest = 0;
  for (const auto& [validator, workers] : opinions_) {
    for (const auto& [uid, opinion] : workers) largest = std::max(largest, rating(uid));
  }
  return largest > 0 ? std::clamp(std::sqrt(rating(worker) / largest), 0.1, 1.0) : 1;
}

}  // namespace yumoe

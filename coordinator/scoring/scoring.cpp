#include "coordinator/scoring.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "cluster/random.hpp"
#include "scoring/exact_math.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kMissingRoundsKept = 8;
constexpr std::uint64_t kAuditHoldsRounds = 20;  // an honest shard keeps suspicion away for so long
constexpr double kTypicalLeast = 0.2;  // credit above which a worker helps to find a round's scale
// Of the usual credit a token: below the first, surely reached, nothing is trusted; from the second on all.
// Of the usual part, what is still paid whole.
constexpr double kGivenLeast = 0.8, kExpertsLeast = 0.5;
constexpr double kTrustNothing = 0.5, kTrustWhole = 0.8;

double clamped(double value) { return std::clamp(value, 0.0, 1.0); }

// The lower median; 0 of nothing.
double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The largest value that at least half of the weight reaches or exceeds.
double weighted_median(std::vector<std::pair<double, double>>& values) {
  std::sort(values.begin(), values.end(), std::greater<>());
  double total = 0, above = 0;
  for (const auto& [value, weight] : values) total += weight;
  for (const auto& [value, weight] : values) {
    above += weight;
    if (2 * above > total || total <= 0) return value;
  }
  return values.empty() ? 0 : values.back().first;
}

std::vector<std::pair<Uid, std::uint16_t>> quantise(const std::map<Uid, double>& values) {
  double largest = 0;
  for (const auto& [uid, value] : values) largest = std::max(largest, value);
  std::vector<std::pair<Uid, std::uint16_t>> weights;
  weights.reserve(values.size());
  for (const auto& [uid, value] : values) {
    const double share = largest > 0 ? value / largest : 0;
    weights.emplace_back(uid, static_cast<std::uint16_t>(std::floor(share * 65'535)));
  }
  return weights;
}

}  // namespace

// --- what the coordinator saw -----------------------------------------------------------------------------

void Scoring::close_round(RoundId round, std::span<const ShardOutcome> outcomes) {
  round_ = std::max(round_, round);
  std::vector<Uid>& missing = missing_[round];
  for (const ShardOutcome& outcome : outcomes) {
    Conduct& conduct = conduct_[outcome.uid];
    const double counts = !outcome.contributed ? 0 : outcome.shared ? options_.shared_factor : 1;
    conduct.answered = options_.presence_decay * conduct.answered + counts;
    conduct.asked = options_.presence_decay * conduct.asked + 1;
    if (outcome.refused) {
      conduct.penalty *= options_.refusal_factor;
    } else if (outcome.contributed) {
      conduct.penalty += options_.return_rate * (1 - conduct.penalty);
    }
    if (outcome.contributed) {
      conduct.tokens = static_cast<double>(outcome.tokens);
      conduct.experts = outcome.experts;
    }
    if (!outcome.contributed) missing.push_back(outcome.uid);
  }
  while (missing_.size() > kMissingRoundsKept) missing_.erase(missing_.begin());
  settle();
}

void Scoring::answer_late(Uid worker, std::uint64_t stale_rounds) {
  double part = 1, age = 1;
  for (std::uint64_t i = 0; i < stale_rounds; ++i) {
    part *= options_.missing_factor;
    age *= options_.presence_decay;
  }
  Conduct& conduct = conduct_[worker];
  conduct.answered = std::min(conduct.asked, conduct.answered + part * age);
  settle();
}

void Scoring::refuse_late(Uid worker) {
  conduct_[worker].penalty *= options_.refusal_factor;
  settle();
}

// --- what validators measured -------------------------------------------------------------------------------

// Nats a token that a typical worker's contribution reduces the loss by in this round: against the credits
// that are known, so that it does not matter whom the sample holds; in the first rounds the median of what is
// above nothing. Where nothing is, the round says nothing of what is typical, and the one before holds: taking
// it for the worth of each would lower every honest worker at once.
double Scoring::scale_of(const Opinions& opinions, const Scores& scores, double before) const {
  std::vector<double> ratios, positive;
  for (const ScoreEntry& entry : scores.entries) {
    if (entry.verdict != Verdict::measured) continue;
    const double reduction = entry.private_draw.reduction;
    if (reduction > entry.private_draw.standard_error) positive.push_back(reduction);
    const auto found = opinions.find(entry.uid);
    if (found == opinions.end() || found->second.measured < 2) continue;
    if (found->second.credit >= kTypicalLeast && found->second.banned_until < scores.round) {
      ratios.push_back(reduction / found->second.credit);
    }
  }
  if (ratios.size() >= 3 && 2 * ratios.size() >= positive.size()) {
    const double scale = median(std::move(ratios));
    if (scale > 0) return scale;
  }
  return positive.empty() ? before : median(std::move(positive));
}

// A filtered mean: what is known widens by the drift of the rounds between, then the measurement enters by
// its precision. What falls far below at once replaces it; then the way up is bounded.
void Scoring::take(Opinion& opinion, RoundId round, double x, double error) {
  const double noise = std::max(error, options_.noise_min), r = noise * noise;
  const double measured = std::clamp(x, -options_.credit_max, options_.credit_max);
  if (opinion.measured == 0) {
    opinion.credit = measured;
    opinion.variance = r;
  } else {
    const double rounds =
        static_cast<double>(round.value - std::min(round, opinion.measured_round).value);
    const double prior = opinion.variance + options_.drift * options_.drift * std::max(1.0, rounds);
    if (opinion.ceiling > 0)
      opinion.ceiling += options_.return_rate * (1 - clamped(opinion.ceiling));
    if (measured + options_.fall_errors * std::sqrt(prior + r) < opinion.credit) {
      opinion.credit = measured;
      opinion.variance = r;
      opinion.ceiling = std::max(clamped(measured), options_.return_rate);
    } else {
      const double gain = prior / (prior + r);
      opinion.credit += gain * (measured - opinion.credit);
      opinion.variance = (1 - gain) * prior;
    }
    if (opinion.ceiling >= 0.95) opinion.ceiling = 0;
    if (opinion.ceiling > 0) opinion.credit = std::min(opinion.credit, opinion.ceiling);
  }
  ++opinion.measured;
  opinion.measured_round = std::max(opinion.measured_round, round);
}

void Scoring::learn(Estimate& estimate, RoundId round, double x, double error) const {
  const double noise = std::max(error, options_.noise_min), r = noise * noise;
  const double measured = std::clamp(x, -options_.credit_max, options_.credit_max);
  const double rounds = static_cast<double>(round.value - std::min(round, estimate.round).value);
  const double prior = estimate.variance + options_.drift * options_.drift * std::max(1.0, rounds);
  const double gain = estimate.measured == 0 ? 1 : prior / (prior + r);
  estimate.value += gain * (measured - estimate.value);
  estimate.variance = estimate.measured == 0 ? r : (1 - gain) * prior;
  ++estimate.measured;
  estimate.round = std::max(estimate.round, round);
}

// What was measured of the contribution besides: given the others, and expert by expert.
void Scoring::learn_parts(Opinion& opinion, RoundId round, const ScoreEntry& entry,
                          double scale) const {
  if (entry.given.windows > 0) {
    learn(opinion.given, round, entry.given.reduction / scale, entry.given.standard_error / scale);
  }
  const auto conduct = conduct_.find(entry.uid);
  if (entry.experts.empty() || conduct == conduct_.end() || conduct->second.experts <= 0) return;
  double sum = 0, squares = 0;
  for (const ExpertMeasurement& expert : entry.experts) {
    sum += expert.measurement.reduction;
    squares += expert.measurement.standard_error * expert.measurement.standard_error;
  }
  const double each = conduct->second.experts / static_cast<double>(entry.experts.size()) / scale;
  learn(opinion.experts, round, each * sum, each * std::sqrt(squares));
}

void Scoring::measure(Uid validator, double stake, const Scores& scores) {
  Judge& judge = stakes_[validator];
  judge.stake = stake;
  judge.spoke = std::max(judge.spoke, scores.round);
  round_ = std::max(round_, scores.round);
  Opinions& opinions = opinions_[validator];
  const double scale = judge.scale = scale_of(opinions, scores, judge.scale);
  for (const ScoreEntry& entry : scores.entries) {
    if (entry.verdict == Verdict::unavailable) continue;
    Opinion& opinion = opinions[entry.uid];
    const bool finite = entry.verdict == Verdict::measured;
    opinion.reduction = finite ? entry.private_draw.reduction : 0;
    opinion.standard_error = finite ? entry.private_draw.standard_error : 0;
    opinion.score = std::max(0.0, opinion.reduction - opinion.standard_error);
    if (scale > 0) {
      take(opinion, scores.round, opinion.reduction / scale, opinion.standard_error / scale);
    } else if (!finite) {
      take(opinion, scores.round, 0, 0);
    }
    if (!finite) opinion.ceiling = std::max(options_.return_rate, 1e-3);
    if (finite && scale > 0) learn_parts(opinion, scores.round, entry, scale);
  }
  rate(opinions, scores);
  settle();
}

// The round as a game: by reduction, not finite last but one, those whose shard stayed unanswered last.
void Scoring::rate(Opinions& opinions, const Scores& scores) {
  std::vector<std::pair<double, Uid>> results;
  for (const ScoreEntry& entry : scores.entries) {
    if (entry.verdict == Verdict::unavailable) continue;
    results.emplace_back(entry.verdict == Verdict::measured ? entry.private_draw.reduction
                                                            : -std::numeric_limits<double>::max(),
                         entry.uid);
  }
  if (results.empty()) return;
  if (const auto missing = missing_.find(scores.round); missing != missing_.end()) {
    for (const Uid uid : missing->second) {
      if (opinions.contains(uid))
        results.emplace_back(-std::numeric_limits<double>::infinity(), uid);
    }
  }
  std::sort(results.begin(), results.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  std::vector<Rating> players;
  std::vector<std::int64_t> ranks;
  for (std::size_t i = 0; i < results.size(); ++i) {
    Rating rating = opinions[results[i].second].rating;
    rating.mu = Rating().mu + options_.rating_decay * (rating.mu - Rating().mu);
    players.push_back(rating);
    const bool tied = i > 0 && results[i].first == results[i - 1].first;
    ranks.push_back(tied ? ranks.back() : static_cast<std::int64_t>(i));
  }
  play(players, ranks, {});
  for (std::size_t i = 0; i < results.size(); ++i) {
    Rating& rating = opinions[results[i].second].rating;
    rating = players[i];
    rating.sigma = std::min(rating.sigma, Rating().sigma);
  }
}

void Scoring::audit(Uid validator, Uid worker, RoundId round, bool same) {
  Opinion& opinion = opinions_[validator][worker];
  if (same) {
    opinion.audited = std::max(opinion.audited, round);
  } else {
    opinion.banned_until = {round.value + static_cast<std::uint64_t>(options_.audit_ban_rounds)};
    opinion.ceiling = options_.return_rate;
    opinion.credit = std::min(opinion.credit, opinion.ceiling);
  }
  settle();
}

// --- whom to measure next -----------------------------------------------------------------------------------

double Scoring::half_width(Uid validator, Uid worker, RoundId round) const {
  const Opinion* o = opinion(validator, worker);
  if (o == nullptr || o->measured == 0) return std::numeric_limits<double>::infinity();
  const double rounds = static_cast<double>(round.value - std::min(round, o->measured_round).value);
  const double half =
      options_.confidence *
      std::sqrt(o->variance + options_.drift * options_.drift * std::max(1.0, rounds));
  // Surely worth nothing is as clear as surely worth something.
  const bool worthless = o->credit + half < options_.certain_share;
  return worthless ? 0 : half / std::max(o->credit, options_.certain_share);
}

std::vector<Uid> Scoring::to_measure(Uid validator, std::span<const Uid> candidates,
                                     std::size_t most, RoundId round, std::uint64_t seed) const {
  std::vector<std::pair<double, Uid>> uncertain;  // half width
  std::vector<Uid> clear;
  for (const Uid uid : candidates) {
    const double half = half_width(validator, uid, round);
    if (half > options_.certain_share) {
      uncertain.emplace_back(half, uid);
    } else {
      clear.push_back(uid);
    }
  }
  // Drawn first, so that ties among the uncertain are broken by lot and not by uid.
  Random random(seed);
  for (std::size_t i = 0; i + 1 < uncertain.size(); ++i) {
    std::swap(uncertain[i], uncertain[i + random.below(uncertain.size() - i)]);
  }
  std::stable_sort(uncertain.begin(), uncertain.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  const auto spots = std::min<std::size_t>(
      clear.size(),
      static_cast<std::size_t>(std::ceil(options_.spot_share * static_cast<double>(most))));
  const std::size_t tested = std::min(uncertain.size(), most - std::min(most, spots));
  std::vector<Uid> chosen;
  for (std::size_t i = 0; i < tested; ++i) chosen.push_back(uncertain[i].second);
  for (std::size_t i = 0; i < spots && chosen.size() < most; ++i) {
    std::swap(clear[i], clear[i + random.below(clear.size() - i)]);
    chosen.push_back(clear[i]);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::optional<Uid> Scoring::to_audit(std::span<const Answered> candidates, RoundId round,
                                     std::uint64_t seed) const {
  std::vector<Uid> open;
  std::optional<std::pair<double, Uid>> least;
  for (const Answered& candidate : candidates) {
    bool banned = !opinions_.empty(), lately = false;
    for (const auto& [validator, opinions] : opinions_) {
      const auto found = opinions.find(candidate.uid);
      banned = banned && found != opinions.end() && found->second.banned_until > round;
      lately = lately || (found != opinions.end() && found->second.audited.value > 0 &&
                          found->second.audited.value + kAuditHoldsRounds > round.value);
    }
    if (banned) continue;
    open.push_back(candidate.uid);
    if (lately || candidate.tokens == 0) continue;
    const std::pair delivers(credit(candidate.uid) / static_cast<double>(candidate.tokens),
                             candidate.uid);
    if (!least || delivers < *least) least = delivers;
  }
  if (open.empty()) return std::nullopt;
  if (least && round.value % 2 == 0) return least->second;
  return open[Random(seed).below(open.size())];
}

// --- weights --------------------------------------------------------------------------------------------------

// 0 while the interval reaches 0, 1 where it is narrow, a line between.
double Scoring::certainty(const Opinion& o) const {
  if (o.credit <= 0) return 0;
  const double half = options_.confidence * std::sqrt(o.variance) / o.credit;
  return clamped(2 * (1 - half));
}

double Scoring::usual_part(const Opinions& opinions, Estimate Opinion::*part) const {
  std::vector<double> parts;
  for (const auto& [uid, o] : opinions) {
    if ((o.*part).measured < 2 || o.credit < kTypicalLeast || o.banned_until > round_) continue;
    parts.push_back((o.*part).value / o.credit);
  }
  return parts.size() < 3 ? 0 : median(std::move(parts));
}

// 1 unless the part is surely below `usual` of the credit; then falls in proportion to 1 - share.
double Scoring::part_factor(const Opinion& o, Estimate Opinion::*part, double usual,
                            double share) const {
  const Estimate& estimate = o.*part;
  if (usual <= 0 || estimate.measured < 2 || o.credit <= 0) return 1;
  const double most = estimate.value + options_.confidence * std::sqrt(estimate.variance);
  return 1 - share * (1 - clamped(most / (usual * o.credit)));
}

// Credits with differences that are not established taken back: from the best down, who cannot be told
// from the mean of the group before it joins it.
std::map<Uid, double> Scoring::group(const Opinions& opinions) const {
  std::vector<std::pair<double, Uid>> order;
  for (const auto& [uid, o] : opinions) {
    if (o.measured > 0) order.emplace_back(o.credit, uid);
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  std::map<Uid, double> credits;
  for (std::size_t begin = 0; begin < order.size();) {
    double precision = 0, sum = 0;
    std::size_t end = begin;
    for (; end < order.size(); ++end) {
      const double variance = std::max(opinions.at(order[end].second).variance, 1e-12);
      if (end > begin) {
        const double gap = sum / precision - order[end].first;
        const double limit = options_.group_errors * std::sqrt(variance + 1 / precision);
        if (gap >= limit || order[end].first <= 0) break;
      }
      precision += 1 / variance;
      sum += order[end].first / variance;
    }
    const double mean = sum / precision;
    for (; begin < end; ++begin) {
      credits[order[begin].second] = mean + options_.group_keep * (order[begin].first - mean);
    }
  }
  return credits;
}

double Scoring::rule_value(const Opinion& opinion, double credit) const {
  if (options_.weight_rule == "gauntlet") {
    return exact::pow(std::max(0.0, opinion.rating.ordinal()), options_.weight_power);
  }
  return exact::pow(std::max(0.0, credit), options_.weight_power);
}

std::map<Uid, double> Scoring::values(const Opinions& opinions) const {
  const bool grouped = options_.weight_rule != "gauntlet" && options_.group_errors > 0;
  const std::map<Uid, double> credits = grouped ? group(opinions) : std::map<Uid, double>{};
  const double usual_given = usual_part(opinions, &Opinion::given),
               usual_experts = usual_part(opinions, &Opinion::experts);
  std::map<Uid, double> values;
  for (const auto& [uid, o] : opinions) {
    if (o.measured == 0) continue;
    const auto conduct = conduct_.find(uid);
    double value = rule_value(o, grouped ? credits.at(uid) : o.credit) * certainty(o);
    value *= part_factor(o, &Opinion::given, kGivenLeast * usual_given, options_.given_share);
    value *=
        part_factor(o, &Opinion::experts, kExpertsLeast * usual_experts, options_.expert_share);
    if (conduct != conduct_.end()) {
      value *= clamped(conduct->second.presence()) * clamped(conduct->second.penalty);
    }
    values[uid] = o.banned_until > round_ ? 0 : value;
  }
  if (options_.weight_rule != "top_k") return values;
  std::vector<std::pair<double, Uid>> order;
  for (const auto& [uid, value] : values) order.emplace_back(value, uid);
  std::sort(order.begin(), order.end(), std::greater<>());
  double pay = 1;
  for (std::size_t begin = 0; begin < order.size();) {
    double sum = 0;
    std::size_t end = begin;
    for (; end < order.size() && order[end].first == order[begin].first; ++end) {
      if (end < static_cast<std::size_t>(options_.top_k)) sum += pay;
      pay *= options_.top_decay;
    }
    const double each = order[begin].first > 0 ? sum / static_cast<double>(end - begin) : 0;
    for (; begin < end; ++begin) values[order[begin].second] = each;
  }
  return values;
}

std::vector<std::pair<Uid, std::uint16_t>> Scoring::weights(Uid validator) const {
  const auto found = opinions_.find(validator);
  if (found == opinions_.end()) return {};
  return quantise(values(found->second));
}

double Scoring::burn_weight(Uid validator) const {
  double sum = 0;
  for (const auto& [uid, weight] : weights(validator)) sum += weight;
  return sum * options_.burn_share / (1 - options_.burn_share);
}

// --- all validators together ------------------------------------------------------------------------------------

bool Scoring::speaks(Uid validator) const {
  const auto found = stakes_.find(validator);
  if (found == stakes_.end()) return false;
  RoundId newest;
  for (const auto& [uid, judge] : stakes_) newest = std::max(newest, judge.spoke);
  return newest.value - found->second.spoke.value <=
         static_cast<std::uint64_t>(options_.validator_silence_rounds);
}

template <typename Get>
double Scoring::median_over_validators(Uid worker, const Get& get) const {
  std::vector<std::pair<double, double>> values;
  for (const auto& [validator, opinions] : opinions_) {
    const auto found = opinions.find(worker);
    if (found == opinions.end() || found->second.measured == 0 || !speaks(validator)) continue;
    values.emplace_back(get(found->second), stakes_.at(validator).stake);
  }
  return weighted_median(values);
}

double Scoring::score(Uid worker) const {
  return median_over_validators(worker, [](const Opinion& o) { return o.score; });
}

double Scoring::rating(Uid worker) const {
  return median_over_validators(worker, [](const Opinion& o) { return o.rating.ordinal(); });
}

double Scoring::credit(Uid worker) const {
  return median_over_validators(worker, [](const Opinion& o) { return o.credit; });
}

void Scoring::settle() {
  std::map<Uid, std::vector<std::pair<double, double>>> shares, lows;
  for (const auto& [validator, opinions] : opinions_) {
    if (!speaks(validator)) continue;
    const double stake = stakes_.at(validator).stake;
    const std::map<Uid, double> own = values(opinions);
    double sum = 0;
    for (const auto& [worker, value] : own) sum += value;
    for (const auto& [worker, value] : own) {
      shares[worker].emplace_back(sum > 0 ? value / sum : 0, stake);
      const Opinion& o = opinions.at(worker);
      const double low = o.credit - options_.confidence * std::sqrt(o.variance);
      lows[worker].emplace_back(o.banned_until > round_ ? 0 : low, stake);
    }
  }
  std::map<Uid, double> together;
  for (auto& [worker, values] : shares) together[worker] = weighted_median(values);
  trust_.clear();
  anybody_trusted_ = false;
  std::vector<double> usual;
  for (auto& [worker, values] : lows) {
    const auto conduct = conduct_.find(worker);
    const double tokens = conduct == conduct_.end() ? 0 : conduct->second.tokens;
    trust_[worker] = weighted_median(values) / (tokens > 0 ? tokens : 1);
    if (trust_[worker] > 0) usual.push_back(trust_[worker]);
  }
  const double middle = median(std::move(usual));
  for (auto& [worker, trust] : trust_) {
    trust =
        middle > 0 ? clamped((trust / middle - kTrustNothing) / (kTrustWhole - kTrustNothing)) : 0;
    anybody_trusted_ = anybody_trusted_ || trust > 0;
  }
  consensus_ = quantise(together);
  weights_descending_.clear();
  for (const auto& [worker, weight] : consensus_) weights_descending_.push_back(weight);
  std::sort(weights_descending_.rbegin(), weights_descending_.rend());
}

std::uint16_t Scoring::weight(Uid worker) const {
  const auto found = std::lower_bound(consensus_.begin(), consensus_.end(), worker,
                                      [](const auto& entry, Uid uid) { return entry.first < uid; });
  return found != consensus_.end() && found->first == worker ? found->second : 0;
}

std::uint32_t Scoring::rank(std::uint16_t weight) const {
  const auto not_more = std::lower_bound(weights_descending_.begin(), weights_descending_.end(),
                                         weight, std::greater<>());
  return 1 + static_cast<std::uint32_t>(not_more - weights_descending_.begin());
}

double Scoring::trust(Uid worker) const {
  if (!anybody_trusted_) return 1;  // nobody is surely worth anything yet: all count alike
  const auto found = trust_.find(worker);
  const auto conduct = conduct_.find(worker);
  const double penalty = conduct == conduct_.end() ? 1 : clamped(conduct->second.penalty);
  return penalty * (found == trust_.end() ? options_.newcomer_trust : found->second);
}

// --- explanations -------------------------------------------------------------------------------------------------

const Opinion* Scoring::opinion(Uid validator, Uid worker) const {
  const auto opinions = opinions_.find(validator);
  if (opinions == opinions_.end()) return nullptr;
  const auto found = opinions->second.find(worker);
  return found == opinions->second.end() ? nullptr : &found->second;
}

std::vector<Uid> Scoring::validators() const {
  std::vector<Uid> all;
  for (const auto& [uid, judge] : stakes_) all.push_back(uid);
  return all;
}

Conduct Scoring::conduct(Uid worker) const {
  const auto found = conduct_.find(worker);
  return found == conduct_.end() ? Conduct{} : found->second;
}

WeightReasons Scoring::reasons(Uid validator, Uid worker) const {
  WeightReasons reasons;
  const Opinion* o = opinion(validator, worker);
  const Conduct c = conduct(worker);
  reasons.presence = clamped(c.presence());
  reasons.penalty = clamped(c.penalty);
  if (o == nullptr || o->measured == 0) return reasons;
  const bool grouped = options_.weight_rule != "gauntlet" && options_.group_errors > 0;
  reasons.value = rule_value(*o, grouped ? group(opinions_.at(validator)).at(worker) : o->credit);
  reasons.certainty = certainty(*o);
  const Opinions& all = opinions_.at(validator);
  reasons.given = part_factor(*o, &Opinion::given, kGivenLeast * usual_part(all, &Opinion::given),
                              options_.given_share);
  reasons.experts =
      part_factor(*o, &Opinion::experts, kExpertsLeast * usual_part(all, &Opinion::experts),
                  options_.expert_share);
  reasons.banned = o->banned_until > round_;
  return reasons;
}

std::optional<double> Scoring::agreement(Uid validator) const {
  const auto own = opinions_.find(validator);
  if (own == opinions_.end() || opinions_.size() < 2) return std::nullopt;
  const std::map<Uid, double> mine = values(own->second);
  double my_sum = 0, their_sum = 0;
  for (const auto& [uid, value] : mine) {
    my_sum += value;
    their_sum += weight(uid);
  }
  if (my_sum <= 0 || their_sum <= 0) return std::nullopt;
  double difference = 0;
  for (const auto& [uid, value] : mine) {
    difference += std::abs(value / my_sum - static_cast<double>(weight(uid)) / their_sum);
  }
  return clamped(1 - difference / 2);
}

void Scoring::digest_into(Digester& digester) const {
  const auto add = [&](auto value) {
    digester.update(as_bytes(std::span<const decltype(value)>(&value, 1)));
  };
  for (const auto& [validator, opinions] : opinions_) {
    add(validator.value);
    for (const auto& [worker, o] : opinions) {
      add(worker.value);
      add(o.credit);
      add(o.variance);
      add(o.ceiling);
      add(o.measured);
      add(o.measured_round.value);
      add(o.score);
      for (const Estimate* part : {&o.given, &o.experts}) {
        add(part->value);
        add(part->variance);
        add(part->measured);
        add(part->round.value);
      }
      add(o.rating.mu);
      add(o.rating.sigma);
      add(o.audited.value);
      add(o.banned_until.value);
    }
  }
  for (const auto& [validator, judge] : stakes_) {
    add(judge.stake);
    add(judge.spoke.value);
    add(judge.scale);
  }
  for (const auto& [worker, c] : conduct_) {
    add(worker.value);
    add(c.answered);
    add(c.asked);
    add(c.penalty);
    add(c.tokens);
    add(c.experts);
  }
  for (const auto& [worker, weight] : consensus_) add(weight);
}

}  // namespace yumoe

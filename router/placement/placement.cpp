#include "router/placement.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "placement/cover.hpp"
#include "placement/timing.hpp"

namespace yumoe {
namespace {

using placement::CoverResult;
using placement::Seat;
using placement::Timing;

constexpr double kBreadth = 0.02;  // of the round: so much longer an upload may be for more experts
constexpr double kAlways = std::numeric_limits<double>::infinity();
constexpr double kCandidates = 128;     // upload times that are looked at, about
constexpr std::size_t kWork = 200'000;  // workers looked at in tries, most promising first
constexpr double kGoodEnough = 0.995;   // of the best makespan: a bound above it is not worth a try

class Planner {
 public:
  Planner(const Layout& layout, std::int64_t batch_sequences, const UpdateSize& size,
          std::span<const PlacementWorker> workers, const PlacementOptions& options)
      : layout_(layout),
        size_(size),
        workers_(workers),
        options_(options),
        experts_(static_cast<std::uint32_t>(layout.model().experts)),
        least_(static_cast<std::uint32_t>(layout.model().experts_per_token)),
        tokens_per_step_(static_cast<double>(batch_sequences * layout.model().context)),
        rules_(options, experts_),
        possible_(experts_) {
    for (const PlacementWorker& worker : workers_) look_at(worker, batch_sequences);
  }

  Plan run() {
    std::vector<std::uint32_t> able, timed;  // places in workers_
    for (std::uint32_t i = 0; i < workers_.size(); ++i) {
      if (facts_[i].cap < least_) continue;
      able.push_back(i);
      for (const std::uint32_t e : *facts_[i].allowed) ++possible_[e];
      if (facts_[i].is_timed) timed.push_back(i);
    }
    std::vector<Timing> timings;
    for (const std::uint32_t i : timed) timings.push_back(facts_[i].timing);
    // No plan has every expert on as many workers sooner than this.
    const double placed_s =
        needed(able, [&](const Facts& f) { return placement::earliest(f.timing); });
    const double uploaded_s = needed(able, [&](const Facts& f) { return f.timing.upload_s; });
    const double round_s = std::max(static_cast<double>(options_.round_s), placed_s);
    std::uint64_t steps = 0;
    for (const Timing& timing : timings) steps += placement::steps_by(timing, round_s);
    breadth_s_ = kBreadth *
                 (std::max(placement::commit_time(timings, steps).at_least, placed_s) + uploaded_s);
    choose(able, timings, steps, uploaded_s, placed_s);
    keeps_moves_ = respects_moves();
    if (!keeps_moves_) choose(able, timings, steps, uploaded_s, placed_s);
    assign(steps);
    return std::move(plan_);
  }

 private:
  struct Facts {
    const ExpertSet* allowed = nullptr;
    std::uint32_t cap = 0;  // by everything but the uplink
    Limit cap_by = Limit::none;
    bool is_timed = false;
    Timing timing;  // all zero if not timed
    double upload_per_expert_s = 0;
  };

  void look_at(const PlacementWorker& worker, std::int64_t batch_sequences) {
    const WorkerProfile& p = worker.profile;
    Facts facts;
    const auto key = std::pair(tier_rank(p.tier), p.region);
    auto found = allowed_.find(key);
    if (found == allowed_.end())
      found = allowed_.emplace(key, rules_.allowed(p.tier, p.region)).first;
    facts.allowed = &found->second;
    facts.cap = experts_;
    const auto limit = [&](std::uint32_t cap, Limit by) {
      if (cap >= facts.cap) return;
      facts.cap = cap;
      facts.cap_by = by;
    };
    limit(static_cast<std::uint32_t>(facts.allowed->size()), Limit::rules);
    if (p.experts_max > 0) limit(p.experts_max, Limit::own_maximum);
    limit(experts_that_fit(layout_, batch_sequences, p.memory_mib), Limit::memory);
    if (worker.experts_cap > 0) limit(std::max(worker.experts_cap, least_), Limit::lost_before);
    // Without a speed there is nothing to weigh an upload against: the makespan is of those measured.
    if (p.up_bytes_per_s > 0 && p.tokens_per_s > 0) {
      facts.upload_per_expert_s = size_.expert_bytes / p.up_bytes_per_s;
      facts.timing.upload_s =
          size_.trunk_bytes / p.up_bytes_per_s + least_ * facts.upload_per_expert_s;
    }
    facts.is_timed = p.tokens_per_s > 0;
    if (facts.is_timed) {
      facts.timing.start_s = p.round_trip_ms / 1e3 +
                             (p.down_bytes_per_s > 0 ? size_.down_bytes / p.down_bytes_per_s : 0);
      facts.timing.step_s = tokens_per_step_ / p.tokens_per_s;
      auto most = static_cast<std::uint32_t>(options_.inner_steps_max);
      if (p.inner_steps_max > 0) most = std::min(most, p.inner_steps_max);
      facts.timing.steps_max = most;
      facts.timing.steps_min = std::min(static_cast<std::uint32_t>(options_.inner_steps_min), most);
    }
    facts_.push_back(facts);
  }

  // For each expert the time of its r-th fastest possible holder; of these the longest.
  template <typename Time>
  double needed(const std::vector<std::uint32_t>& able, Time time) const {
    // Workers that may hold the same experts are one class.
    std::map<const ExpertSet*, std::vector<double>> classes;
    for (const std::uint32_t i : able) {
      std::vector<double>& times = classes[facts_[i].allowed];
      times.push_back(time(facts_[i]));
    }
    for (auto& [allowed, times] : classes) {
      std::sort(times.begin(), times.end());
      times.resize(std::min<std::size_t>(times.size(), replicas()));
    }
    double longest = 0;
    for (std::uint32_t e = 0; e < experts_; ++e) {
      std::vector<double> times;
      for (const auto& [allowed, fastest] : classes) {
        if (std::binary_search(allowed->begin(), allowed->end(), e)) {
          times.insert(times.end(), fastest.begin(), fastest.end());
        }
      }
      std::sort(times.begin(), times.end());
      const std::size_t n = std::min<std::size_t>(times.size(), replicas());
      if (n > 0) longest = std::max(longest, times[n - 1]);
    }
    return longest;
  }

  std::uint32_t cap_within(const Facts& facts, double upload_s) const {
    if (facts.upload_per_expert_s <= 0) return facts.cap;
    const double more = (upload_s - facts.timing.upload_s) / facts.upload_per_expert_s;
    const double fit = least_ + std::floor(std::clamp(more, 0.0, 1e6) + 1e-9);
    return static_cast<std::uint32_t>(std::min<double>(facts.cap, fit));
  }

  // Places experts on those that upload within `upload_s` and do their least steps within `commit_s`.
  // Answers how many holders are lacking. `bounding`: as a maximum flow, which no plan can exceed.
  std::uint32_t try_cover(const std::vector<std::uint32_t>& able, double upload_s, double commit_s,
                          bool bounding) {
    std::vector<std::uint32_t> seated;
    std::vector<std::uint32_t> caps;
    for (const std::uint32_t i : able) {
      const Facts& facts = facts_[i];
      if (facts.timing.upload_s > upload_s * (1 + 1e-9)) continue;
      if (facts.is_timed && placement::earliest(facts.timing) > commit_s * (1 + 1e-9)) continue;
      seated.push_back(i);
      caps.push_back(cap_within(facts, upload_s + breadth_s_));
    }
    if (seated == seated_ && caps == caps_ && bounding == covered_bounding_ &&
        !cover_.sets.empty()) {
      return cover_.lacking;
    }
    covered_bounding_ = bounding;
    seated_ = std::move(seated);
    caps_ = std::move(caps);
    std::vector<Seat> seats;
    for (std::size_t s = 0; s < seated_.size(); ++s) seats.push_back(seat_of(seated_[s], caps_[s]));
    cover_ = placement::cover(possible_, replicas(), bounding && !keeps_moves_ ? experts_ : moves(),
                              seats, !bounding);
    return cover_.lacking;
  }

  Seat seat_of(std::uint32_t i, std::uint32_t cap) const {
    return {facts_[i].allowed, &workers_[i].held, cap, least_,
            std::max(1.0, workers_[i].profile.tokens_per_s)};
  }
  std::uint32_t replicas() const { return static_cast<std::uint32_t>(options_.replicas_min); }
  std::uint32_t moves() const { return static_cast<std::uint32_t>(options_.moves_max); }

  // For a given upload time U the least commit time is known exactly: the steps must be done and the
  // experts must find their holders. So candidates for U are tried, the promising ones first, and
  // between two of them U costs at least the lower and allows no more than the upper.
  void choose(const std::vector<std::uint32_t>& able, const std::vector<Timing>& timings,
              std::uint64_t steps, double uploaded_s, double placed_s) {
    std::uint32_t least = try_cover(able, uploaded_s, placed_s, false);
    if (least > 0) {
      least = try_cover(able, kAlways, kAlways, false);
      if (least > 0) uploaded_s = placed_s = 0;  // not every expert gets its holders: fewer may do
      uploaded_s = least_of(uploads_of(able), uploaded_s,
                            [&](double u) { return try_cover(able, u, kAlways, true) <= least; });
      placed_s = least_of(commits_of(able), placed_s,
                          [&](double t) { return try_cover(able, kAlways, t, true) <= least; });
    }
    std::vector<UploadTime> tries = upload_times(able, timings, steps, uploaded_s, placed_s);
    if (tries.empty()) {  // nobody's speed is known
      try_cover(able, kAlways, kAlways, false);
      return;
    }
    double best_s = kAlways;
    const UploadTime* best = nullptr;
    std::vector<UploadTime*> order;
    for (UploadTime& one : tries) order.push_back(&one);
    std::stable_sort(order.begin(), order.end(),
                     [](const auto* a, const auto* b) { return a->bound_s < b->bound_s; });
    const std::size_t tries_max =
        std::max<std::size_t>(8, kWork / std::max<std::size_t>(1, able.size()));
    for (std::size_t i = 0; i < order.size() && i < tries_max; ++i) {
      UploadTime& one = *order[i];
      if (one.bound_s >= best_s * kGoodEnough) break;
      const double by_steps_s = one.commit_s;
      one.commit_s = least_of(commits_of(able), by_steps_s, [&](double t) {
        return try_cover(able, one.upload_s, t, false) <= least;
      });
      const bool is_enough = try_cover(able, one.upload_s, one.commit_s, false) <= least;
      if (one.commit_s > by_steps_s) raise_bound(one, able, by_steps_s, least);
      try_cover(able, one.upload_s, one.commit_s, false);
      const double makespan_s = is_enough ? longest_upload() + one.commit_s : kAlways;
      if (makespan_s < best_s) {
        best_s = makespan_s;
        best = &one;
      }
    }
    double bound_s = kAlways;
    for (const UploadTime& one : tries) bound_s = std::min(bound_s, one.bound_s);
    plan_.lower_bound_s = std::isfinite(bound_s) ? bound_s : 0;
    if (best == nullptr) best = order.back();
    try_cover(able, best->upload_s, best->commit_s, false);
  }

  struct UploadTime;
  // The steps could be done sooner than the holders are found: whoever plans must wait for those.
  void raise_bound(UploadTime& one, const std::vector<std::uint32_t>& able, double by_steps_s,
                   std::uint32_t least) {
    const double commit_s = least_of(commits_of(able), by_steps_s, [&](double t) {
      return try_cover(able, one.upload_s, t, true) <= least;
    });
    const bool can = try_cover(able, one.upload_s, commit_s, true) <= least;
    one.bound_s = can ? std::max(one.bound_s, one.least_s + commit_s * (1 - 1e-8)) : kAlways;
  }

  struct UploadTime {
    double least_s = 0;   // U is at least this,
    double upload_s = 0;  // and not above this
    double commit_s =
        0;  // the least commit time then, by the steps; in choose() also by the holders
    double bound_s = 0;  // no plan of this kind has a smaller makespan
  };

  std::vector<UploadTime> upload_times(const std::vector<std::uint32_t>& able,
                                       const std::vector<Timing>& timings, std::uint64_t steps,
                                       double uploaded_s, double placed_s) const {
    std::vector<double> uploads = uploads_of(able);
    std::erase_if(uploads, [&](double u) { return u < uploaded_s; });
    uploads.push_back(uploaded_s);
    std::sort(uploads.begin(), uploads.end());
    uploads.erase(std::unique(uploads.begin(), uploads.end()), uploads.end());
    const auto commit_at = [&](double upload_s) {
      std::vector<Timing> there;
      for (const Timing& t : timings) {
        if (t.upload_s <= upload_s * (1 + 1e-9)) there.push_back(t);
      }
      return placement::commit_time(there, steps);
    };
    // No more than the makespan of waiting for everybody's upload is worth a look.
    const double all_s = uploads.back() + std::max(placed_s, commit_at(uploads.back()).at_most);
    const double step_s = (std::min(uploads.back(), all_s) - uploaded_s) / kCandidates;
    std::vector<UploadTime> tries;
    double before = uploaded_s;
    for (std::size_t i = 0; i < uploads.size(); ++i) {
      const bool is_last = i + 1 == uploads.size() || before > all_s;
      if (!is_last && i > 0 && uploads[i + 1] <= before + step_s) continue;
      const placement::CommitTime commit = commit_at(uploads[i]);
      // Nothing lies between two values next to each other.
      const double lower =
          i == 0 || uploads[i - 1] <= before ? uploads[i] : next_after(uploads, before);
      if (std::isfinite(commit.at_most)) {
        tries.push_back({lower, uploads[i], std::max(commit.at_most, placed_s),
                         lower + std::max(commit.at_least, placed_s)});
      }
      before = uploads[i];
      if (is_last) break;
    }
    return tries;
  }

  static double next_after(const std::vector<double>& sorted, double value) {
    return *std::upper_bound(sorted.begin(), sorted.end(), value);
  }

  std::vector<double> uploads_of(const std::vector<std::uint32_t>& able) const {
    std::vector<double> uploads;
    for (const std::uint32_t i : able) {
      const Facts& facts = facts_[i];
      const std::uint32_t most = facts.upload_per_expert_s > 0 ? facts.cap : least_;
      for (std::uint32_t h = least_; h <= most; ++h) {
        uploads.push_back(facts.timing.upload_s + (h - least_) * facts.upload_per_expert_s);
      }
    }
    return uploads;
  }
  std::vector<double> commits_of(const std::vector<std::uint32_t>& able) const {
    std::vector<double> commits;
    for (const std::uint32_t i : able) {
      if (facts_[i].is_timed) commits.push_back(placement::earliest(facts_[i].timing));
    }
    return commits;
  }
  double longest_upload() const {
    double longest = 0;
    for (std::size_t s = 0; s < seated_.size(); ++s) {
      const Facts& facts = facts_[seated_[s]];
      if (!facts.is_timed) continue;
      const auto count = static_cast<std::uint32_t>(cover_.sets[s].size());
      longest = std::max(longest, facts.timing.upload_s + (count - std::min(count, least_)) *
                                                              facts.upload_per_expert_s);
    }
    return longest;
  }

  // The least of `first` and the `values` above it for which `enough`; the largest if none is.
  template <typename Enough>
  static double least_of(std::vector<double> values, double first, Enough enough) {
    if (enough(first)) return first;
    std::erase_if(values, [&](double v) { return v <= first; });
    std::sort(values.begin(), values.end());
    std::size_t low = 0, high = values.size();
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      if (enough(values[middle])) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return values.empty() ? first : values[std::min(low, values.size() - 1)];
  }

  bool respects_moves() const {
    for (std::size_t s = 0; s < seated_.size(); ++s) {
      const ExpertSet& held = workers_[seated_[s]].held;
      if (held.empty()) continue;
      const auto moved = std::count_if(
          cover_.sets[s].begin(), cover_.sets[s].end(),
          [&](std::uint32_t e) { return !std::binary_search(held.begin(), held.end(), e); });
      if (moved > options_.moves_max) return false;
    }
    return true;
  }

  void assign(std::uint64_t steps) {
    std::vector<Timing> timings;
    for (const std::uint32_t i : seated_) {
      if (facts_[i].is_timed) timings.push_back(facts_[i].timing);
    }
    double commit_s = placement::commit_time(timings, steps).at_most;
    if (!std::isfinite(commit_s)) {
      commit_s = 0;
      for (const Timing& t : timings)
        commit_s = std::max(commit_s, t.start_s + t.steps_max * t.step_s);
    }
    // If a holder needs longer than that for its least steps, the others go on until then.
    for (const Timing& t : timings) commit_s = std::max(commit_s, placement::earliest(t));
    std::vector<std::uint32_t> seat_by_worker(workers_.size(), kNoSeat);
    for (std::uint32_t s = 0; s < seated_.size(); ++s) seat_by_worker[seated_[s]] = s;
    // Those that are not waited for take what is trained least, and nobody counts on them.
    double trained_s = 0, uploaded_s = 0;
    for (std::uint32_t i = 0; i < workers_.size(); ++i) {
      Assignment a = assignment_of(i, seat_by_worker[i], commit_s);
      if (a.awaited && a.predicted_s > 0) {
        trained_s = std::max(trained_s, a.predicted_s);
        uploaded_s = std::max(uploaded_s, a.upload_s);
      }
      plan_.assignments.push_back(std::move(a));
    }
    plan_.makespan_s = trained_s > 0 ? trained_s + uploaded_s : 0;
    if (plan_.makespan_s == 0)
      plan_.lower_bound_s = 0;  // nobody whose speed is known is waited for
    plan_.replicas = cover_.holders.empty()
                         ? 0
                         : *std::min_element(cover_.holders.begin(), cover_.holders.end());
    for (std::uint32_t e = 0; e < experts_; ++e) {
      if (cover_.holders[e] < replicas()) plan_.short_of.push_back(e);
    }
  }

  Assignment assignment_of(std::uint32_t i, std::uint32_t seat, double commit_s) {
    const PlacementWorker& worker = workers_[i];
    const Facts& facts = facts_[i];
    Assignment a;
    a.uid = worker.uid;
    if (facts.cap < least_) {
      a.experts_by = facts.cap_by;
      a.steps_by = Limit::too_few_experts;
      a.why = too_few(worker.profile, facts);
      return a;
    }
    a.awaited = seat != kNoSeat;
    if (a.awaited) {
      a.experts = std::move(cover_.sets[seat]);
    } else {
      const std::vector<Seat> alone{seat_of(i, facts.cap)};
      a.experts = placement::cover(possible_, 0, moves(), alone).sets[0];
    }
    for (const std::uint32_t e : a.experts) {
      a.moved +=
          worker.held.empty() || std::binary_search(worker.held.begin(), worker.held.end(), e) ? 0
                                                                                               : 1;
    }
    const auto count = static_cast<std::uint32_t>(a.experts.size());
    a.experts_by = facts.cap_by;
    if (count < facts.cap) {
      a.experts_by = a.moved >= moves() && !worker.held.empty() ? Limit::moves : Limit::uplink;
    }
    a.upload_s =
        facts.timing.upload_s + (count - std::min(count, least_)) * facts.upload_per_expert_s;
    set_steps(a, worker.profile, facts.timing, commit_s);
    return a;
  }

  void set_steps(Assignment& a, const WorkerProfile& profile, const Timing& timing,
                 double commit_s) const {
    if (profile.tokens_per_s <= 0) {
      a.inner_steps = static_cast<std::uint32_t>(options_.inner_steps_first);
      if (profile.inner_steps_max > 0)
        a.inner_steps = std::min(a.inner_steps, profile.inner_steps_max);
      a.steps_by = Limit::not_measured;
      return;
    }
    const auto steps = static_cast<std::uint32_t>(placement::steps_by(timing, commit_s));
    a.inner_steps = std::max(steps, timing.steps_min);
    if (steps < timing.steps_min) {
      a.steps_by = Limit::run_minimum;
    } else if (steps == timing.steps_max) {
      a.steps_by =
          profile.inner_steps_max == timing.steps_max ? Limit::own_maximum : Limit::run_maximum;
    }
    a.predicted_s = timing.start_s + a.inner_steps * timing.step_s;
  }

  std::string too_few(const WorkerProfile& profile, const Facts& facts) const {
    const std::string needed = std::to_string(facts.cap) + " experts, " + std::to_string(least_) +
                               " are needed (model.experts_per_token)";
    if (facts.cap_by == Limit::rules) {
      return "tier " + profile.tier +
             (profile.region.empty() ? "" : " and region " + profile.region) + " may hold " +
             needed;
    }
    if (facts.cap_by == Limit::own_maximum) return "its experts_max allows " + needed;
    return "memory of " + std::to_string(profile.memory_mib) + " MiB holds " + needed +
           " beside the trunk and the base version";
  }

  static constexpr std::uint32_t kNoSeat = 0xffff'ffff;

  const Layout& layout_;
  const UpdateSize& size_;
  std::span<const PlacementWorker> workers_;
  const PlacementOptions& options_;
  std::uint32_t experts_, least_;
  double tokens_per_step_;
  ExpertRules rules_;
  std::map<std::pair<std::uint8_t, std::string>, ExpertSet> allowed_;
  std::vector<Facts> facts_;
  std::vector<std::uint32_t> possible_;       // by expert: workers that could hold it
  std::vector<std::uint32_t> seated_, caps_;  // who is waited for; cover_ is of these
  CoverResult cover_;
  bool covered_bounding_ = false;
  bool keeps_moves_ = true;  // what the bound is of: plans that keep moves_max, or all
  double breadth_s_ = 0;
  Plan plan_;
};

}  // namespace

Plan place(const Layout& layout, std::int64_t batch_sequences, const UpdateSize& size,
           std::span<const PlacementWorker> workers, const PlacementOptions& options) {
  return Planner(layout, batch_sequences, size, workers, options).run();
}

}  // namespace yumoe

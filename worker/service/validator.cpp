#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "router/audit.hpp"
#include "service/misbehaviour.hpp"
#include "service/shared.hpp"
#include "worker/evaluator.hpp"
#include "worker/memory.hpp"
#include "worker/trainer.hpp"
#include "worker/windows.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

// Mean and standard error of loss before - loss after, window by window: the same windows are under
// both, so what they have in common cancels (common random numbers).
Measurement compare(const WindowLosses& before, const WindowLosses& after) {
  Measurement m;
  const std::size_t count = before.losses.size();
  m.windows = static_cast<std::uint32_t>(count);
  if (count == 0) return m;
  m.loss_before = before.mean();
  m.reduction = before.mean() - after.mean();
  double squares = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double d = before.losses[i] - after.losses[i] - m.reduction;
    squares += d * d;
  }
  if (count > 1) {
    m.standard_error =
        std::sqrt(squares / static_cast<double>(count - 1) / static_cast<double>(count));
  }
  return m;
}

class Validator {
 public:
  Validator(const ParticipantSetup& setup, Keypair keys, const std::atomic<bool>& stop)
      : stop_(stop),
        misbehaviour_(Role::validator, setup.behaviour, setup.pool),
        hotkey_(keys.public_key()),
        link_(setup.coordinator, std::move(keys), join_of(setup), setup.transport, stop),
        welcome_(link_.welcome(setup.join_wait)),
        facts_(RunFacts::from(welcome_)),
        layout_(Layout::of(facts_.model)),
        context_(static_cast<std::uint32_t>(facts_.model.context)),
        tokens_(open_data(setup, facts_, welcome_)),
        device_(setup.device),
        evaluator_(facts_.model, setup.device),
        follower_(layout_, facts_, link_) {
    heldout_ =
        read(Split::heldout, derive_seed("heldout order", {0}), 0,
             std::min<std::uint64_t>(static_cast<std::uint64_t>(facts_.evaluation.heldout_windows),
                                     tokens_.windows(Split::heldout, context_)));
    log_info("joined run " + welcome_.run + " as uid " + std::to_string(welcome_.uid.value));
    misbehaviour_.enrol(welcome_.uid, hotkey_);
  }

  void run() {
    std::uint64_t seen = 0;
    while (!stop_) {
      const auto directive = link_.directive(seen, milliseconds(500));
      if (!directive) continue;
      seen = directive->sequence;
      if (directive->finished) break;
      if (directive->evaluate.round.value == 0 || directive->evaluate.round == done_) continue;
      done_ = directive->evaluate.round;
      evaluate(*directive);
    }
    link_.settle(milliseconds(2'000));
  }

 private:
  static Join join_of(const ParticipantSetup& setup) {
    Join join;
    join.role = Role::validator;
    join.name = setup.name;
    join.profile.device = setup.device.device;
    return join;
  }

  std::vector<std::uint16_t> read(Split split, std::uint64_t order, std::uint64_t first,
                                  std::uint64_t count) const {
    return read_windows(windows_in_order(tokens_, order, split, context_), first, count, context_);
  }

  void evaluate(const Directive& directive) {
    const Evaluation& job = directive.evaluate;
    if (!misbehaviour_.none()) {
      Scores lies = misbehaviour_.lie(job);
      lies.heldout_loss = lies.heldout_bits_per_byte = std::numeric_limits<double>::quiet_NaN();
      return link_.send_scores(lies);
    }
    const auto start = std::chrono::steady_clock::now();
    Scores scores;
    scores.round = job.round;
    scores.heldout_loss = scores.heldout_bits_per_byte = std::numeric_limits<double>::quiet_NaN();
    bool ready = true;
    try {
      follower_.reach({job.round.value - 1}, directive);
      evaluator_.load_base(follower_.base().parameters(), follower_.base().gate_bias());
    } catch (const Error& error) {
      // This validator's own failure: it says so, and no worker's score is touched.
      log_error("round " + std::to_string(job.round.value) +
                " can not be measured: " + error.what());
      ready = false;
    }
    const auto private_windows =
        read(Split::validation_private,
             derive_seed("private order", {welcome_.private_seed, job.round.value}), 0,
             static_cast<std::uint64_t>(facts_.evaluation.private_windows));
    if (ready) fetch_all(job);
    const std::set<Uid> closer = choose_closer(job);
    for (const Evaluation::Item& item : job.contributions) {
      if (stop_) return;
      scores.entries.push_back(ready
                                   ? measure(item, private_windows, closer.contains(item.shard.uid))
                                   : ScoreEntry{item.shard.uid, Verdict::unavailable, {}, {}});
    }
    if (ready && !closer.empty()) measure_given(scores.entries, closer, private_windows);
    for (const Evaluation::Item& item : job.audits) {
      if (stop_) return;
      scores.audits.push_back(ready ? audit(item) : ShardAudit{item.shard.uid, item.shard.round});
    }
    if (ready && job.closer && !heldout_.empty()) {
      const WindowLosses& losses = evaluator_.base(heldout_);
      if (losses.is_finite) {
        scores.heldout_loss = losses.mean();
        scores.heldout_bits_per_byte =
            bits_per_byte(losses.mean(), tokens_.bytes_per_token(Split::heldout));
      }
    }
    scores.seconds_spent =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    log_info("round " + std::to_string(job.round.value) + ": measured " +
             std::to_string(scores.entries.size()) + " contributions in " +
             std::to_string(scores.seconds_spent) + " s, held-out loss " +
             std::to_string(scores.heldout_loss));
    link_.send_scores(scores);
  }

  // Who is measured closer: on its own data, expert by expert, and given the others. Drawn anew in each round.
  std::set<Uid> choose_closer(const Evaluation& job) const {
    if (!job.closer) return {};
    std::vector<Uid> uids;
    for (const auto& [uid, fetched] : fetched_) uids.push_back(uid);
    Random random(derive_seed("closer", {welcome_.private_seed, job.round.value}));
    const auto most =
        std::min(uids.size(), static_cast<std::size_t>(facts_.evaluation.given_sampled));
    for (std::size_t i = 0; i < most; ++i) {
      std::swap(uids[i], uids[i + random.below(uids.size() - i)]);
    }
    return {uids.begin(), uids.begin() + static_cast<std::ptrdiff_t>(most)};
  }

  // What the round's contributions together reduce the loss by, less what they do without this one.
  void measure_given(std::vector<ScoreEntry>& entries, const std::set<Uid>& closer,
                     std::span<const std::uint16_t> windows) {
    const auto without = [&](std::optional<Uid> left_out) {
      std::vector<Change> changes;
      for (const ScoreEntry& entry : entries) {
        const bool counts = entry.verdict == Verdict::measured && entry.uid != left_out;
        if (counts) changes.push_back(change_of(*fetched_.at(entry.uid).update));
      }
      return evaluator_.with(
          [&](std::span<float> parameters) {
            for (const Change& change : changes) change(parameters);
          },
          windows);
    };
    const WindowLosses together = without(std::nullopt);
    if (!together.is_finite) return;
    for (ScoreEntry& entry : entries) {
      if (entry.verdict != Verdict::measured || !closer.contains(entry.uid)) continue;
      const WindowLosses others = without(entry.uid);
      if (others.is_finite) entry.given = compare(others, together);
    }
  }

  Change change_of(const Update& update) const {
    return change_by(layout_, update, scale_, Part::whole(update), usual_norms_);
  }

  ScoreEntry measure(const Evaluation::Item& item, std::span<const std::uint16_t> private_windows,
                     bool closer) {
    ScoreEntry entry{item.shard.uid, Verdict::unavailable, {}, {}};
    const auto found = fetched_.find(item.shard.uid);
    if (found == fetched_.end()) return entry;
    try {
      const Update& update = *found->second.update;
      const WindowLosses on_private = evaluator_.with(change_of(update), private_windows);
      if (!on_private.is_finite) {
        entry.verdict = Verdict::not_finite;
        return entry;
      }
      entry.private_draw = compare(evaluator_.base(private_windows), on_private);
      entry.verdict = Verdict::measured;
      if (!closer) return entry;
      measure_experts(entry, update, private_windows, on_private);
      measure_assigned(entry, item.shard, update);
    } catch (const Error& error) {
      log_warning("uid " + std::to_string(item.shard.uid.value) +
                  " was not measured: " + error.what());
    }
    return entry;
  }

  void measure_assigned(ScoreEntry& entry, const TrainingShard& shard, const Update& update) {
    const auto windows =
        read(Split::train, facts_.data_order(), shard.data.first,
             std::min<std::uint64_t>(
                 shard.data.count, static_cast<std::uint64_t>(facts_.evaluation.assigned_windows)));
    const WindowLosses after = evaluator_.with(change_of(update), windows);
    const WindowLosses before = evaluator_.with([](std::span<float>) {}, windows);
    if (before.is_finite && after.is_finite) entry.assigned = compare(before, after);
  }

  // All contributions of a round and the median norm of each tensor among them: each is measured as the
  // aggregate would take it.
  void fetch_all(const Evaluation& job) {
    fetched_.clear();
    scale_ = static_cast<float>(outer_rate(facts_.outer, job.round) *
                                facts_.evaluation.step_share_of(job.answered));
    std::vector<std::vector<double>> norms(layout_.tensors().size());
    for (const Evaluation::Item& item : job.contributions) {
      try {
        Fetched fetched;
        fetched.contribution = fetch(item);
        fetched.update = std::make_unique<Update>(layout_, fetched.contribution.update);
        for (std::size_t i = 0; i < fetched.update->tensors().size(); ++i) {
          norms[fetched.update->tensors()[i]].push_back(std::sqrt(fetched.update->squared_norm(i)));
        }
        fetched_[item.shard.uid] = std::move(fetched);
      } catch (const Error& error) {
        log_warning("uid " + std::to_string(item.shard.uid.value) +
                    " was not fetched: " + error.what());
      }
    }
    usual_norms_.assign(norms.size(), 0);
    for (std::size_t i = 0; i < norms.size(); ++i) {
      if (norms[i].size() < 3) continue;  // no median to speak of
      std::sort(norms[i].begin(), norms[i].end());
      usual_norms_[i] = norms[i][norms[i].size() / 2];
    }
  }

  Contribution fetch(const Evaluation::Item& item) {
    return decode_contribution(
        link_.fetch(item.digest, kContributionBytesMax, milliseconds(30'000)));
  }

  // What the loss gains if one expert's part is left out, for a few experts drawn by the private seed.
  void measure_experts(ScoreEntry& entry, const Update& update,
                       std::span<const std::uint16_t> windows, const WindowLosses& whole) {
    std::vector<std::uint32_t> experts = update.experts();
    Random random(derive_seed("experts", {welcome_.private_seed, done_.value, entry.uid.value}));
    for (std::size_t i = 0; i + 1 < experts.size(); ++i) {
      std::swap(experts[i], experts[i + random.below(experts.size() - i)]);
    }
    experts.resize(
        std::min(experts.size(), static_cast<std::size_t>(facts_.evaluation.experts_sampled)));
    std::sort(experts.begin(), experts.end());
    for (const std::uint32_t expert : experts) {
      Part without = Part::whole(update);
      std::erase(without.experts, expert);
      const WindowLosses losses = evaluator_.with(
          change_by(layout_, update, scale_, std::move(without), usual_norms_), windows);
      if (losses.is_finite) entry.experts.push_back({expert, compare(losses, whole)});
    }
  }

  // Trains the shard again and says where its losses leave what the worker listed.
  ShardAudit audit(const Evaluation::Item& item) {
    ShardAudit audit{item.shard.uid, item.shard.round};
    try {
      const auto found = fetched_.find(item.shard.uid);
      const Contribution claimed =
          found == fetched_.end() ? fetch(item) : found->second.contribution;
      if (claimed.loss_bits.empty() && facts_.evaluation.own_data_allowed) return audit;
      // Moments kept from earlier rounds can not be had here; `yumoe replay --recompute` trains those too.
      if (claimed.moments_from != item.shard.round) return audit;
      Trainer trainer(facts_.model, facts_.training, device_);
      trainer.load_base(follower_.base().parameters(), follower_.base().gate_bias());
      std::vector<float> losses;
      trainer.train(item.shard,
                    windows_in_order(tokens_, facts_.data_order(), Split::train, context_),
                    [&](const StepReport& report) {
                      losses.push_back(static_cast<float>(report.loss));
                      return !stop_;
                    });
      if (stop_) return audit;
      std::vector<float> delta(layout_.parameters(), 0.0f);
      trainer.pseudo_gradient(delta);
      audit.delta = digest_of_delta(layout_, item.shard.experts, delta);
      audit.first_step =
          first_difference(claimed.loss_bits, losses, facts_.evaluation.audit_tolerance);
      // The same bits, or, on another kind of device, the same losses within the tolerance.
      if (audit.delta == claimed.delta) audit.first_step = 0;
      audit.verdict = audit.first_step == 0 ? AuditVerdict::same : AuditVerdict::different;
      log_info("uid " + std::to_string(item.shard.uid.value) + "'s shard of round " +
               std::to_string(item.shard.round.value) + ", trained again, is " +
               (audit.verdict == AuditVerdict::same
                    ? "the same"
                    : "another from step " + std::to_string(audit.first_step)));
    } catch (const Error& error) {
      log_warning("uid " + std::to_string(item.shard.uid.value) +
                  " was not audited: " + error.what());
    }
    return audit;
  }

  struct Fetched {
    Contribution contribution;
    std::unique_ptr<Update> update;
  };

  const std::atomic<bool>& stop_;
  Misbehaviour misbehaviour_;
  const PublicKey hotkey_;
  Link link_;
  const Welcome welcome_;
  const RunFacts facts_;
  const Layout layout_;
  const std::uint32_t context_;
  const TokenSet tokens_;
  const DeviceOptions device_;
  Evaluator evaluator_;
  Follower follower_;
  std::map<Uid, Fetched> fetched_;   // of the round in work
  std::vector<double> usual_norms_;  // by tensor; 0: too few to know
  float scale_ = 0;                  // with which a contribution is tried
  std::vector<std::uint16_t> heldout_;
  RoundId done_;
};

}  // namespace

std::span<const std::string_view> validator_behaviours() {
  return Misbehaviour::names(Role::validator);
}

void run_validator(ParticipantSetup setup, Keypair keys, const std::atomic<bool>& stop) {
  keep_freed_memory();
  Validator(setup, std::move(keys), stop).run();
}

}  // namespace yumoe

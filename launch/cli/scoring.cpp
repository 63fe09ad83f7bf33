// What scoring did and would do: `yumoe why`, `yumoe rescore`, `yumoe simulate`.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cluster/error.hpp"
#include "coordinator/history.hpp"
#include "coordinator/run_ledger.hpp"
#include "launch/attacks.hpp"

namespace yumoe {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kNormal95 = 1.96;  // half width of a 95 % interval, in standard errors

std::string text(const char* format, double value) {
  char buffer[48];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

// --- why ------------------------------------------------------------------------------------------------------

// In the order in which a contribution meets them.
constexpr const char* kFilters[] = {"commitment", "schema",  "shard",  "sync", "work",     "size",
                                    "update",     "experts", "finite", "norm", "duplicate"};

// One validator's view of one worker in one round.
struct View {
  Uid validator;
  std::optional<ScoreEntry> entry;
  std::optional<ShardAudit> audit;
  Opinion before, after;
  WeightReasons reasons;
  std::uint16_t weight = 0;
};

struct RoundAnswer {  // what became of the shard
  bool assigned = false;
  ShardState shard;
  bool closed = false;
  std::string rate;  // what was seen when it sent too much
  std::vector<View> views;
};

class WhyReading {
 public:
  WhyReading(const RunRecord& record, const std::string& hotkey)
      : setup_(RunSetup::from_journal(record.run(), record.metadata())),
        layout_(Layout::of(setup_.model)),
        core_(layout_, setup_.settings),
        ledger_(setup_.ledger, setup_.economy) {
    std::map<Uid, Opinion> before;
    drive(record, core_, [&](const Record& r, const Event& event) {
      ledger_.apply(event, core_, r.time);
      if (!uid_) uid_ = find(hotkey);
      if (!uid_) return;
      if (const auto* scored = std::get_if<Scored>(&event)) note(*scored, before);
      if (const auto* left = std::get_if<Left>(&event);
          left && left->uid == *uid_ && left->reason.starts_with("rate: ")) {
        rounds_[core_.round().value].rate = left->reason.substr(6);
      }
      note_shards();
    });
    if (!uid_) {
      throw Error(ErrorCode::usage, "nobody in this run has the hotkey or name '" + hotkey +
                                        "': `yumoe status RUN` lists who took part");
    }
  }
  WhyReading(const WhyReading&) = delete;

  // The newest round that was measured, or the newest with a shard.
  std::uint64_t newest() const {
    std::uint64_t newest = 0;
    bool measured = false;
    for (const auto& [round, answer] : rounds_) {
      const bool has = std::any_of(answer.views.begin(), answer.views.end(),
                                   [](const View& view) { return view.entry.has_value(); });
      if (has || !measured) newest = round;
      measured = measured || has;
    }
    return newest;
  }

  Uid uid() const { return *uid_; }
  const Run& core() const { return core_; }
  const RunLedger& ledger() const { return ledger_; }
  const RunSetup& setup() const { return setup_; }
  const std::map<std::uint64_t, RoundAnswer>& rounds() const { return rounds_; }

 private:
  std::optional<Uid> find(const std::string& who) const {
    for (const auto& [uid, p] : core_.participants()) {
      if (to_ss58(p.hotkey) == who || p.name == who) return uid;
    }
    return std::nullopt;
  }

  void note_shards() {
    for (std::uint64_t back = 0; back < 4 && back < core_.round().value; ++back) {
      const RoundId id{core_.round().value - back};
      const RoundState* round = core_.round_state(id);
      if (round == nullptr || !round->shards.contains(*uid_)) continue;
      RoundAnswer& answer = rounds_[id.value];
      answer.assigned = true;
      answer.shard = round->shards.at(*uid_);
      answer.closed = round->closed;
    }
  }

  void note(const Scored& scored, std::map<Uid, Opinion>& before) {
    const Scoring& scoring = core_.scoring();
    View view;
    view.validator = scored.validator;
    view.before = before[scored.validator];
    if (const Opinion* opinion = scoring.opinion(scored.validator, *uid_)) view.after = *opinion;
    before[scored.validator] = view.after;
    for (const ScoreEntry& entry : scored.scores.entries) {
      if (entry.uid == *uid_) view.entry = entry;
    }
    for (const ShardAudit& audit : scored.scores.audits) {
      if (audit.uid == *uid_) view.audit = audit;
    }
    view.reasons = scoring.reasons(scored.validator, *uid_);
    for (const auto& [uid, weight] : scoring.weights(scored.validator)) {
      if (uid == *uid_) view.weight = weight;
    }
    rounds_[scored.scores.round.value].views.push_back(view);
  }

  RunSetup setup_;
  Layout layout_;
  Run core_;
  RunLedger ledger_;
  std::optional<Uid> uid_;
  std::map<std::uint64_t, RoundAnswer> rounds_;
};

struct FilterVerdict {
  std::string filter, verdict, evidence;
};

std::vector<FilterVerdict> verdicts_of(const RoundAnswer& answer) {
  std::vector<FilterVerdict> verdicts;
  const ShardState& shard = answer.shard;
  const bool committed = shard.answer != Answer::missing;
  const bool revealed = shard.answer == Answer::revealed || shard.answer == Answer::refused;
  verdicts.push_back(
      {"presence", committed ? "passed" : "failed",
       committed ? std::to_string(shard.bytes) + " bytes committed to" : "nothing was committed"});
  verdicts.push_back(
      {"time",
       !committed      ? "not reached"
       : shard.in_time ? "passed"
                       : "late",
       committed ? "committed at " + std::to_string(shard.committed_at.value) + " ms" : ""});
  verdicts.push_back({"reveal",
                      !committed ? "not reached"
                      : revealed ? "passed"
                                 : "failed",
                      revealed    ? "blob " + shard.blob.hex().substr(0, 16)
                      : committed ? "never revealed"
                                  : ""});
  verdicts.push_back({"rate", answer.rate.empty() ? "passed" : "failed", answer.rate});
  bool reached = revealed;
  for (const char* filter : kFilters) {
    if (!reached) {
      verdicts.push_back({filter, "not reached", ""});
    } else if (shard.filter == filter) {
      verdicts.push_back({filter, "failed", shard.evidence});
      reached = false;
    } else {
      verdicts.push_back({filter, "passed", ""});
    }
  }
  return verdicts;
}

// What each factor that is below its best takes, in words.
std::vector<std::string> advice(const WhyReading& reading, const RoundAnswer& answer,
                                const View* view) {
  std::vector<std::string> lines;
  const auto times = [](double factor) {
    return factor > 1e-9 ? text("%.2f times", 1 / factor) : std::string("from nothing");
  };
  if (!answer.shard.filter.empty()) {
    lines.push_back("passing the filter " + answer.shard.filter +
                    ": this contribution counted for nothing");
  }
  if (answer.assigned && answer.shard.answer == Answer::missing) {
    lines.push_back("committing before the deadline: this round counted as missed");
  }
  if (answer.shard.shared) {
    lines.push_back(
        "work that nobody else delivers: another worker had the same before anything was revealed, "
        "so the round counts only in part");
  }
  if (view == nullptr) return lines;
  const WeightReasons& r = view->reasons;
  if (r.banned)
    lines.push_back(
        "a shard that gives the same when it is trained again: a failed audit bans until round " +
        std::to_string(view->after.banned_until.value));
  if (r.presence < 0.99)
    lines.push_back("answering every round in time: the weight would be " + times(r.presence) +
                    " what it is");
  if (r.penalty < 0.99)
    lines.push_back("no refused contributions: the weight would be " + times(r.penalty) +
                    " what it is; each good round gives some back");
  if (r.given < 0.99)
    lines.push_back("something that the others do not do already: the weight would be " +
                    times(r.given) + " what it is");
  if (r.experts < 0.99)
    lines.push_back(
        "more from its experts, which do less than half of what is usual: the weight "
        "would be " +
        times(r.experts) + " what it is");
  if (r.certainty < 0.99 && view->after.credit > 0)
    lines.push_back(
        "more measurements: the interval still reaches far down; the weight may become " +
        times(r.certainty) + " what it is");
  const Scoring& scoring = reading.core().scoring();
  double best = 0;
  for (const auto& [uid, weight] : scoring.consensus()) best = std::max(best, scoring.credit(uid));
  if (view->after.measured > 0 && view->after.credit < 0.95 * best) {
    lines.push_back(
        "a larger loss reduction: credit is " + text("%.3f", view->after.credit) +
        " of the typical worker's, the best has " + text("%.3f", best) +
        "; a tenth more credit gives " +
        text("%.0f", 100 * (std::pow(1.1, reading.setup().settings.scoring.weight_power) - 1)) +
        " % more weight");
  }
  return lines;
}

// Why a worker that is there earns nothing; "" if it earns.
std::string warning(const WhyReading& reading) {
  const Participant& p = reading.core().participants().at(reading.uid());
  const Scoring& scoring = reading.core().scoring();
  if (!p.active || p.role != Role::worker || scoring.weight(p.uid) > 0) return "";
  const std::string head = "alive but not earning: ";
  const auto validators = scoring.validators();
  if (validators.empty()) return head + "no validator has reported yet";
  const Opinion* opinion = nullptr;
  for (const Uid v : validators) {
    const Opinion* other = scoring.opinion(v, p.uid);
    if (other != nullptr && other->measured > 0) opinion = other;
  }
  if (opinion == nullptr)
    return head + "nobody has measured it yet" + (p.reason.empty() ? "" : "; " + p.reason);
  if (opinion->banned_until > reading.core().round()) {
    return head + "a shard of it, trained again, gave something else; banned until round " +
           std::to_string(opinion->banned_until.value);
  }
  if (opinion->credit <= 0) return head + "its contributions do not lower the loss";
  return head + "its credit " + text("%.3f", opinion->credit) + " is not surely above nothing yet" +
         (p.reason.empty() ? "" : "; " + p.reason);
}

Json json_of(const Measurement& m) {
  return {{"reduction", m.reduction},
          {"low", m.reduction - kNormal95 * m.standard_error},
          {"high", m.reduction + kNormal95 * m.standard_error},
          {"standard_error", m.standard_error},
          {"loss_before", m.loss_before},
          {"windows", m.windows}};
}

Json json_of(const Estimate& e) {
  const double half = kNormal95 * std::sqrt(e.variance);
  return {{"credit", e.value},
          {"credit_low", e.value - half},
          {"credit_high", e.value + half},
          {"measured", e.measured}};
}

Json json_of(const Opinion& o) {
  const double half = kNormal95 * std::sqrt(o.variance);
  return {
      {"credit", o.credit},      {"credit_low", o.credit - half}, {"credit_high", o.credit + half},
      {"measured", o.measured},  {"rating", o.rating.ordinal()},  {"mu", o.rating.mu},
      {"sigma", o.rating.sigma}, {"given", json_of(o.given)},     {"experts", json_of(o.experts)}};
}

// Alpha that the next epoch would pay the worker as things stand.
double predicted_alpha(const WhyReading& reading) {
  const auto neuron =
      reading.ledger().neuron_of(reading.core().participants().at(reading.uid()).hotkey);
  if (!neuron) return 0;
  for (const ledger::Payout& payout : reading.ledger().preview(std::nullopt).report.payouts) {
    if (payout.uid == *neuron) return static_cast<double>(payout.incentive) / 1e9;
  }
  return 0;
}

Json why_json(const WhyReading& reading, std::uint64_t round, const RoundAnswer& answer) {
  const Participant& p = reading.core().participants().at(reading.uid());
  const Standing standing = reading.core().standing_of(p.uid);
  Json json{{"uid", p.uid.value},           {"name", p.name},
            {"hotkey", to_ss58(p.hotkey)},  {"round", round},
            {"filters", Json::array()},     {"validators", Json::array()},
            {"shared", answer.shard.shared}};
  for (const FilterVerdict& v : verdicts_of(answer)) {
    json["filters"].push_back(
        {{"filter", v.filter}, {"verdict", v.verdict}, {"evidence", v.evidence}});
  }
  const View* last = nullptr;
  for (const View& view : answer.views) {
    last = &view;
    Json v{{"validator", view.validator.value},
           {"before", json_of(view.before)},
           {"after", json_of(view.after)},
           {"weight", view.weight},
           {"value", view.reasons.value},
           {"certainty", view.reasons.certainty},
           {"presence", view.reasons.presence},
           {"penalty", view.reasons.penalty},
           {"given", view.reasons.given},
           {"experts", view.reasons.experts},
           {"banned", view.reasons.banned},
           {"measured", Json()},
           {"audit", Json()}};
    if (const auto agreement = reading.core().scoring().agreement(view.validator))
      v["agreement"] = *agreement;
    if (view.entry) {
      v["measured"] = {{"verdict", static_cast<int>(view.entry->verdict)},
                       {"private", json_of(view.entry->private_draw)},
                       {"assigned", json_of(view.entry->assigned)},
                       {"given", json_of(view.entry->given)},
                       {"experts", Json::array()}};
      for (const ExpertMeasurement& e : view.entry->experts) {
        Json expert = json_of(e.measurement);
        expert["expert"] = e.expert;
        v["measured"]["experts"].push_back(expert);
      }
    }
    if (view.audit) {
      v["audit"] = {{"same", view.audit->verdict == AuditVerdict::same},
                    {"available", view.audit->verdict != AuditVerdict::unavailable},
                    {"first_step", view.audit->first_step},
                    {"delta", view.audit->delta.hex()}};
    }
    json["validators"].push_back(v);
  }
  json["weight"] = standing.weight;
  json["rank"] = standing.rank;
  json["of"] = standing.of;
  json["predicted_alpha"] = predicted_alpha(reading);
  json["would_raise"] = advice(reading, answer, last);
  json["warning"] = warning(reading);
  return json;
}

std::string interval(const Measurement& m) {
  if (m.windows == 0) return "not measured";
  return text("%+.5f", m.reduction) + " [" +
         text("%+.5f", m.reduction - kNormal95 * m.standard_error) + ", " +
         text("%+.5f", m.reduction + kNormal95 * m.standard_error) + "] nats a token, " +
         std::to_string(m.windows) + " windows";
}

std::string interval(const Opinion& o) {
  if (o.measured == 0) return "none";
  const double half = kNormal95 * std::sqrt(o.variance);
  return text("%.3f", o.credit) + " [" + text("%.3f", o.credit - half) + ", " +
         text("%.3f", o.credit + half) + "]";
}

void print_why(const WhyReading& reading, std::uint64_t round, const RoundAnswer& answer) {
  const Participant& p = reading.core().participants().at(reading.uid());
  const Standing standing = reading.core().standing_of(p.uid);
  std::printf("%s (uid %u, %s), round %llu\n", p.name.c_str(), p.uid.value,
              to_ss58(p.hotkey).c_str(), static_cast<unsigned long long>(round));
  const std::string warned = warning(reading);
  if (!warned.empty()) std::printf("WARNING  %s\n", warned.c_str());
  std::printf("\nfilters\n");
  for (const FilterVerdict& v : verdicts_of(answer)) {
    std::printf("  %-10s %-12s %s\n", v.filter.c_str(), v.verdict.c_str(), v.evidence.c_str());
  }
  const View* last = nullptr;
  for (const View& view : answer.views) {
    last = &view;
    const auto agreement = reading.core().scoring().agreement(view.validator);
    std::printf(
        "\nvalidator %u%s (intervals are 95 %%)\n", view.validator.value,
        agreement ? (", agreement with the consensus " + text("%.3f", *agreement)).c_str() : "");
    if (view.entry && view.entry->verdict == Verdict::measured) {
      std::printf("  private data   %s\n", interval(view.entry->private_draw).c_str());
      std::printf("  given others   %s\n", interval(view.entry->given).c_str());
      std::printf("  assigned data  %s\n", interval(view.entry->assigned).c_str());
      for (const ExpertMeasurement& e : view.entry->experts) {
        std::printf("  expert %-6u  %s\n", e.expert, interval(e.measurement).c_str());
      }
    } else if (view.entry) {
      std::printf("  %s\n", view.entry->verdict == Verdict::not_finite
                                ? "the loss is not finite with it"
                                : "the validator could not measure it");
    } else {
      std::printf("  not measured in this round: it was not among the uncertain, nor drawn\n");
    }
    if (view.audit && view.audit->verdict == AuditVerdict::same)
      std::printf("  audit          the same when trained again\n");
    if (view.audit && view.audit->verdict == AuditVerdict::different) {
      std::printf("  audit          different from step %u on\n", view.audit->first_step);
    }
    std::printf("  credit         %s -> %s\n", interval(view.before).c_str(),
                interval(view.after).c_str());
    std::printf("  rating         %.2f -> %.2f\n", view.before.rating.ordinal(),
                view.after.rating.ordinal());
    std::printf(
        "  weight         %u = %.4f x certainty %.2f x given %.2f x experts %.2f x presence %.2f x "
        "penalty %.2f%s\n",
        view.weight, view.reasons.value, view.reasons.certainty, view.reasons.given,
        view.reasons.experts, view.reasons.presence, view.reasons.penalty,
        view.reasons.banned ? ", banned" : "");
  }
  std::printf(
      "\nas the record stands: weight %u of 65535, rank %u of %u; the next epoch would pay %.9f "
      "alpha\n",
      standing.weight, standing.rank, standing.of, predicted_alpha(reading));
  const auto lines = advice(reading, answer, last);
  if (!lines.empty()) std::printf("\nwhat would have raised it\n");
  for (const std::string& line : lines) std::printf("  - %s\n", line.c_str());
  std::fflush(stdout);
}

void add_why(CLI::App& app) {
  struct Choice {
    std::string run, hotkey;
    std::uint64_t round = 0;
    bool json = false;
  };
  auto choice = std::make_shared<Choice>();
  CLI::App* command = app.add_subcommand("why", "Say why a worker got what it got in a round");
  command->add_option("run", choice->run, "A run's folder, or an exported .h5 file")->required();
  command->add_option("--hotkey", choice->hotkey, "SS58 address of the worker, or its name")
      ->required();
  command->add_option("--round", choice->round,
                      "Which round; left out: the newest that was measured");
  command->add_flag("--json", choice->json, "One JSON object");
  command->footer("yumoe why runs/demo-20261124-063312 --hotkey small --round 12");
  command->callback([choice] {
    const WhyReading reading(*open_run_record(choice->run), choice->hotkey);
    const std::uint64_t round = choice->round > 0 ? choice->round : reading.newest();
    const auto found = reading.rounds().find(round);
    if (found == reading.rounds().end()) {
      throw Error(ErrorCode::usage,
                  choice->hotkey + " had no part in round " + std::to_string(round));
    }
    if (choice->json) {
      std::cout << why_json(reading, round, found->second).dump() << std::endl;
    } else {
      print_why(reading, round, found->second);
    }
  });
}

// --- rescore -------------------------------------------------------------------------------------------------

// Sets options of a struct from "key=value"; "section.key=value" if it says so.
template <typename Options>
bool set_option(Options& options, std::string_view section, const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos) {
    throw Error(ErrorCode::usage, "'" + assignment + "' must be key=value");
  }
  std::string key = assignment.substr(0, equals);
  const std::string prefix = std::string(section) + ".";
  if (key.starts_with(prefix)) key = key.substr(prefix.size());
  OptionTexts texts = texts_of(options);
  for (auto& [name, value] : texts) {
    if (name != key) continue;
    value = assignment.substr(equals + 1);
    options = options_from<Options>(texts);
    return true;
  }
  return false;
}

void set_scoring(ScoringOptions& options, const std::string& assignment) {
  if (set_option(options, "scoring", assignment)) return;
  std::string names;
  for (const auto& [name, value] : texts_of(options)) names += (names.empty() ? "" : ", ") + name;
  throw Error(ErrorCode::usage, "no scoring option is called '" +
                                    assignment.substr(0, assignment.find('=')) + "'; there are " +
                                    names);
}

std::map<Uid, double> shares_of(const Scoring& scoring) {
  double sum = 0;
  std::map<Uid, double> shares;
  for (const auto& [uid, weight] : scoring.consensus()) sum += weight;
  for (const auto& [uid, weight] : scoring.consensus()) shares[uid] = sum > 0 ? weight / sum : 0;
  return shares;
}

void rescore(const std::string& run, const std::vector<std::string>& assignments, bool json) {
  const auto record = open_run_record(run);
  const RunSetup setup = RunSetup::from_journal(record->run(), record->metadata());
  const Layout layout = Layout::of(setup.model);
  ScoringOptions rules = setup.settings.scoring;
  for (const std::string& assignment : assignments) set_scoring(rules, assignment);
  Run core(layout, setup.settings);
  Scoring other(rules);
  core.tell_also(&other);
  drive(*record, core, [](const Record&, const Event&) {});
  const Scoring& scoring = core.scoring();
  const auto before = shares_of(scoring), after = shares_of(other);
  Json rows = Json::array();
  for (const auto& [uid, p] : core.participants()) {
    if (p.role != Role::worker) continue;
    const auto was = before.find(uid), is = after.find(uid);
    const double old_share = was == before.end() ? 0 : was->second,
                 new_share = is == after.end() ? 0 : is->second;
    rows.push_back({{"uid", uid.value},
                    {"name", p.name},
                    {"weight_before", scoring.weight(uid)},
                    {"weight_after", other.weight(uid)},
                    {"rank_before", scoring.rank(scoring.weight(uid))},
                    {"rank_after", other.rank(other.weight(uid))},
                    {"credit_before", scoring.credit(uid)},
                    {"credit_after", other.credit(uid)},
                    {"rating_before", scoring.rating(uid)},
                    {"rating_after", other.rating(uid)},
                    {"share_before", old_share},
                    {"share_after", new_share},
                    {"change", new_share - old_share}});
  }
  if (json) {
    std::cout << Json{{"run", record->run()}, {"set", assignments}, {"workers", rows}}.dump()
              << std::endl;
    return;
  }
  std::printf("%4s %-12s %16s %12s %18s %18s %9s\n", "uid", "name", "weight", "rank", "credit",
              "share of pay", "change");
  for (const Json& r : rows) {
    std::printf("%4d %-12.12s %7d ->%6d %5d ->%4d %8.3f ->%7.3f %7.2f %% ->%6.2f %% %+8.2f\n",
                r["uid"].get<int>(), r["name"].get<std::string>().c_str(),
                r["weight_before"].get<int>(), r["weight_after"].get<int>(),
                r["rank_before"].get<int>(), r["rank_after"].get<int>(),
                r["credit_before"].get<double>(), r["credit_after"].get<double>(),
                100 * r["share_before"].get<double>(), 100 * r["share_after"].get<double>(),
                100 * r["change"].get<double>());
  }
  std::printf(
      "\nWhom validators measured, and how much each contribution counted in the aggregate, stays "
      "as recorded.\n");
  std::fflush(stdout);
}

void add_rescore(CLI::App& app) {
  struct Choice {
    std::string run;
    std::vector<std::string> set;
    bool json = false;
  };
  auto choice = std::make_shared<Choice>();
  CLI::App* command = app.add_subcommand("rescore", "Score a recorded run under another rule");
  command->add_option("run", choice->run, "A run's folder, or an exported .h5 file")->required();
  command->add_option("--set", choice->set, "An option of [scoring]: key=value; may be given again")
      ->required();
  command->add_flag("--json", choice->json, "One JSON object");
  command->footer("yumoe rescore runs/demo-20261124-063312 --set weight_rule=top_k --set top_k=2");
  command->callback([choice] { rescore(choice->run, choice->set, choice->json); });
}

// --- simulate ------------------------------------------------------------------------------------------------

struct SimulateChoice {
  std::string attack, report;
  std::vector<std::string> set;
  AttackScenario scenario;
  bool json = false, list = false;
};

void print_attacks(bool as_json) {
  Json rows = Json::array();
  for (const AttackInfo& info : attacks()) {
    rows.push_back({{"attack", info.name},
                    {"who", info.who},
                    {"what", info.what},
                    {"stopped_by", info.gate},
                    {"beside", info.beside}});
    if (as_json) continue;
    std::printf("%-20s %-10s %s; stopped by: %s\n", std::string(info.name).c_str(),
                std::string(info.who).c_str(), std::string(info.what).c_str(),
                std::string(info.gate).c_str());
  }
  if (as_json) std::cout << rows.dump() << std::endl;
}

void simulate(SimulateChoice choice) {
  if (choice.list) return print_attacks(choice.json);
  if (choice.attack.empty())
    throw Error(ErrorCode::usage, "give --attack NAME or --attack all; --list shows them");
  for (const std::string& assignment : choice.set) {
    if (assignment.starts_with("aggregate.") &&
        set_option(choice.scenario.aggregate, "aggregate", assignment))
      continue;
    set_scoring(choice.scenario.scoring, assignment);
  }
  if (choice.attack != "all") attack_named(choice.attack);
  std::vector<AttackResult> results;
  Json json = Json::array();
  bool met = true;
  if (!choice.json) std::printf("%-70s %10s %10s\n", "what", "reached", "bar");
  for (const AttackInfo& info : attacks()) {
    if (choice.attack != "all" && attack_named(choice.attack).name != info.name) continue;
    choice.scenario.attack = info.name;
    results.push_back(simulate_attack(choice.scenario));
    for (const AttackGate& gate :
         gates_of(results.back(), simulate_attack(without_attackers(choice.scenario)))) {
      met = met && gate.met();
      json.push_back({{"what", gate.what},
                      {"reached", gate.reached},
                      {"bar", gate.bar},
                      {"at_most", gate.at_most},
                      {"met", gate.met()},
                      {"seed", gate.seed}});
      if (choice.json) continue;
      std::printf("%-70s %10.4f %s %7.4g%s\n", gate.what.c_str(), gate.reached,
                  gate.at_most ? "<=" : ">=", gate.bar, gate.met() ? "" : "  MISSED");
      std::fflush(stdout);
    }
  }
  if (!choice.report.empty()) write_attack_report(results, choice.report);
  if (choice.json) std::cout << Json{{"gates", json}, {"met", met}}.dump() << std::endl;
  if (!choice.json && !choice.report.empty()) {
    std::printf("\nwrote report.csv, report.json and a picture of each attack to %s\n",
                choice.report.c_str());
  }
  std::fflush(stdout);
  if (!met) throw CLI::RuntimeError(1);
}

void add_simulate(CLI::App& app) {
  auto choice = std::make_shared<SimulateChoice>();
  CLI::App* command = app.add_subcommand(
      "simulate", "Play attacks against the rules, before anybody is paid by them");
  command->add_option("--attack", choice->attack, "Name of an attack, or all");
  command->add_flag("--list", choice->list,
                    "Say which attacks there are, and what is to stop them");
  command
      ->add_option("--share", choice->scenario.share,
                   "Of the workers that attack, or of the stake that lies")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  command->add_option("--workers", choice->scenario.workers, "How many there are")
      ->check(CLI::Range(5, 2'000))
      ->capture_default_str();
  command->add_option("--rounds", choice->scenario.rounds, "How many")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  command->add_option("--seed", choice->scenario.seed, "Of everything drawn")
      ->capture_default_str();
  command->add_option("--set", choice->set,
                      "An option of [scoring], or aggregate.KEY=VALUE; may be given again");
  command->add_option("--report", choice->report,
                      "Folder for tables (CSV, JSON) and pictures (SVG)");
  command->add_flag("--json", choice->json, "One JSON object; with --list an array");
  command->footer(
      "yumoe simulate --attack all --report attacks\nExit code 1 if an attack passes a gate.");
  command->callback([choice] { simulate(*choice); });
}

}  // namespace

void add_scoring_commands(CLI::App& app) {
  add_why(app);
  add_rescore(app);
  add_simulate(app);
}

}  // namespace yumoe

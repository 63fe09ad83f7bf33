#pragma once
// The attack library: what may be tried against a run, played against the real filters, core, scoring,
// aggregation and ledger on an invented learning problem (docs/scoring.md argues its model). A pure function
// of its scenario: the same seed gives the same numbers everywhere.

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/aggregate.hpp"
#include "coordinator/scoring.hpp"

namespace yumoe {

// What the attacker gives for what it takes; decides the gate it must fail.
enum class AttackKind : std::uint8_t {
  idle,       // no honest work: all of them together may take 1 % of the emission
  partial,    // some of the work: pays less a unit of work than honesty
  validator,  // lies about others: takes no more than its share of the stake
};

struct AttackInfo {
  std::string_view name;
  AttackKind kind;
  std::string_view who;   // "worker", "validator", "network"
  std::string_view what;  // what it does and hopes for
  std::string_view gate;  // what is to stop it
  // In real processes it is `yumoe-worker worker|validator --behaviour NAME`, with this beside it.
  std::string_view beside = "";
};
std::span<const AttackInfo> attacks();
// Throws Error{usage} naming the attacks there are.
const AttackInfo& attack_named(std::string_view name);

struct AttackScenario {
  std::string attack;  // "" for none
  double share = 0.3;  // of the workers, or of the stake
  std::int64_t workers = 20;
  std::int64_t validators = 2;  // honest ones, where none lies
  std::int64_t rounds = 100;
  std::uint64_t seed = 1;
  bool odd_ones = true;  // one slow, one late and one odd worker among the honest
  std::vector<double>
      speeds;  // of the honest, in turn, of full: what they are given to do; empty: full
  ScoringOptions scoring;
  AggregateOptions aggregate;
  double audit_share = 0.045;
  std::int64_t evaluated_max = 20;
  // For comparing rules of aggregation alone: without scoring's trust, and with a selection of the literature
  // before the sum ("krum" keeps one, "multi_krum" all but as many as attack) or weights by distance
  // ("geometric_median", "centered_clip").
  bool trust = true;
  std::string selection;
};

enum class PartPlayed : std::uint8_t {
  honest,
  slow,
  late,
  odd,
  attacker,
  validator,
  lying_validator
};
std::string_view name_of(PartPlayed part);

struct ParticipantResult {
  std::uint16_t uid = 0;
  PartPlayed part = PartPlayed::honest;
  double work = 0;                    // inner steps it really did for its shards
  double emission = 0;                // share of all miners', or of all validators'
  std::vector<double> by_round;       // alpha of each round's epoch
  std::vector<std::uint16_t> weight;  // in the consensus, after each round
  std::uint32_t refused = 0;
  std::string filter;  // that refused it last
  double stake = 0;    // validators: share
};

struct AttackResult {
  AttackScenario scenario;
  std::vector<ParticipantResult> participants;
  std::vector<double> loss;  // held-out, nats a token, after each round
  double evaluation_share =
      0;  // forward and training passes of validators, of the workers' training
  double attackers_share = 0;  // of the miners' emission, or of the dividends
  double pay_per_work = 0;     // attackers', as a multiple of the honest full-time workers'
  double special_over_attackers =
      0;                     // least of slow, late and odd in the last round's weights less the
                             // most of the attackers that did less than all of their work, as a
                             // share of the largest
  double friends_share = 0;  // lying validators' idle friends, of the miners' emission
};

AttackResult simulate_attack(const AttackScenario& scenario);

// A bar of docs/scoring.md and what was reached.
struct AttackGate {
  std::string what;
  double reached = 0;
  double bar = 0;
  bool at_most = true;
  std::uint64_t seed = 0;
  bool met() const { return at_most ? reached <= bar : reached >= bar; }
};

// The gates of one attack; `without` is the same run without attackers.
std::vector<AttackGate> gates_of(const AttackResult& result, const AttackResult& without);
// The same run, with the attackers left out.
AttackScenario without_attackers(const AttackScenario& scenario);

// Order, equality and cost among honest workers, over `seeds` seeds from 1; cost up to `workers_max`.
std::vector<AttackGate> honest_gates(const AttackScenario& rules, std::uint64_t seeds,
                                     std::int64_t workers_max);

// Held-out loss under 30 % attackers against the run without them, for each rule of aggregation and attack.
struct RuleComparison {
  std::string rule, attack;
  double loss_ratio = 0;
};
std::vector<RuleComparison> compare_rules(std::uint64_t seed, std::int64_t rounds);

// Writes report.csv, report.json and, for each result, <attack>-<share>.svg: emission and loss of each
// participant over rounds. Throws Error{file_io}.
void write_attack_report(std::span<const AttackResult> results,
                         const std::filesystem::path& folder);
std::string attack_svg(const AttackResult& result);

}  // namespace yumoe

// Commands that read a run's record: status, replay, export.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <bit>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/commands.hpp"
#include "cli/display.hpp"
#include "cluster/error.hpp"
#include "cluster/random.hpp"
#include "coordinator/history.hpp"
#include "coordinator/replay.hpp"
#include "coordinator/safetensors.hpp"
#include "launch/local.hpp"
#include "launch/settle_run.hpp"
#include "router/audit.hpp"
#include "router/evaluation.hpp"
#include "router/model_file.hpp"

namespace yumoe {
namespace {

std::string measured(double value) {
  if (!std::isfinite(value)) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", value);
  return text;
}

// --- status ----------------------------------------------------------------------------------------------

// Of a validator with the consensus; nothing if it is alone or has measured nobody.
nlohmann::json agreement_of(const Run& core, Uid uid) {
  const auto agreement = core.scoring().agreement(uid);
  return agreement ? nlohmann::json(*agreement) : nlohmann::json();
}

void print_status(const std::string& path, bool json) {
  const auto record = open_run_record(path);
  const RunHistory history(*record);
  const Run& core = history.core();
  if (json) {
    nlohmann::json status{{"run", record->run()},
                          {"phase", name_of(core.phase())},
                          {"round", core.round().value},
                          {"rounds_total", history.setup().settings.run.rounds},
                          {"version", core.version().value},
                          {"state_digest", core.version_digest().hex()},
                          {"checkpoint", core.checkpoint().value},
                          {"records", record->size()},
                          {"participants", nlohmann::json::array()}};
    for (const auto& [uid, p] : core.participants()) {
      const Standing standing = core.standing_of(uid);
      status["participants"].push_back({{"uid", uid.value},
                                        {"name", p.name},
                                        {"hotkey", to_ss58(p.hotkey)},
                                        {"role", p.role == Role::worker ? "worker" : "validator"},
                                        {"active", p.active},
                                        {"steps", p.steps},
                                        {"tokens", p.tokens},
                                        {"missed", p.missed},
                                        {"experts", p.held},
                                        {"score", standing.score},
                                        {"rating", standing.rating},
                                        {"weight", standing.weight},
                                        {"agreement", agreement_of(core, uid)},
                                        {"reason", p.reason}});
    }
    const auto& rounds = history.rounds();
    for (auto it = rounds.rbegin(); it != rounds.rend(); ++it) {
      if (!std::isfinite(it->heldout_loss)) continue;
      status["eval_loss"] = it->heldout_loss;
      status["eval_bits_per_byte"] = it->heldout_bits_per_byte;
      status["eval_version"] = it->round.value;
      break;
    }
    std::cout << status.dump() << std::endl;
    return;
  }
  std::printf("run %s: %s, round %llu of %lld, base version %llu\n", record->run().c_str(),
              std::string(name_of(core.phase())).c_str(),
              static_cast<unsigned long long>(core.round().value),
              static_cast<long long>(history.setup().settings.run.rounds),
              static_cast<unsigned long long>(core.version().value));
  std::printf("\n%6s %10s %10s %12s %12s\n", "round", "loss", "bits/byte", "up", "down each");
  const auto& rounds = history.rounds();
  const std::size_t first = rounds.size() > 10 ? rounds.size() - 10 : 0;
  for (std::size_t i = first; i < rounds.size(); ++i) {
    const RoundHistory& r = rounds[i];
    if (r.aggregated.value == 0) continue;
    std::printf("%6llu %10s %10s %12s %12s\n", static_cast<unsigned long long>(r.round.value),
                measured(r.heldout_loss).c_str(), measured(r.heldout_bits_per_byte).c_str(),
                bytes_text(static_cast<double>(r.up_bytes)).c_str(),
                bytes_text(static_cast<double>(r.down_bytes)).c_str());
  }
  std::printf("\n%4s %-12s %-9s %-6s %8s %10s %6s %8s %6s  %s\n", "uid", "name", "role", "there",
              "steps", "tokens", "missed", "rating", "weight", "remark");
  for (const auto& [uid, p] : core.participants()) {
    const Standing standing = core.standing_of(uid);
    std::printf(
        "%4u %-12.12s %-9s %-6s %8llu %10llu %6llu %8.4f %6u  %s\n", uid.value, p.name.c_str(),
        p.role == Role::worker ? "worker" : "validator", p.active ? "yes" : "no",
        static_cast<unsigned long long>(p.steps), static_cast<unsigned long long>(p.tokens),
        static_cast<unsigned long long>(p.missed), standing.rating, standing.weight,
        (p.reason + (core.scoring().agreement(uid)
                         ? " agrees with the others to " + measured(*core.scoring().agreement(uid))
                         : ""))
            .c_str());
  }
  std::fflush(stdout);
}

void add_status(CLI::App& app) {
  struct Choice {
    std::string run;
    bool json = false;
  };
  auto choice = std::make_shared<Choice>();
  CLI::App* command = app.add_subcommand("status", "Say where a run stands, also while it runs");
  command->add_option("run", choice->run, "A run's folder, or an exported .h5 file")->required();
  command->add_flag("--json", choice->json, "One JSON object");
  command->footer("yumoe status runs/demo-20261124-063312");
  command->callback([choice] { print_status(choice->run, choice->json); });
}

// --- replay ----------------------------------------------------------------------------------------------

struct ReplayChoice {
  std::string run;
  bool verify = false, json = false;
  std::uint64_t from = 0, to = 0;
  std::uint32_t recompute = 0;
  std::string data = "token-set";
};

// A sampled contribution, and what leads to it: the shards whose moments it was trained with.
struct Recomputation {
  ContributionHistory contribution;
  RoundId from;                       // of the first shard
  Bytes base;                         // the first shard's
  std::vector<TrainingShard> shards;  // of rounds `from` to the contribution's
  std::vector<Digest> aggregates;     // that lead from one to the next
};

// What training sampled shards again showed. A replay says which of the two it proved.
struct Recomputed {
  std::uint32_t equal = 0;             // the same pseudo-gradient, bit for bit
  std::uint32_t within_tolerance = 0;  // other bits, but every step's loss as the worker listed it
  std::uint32_t different = 0;
  std::uint32_t not_possible = 0;  // own data or experts elsewhere: nobody else can train it
  std::uint32_t all() const { return equal + within_tolerance + different; }
};

std::vector<Recomputation> sample_recomputations(const RunHistory& history, const RunRecord& record,
                                                 std::uint64_t started_at,
                                                 const ReplayChoice& choice, Recomputed& outcome) {
  std::vector<ContributionHistory> candidates;
  for (const ContributionHistory& c : history.contributions()) {
    if (c.filter.empty() && c.round.value >= choice.from && c.round.value <= choice.to) {
      candidates.push_back(c);
    }
  }
  Random random(derive_seed("recompute", {history.core().private_seed()}));
  std::vector<Recomputation> sampled;
  while (sampled.size() < choice.recompute && !candidates.empty()) {
    const std::size_t i = random.below(candidates.size());
    const ContributionHistory c = candidates[i];
    candidates.erase(candidates.begin() + static_cast<std::ptrdiff_t>(i));
    const auto bytes = record.blob(c.blob);
    if (!bytes) continue;  // not kept any more
    const Contribution contribution = decode_contribution(*bytes);
    const RoundId from = contribution.moments_from;
    if (contribution.loss_bits.empty()) {
      ++outcome.not_possible;
      continue;
    }
    if (from.value > started_at) sampled.push_back({c, from, {}, {}, {}});
  }
  return sampled;
}

// Called after every event: while a round trains, the model is the version its shards start from.
void follow(Recomputation& job, const Event& event, const Run& core, const ModelState& model) {
  const RoundId last = job.contribution.round;
  if (const auto* aggregated = std::get_if<Aggregated>(&event)) {
    if (aggregated->round >= job.from && aggregated->round < last) {
      job.aggregates.push_back(aggregated->blob);
    }
  }
  const RoundId next{job.from.value + job.shards.size()};
  if (next > last || core.round() != next || model.base().round().value + 1 != next.value) return;
  const RoundState* round = core.round_state(next);
  if (round == nullptr || !round->shards.contains(job.contribution.uid)) return;
  if (job.shards.empty()) job.base = model.base().encode();
  job.shards.push_back(round->shards.at(job.contribution.uid).shard);
}

void write_file(const std::filesystem::path& path, ByteView bytes) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) throw Error(ErrorCode::file_io, "write " + path.string());
}

// Trains a shard, and those before it whose moments it used, again in a yumoe-worker process.
void recompute(const Recomputation& job, const RunSetup& setup, const RunRecord& record,
               const ReplayChoice& choice, Recomputed& outcome) {
  // Moments can only come from shards that were given out.
  if (job.from.value + job.shards.size() != job.contribution.round.value + 1) {
    ++outcome.different;
    return;
  }
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() /
      ("yumoe-recompute-" + job.contribution.blob.hex().substr(0, 16));
  std::filesystem::create_directories(folder);
  Welcome welcome;
  welcome.run = setup.run;
  welcome.configuration = setup.configuration;
  welcome.configuration_digest = setup.configuration_digest();
  welcome.token_set = setup.token_set;
  write_file(folder / "welcome", encode(ToParticipant{welcome}));
  write_file(folder / "base", job.base);
  for (std::size_t i = 0; i < job.shards.size(); ++i) {
    Directive directive;
    directive.shard = job.shards[i];
    write_file(folder / ("shard-" + std::to_string(i)), encode(ToParticipant{directive}));
    if (i + 1 == job.shards.size()) break;
    const auto aggregate = record.blob(job.aggregates.at(i));
    if (!aggregate) throw Error(ErrorCode::journal_corrupt, "an aggregate is not in the record");
    write_file(folder / ("aggregate-" + std::to_string(i)), *aggregate);
  }
  ChildProcess child(worker_program(),
                     {"recompute", "--job", folder.string(), "--data", choice.data},
                     folder / "log");
  while (!child.poll()) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  std::ifstream answer(folder / "delta");
  std::string hex;
  answer >> hex;
  std::vector<float> losses;
  for (std::uint32_t bits = 0; answer >> bits;) losses.push_back(std::bit_cast<float>(bits));
  if (*child.poll() != 0 || hex.empty()) {
    throw Error(ErrorCode::device_missing,
                "the shard could not be trained again; see " + (folder / "log").string());
  }
  std::filesystem::remove_all(folder);
  const auto bytes = record.blob(job.contribution.blob);
  if (!bytes) throw Error(ErrorCode::journal_corrupt, "the contribution is not kept any more");
  const Contribution claimed = decode_contribution(*bytes);
  const double tolerance =
      section_from<EvaluationOptions>(setup.configuration, "evaluation").audit_tolerance;
  if (claimed.delta.hex() == hex) {
    ++outcome.equal;
  } else if (first_difference(claimed.loss_bits, losses, tolerance) == 0) {
    ++outcome.within_tolerance;
  } else {
    ++outcome.different;
  }
}

void print_recomputed(const Recomputed& outcome, double tolerance) {
  std::printf(
      "%u of %u sampled shards, trained again here with those before them whose moments they kept, "
      "gave the same pseudo-gradient bit for bit.\n",
      outcome.equal, outcome.all());
  if (outcome.within_tolerance > 0) {
    std::printf(
        "%u gave other bits, and at every step the loss its worker had listed, within %.3g %%: an "
        "island, another kind of device or another number of threads. That is not bit for bit.\n",
        outcome.within_tolerance, 100 * tolerance);
  }
  if (outcome.not_possible > 0) {
    std::printf(
        "%u more were drawn that nobody can train again: on data of their own, or with experts "
        "elsewhere.\n",
        outcome.not_possible);
  }
}

void replay_run(ReplayChoice choice) {
  const auto record = open_run_record(choice.run);
  const RunHistory history(*record);
  const RunSetup& setup = history.setup();
  const Layout& layout = history.layout();
  const std::uint64_t last = history.core().version().value;
  if (choice.from > last || choice.to > last || (choice.to > 0 && choice.from > choice.to)) {
    throw Error(ErrorCode::usage, "replay rounds " + std::to_string(choice.from) + " to " +
                                      std::to_string(choice.to == 0 ? last : choice.to) + ": " +
                                      record->run() + " has rounds 1 to " + std::to_string(last));
  }
  if (choice.to == 0) choice.to = last;
  std::optional<Checkpoint> checkpoint;
  if (choice.from > 1) {
    for (const RoundId round : record->checkpoints()) {
      if (round.value < choice.from) {
        checkpoint = record->checkpoint(round);
        break;
      }
    }
  }
  const std::uint64_t started_at = checkpoint ? checkpoint->round.value : 0;
  if (choice.from == 0) choice.from = started_at + 1;
  Recomputed outcome;
  std::vector<Recomputation> jobs =
      sample_recomputations(history, *record, started_at, choice, outcome);
  std::uint64_t verified = 0;
  ReplayWatcher watcher;
  const ModelState* model = nullptr;
  watcher.model = [&](const ModelState& state) { model = &state; };
  watcher.event = [&](const Record&, const Event& event, const Run& core) {
    if (model == nullptr) return;
    for (Recomputation& job : jobs) follow(job, event, core, *model);
  };
  watcher.aggregated = [&](RoundId round, const ModelState::Result&) {
    ++verified;
    if (!choice.json && isatty(STDOUT_FILENO)) {
      std::printf("\rround %llu of %llu reached", static_cast<unsigned long long>(round.value),
                  static_cast<unsigned long long>(last));
      std::fflush(stdout);
    }
  };
  const Replayed replayed = replay(
      layout, setup, [&](const auto& visit) { record->for_each(1, visit); },
      [&](const Digest& digest) { return record->blob(digest); }, std::move(checkpoint), watcher,
      choice.to);
  for (const Recomputation& job : jobs) recompute(job, setup, *record, choice, outcome);
  const bool recomputed_all = outcome.different == 0;
  if (choice.json) {
    nlohmann::json result{{"run", record->run()},
                          {"records", replayed.records},
                          {"rounds_verified", verified},
                          {"from", started_at + 1},
                          {"to", choice.to},
                          {"state_digest", replayed.model->base().digest().hex()},
                          {"core_digest", replayed.core->state_digest().hex()},
                          {"settlements", settlements_of(*record).size()},
                          {"recomputed", jobs.size()},
                          {"recomputed_equal", outcome.equal},
                          {"recomputed_within_tolerance", outcome.within_tolerance},
                          {"recomputed_different", outcome.different},
                          {"not_recomputable", outcome.not_possible},
                          {"verified", recomputed_all}};
    std::cout << result.dump() << std::endl;
  } else {
    if (isatty(STDOUT_FILENO)) std::printf("\n");  // ends the line of progress
    std::printf(
        "%llu records drove the core again; it reached the same plans, ratings and weights.\n"
        "Rounds %llu to %llu: every aggregate was computed again from the recorded "
        "contributions and every base version has the recorded digest; the last is\n  %s\n",
        static_cast<unsigned long long>(replayed.records),
        static_cast<unsigned long long>(started_at + 1), static_cast<unsigned long long>(choice.to),
        replayed.model->base().digest().hex().c_str());
    if (const std::size_t settled = settlements_of(*record).size(); settled > 0) {
      std::printf(
          "%zu settlements with a chain lie beside the events; yumoe ledger audit checks them.\n",
          settled);
    }
    if (choice.recompute == 0) {
      std::printf(
          "Not proved: that workers trained what they say. --recompute N trains N shards again.\n");
    } else {
      print_recomputed(
          outcome,
          section_from<EvaluationOptions>(setup.configuration, "evaluation").audit_tolerance);
    }
    std::fflush(stdout);
  }
  if (!recomputed_all) {
    throw Error(ErrorCode::replay_differs,
                std::to_string(outcome.different) +
                    " shard(s) trained again lost otherwise than their worker says: work that was "
                    "not done");
  }
}

void add_replay(CLI::App& app) {
  auto choice = std::make_shared<ReplayChoice>();
  CLI::App* command =
      app.add_subcommand("replay", "Drive the core and the model from a record again");
  command->add_option("run", choice->run, "A run's folder, or an exported .h5 file")->required();
  command->add_flag("--verify", choice->verify, "Compare every digest on the way (always done)");
  command->add_option("--from", choice->from,
                      "First round to compute again; starts at the checkpoint before");
  command->add_option("--to", choice->to, "Last round to compute again");
  command->add_option(
      "--recompute", choice->recompute,
      "Train so many sampled shards again: bit for bit, or, for an island or another "
      "kind of device, with every step's loss within evaluation.audit_tolerance");
  command->add_option("--data", choice->data, "Token set, for --recompute")->capture_default_str();
  command->add_flag("--json", choice->json, "One JSON object");
  command->footer(
      "yumoe replay runs/mine --verify\nyumoe replay run.h5 --verify --from 10 --to 20 --recompute "
      "2");
  command->callback([choice] { replay_run(*choice); });
}

// --- models elsewhere ------------------------------------------------------------------------------------

// The newest checkpoint as a model file.
RoundId write_model_of(const std::string& run, const std::filesystem::path& out) {
  const auto record = open_run_record(run);
  const auto rounds = record->checkpoints();
  if (rounds.empty()) {
    throw Error(ErrorCode::file_missing,
                run + " has no checkpoint yet: wait for run.checkpoint_rounds rounds");
  }
  const Checkpoint checkpoint = record->checkpoint(rounds.front());
  const RunSetup setup = RunHistory(*record).setup();
  ModelFile file;
  file.facts.run = setup.run;
  file.facts.configuration = setup.configuration;
  file.facts.configuration_digest = setup.configuration_digest();
  file.facts.token_set = setup.token_set;
  file.base = BaseVersion::from_parts(checkpoint.layout, checkpoint.round, checkpoint.parameters,
                                      checkpoint.gate_bias, checkpoint.momentum)
                  .encode();
  write_model_file(out, file);
  return checkpoint.round;
}

// The newest checkpoint as a model file without a name, which nothing can leave behind: what an exec'd
// program opens it by.
std::string unnamed_model_of(const std::string& run) {
  std::string folder = (std::filesystem::temp_directory_path() / "yumoe-model-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) throw Error(ErrorCode::file_io, "make " + folder);
  int open_file = -1;
  try {
    const std::filesystem::path file = std::filesystem::path(folder) / "model";
    write_model_of(run, file);
    open_file = ::open(file.c_str(), O_RDONLY);
  } catch (...) {
    std::filesystem::remove_all(folder);
    throw;
  }
  std::filesystem::remove_all(folder);
  if (open_file < 0) throw Error(ErrorCode::file_io, "open the model written to " + folder);
  return "/proc/self/fd/" + std::to_string(open_file);
}

// `yumoe-worker ROLE MODEL ...` for a run's folder or .h5 file too: its newest checkpoint.
void add_with_model(CLI::App& app, const std::string& role, const char* help) {
  CLI::App* command = app.add_subcommand(role, help);
  command->allow_extras();
  command->set_help_flag();  // its own --help knows more
  command->callback([command, role] {
    std::vector<std::string> arguments{worker_program().string(), role};
    std::vector<std::string> rest = command->remaining();
    const bool has_run =
        !rest.empty() && !rest.front().starts_with("-") && !is_model_file(rest.front());
    if (has_run) rest.front() = unnamed_model_of(rest.front());
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    throw Error(ErrorCode::file_io, "start " + arguments[0]);
  });
}

// --- export ----------------------------------------------------------------------------------------------

void add_export(CLI::App& app) {
  struct Choice {
    std::string run, out;
    bool safetensors = false, model = false;
  };
  auto choice = std::make_shared<Choice>();
  CLI::App* command = app.add_subcommand("export", "Make one file of a run, or of its weights");
  command->add_option("run", choice->run, "A run's folder")->required();
  command->add_option("-o,--out", choice->out,
                      "File to write. Default: run.h5, model.safetensors or run.model");
  command->add_flag("--safetensors", choice->safetensors,
                    "Write the newest checkpoint's weights as safetensors instead");
  command->add_flag("--model", choice->model,
                    "Write the newest checkpoint as a model file instead, to serve or evaluate it "
                    "elsewhere (docs/remote-experts.md)");
  command->footer(
      "yumoe export runs/mine -o run.h5\nyumoe export runs/mine --safetensors -o "
      "model.safetensors\nyumoe export runs/mine --model -o mine.model");
  command->callback([choice] {
    if (choice->out.empty()) {
      choice->out = choice->model         ? "run.model"
                    : choice->safetensors ? "model.safetensors"
                                          : "run.h5";
    }
    if (choice->model) {
      const RoundId round = write_model_of(choice->run, choice->out);
      std::cout << choice->out << ": base version " << round.value << std::endl;
      return;
    }
    const auto record = open_run_record(choice->run);
    if (choice->safetensors) {
      const auto rounds = record->checkpoints();
      if (rounds.empty()) {
        throw Error(ErrorCode::file_missing,
                    choice->run + " has no checkpoint yet: wait for run.checkpoint_rounds rounds");
      }
      const Checkpoint checkpoint = record->checkpoint(rounds.front());
      write_safetensors(choice->out, checkpoint.layout, checkpoint.parameters,
                        {{"format", "pt"},
                         {"run", record->run()},
                         {"round", std::to_string(checkpoint.round.value)}});
      std::cout << choice->out << ": base version " << checkpoint.round.value << std::endl;
      return;
    }
    const RunHistory history(*record);
    std::vector<Table> tables = history.tables();
    for (Table& table : settlement_tables(*record)) tables.push_back(std::move(table));
    const ExportReport report =
        export_run(choice->run, choice->out, tables,
                   [](const std::filesystem::path& path, const Error& error) {
                     std::cerr << "left out " << path.string() << ": " << error.what() << std::endl;
                   });
    std::cout << choice->out << ": " << report.records << " events, " << report.blobs
              << " updates, " << report.checkpoints << " checkpoints, "
              << bytes_text(static_cast<double>(report.bytes)) << std::endl;
  });
}

}  // namespace

void add_record_commands(CLI::App& app) {
  add_status(app);
  add_replay(app);
  add_export(app);
  add_with_model(
      app, "serve-experts",
      "Compute a run's experts for other machines: yumoe serve-experts RUN --experts 0-3");
  add_with_model(
      app, "evaluate",
      "Held-out loss of a run's newest checkpoint, with experts here or on other machines: "
      "yumoe evaluate RUN --data token-set");
  add_with_model(
      app, "generate",
      "Text that a run's newest checkpoint writes, with experts here or on other machines: "
      "yumoe generate RUN --data token-set --prompt TEXT");
}

}  // namespace yumoe

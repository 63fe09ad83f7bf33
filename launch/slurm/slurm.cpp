#include <algorithm>
#include <sstream>

#include "cluster/error.hpp"
#include "launch/cluster_job.hpp"

namespace yumoe {
namespace {

// Between single quotes; a script has no place for control characters.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20) {
      throw Error(ErrorCode::usage,
                  "\"" + text + "\" holds a control character, which no batch script can");
    }
    out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return out + "'";
}

// #SBATCH lines are not shell: no quotes, no blanks.
std::string word(const char* option, const std::string& text) {
  for (const char c : text) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                       std::string_view("-_./:,%+@[]").find(c) != std::string_view::npos;
    if (!plain) {
      throw Error(ErrorCode::usage,
                  std::string(option) + " \"" + text + "\": letters, digits and -_./:,%+@[] only");
    }
  }
  return text;
}

void head(std::ostream& out, const JobOptions& o) {
  out << "#!/bin/bash\n"
      << "#SBATCH --job-name=" << word("--name", o.name) << "\n"
      << "#SBATCH --nodes=" << o.nodes << "\n"
      << "#SBATCH --ntasks-per-node=" << o.processes() << "\n"
      << "#SBATCH --cpus-per-task=" << o.cpus_per_process << "\n";
  if (o.gpus_per_node > 0) out << "#SBATCH --gpus-per-node=" << o.gpus_per_node << "\n";
  if (!o.memory_per_node.empty())
    out << "#SBATCH --mem=" << word("--memory-per-node", o.memory_per_node) << "\n";
  if (!o.time.empty()) out << "#SBATCH --time=" << word("--time", o.time) << "\n";
  if (!o.partition.empty())
    out << "#SBATCH --partition=" << word("--partition", o.partition) << "\n";
  if (!o.account.empty()) out << "#SBATCH --account=" << word("--account", o.account) << "\n";
  out << "#SBATCH --output=" << word("--out", (o.out / "job-%j.log").string()) << "\n\n";
}

// A file lock is not enough to know that the coordinator listens: it says so itself.
void coordinator(std::ostream& out, const JobOptions& o) {
  out << "mkdir -p \"$OUT/keys\" \"$OUT/logs\"\n"
         "[ -e \"$OUT/keys/island\" ] || \"$BIN/yumoe\" keys new --out \"$OUT/keys/island\" "
         ">/dev/null\n"
         "\n"
         "# The coordinator, on this node, beside the island. A run that is there already goes "
         "on.\n"
         "rm -f \"$OUT/logs/coordinator.out\"\n"
         "srun --overlap --mpi=none --nodes=1 --ntasks=1 --nodelist=\"$FIRST\" \\\n"
         "  \"$BIN/yumoe\" coordinator \"$FILE\" --out \"$OUT\" \\\n"
         "  --run.workers_min=1 --transport.address=0.0.0.0 --transport.port="
      << o.port
      << " \\\n"
         "  >\"$OUT/logs/coordinator.out\" 2>\"$OUT/logs/coordinator.log\" &\n"
         "coordinator=$!\n"
         "for _ in $(seq 600); do\n"
         "  address=$(sed -n 's/^join at *//p' \"$OUT/logs/coordinator.out\" 2>/dev/null)\n"
         "  [ -n \"$address\" ] && break\n"
         "  kill -0 $coordinator 2>/dev/null || { tail -n 5 \"$OUT/logs/coordinator.log\" >&2; "
         "exit 1; }\n"
         "  sleep 1\n"
         "done\n"
         "[ -n \"$address\" ] || { echo 'the coordinator did not say its address in ten minutes' "
         ">&2; exit 1; }\n"
         "# It listens on all interfaces; the others know this node by its name.\n"
         "address=\"tcp://$FIRST:"
      << o.port << "?${address#*\\?}\"\n\n";
}

}  // namespace

std::uint32_t JobOptions::processes() const {
  return processes_per_node > 0 ? processes_per_node : std::max(1u, gpus_per_node);
}

bool is_started(const ValidatorOptions& validator) {
  return validator.address.empty() || !validator.hotkey.empty();
}

std::vector<std::string> job_remarks(const RunConfig& config, const JobOptions& options) {
  std::vector<std::string> remarks;
  const std::string joins =
      " the address that " + (options.out / "logs/coordinator.out").string() + " says";
  if (config.run.workers_min > 1) {
    remarks.push_back(
        "the island is one worker: this job begins with it alone, not with run.workers_min = " +
        std::to_string(config.run.workers_min) + "; others may join it at" + joins);
  }
  for (const ValidatorOptions& validator : config.validators) {
    if (is_started(validator)) continue;
    remarks.push_back("validator " + validator.name +
                      " has only an address: it runs elsewhere and joins at" + joins +
                      "; give hotkey = FILE for the job to start it");
  }
  if (config.validators.empty()) {
    remarks.push_back(
        "there is no [[validator]]: nobody measures what is contributed, nobody is paid");
  }
  return remarks;
}

std::string slurm_script(const RunConfig& config, const JobOptions& o) {
  std::ostringstream out;
  head(out, o);
  out << "# Written by `yumoe launch slurm`: a coordinator, its validators, and one island over "
         "all nodes.\n"
         "set -euo pipefail\n"
         "BIN="
      << quoted(o.programs.string()) << "\nFILE=" << quoted(o.file)
      << "\nOUT=" << quoted(o.out.string()) << "\nDATA=" << quoted(config.data.path)
      << "\nFIRST=$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | head -n 1)\n"
         "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n\n";
  coordinator(out, o);
  for (const ValidatorOptions& validator : config.validators) {
    if (!is_started(validator)) continue;
    const std::string name = quoted(validator.name);
    out << "srun --overlap --mpi=none --nodes=1 --ntasks=1 --nodelist=\"$FIRST\" \\\n"
           "  \"$BIN/yumoe-worker\" validator --coordinator \"$address\" --name "
        << name << " \\\n  --hotkey "
        << (validator.hotkey.empty() ? "\"$OUT/keys/\"" + name : quoted(validator.hotkey))
        << " --data \"$DATA\" --state \"$OUT/state/\"" << name << " --device "
        << quoted(validator.device) << " \\\n  >\"$OUT/logs/\"" << name << ".log 2>&1 &\n";
  }
  out << "\n# One worker to the coordinator: rank and size come from MPI itself.\n"
         "srun --overlap --mpi=pmix --nodes="
      << o.nodes << " --ntasks-per-node=" << o.processes()
      << (o.gpus_per_node > 0 ? " --gpus-per-node=" + std::to_string(o.gpus_per_node) : "")
      << " \\\n"
         "  \"$BIN/yumoe-worker\" worker --coordinator \"$address\" --name island \\\n"
         "  --hotkey \"$OUT/keys/island\" --data \"$DATA\" --state \"$OUT/state/island\" --device "
      << (o.gpus_per_node > 0 ? "cuda" : "cpu") << " --threads " << o.cpus_per_process
      << " \\\n  >\"$OUT/logs/island.log\" 2>&1 &\n"
         "island=$!\n\n"
         "# The run is finished when the coordinator says so; an island that ends before it "
         "failed.\n"
         "status=0\n"
         "wait -n $coordinator $island || status=$?\n"
         "if [ $status -eq 0 ]; then wait $coordinator || status=$?; fi\n"
         "if [ $status -ne 0 ]; then tail -n 5 \"$OUT/logs/coordinator.log\" "
         "\"$OUT/logs/island.log\" >&2; fi\n"
         "exit $status\n";
  return out.str();
}

}  // namespace yumoe

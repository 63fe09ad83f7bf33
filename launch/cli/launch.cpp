// `yumoe launch`: the same run on this machine, as a Slurm job, or as Kubernetes resources.

#include <sys/wait.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>

#include "cli/command_line.hpp"
#include "cli/commands.hpp"
#include "cli/config_flags.hpp"
#include "cluster/error.hpp"
#include "launch/cluster_job.hpp"
#include "launch/local.hpp"

namespace yumoe {
namespace {

struct Choice {
  JobOptions job;
  std::string out, programs;
  bool print = false;
};

// Options that both schedulers know.
void add_common(CLI::App& command, Choice& choice) {
  command.add_option("file", choice.job.file, "The run's TOML file")->required();
  command.add_option("--out", choice.out,
                     "Folder of the run, shared by all nodes. Default: NAME-run here");
  command.add_option("--programs", choice.programs,
                     "Folder of yumoe and yumoe-worker on the nodes. Default: where this one lies");
  command.add_option("--name", choice.job.name, "What the job is called")->capture_default_str();
  command.add_option("--nodes", choice.job.nodes, "Nodes of the island")
      ->check(CLI::Range(1, 4'096))
      ->capture_default_str();
  command
      .add_option("--gpus-per-node", choice.job.gpus_per_node,
                  "GPUs, one rank each, by a yumoe-worker of the cuda preset; 0: CPUs")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  command
      .add_option("--processes-per-node", choice.job.processes_per_node,
                  "Ranks of the island on a node; 0: one a GPU, or one")
      ->check(CLI::Range(0, 1'024))
      ->capture_default_str();
  command.add_option("--cpus-per-process", choice.job.cpus_per_process, "Threads of a rank")
      ->check(CLI::Range(1, 1'024))
      ->capture_default_str();
  command.add_option("--memory-per-node", choice.job.memory_per_node,
                     "Such as 64G; default: what it gets");
  command.add_option("--port", choice.job.port, "Where the coordinator listens")
      ->check(CLI::Range(1, 65'535))
      ->capture_default_str();
}

RunConfig config_of(Choice& choice) {
  const RunConfig config = read_config(choice.job.file, {});
  choice.job.file = std::filesystem::absolute(choice.job.file).string();
  choice.job.out = choice.out.empty() ? std::filesystem::current_path() / (choice.job.name + "-run")
                                      : std::filesystem::absolute(choice.out);
  choice.job.programs = choice.programs.empty() ? worker_program().parent_path()
                                                : std::filesystem::path(choice.programs);
  return config;
}

// Paths a node reads must not depend on where the job was submitted from.
RunConfig with_absolute_data(RunConfig config) {
  config.data.path = std::filesystem::absolute(config.data.path).string();
  return config;
}

void submit(const std::filesystem::path& script) {
  std::cout.flush();
  const pid_t child = fork();
  if (child == 0) {
    execlp("sbatch", "sbatch", script.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child)
    throw Error(ErrorCode::file_io, "start sbatch");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
    throw Error(ErrorCode::usage, "sbatch is not on this machine: submit " + script.string() +
                                      " where Slurm is, or see it with --print");
  }
  if (status != 0) throw Error(ErrorCode::peer_refused, "sbatch refused " + script.string());
}

void tell(const std::vector<std::string>& remarks) {
  for (const std::string& remark : remarks) std::cerr << "yumoe: " << remark << std::endl;
}

void launch_slurm(Choice choice) {
  const RunConfig config = with_absolute_data(config_of(choice));
  const std::string script = slurm_script(config, choice.job);
  tell(job_remarks(config, choice.job));
  if (!std::filesystem::exists(config.data.path)) {
    tell({"there is no token set at " + config.data.path + " here: `yumoe data build " +
          choice.job.file + "` makes it"});
  }
  if (choice.print) {
    std::cout << script << std::flush;
    return;
  }
  std::error_code failed;
  std::filesystem::create_directories(choice.job.out, failed);
  const std::filesystem::path file = choice.job.out / "job.sh";
  std::ofstream out(file);
  out << script;
  if (!out.flush()) throw Error(ErrorCode::file_io, "write " + file.string());
  submit(file);
  std::cout << "run      " << choice.job.out.string() << "\nfollow   yumoe status "
            << choice.job.out.string() << std::endl;
}

void add_slurm(CLI::App& group) {
  auto choice = std::make_shared<Choice>();
  CLI::App* command = group.add_subcommand(
      "slurm",
      "Run as a Slurm job: coordinator and validators on the first node, one island over all");
  add_common(*command, *choice);
  command->add_option("--time", choice->job.time, "Time limit, such as 12:00:00");
  command->add_option("--partition", choice->job.partition, "Partition to run in");
  command->add_option("--account", choice->job.account, "Account that is charged");
  command->add_flag("--print", choice->print, "Print the batch script instead of submitting it");
  command->footer(
      "Islands of GPUs need a yumoe-worker of the cuda preset; none has run on a GPU yet "
      "(docs/islands.md).\n"
      "yumoe launch slurm run.toml --nodes 2 --gpus-per-node 8 --print\n"
      "yumoe launch slurm run.toml --nodes 2 --gpus-per-node 8 --time 12:00:00");
  command->callback([choice] { launch_slurm(*choice); });
}

void add_kubernetes(CLI::App& group) {
  auto choice = std::make_shared<Choice>();
  CLI::App* command = group.add_subcommand(
      "kubernetes",
      "Print a manifest: a JobSet, and an MPIJob if the island has several processes");
  add_common(*command, *choice);
  command->add_option("--image", choice->job.image, "Container image with yumoe, bash and MPI");
  command
      ->add_option("--claim", choice->job.claim,
                   "Volume claim (ReadWriteMany) that holds the run's folder")
      ->capture_default_str();
  command->footer(
      "yumoe launch kubernetes run.toml --nodes 2 --gpus-per-node 8 --out /run/mine \\\n"
      "  --programs /usr/bin --image registry/yumoe:1 | kubectl apply -f -");
  command->callback([choice] {
    Choice mine = *choice;
    const std::string file = mine.job.file;
    RunConfig config = config_of(mine);
    if (mine.programs.empty()) mine.job.programs = "/usr/bin";
    // Configuration and token set are looked for on the claim, unless they are said to be elsewhere.
    mine.job.file = (mine.job.out / file).string();
    config.data.path = (mine.job.out / config.data.path).string();
    const std::string manifest = kubernetes_manifest(config, mine.job);
    if (mine.job.image.empty()) {
      throw Error(
          ErrorCode::usage,
          "--image: which image holds yumoe, yumoe-worker, bash and MPI (and sshd for an island "
          "of several processes)?");
    }
    tell(job_remarks(config, mine.job));
    tell({"the containers look for " + mine.job.file + ", for the token set in " +
          config.data.path + " and for the programs in " + mine.job.programs.string() +
          "; volume claim " + mine.job.claim + " is mounted at " + mine.job.out.string()});
    std::cout << manifest << std::flush;
  });
}

}  // namespace

void add_launch_commands(CLI::App& app) {
  CLI::App* group = app.add_subcommand("launch", "Run here, as a Slurm job, or on Kubernetes");
  group->require_subcommand(1);
  add_launch_local(*group);
  add_slurm(*group);
  add_kubernetes(*group);
}

}  // namespace yumoe

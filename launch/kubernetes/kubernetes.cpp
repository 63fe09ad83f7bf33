#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "cluster/error.hpp"
#include "launch/cluster_job.hpp"

namespace yumoe {
namespace {

using nlohmann::json;

// RFC 1123 label: what Kubernetes takes as a name.
void check_name(const char* option, const std::string& name) {
  const auto ok = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  };
  if (name.empty() || name.size() > 40 || !std::all_of(name.begin(), name.end(), ok) ||
      name.front() == '-' || name.back() == '-') {
    throw Error(ErrorCode::usage, std::string(option) + " \"" + name +
                                      "\": 1 to 40 of a-z, 0-9 and -, no - at the ends");
  }
}

json resources_of(const JobOptions& o, std::uint32_t processes, bool with_gpus) {
  json wanted{{"cpu", std::to_string(o.cpus_per_process * processes)}};
  if (!o.memory_per_node.empty()) {
    // Slurm's 64G are binary, Kubernetes' are decimal.
    const bool has_unit =
        std::string_view("KMGT").find(o.memory_per_node.back()) != std::string_view::npos;
    wanted["memory"] = o.memory_per_node + (has_unit ? "i" : "");
  }
  json limits = wanted;
  if (with_gpus && o.gpus_per_node > 0) limits["nvidia.com/gpu"] = std::to_string(o.gpus_per_node);
  return {{"requests", wanted}, {"limits", limits}};
}

json pod_of(const JobOptions& o, const std::string& container, const std::string& shell,
            std::uint32_t processes, bool with_gpus) {
  const json run{{"name", "run"}, {"mountPath", o.out.string()}};
  const json shared{{"name", "shared-memory"}, {"mountPath", "/dev/shm"}};
  const json one{{"name", container},
                 {"image", o.image},
                 {"command", json::array({"/bin/bash", "-euc", shell})},
                 {"resources", resources_of(o, processes, with_gpus)},
                 {"volumeMounts", json::array({run, shared})}};
  const json run_volume{{"name", "run"}, {"persistentVolumeClaim", {{"claimName", o.claim}}}};
  const json shared_volume{{"name", "shared-memory"}, {"emptyDir", {{"medium", "Memory"}}}};
  return {{"restartPolicy", "Never"},
          {"containers", json::array({one})},
          {"volumes", json::array({run_volume, shared_volume})}};
}

json replicated_job(const std::string& name, const json& pod) {
  return {{"name", name},
          {"replicas", 1},
          {"template",
           {{"spec",
             {{"parallelism", 1},
              {"completions", 1},
              {"backoffLimit", 3},
              {"template", {{"spec", pod}}}}}}}};
}

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// Waits for the coordinator's words in the shared folder and makes of them an address others can reach.
std::string find_address(const JobOptions& o, const std::string& host) {
  return "until address=$(sed -n 's/^join at *//p' " +
         quoted((o.out / "logs/coordinator.out").string()) +
         " 2>/dev/null) && [ -n \"$address\" ]; do sleep 1; done\n" + "address=\"tcp://" + host +
         ":" + std::to_string(o.port) + "?${address#*\\?}\"\n";
}

std::string coordinator_shell(const JobOptions& o) {
  const std::string out = quoted(o.out.string()), programs = o.programs.string();
  return "mkdir -p " + out + "/keys " + out + "/logs; rm -f " + out + "/logs/coordinator.out\n" +
         "[ -e " + out + "/keys/island ] || " + quoted(programs + "/yumoe") + " keys new --out " +
         out + "/keys/island\n" + "exec " + quoted(programs + "/yumoe") + " coordinator " +
         quoted(o.file) + " --out " + out +
         " --run.workers_min=1 --transport.address=0.0.0.0 --transport.port=" +
         std::to_string(o.port) + " >" + out + "/logs/coordinator.out";
}

std::string participant_shell(const RunConfig& config, const JobOptions& o, const std::string& role,
                              const std::string& name, const std::string& hotkey,
                              const std::string& device, const std::string& prefix,
                              const std::string& host) {
  const std::string folder = o.out.string();
  return find_address(o, host) + "exec " + prefix + quoted((o.programs / "yumoe-worker").string()) +
         " " + role + " --coordinator \"$address\" --name " + name + " --hotkey " + quoted(hotkey) +
         " --data " + quoted(config.data.path) + " --state " + quoted(folder + "/state/" + name) +
         " --device " + device + " --threads " + std::to_string(o.cpus_per_process);
}

// The island's ranks: MPI starts them over the pods the operator makes.
json mpi_job(const RunConfig& config, const JobOptions& o, const std::string& host) {
  const std::uint32_t ranks = o.nodes * o.processes();
  const std::string shell =
      participant_shell(config, o, "worker", "island", (o.out / "keys/island").string(),
                        o.gpus_per_node > 0 ? "cuda" : "cpu",
                        "mpirun --allow-run-as-root -n " + std::to_string(ranks) + " ", host);
  json worker_pod = pod_of(o, "island", "exec /usr/sbin/sshd -De", o.processes(), true);
  worker_pod.erase("restartPolicy");
  json launcher_pod = pod_of(o, "launcher", shell, 1, false);
  launcher_pod.erase("restartPolicy");
  return {{"apiVersion", "kubeflow.org/v2beta1"},
          {"kind", "MPIJob"},
          {"metadata", {{"name", o.name + "-island"}}},
          {"spec",
           {{"slotsPerWorker", o.processes()},
            {"mpiImplementation", "OpenMPI"},
            {"runPolicy", {{"cleanPodPolicy", "Running"}, {"backoffLimit", 3}}},
            {"mpiReplicaSpecs",
             {{"Launcher",
               {{"replicas", 1},
                {"restartPolicy", "OnFailure"},
                {"template", {{"spec", launcher_pod}}}}},
              {"Worker",
               {{"replicas", o.nodes},
                {"restartPolicy", "OnFailure"},
                {"template", {{"spec", worker_pod}}}}}}}}}};
}

}  // namespace

std::string kubernetes_manifest(const RunConfig& config, const JobOptions& o) {
  check_name("--name", o.name);
  check_name("--claim", o.claim);
  // JobSet's own name of the coordinator's pod: <jobset>-<job>-<index>-<pod>.<subdomain>.
  const std::string host = o.name + "-coordinator-0-0." + o.name;
  const bool is_single = o.nodes * o.processes() == 1;
  json jobs = json::array();
  jobs.push_back(
      replicated_job("coordinator", pod_of(o, "coordinator", coordinator_shell(o), 1, false)));
  for (const ValidatorOptions& validator : config.validators) {
    if (!is_started(validator)) continue;
    check_name("[[validator]] name", validator.name);
    const std::string key =
        validator.hotkey.empty() ? (o.out / "keys" / validator.name).string() : validator.hotkey;
    const std::string shell =
        participant_shell(config, o, "validator", validator.name, key, validator.device, "", host);
    jobs.push_back(
        replicated_job("validator-" + validator.name, pod_of(o, "validator", shell, 1, false)));
  }
  if (is_single) {
    const std::string shell =
        participant_shell(config, o, "worker", "island", (o.out / "keys/island").string(),
                          o.gpus_per_node > 0 ? "cuda" : "cpu", "", host);
    jobs.push_back(replicated_job("island", pod_of(o, "island", shell, 1, true)));
  }
  const json job_set{
      {"apiVersion", "jobset.x-k8s.io/v1alpha2"},
      {"kind", "JobSet"},
      {"metadata", {{"name", o.name}}},
      {"spec",
       {{"network", {{"enableDNSHostnames", true}, {"subdomain", o.name}}},
        {"successPolicy",
         {{"operator", "All"}, {"targetReplicatedJobs", json::array({"coordinator"})}}},
        {"failurePolicy", {{"maxRestarts", 10}}},
        {"replicatedJobs", jobs}}}};
  if (is_single) return job_set.dump(2) + "\n";
  const json both{{"apiVersion", "v1"},
                  {"kind", "List"},
                  {"items", json::array({job_set, mpi_job(config, o, host)})}};
  return both.dump(2) + "\n";
}

}  // namespace yumoe

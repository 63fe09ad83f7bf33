// What stands in a batch script and in a manifest; the manifest against the fields that JobSet
// v1alpha2, MPIJob v2beta1 and the core API document (written down here: the CRDs are not at hand).
#include "launch/cluster_job.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cluster/error.hpp"

namespace yumoe {
namespace {

using nlohmann::json;

RunConfig config_of() {
  return parse_config("[data]\npath = \"/data/token set\"\n[[validator]]\nname = \"judge\"\n",
                      "test");
}

JobOptions options_of() {
  JobOptions options;
  options.file = "/home/lab/it's mine.toml";
  options.out = "/shared/run";
  options.programs = "/opt/yumoe/bin";
  return options;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(SlurmScript, AsksForWhatWasAskedForAndStartsOneIslandOverAllNodes) {
  JobOptions options = options_of();
  options.nodes = 2;
  options.gpus_per_node = 8;
  options.time = "12:00:00";
  options.memory_per_node = "64G";
  const std::string script = slurm_script(config_of(), options);
  for (const char* line :
       {"#SBATCH --nodes=2\n", "#SBATCH --ntasks-per-node=8\n", "#SBATCH --gpus-per-node=8\n",
        "#SBATCH --time=12:00:00\n", "#SBATCH --mem=64G\n",
        "srun --overlap --mpi=pmix --nodes=2 --ntasks-per-node=8 --gpus-per-node=8",
        "DATA='/data/token set'\n", "--device cuda"}) {
    EXPECT_TRUE(has(script, line)) << line << "\n" << script;
  }
  EXPECT_TRUE(has(script, "FILE='/home/lab/it'\\''s mine.toml'\n"));
}

TEST(SlurmScript, IsAScriptThatBashCanRead) {
  const std::string file = testing::TempDir() + "job.sh";
  std::ofstream(file) << slurm_script(config_of(), options_of());
  EXPECT_EQ(std::system(("bash -n " + file).c_str()), 0);
}

TEST(SlurmScript, RefusesTextThatWouldBecomeAnotherLine) {
  for (const char* text : {"a\n#SBATCH --uid=0", "a b", "$(id)", "a;b"}) {
    JobOptions options = options_of();
    options.name = text;
    EXPECT_THROW(slurm_script(config_of(), options), Error) << text;
  }
  JobOptions options = options_of();
  options.file = "a\nrm -rf /";
  EXPECT_THROW(slurm_script(config_of(), options), Error);
}

// --- the manifest ------------------------------------------------------------------------------------------

// Which keys an object may have, and of what type: "?" before a name that may be missing.
using Shape = json;

void check(const json& value, const Shape& shape, const std::string& where) {
  if (shape.is_string()) {
    const std::string type = shape;
    const bool ok = type == "string"    ? value.is_string()
                    : type == "integer" ? value.is_number_integer()
                    : type == "boolean" ? value.is_boolean()
                    : type == "strings" ? value.is_object()
                                        : value == type.substr(1);  // "=JobSet"
    EXPECT_TRUE(ok) << where << " is " << value << ", not " << type;
    if (type == "strings" && value.is_object()) {
      for (const auto& [key, item] : value.items())
        EXPECT_TRUE(item.is_string()) << where << "." << key;
    }
    return;
  }
  if (shape.is_array()) {
    ASSERT_TRUE(value.is_array()) << where;
    EXPECT_FALSE(value.empty()) << where;
    for (std::size_t i = 0; i < value.size(); ++i)
      check(value[i], shape[0], where + "[" + std::to_string(i) + "]");
    return;
  }
  ASSERT_TRUE(value.is_object()) << where;
  for (const auto& [key, item] : value.items()) {
    const bool known = shape.contains(key) || shape.contains("?" + key);
    EXPECT_TRUE(known) << where << " has no field " << key;
    if (known) check(item, shape.contains(key) ? shape[key] : shape["?" + key], where + "." + key);
  }
  for (const auto& [key, item] : shape.items()) {
    EXPECT_TRUE(key.starts_with('?') || value.contains(key)) << where << " lacks " << key;
  }
}

Shape pod_shape() {
  return json::parse(R"({
    "?restartPolicy": "string",
    "containers": [{"name": "string", "image": "string", "command": ["string"],
                    "resources": {"requests": "strings", "limits": "strings"},
                    "volumeMounts": [{"name": "string", "mountPath": "string"}]}],
    "volumes": [{"name": "string", "?persistentVolumeClaim": {"claimName": "string"},
                 "?emptyDir": {"medium": "string"}}]})");
}

Shape job_set_shape() {
  json shape = json::parse(R"({
    "apiVersion": "=jobset.x-k8s.io/v1alpha2", "kind": "=JobSet", "metadata": {"name": "string"},
    "spec": {"network": {"enableDNSHostnames": "boolean", "subdomain": "string"},
             "successPolicy": {"operator": "=All", "targetReplicatedJobs": ["string"]},
             "failurePolicy": {"maxRestarts": "integer"},
             "replicatedJobs": [{"name": "string", "replicas": "integer",
               "template": {"spec": {"parallelism": "integer", "completions": "integer",
                                     "backoffLimit": "integer", "template": {"spec": {}}}}}]}})");
  shape["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"] = pod_shape();
  return shape;
}

Shape mpi_job_shape() {
  json shape = json::parse(R"({
    "apiVersion": "=kubeflow.org/v2beta1", "kind": "=MPIJob", "metadata": {"name": "string"},
    "spec": {"slotsPerWorker": "integer", "mpiImplementation": "=OpenMPI",
             "runPolicy": {"cleanPodPolicy": "=Running", "backoffLimit": "integer"},
             "mpiReplicaSpecs": {
               "Launcher": {"replicas": "integer", "restartPolicy": "=OnFailure", "template": {"spec": {}}},
               "Worker": {"replicas": "integer", "restartPolicy": "=OnFailure", "template": {"spec": {}}}}}})");
  for (const char* role : {"Launcher", "Worker"}) {
    shape["spec"]["mpiReplicaSpecs"][role]["template"]["spec"] = pod_shape();
  }
  return shape;
}

TEST(KubernetesManifest, IsAJobSetForAWorkerOfOneProcess) {
  const json manifest = json::parse(kubernetes_manifest(config_of(), options_of()));
  check(manifest, job_set_shape(), "manifest");
  std::vector<std::string> names;
  for (const json& job : manifest["spec"]["replicatedJobs"]) names.push_back(job["name"]);
  EXPECT_EQ(names, (std::vector<std::string>{"coordinator", "validator-judge", "island"}));
}

TEST(KubernetesManifest, HasAnMpiJobForAnIslandOfSeveral) {
  JobOptions options = options_of();
  options.nodes = 2;
  options.gpus_per_node = 8;
  options.memory_per_node = "64G";
  const json list = json::parse(kubernetes_manifest(config_of(), options));
  ASSERT_EQ(list["kind"], "List");
  ASSERT_EQ(list["items"].size(), 2u);
  check(list["items"][0], job_set_shape(), "JobSet");
  check(list["items"][1], mpi_job_shape(), "MPIJob");
  const json& spec = list["items"][1]["spec"];
  EXPECT_EQ(spec["slotsPerWorker"], 8);
  EXPECT_EQ(spec["mpiReplicaSpecs"]["Worker"]["replicas"], 2);
  const json& limits =
      spec["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["resources"]["limits"];
  EXPECT_EQ(limits["nvidia.com/gpu"], "8");
  EXPECT_EQ(limits["memory"], "64Gi");
  const std::string shell =
      spec["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]["containers"][0]["command"][2];
  EXPECT_TRUE(has(shell, "mpirun --allow-run-as-root -n 16 ")) << shell;
}

TEST(KubernetesManifest, StartsCommandsThatBashCanRead) {
  const json manifest = json::parse(kubernetes_manifest(config_of(), options_of()));
  for (const json& job : manifest["spec"]["replicatedJobs"]) {
    const std::string file = testing::TempDir() + "pod.sh";
    std::ofstream(file)
        << job["template"]["spec"]["template"]["spec"]["containers"][0]["command"][2]
               .get<std::string>();
    EXPECT_EQ(std::system(("bash -n " + file).c_str()), 0) << job["name"];
  }
}

TEST(KubernetesManifest, RefusesNamesThatKubernetesWould) {
  for (const char* name : {"", "Big", "a_b", "-a", "a-", "a.b"}) {
    JobOptions options = options_of();
    options.name = name;
    EXPECT_THROW(kubernetes_manifest(config_of(), options), Error) << name;
  }
}

TEST(ClusterJob, StartsWithItsIslandAlone_AndOnlyValidatorsThatHaveAKey) {
  RunConfig config = config_of();
  config.run.workers_min = 4;
  ValidatorOptions elsewhere;
  elsewhere.name = "elsewhere";
  elsewhere.address = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
  config.validators.push_back(elsewhere);
  const std::string script = slurm_script(config, options_of());
  EXPECT_TRUE(has(script, "--run.workers_min=1")) << script;
  EXPECT_TRUE(has(script, "--name 'judge'"));
  EXPECT_FALSE(has(script, "elsewhere"));
  EXPECT_FALSE(has(kubernetes_manifest(config, options_of()), "elsewhere"));
  const auto remarks = job_remarks(config, options_of());
  ASSERT_EQ(remarks.size(), 2u);
  EXPECT_TRUE(has(remarks[0], "run.workers_min = 4")) << remarks[0];
  EXPECT_TRUE(has(remarks[1], "validator elsewhere has only an address")) << remarks[1];
  config.validators.clear();
  EXPECT_TRUE(has(job_remarks(config, options_of()).back(), "nobody is paid"));
}

}  // namespace
}  // namespace yumoe

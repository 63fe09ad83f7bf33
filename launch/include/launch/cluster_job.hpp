#pragma once
// A run as a job of somebody else's scheduler: the batch script for Slurm, the manifest for Kubernetes.
// Pure text; nothing here starts anything.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "launch/config.hpp"

namespace yumoe {

// What the job asks for. One island of all its processes is one worker to the coordinator.
struct JobOptions {
  std::string file;                // the run's TOML, as the job's nodes see it
  std::filesystem::path out;       // the run's folder, shared by the nodes
  std::filesystem::path programs;  // where yumoe and yumoe-worker lie on the nodes
  std::string name = "yumoe";
  std::uint32_t nodes = 1;
  std::uint32_t gpus_per_node = 0;       // 0: CPUs
  std::uint32_t processes_per_node = 0;  // 0: one a GPU, or one
  std::uint32_t cpus_per_process = 1;
  std::string memory_per_node;     // "64G"; empty: what the scheduler gives
  std::string time;                // "12:00:00"; empty: the partition's limit
  std::string partition, account;  // Slurm
  std::string image;               // Kubernetes
  std::string claim = "yumoe";     // Kubernetes: the volume claim that holds `out`
  std::uint16_t port = 48150;      // of the coordinator

  std::uint32_t processes() const;  // a node
};

// The batch script: the coordinator and those validators of `config` that have a key on the first node, one
// island over all of them. The island is one worker, so the job waits for no others (run.workers_min). Ends when the run is finished, and with an error when any of them fails.
// Throws Error{usage} for text that could not stand in a script.
std::string slurm_script(const RunConfig& config, const JobOptions& options);

// A JobSet (jobset.x-k8s.io/v1alpha2) or, for an island whose ranks MPI starts, an MPIJob
// (kubeflow.org/v2beta1) beside it, as JSON, which kubectl takes as it takes YAML.
// Throws Error{usage}.
std::string kubernetes_manifest(const RunConfig& config, const JobOptions& options);

// Whether a job starts this validator: one that is known by its address alone runs elsewhere.
bool is_started(const ValidatorOptions& validator);

// What the owner should know of a job of `config` before it is submitted, a sentence each.
std::vector<std::string> job_remarks(const RunConfig& config, const JobOptions& options);

}  // namespace yumoe

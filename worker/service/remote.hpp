#pragma once
// Experts of this process for other machines, and those of other machines for this process.

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "router/base_version.hpp"
#include "router/model_file.hpp"
#include "service/shared.hpp"
#include "worker/expert_server.hpp"
#include "worker/remote_experts.hpp"

namespace yumoe {

// What serving fills at most: two versions of the experts, what callers may fill, and the rows of the call in
// work. Throws Error{usage} for experts that the model does not have.
std::uint64_t serving_bytes(const Layout& layout, const std::string& experts,
                            const CallerLimits& callers);

// Answers in a thread of its own from the first offer() on.
class ExpertService {
 public:
  // Throws Error{usage}, Error{port_taken}, Error{key_invalid}.
  ExpertService(const std::string& experts, const TransportOptions& transport,
                const std::filesystem::path& key, const CallerLimits& callers, const Layout& layout,
                const DeviceOptions& device);
  ~ExpertService();

  // Serves this version and, of those before, the last.
  void offer(const BaseVersion& base);

  // EXPERTS@ADDRESS, what callers have to say.
  std::string place() const;

 private:
  const Layout& layout_;
  const DeviceOptions device_;
  const ExpertSet experts_;
  std::unique_ptr<ServerTransport> transport_;
  ExpertServer server_;
  std::atomic<bool> stop_ = false;
  std::jthread thread_;
};

// A model file, read.
struct OpenModel {
  RunFacts facts;
  Layout layout;
  BaseVersion base;
  Welcome welcome;

  explicit OpenModel(ModelFile file);
  // Throws what read_model_file throws.
  static OpenModel open(const std::filesystem::path& path);
};

// Servers of its experts that all answered, if any was said, and which experts are where.
struct FoundExperts {
  std::unique_ptr<RemoteExperts> remote;
  ExpertSet here, elsewhere;
};
// Throws Error{usage} naming the server that is silent, lacks an expert or has another version.
FoundExperts find_experts(const OpenModel& model, const std::vector<std::string>& places,
                          const std::filesystem::path& key, std::chrono::milliseconds wait,
                          const DispatchOptions& options);

// A caller's keys; those kept in a file are said, so that servers can allow them.
CurveKeypair caller_keys(const std::filesystem::path& file);

// Patient enough to train with: a slow machine is not a dead one.
DispatchOptions dispatch_for_training();

std::vector<ExpertPlace> parse_expert_places(const std::vector<std::string>& texts,
                                             const ModelOptions& model);

}  // namespace yumoe

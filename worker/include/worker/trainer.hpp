#pragma once
// Trains shards: from a base version through the inner steps to the pseudo-gradient.
//
// AdamW's moments are kept from a uid's shard to its next one if that is of the very next round and of
// the same experts, through at most `moments_rounds` rounds; otherwise they start fresh
// (docs/decisions/inner-moments.md). So a result depends on the shards since moments_from alone, with
// their base versions, gate biases and data. On one kind of device with one number of threads it is
// the same bits each time: anybody can check it.
//
// On an island, rank 0 has the Trainer and the other ranks are in follow_trainer(). Results are those
// of one process within rounding; where experts are held follows the tokens they saw in the last shard.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "cluster/collective.hpp"
#include "router/layout.hpp"
#include "router/shard.hpp"
#include "worker/device_options.hpp"
#include "worker/remote_experts.hpp"
#include "worker/windows.hpp"

namespace yumoe {

struct StepReport {
  std::uint32_t step = 0;    // 1-based, of the shard
  double loss = 0;           // nats a token, before this step's change
  std::uint64_t tokens = 0;  // trained on so far in the shard
  double seconds = 0;        // of this step, throttling included
};

// Called after each inner step; false ends the shard there.
using OnStep = std::function<bool(const StepReport&)>;

struct TrainingResult {
  std::uint32_t steps = 0;  // done; fewer than asked if stopped
  double loss_first = 0;    // of the first and the last step, nats a token
  double loss_last = 0;
  std::uint64_t tokens = 0;
  double seconds_in_steps = 0;               // throttling included: it stands for a slower machine
  std::vector<std::uint32_t> expert_tokens;  // [layers * experts]: assignments; 0 if not held
  RoundId moments_from;                      // round of the shard whose moments started fresh
  std::vector<float> gate_bias;  // [layers * experts]: the base's, balanced by this shard's counts
};

// The processes that are one worker, as one of them sees them.
class Island {
 public:
  explicit Island(std::unique_ptr<Collective> group) : group_(std::move(group)) {}
  Collective& group() { return *group_; }

  // After an operation of the group failed, on every rank that is left: goes on with those, rank 0 still
  // the first. Throws Error{collective_failed} where that cannot be done (Collective::reform) or rank 0
  // is lost; then the processes have to be started again.
  void form_again();

 private:
  std::unique_ptr<Collective> group_;
};

// All processes that a launcher started, one rank each: over MPI, and over NCCL where they compute on GPUs.
// `device` auto or cuda becomes the GPU of this rank's place on its machine, auto also the CPU. Once a
// process. Throws what join_mpi, join_nccl and the opening of a device do, Error{config_invalid} if only
// some ranks have a GPU.
Island join_island(DeviceOptions& device, std::chrono::milliseconds wait_max);

class Trainer {
 public:
  // Throws Error{device_missing} or Error{config_invalid}. The number of threads is the process's.
  // `island`: the caller is its rank 0. When another rank is lost, the rest form again within the call
  // that noticed and do its work once more: a shard from its base, with fresh moments. Where they cannot,
  // it throws Error{collective_failed}; then this Trainer and the island are of no use any more.
  Trainer(const ModelOptions& model, const InnerOptions& inner, const DeviceOptions& device,
          Island* island = nullptr);
  Trainer(Trainer&&) noexcept;
  Trainer& operator=(Trainer&&) noexcept;
  ~Trainer();

  // The agreed base version: parameters [layout.parameters()] and gate bias [layers * experts] or
  // empty for all zero. Copies both.
  void load_base(std::span<const float> parameters, std::span<const float> gate_bias);

  // Trains one shard from the base. `windows` is asked for positions shard.data.first + 0, 1, ...
  // A shard stopped after n steps equals one of n inner steps. Steps are reported from 1 again if an
  // island lost a rank meanwhile. Throws Error{not_finite} naming the
  // step if loss or gradient is no number (the base is untouched; the next shard's moments are fresh),
  // Error{data_invalid} for tokens beyond the vocabulary or a range that does not fit the steps.
  TrainingResult train(const TrainingShard& shard, const WindowReader& windows,
                       const OnStep& on_step = {});

  // Writes base - local for the trunk and the experts of the last shard into `whole`
  // [layout.parameters()]; leaves other experts' elements as they are.
  void pseudo_gradient(std::span<float> whole) const;

  // Writes the local parameters of the last shard likewise.
  void local_parameters(std::span<float> whole) const;

  // From the next shard on, gates choose among the shard's experts and these of `elsewhere`, which are
  // called where they are and not trained from here (docs/remote-experts.md). Bits then depend on who
  // answered. `experts` must outlive this or the next call; null: no more. Not on an island.
  void use_remote(RemoteExperts* experts, ExpertSet elsewhere);

  // Tells the other ranks of an island that rank 0 lives. To be called every few seconds between shards.
  void keep_alive();

  // Ranks it computes on.
  int ranks() const;

  struct State;  // private to trainer/

 private:
  std::unique_ptr<State> state_;
};

// What every rank of an island but 0 does: computes its part of what rank 0's Trainer is asked for, until
// rank 0 calls end_followers, which is rank 0's last call. When a rank is lost, the rest form again and go
// on; where they cannot, it throws Error{collective_failed}. end_followers throws nothing of that kind.
void follow_trainer(Island& island, const DeviceOptions& device);
void end_followers(Island& island);

}  // namespace yumoe

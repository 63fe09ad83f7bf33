#include "trainer/island.hpp"

#include <algorithm>
#include <cstring>

#include "cluster/error.hpp"
#include "worker/trainer.hpp"

namespace yumoe::island {
namespace {

struct Header {
  std::uint32_t command = 0, reserved = 0;
  std::uint64_t bytes = 0;
};

// Slower than this a rank is not, whatever came before; and a first step warms caches up.
constexpr std::chrono::milliseconds kStepWaitMin{10'000};

}  // namespace

void say(Collective& any, Command command, ByteView payload) {
  Collective& group = any.host();
  Header header{static_cast<std::uint32_t>(command), 0, payload.size()};
  group.broadcast({reinterpret_cast<std::uint8_t*>(&header), sizeof header}, 0);
  if (payload.empty()) return;
  // The root's bytes are only read.
  group.broadcast({const_cast<std::uint8_t*>(payload.data()), payload.size()}, 0);
}

Said hear(Collective& any, std::chrono::milliseconds usual_wait) {
  Collective& group = any.host();
  Header header;
  group.wait_at_most(kIdleWaitMax);
  group.broadcast({reinterpret_cast<std::uint8_t*>(&header), sizeof header}, 0);
  group.wait_at_most(usual_wait);
  Said said{static_cast<Command>(header.command), Bytes(header.bytes)};
  if (header.bytes > 0) group.broadcast(said.payload, 0);
  return said;
}

void part(Collective& group) {
  constexpr std::chrono::milliseconds kPartWait{5'000};
  group.wait_at_most(kPartWait);
  try {
    group.host().barrier();
  } catch (const Error& error) {  // there is nothing left to be done together
    if (error.code() != ErrorCode::collective_failed) throw;
  }
}

void Reader::check(bool fits) {
  if (!fits) {
    throw Error(ErrorCode::message_malformed,
                "what rank 0 said is cut off: are all ranks the same program?");
  }
}

void Reader::take_into(void* to, std::size_t bytes) {
  check(bytes <= bytes_.size());
  std::memcpy(to, bytes_.data(), bytes);
  bytes_ = bytes_.subspan(bytes);
}

Bytes encode(const Options& options) {
  std::string text;
  for (const auto& [key, value] : texts_of(options.model))
    text += "model." + key + "=" + value + "\n";
  for (const auto& [key, value] : texts_of(options.inner))
    text += "training." + key + "=" + value + "\n";
  return Bytes(text.begin(), text.end());
}

Options decode_options(ByteView bytes) {
  OptionTexts texts;
  std::string_view rest(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) {
      throw Error(ErrorCode::message_malformed, "rank 0 said an option without a value");
    }
    texts.emplace_back(line.substr(0, equals), line.substr(equals + 1));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  }
  return {section_from<ModelOptions>(texts, "model"),
          section_from<InnerOptions>(texts, "training")};
}

void StepDeadline::observe(double seconds) {
  steps_.observe(std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1e3)));
  now_ = steps_.deadline(20, kStepWaitMin, most_);
  group_.wait_at_most(now_);
}

int gpu_of_place(int local_rank, int gpus) {
  if (gpus == 1) return 0;
  if (local_rank >= gpus) {
    throw Error(ErrorCode::config_invalid,
                "rank " + std::to_string(local_rank) + " of this machine, counted from 0, finds " +
                    std::to_string(gpus) +
                    " GPUs: start at most as many ranks there, one GPU each, or say --device cpu");
  }
  return local_rank;
}

}  // namespace yumoe::island

namespace yumoe {

void Island::form_again() {
  // The others may notice as late as their own deadlines, and GPUs take long to meet.
  constexpr std::chrono::milliseconds kFormWait{120'000}, kRollCallWait{10'000};
  const std::int32_t mine = group_->rank();
  while (true) {
    const int before = group_->size();
    group_->wait_at_most(kFormWait);
    group_ = group_->reform();
    if (group_->size() == before) {
      throw Error(ErrorCode::collective_failed,
                  "form the group again: no rank is lost, so it would fail again");
    }
    group_->wait_at_most(kRollCallWait);
    std::vector<std::int32_t> all(static_cast<std::size_t>(group_->size()));
    try {
      group_->host().all_gather(as_bytes(std::span(&mine, 1)), as_writable(std::span(all)));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::collective_failed) throw;
      continue;  // another one is lost by now
    }
    if (all.front() == 0) return;
    throw Error(ErrorCode::collective_failed,
                "rank 0, which speaks for the island, is lost: start its processes again, as "
                "`yumoe-worker island` does");
  }
}

}  // namespace yumoe

#include "service/remote.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "router/expert_message.hpp"
#include "router/model_file.hpp"
#include "worker/evaluator.hpp"
#include "worker/feed_forward_experts.hpp"
#include "worker/memory.hpp"
#include "worker/windows.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;

TransportOptions for_rows(TransportOptions options) {
  options.message_bytes_max = static_cast<std::int64_t>(kExpertPayloadBytesMax) + 4'096;
  return options;
}

// Headers of the calls and answers that just fill a bound: two of the largest may be under way at once.
constexpr std::size_t kHeaderBytes = 65'536;

// What one may fill is half of everybody's at most, as unsent answers have it (cluster/transport.hpp).
std::uint64_t caller_mib(const CallerLimits& callers) {
  return std::min(callers.caller_mib, callers.callers_mib / 2);
}

// Of what callers may fill: a quarter waits, a quarter is not sent, half is kept.
Door door_of(const CallerLimits& callers) {
  Door door{.allowed = {},
            .unread_messages_max = 2,
            .unsent_bytes_max = (caller_mib(callers) << 18) + kHeaderBytes,
            .all_unsent_bytes_max = (callers.callers_mib << 18) + 2 * kHeaderBytes};
  for (const std::string& hex : callers.allow) {
    const auto refuse = [&] {
      return Error(ErrorCode::usage,
                   "a caller's key has 64 hex digits, as --remote-key prints it; not " + hex);
    };
    if (hex.size() != 2 * sizeof(CurveKey)) throw refuse();
    try {
      const Bytes bytes = from_hex(hex);
      std::ranges::copy(bytes, door.allowed.emplace_back().begin());
    } catch (const Error&) {
      throw refuse();
    }
  }
  return door;
}

ExpertServer::Options options_of(const CallerLimits& callers) {
  ExpertServer::Options options;
  options.caller_waiting_bytes_max = (caller_mib(callers) << 18) + kHeaderBytes;
  options.waiting_bytes_max = (callers.callers_mib << 18) + 2 * kHeaderBytes;
  options.caller_answers_bytes_max = caller_mib(callers) << 16;
  options.answers_bytes_max = callers.callers_mib << 16;
  options.caller_kept_bytes_max = caller_mib(callers) * 7 << 16;
  options.kept_bytes_max = callers.callers_mib * 7 << 16;
  return options;
}

ExpertSet experts_of(const std::string& text, const ModelOptions& model) {
  if (text.empty()) return all_experts(model);
  return parse_experts(text, static_cast<std::uint32_t>(model.experts));
}

}  // namespace

OpenModel::OpenModel(ModelFile file)
    : facts(RunFacts::from(file.facts)),
      layout(Layout::of(facts.model)),
      base(BaseVersion::decode(layout, file.base)),
      welcome(std::move(file.facts)) {}

OpenModel OpenModel::open(const std::filesystem::path& path) {
  return OpenModel(read_model_file(path));
}

CurveKeypair caller_keys(const std::filesystem::path& file) {
  if (file.empty()) return CurveKeypair::generate();
  const CurveKeypair keys = CurveKeypair::kept_in(file);
  std::cerr << "calls experts elsewhere as " << to_hex(keys.public_key) << std::endl;
  return keys;
}

FoundExperts find_experts(const OpenModel& model, const std::vector<std::string>& places,
                          const std::filesystem::path& key, milliseconds wait,
                          const DispatchOptions& options) {
  FoundExperts found;
  if (!places.empty()) {
    found.remote = std::make_unique<RemoteExperts>(
        parse_expert_places(places, model.facts.model), model.base.digest(),
        static_cast<std::size_t>(model.facts.model.width), options, caller_keys(key));
    found.elsewhere = found.remote->use(model.base.digest(), wait);
    for (const std::string& remark : found.remote->remarks()) {
      if (!remark.empty()) throw Error(ErrorCode::usage, remark);
    }
  }
  std::ranges::set_difference(all_experts(model.facts.model), found.elsewhere,
                              std::back_inserter(found.here));
  return found;
}

DispatchOptions dispatch_for_training() {
  DispatchOptions options;
  options.attempts_max = 16;
  options.strikes_max = 16;
  options.deadline_min_ms = 50;
  return options;
}

std::vector<ExpertPlace> parse_expert_places(const std::vector<std::string>& texts,
                                             const ModelOptions& model) {
  std::vector<ExpertPlace> places;
  for (const std::string& text : texts) {
    places.push_back(parse_expert_place(text, static_cast<std::uint32_t>(model.layers),
                                        static_cast<std::uint32_t>(model.experts)));
  }
  return places;
}

std::uint64_t serving_bytes(const Layout& layout, const std::string& experts,
                            const CallerLimits& callers) {
  const ModelOptions& model = layout.model();
  // Of the largest call x, y and the three halves of the hidden rows.
  const auto call =
      kExpertPayloadBytesMax + static_cast<std::uint64_t>(kExpertPayloadBytesMax / 2 * 3) *
                                   static_cast<std::uint64_t>(model.expert_width) /
                                   static_cast<std::uint64_t>(model.width);
  return 2 * sizeof(float) * layout.expert_parameters() * experts_of(experts, model).size() +
         (callers.callers_mib << 20) + call;
}

ExpertService::ExpertService(const std::string& experts, const TransportOptions& transport,
                             const std::filesystem::path& key, const CallerLimits& callers,
                             const Layout& layout, const DeviceOptions& device)
    : layout_(layout),
      device_(device),
      experts_(experts_of(experts, layout.model())),
      transport_(listen_zeromq(for_rows(transport),
                               key.empty() ? CurveKeypair::generate() : CurveKeypair::kept_in(key),
                               door_of(callers))),
      server_(*transport_, options_of(callers)) {}

ExpertService::~ExpertService() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void ExpertService::offer(const BaseVersion& base) {
  server_.forget_old();  // two versions are the most there is room for
  server_.add(base.digest(),
              feed_forward_experts(layout_, base.parameters(), experts_, device_, {}));
  if (!thread_.joinable()) thread_ = std::jthread([this] { server_.serve(stop_); });
}

std::string ExpertService::place() const {
  return text_of_experts(experts_) + "@" + transport_->address().text();
}

void serve_experts(const ExpertServiceSetup& setup, const std::atomic<bool>& stop) {
  keep_freed_memory();
  const OpenModel model = OpenModel::open(setup.model);
  ExpertService service(setup.experts, setup.transport, setup.key, setup.callers, model.layout,
                        setup.device);
  service.offer(model.base);
  std::cout << "experts of run " << model.welcome.run << ", base version "
            << model.base.round().value << ", for callers to say:\n  --remote '" << service.place()
            << "'"
            << (setup.transport.address == "0.0.0.0" ? "\nwith this machine's address for 0.0.0.0"
                                                     : "")
            << std::endl;
  while (!stop) std::this_thread::sleep_for(milliseconds(100));
}

EvaluationReport evaluate_model(const EvaluationSetup& setup) {
  const OpenModel model = OpenModel::open(setup.model);
  EvaluationReport report;
  report.run = model.welcome.run;
  report.version = model.base.round();
  const FoundExperts experts =
      find_experts(model, setup.remote, setup.remote_key, setup.wait, dispatch_for_training());
  report.here = experts.here;
  report.elsewhere = experts.elsewhere;
  ParticipantSetup data;
  data.data = setup.data;
  const TokenSet tokens = open_data(data, model.facts, model.welcome);
  const auto context = static_cast<std::uint32_t>(model.facts.model.context);
  const std::uint64_t wanted =
      setup.windows > 0 ? setup.windows
                        : static_cast<std::uint64_t>(model.facts.evaluation.heldout_windows);
  report.windows = std::min(wanted, tokens.windows(Split::heldout, context));
  if (report.windows == 0) {
    throw Error(ErrorCode::data_invalid, setup.data.string() + " has no held-out windows");
  }
  // Those that the run's validators read.
  const std::vector<std::uint16_t> windows = read_windows(
      windows_in_order(tokens, derive_seed("heldout order", {0}), Split::heldout, context), 0,
      report.windows, context);
  Evaluator evaluator(model.facts.model, setup.device, experts.remote.get(), report.elsewhere);
  evaluator.load_base(model.base.parameters(), model.base.gate_bias());
  const auto start = std::chrono::steady_clock::now();
  report.loss = evaluator.base(windows).mean();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.bits_per_byte = bits_per_byte(report.loss, tokens.bytes_per_token(Split::heldout));
  if (experts.remote) report.calls = experts.remote->counts();
  return report;
}

void print_evaluation(const EvaluationReport& report, bool json) {
  if (json) {
    std::cout << nlohmann::json{{"run", report.run},
                                {"version", report.version.value},
                                {"windows", report.windows},
                                {"loss", report.loss},
                                {"bits_per_byte", report.bits_per_byte},
                                {"experts_here", report.here},
                                {"experts_elsewhere", report.elsewhere},
                                {"requests", report.calls.requests},
                                {"not_answered", report.calls.given_up},
                                {"seconds", report.seconds}}
                     .dump()
              << std::endl;
    return;
  }
  std::printf("run %s, base version %llu: loss %.4f nats a token, %.4f bits a byte, %llu windows\n",
              report.run.c_str(), static_cast<unsigned long long>(report.version.value),
              report.loss, report.bits_per_byte, static_cast<unsigned long long>(report.windows));
  std::printf("experts here: %s; elsewhere: %s", text_of_experts(report.here).c_str(),
              report.elsewhere.empty() ? "none" : text_of_experts(report.elsewhere).c_str());
  if (!report.elsewhere.empty()) {
    std::printf(
        " (%llu requests, %llu calls not answered%s)",
        static_cast<unsigned long long>(report.calls.requests),
        static_cast<unsigned long long>(report.calls.given_up),
        report.calls.given_up > 0 ? ": their experts were left out of the tokens concerned" : "");
  }
  std::printf("; %.1f s\n", report.seconds);
  std::fflush(stdout);
}

}  // namespace yumoe

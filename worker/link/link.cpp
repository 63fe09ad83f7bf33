#include "worker/link.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "cluster/clock.hpp"
#include "cluster/error.hpp"
#include "cluster/log.hpp"

namespace yumoe {
namespace {

using Monotonic = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kPollMax{20};
constexpr milliseconds kSayAgain{2'000};  // an unanswered message is repeated after so long
constexpr milliseconds kAnswerExpected{5'000};
constexpr milliseconds kStopSeenWithin{100};
constexpr milliseconds kProgressSeenWithin{200};
constexpr std::size_t kPiecesInFlight = 4;

struct Offered {
  Bytes contribution;
  Digest commitment;
  Monotonic::time_point said_at{};  // last commit or reveal
  Answer said = Answer::missing;
  Link::Manner manner;
  std::size_t revealed = 0;  // of a slow reveal
};

struct Download {
  Bytes bytes;
  std::uint64_t total = 0;           // 0: not known yet
  std::uint64_t asked = 0;           // offset up to which pieces were asked for
  Monotonic::time_point moved_at{};  // last piece, or the start
  Monotonic::time_point asked_at{};
  bool missing = false;
};

}  // namespace

class Link::Impl {
 public:
  Impl(const CoordinatorAddress& address, Keypair keys, Join join, const TransportOptions& options,
       const std::atomic<bool>& stop)
      : stop_(stop),
        address_(address),
        keys_(std::move(keys)),
        join_(std::move(join)),
        options_(options),
        transport_(connect_zeromq(address, CurveKeypair::generate(), options)),
        heard_at_(Monotonic::now()),
        thread_([this](const std::stop_token& stop) { talk(stop); }) {}

  ~Impl() {
    thread_.request_stop();
    thread_.join();
  }

  Welcome welcome(milliseconds wait_max) {
    std::unique_lock lock(mutex_);
    const auto until = Monotonic::now() + wait_max;
    const auto is_decided = [&] { return welcome_ || failure_; };
    wait(lock, std::min(until, Monotonic::now() + kAnswerExpected), is_decided);
    if (!is_decided() && Monotonic::now() < until) {
      log_warning("no answer yet from " + address_.text() +
                  ": is the coordinator running there, and is the key its own? Trying on");
      wait(lock, until, is_decided);
    }
    throw_failure();
    if (!welcome_) {
      throw Error(
          ErrorCode::peer_unreachable,
          "join the run at " + address_.text() + ": no answer for " +
              std::to_string(wait_max.count() / 1'000) +
              " s; is the coordinator running there, and is the key in the address its own?");
    }
    return *welcome_;
  }

  std::optional<Directive> directive(std::uint64_t after, milliseconds wait_max) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, wait_max,
                      [&] { return (directive_ && directive_->sequence > after) || failure_; });
    throw_failure();
    if (Monotonic::now() - heard_at_ > silence_max_) {
      throw Error(ErrorCode::peer_unreachable,
                  "the coordinator at " + address_.text() + " was silent for too long: given up");
    }
    if (!directive_ || directive_->sequence <= after) return std::nullopt;
    return directive_;
  }

  std::optional<Directive> latest() const {
    const std::lock_guard lock(mutex_);
    return directive_;
  }

  Bytes fetch(const Digest& digest, std::size_t bytes_max, milliseconds wait_max) {
    std::unique_lock lock(mutex_);
    auto& shared = downloads_[digest];
    if (!shared) shared = std::make_shared<Download>();
    std::shared_ptr<Download> held = shared;  // another caller may want the same, and be done first
    Download& download = *held;
    if (download.moved_at == Monotonic::time_point{}) download.moved_at = Monotonic::now();
    const auto finish = [&](ErrorCode code, const std::string& why) {
      downloads_.erase(digest);
      throw Error(code, "fetch " + digest.hex().substr(0, 16) + ": " + why);
    };
    while (true) {
      wait(lock, Monotonic::now() + kProgressSeenWithin, [&] {
        return failure_ || download.missing ||
               (download.total > 0 && download.bytes.size() == download.total);
      });
      throw_failure();
      if (download.missing) finish(ErrorCode::file_missing, "the coordinator does not have it");
      if (download.total > bytes_max) {
        finish(ErrorCode::message_too_large, std::to_string(download.total) + " bytes, at most " +
                                                 std::to_string(bytes_max) + " were expected");
      }
      if (download.total > 0 && download.bytes.size() == download.total) break;
      if (Monotonic::now() - download.moved_at > wait_max) {
        // What has come is kept: a later call goes on from there.
        throw Error(ErrorCode::peer_unreachable,
                    "fetch " + digest.hex().substr(0, 16) + ": nothing came for " +
                        std::to_string(wait_max.count() / 1'000) + " s");
      }
    }
    downloads_.erase(digest);
    Bytes bytes = held.use_count() == 1 ? std::move(download.bytes) : download.bytes;
    lock.unlock();
    if (digest_of(bytes) != digest) {
      throw Error(ErrorCode::digest_mismatch, "fetch " + digest.hex().substr(0, 16));
    }
    return bytes;
  }

  void offer(RoundId round, Bytes contribution, const Manner& manner) {
    const std::lock_guard lock(mutex_);
    Offered& offered = offered_[round];
    offered.manner = manner;
    offered.commitment =
        manner.commitment.value_or(commitment_of(keys_.public_key(), contribution));
    offered.contribution = std::move(contribution);
  }

  std::vector<Bytes> last_said() const {
    const std::lock_guard lock(mutex_);
    return last_said_;
  }

  void say_again(std::vector<Bytes> frames) {
    const std::lock_guard lock(mutex_);
    again_.push_back(std::move(frames));
  }

  void send_scores(const Scores& scores) {
    const std::lock_guard lock(mutex_);
    scores_[scores.round] = {scores, {}};
  }

  void report(const Heartbeat& beat) {
    const std::lock_guard lock(mutex_);
    beat_ = beat;
  }

  void tell(const WorkerProfile& profile) {
    const std::lock_guard lock(mutex_);
    join_.profile = profile;
    rejoin_ = joined_;
  }

  void leave_because(std::string reason) {
    const std::lock_guard lock(mutex_);
    leave_reason_ = std::move(reason);
  }

  Way measure_way(milliseconds wait_max) {
    const auto until = Monotonic::now() + wait_max;
    Way way;
    double trip_s = 0;
    for (int i = 0; i < 4; ++i) {
      const double seconds = probe(0, 0, until);
      if (seconds > 0) trip_s = trip_s > 0 ? std::min(trip_s, seconds) : seconds;
    }
    way.round_trip_ms = 1e3 * trip_s;
    const auto rate = [&](bool up) {
      double best = 0;
      // A slow way is measured with little; a fast one with as much as a piece holds.
      for (std::size_t bytes = 32u << 10; bytes <= kPieceBytesMax; bytes *= 32) {
        for (int i = 0; i < 2; ++i) {
          const double seconds = probe(up ? bytes : 0, up ? 0 : bytes, until);
          if (seconds <= 0) return best;
          best = std::max(best, static_cast<double>(bytes) / std::max(seconds - trip_s, 1e-5));
        }
        if (static_cast<double>(32 * bytes) > 2 * best)
          break;  // the next would take over two seconds
      }
      return best;
    };
    if (trip_s > 0) {
      way.up_bytes_per_s = rate(true);
      way.down_bytes_per_s = rate(false);
    }
    return way;
  }

  bool settle(milliseconds wait_max) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, wait_max,
                             [&] { return (offered_.empty() && scores_.empty()) || failure_; });
  }

  TransportCounts counts() const {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

  void give_up_after(milliseconds silence_max) {
    const std::lock_guard lock(mutex_);
    silence_max_ = silence_max;
  }

 private:
  // Until `done`, or `until`. Throws Stopped.
  template <typename Done>
  void wait(std::unique_lock<std::mutex>& lock, Monotonic::time_point until, Done done) {
    while (!done() && Monotonic::now() < until) {
      changed_.wait_until(lock, std::min(until, Monotonic::now() + kStopSeenWithin));
      if (stop_) throw Stopped{};
    }
  }

  // Seconds from saying a probe to its answer; 0 if none came until `until`.
  double probe(std::size_t bytes_up, std::size_t bytes_down, Monotonic::time_point until) {
    std::unique_lock lock(mutex_);
    ++probe_.number;
    probe_.wanted_bytes = static_cast<std::uint32_t>(bytes_down);
    probe_payload_.assign(bytes_up, 0x5a);
    probe_state_ = ProbeState::due;
    wait(lock, until, [&] { return probe_state_ == ProbeState::answered || failure_; });
    const bool is_answered = probe_state_ == ProbeState::answered;
    probe_state_ = ProbeState::none;
    if (!is_answered) return 0;
    return std::chrono::duration<double>(probe_answered_at_ - probe_said_at_).count();
  }

  // --- the talking thread: the only one that touches transport_ ------------------------------------------

  void talk(const std::stop_token& stop) {
    try {
      while (!stop.stop_requested()) {
        while (const auto frames =
                   transport_->receive(stop.stop_requested() ? milliseconds(0) : kPollMax)) {
          hear(*frames);
          if (stop.stop_requested()) break;
        }
        const std::lock_guard lock(mutex_);
        speak();
        counts_ = transport_->counts();
      }
      if (joined_ && !leave_reason_.empty()) say(Leave{leave_reason_});
      // Gives the socket a moment to put the farewell on the wire; nobody waits for an answer.
      std::this_thread::sleep_for(milliseconds(50));
    } catch (const std::exception& error) {
      fail(ErrorCode::peer_unreachable,
           std::string("link to the coordinator broke: ") + error.what());
    }
  }

  void hear(const std::vector<Bytes>& frames) {
    ToParticipant content;
    try {
      content = decode_to_participant(open_envelope(frames[0]).body);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::version_mismatch) fail(error.code(), error.what());
      log_warning(std::string("dropped a message: ") + error.what());
      return;
    }
    const std::lock_guard lock(mutex_);
    heard_at_ = Monotonic::now();
    std::visit([&](auto& c) { on(c, frames); }, content);
    changed_.notify_all();
  }

  void on(const Challenge& challenge, const std::vector<Bytes>&) {
    if (welcome_ && welcome_->run != challenge.run) {
      failure_ = {ErrorCode::peer_refused, "another run is at this address now: " + challenge.run};
      return;
    }
    if (challenge.nonce == nonce_) return;  // answered already; speak() says it again if need be
    nonce_ = challenge.nonce;
    sequence_ = 0;
    joined_ = false;
    say(join_);
    said_at_ = Monotonic::now();
    challenged_ = true;
  }

  void on(Welcome& welcome, const std::vector<Bytes>&) {
    welcome_ = std::move(welcome);
    joined_ = true;
    for (const auto& [key, text] : welcome_->configuration) {
      if (key == "run.stale_rounds_max") option_detail::parse_number(text, stale_rounds_max_);
    }
  }

  void on(Directive& directive, const std::vector<Bytes>&) {
    if (directive_ && directive.sequence < directive_->sequence) return;
    directive_ = std::move(directive);
    joined_ = true;
    const Directive& d = *directive_;
    if (d.finished) leave_reason_ = "the run is finished";
    // What the coordinator has need not be offered; nor what is too late for it. Until then a late one is
    // offered although the directive speaks of a newer shard.
    std::erase_if(offered_, [&](const auto& entry) {
      const RoundId round = entry.first;
      if (round != d.shard.round) return round.value + stale_rounds_max_ < d.round.value;
      return d.answer == Answer::revealed || d.answer == Answer::refused;
    });
    std::erase_if(scores_, [&](const auto& entry) { return entry.first != d.evaluate.round; });
  }

  void on(const Receipt& receipt, const std::vector<Bytes>&) {
    if (!welcome_) return;
    const Digest covered = digest_of_receipt(welcome_->run, keys_.public_key(), receipt);
    if (!verify(welcome_->coordinator, covered.bytes, receipt.signature)) {
      log_warning("a receipt whose signature does not verify was ignored");
      return;
    }
    if (receipt.kind == ReceiptKind::scores) scores_.erase(receipt.round);
    if (receipt.kind == ReceiptKind::reveal) offered_.erase(receipt.round);
  }

  void on(const Piece& piece, const std::vector<Bytes>& frames) {
    if (piece.digest == Digest{}) {
      if (probe_state_ != ProbeState::said || piece.offset != probe_.number) return;
      probe_answered_at_ = Monotonic::now();
      probe_state_ = ProbeState::answered;
      return;
    }
    const auto found = downloads_.find(piece.digest);
    if (found == downloads_.end()) return;
    Download& download = *found->second;
    if (piece.total_bytes == 0) {
      download.missing = true;
      return;
    }
    if (frames.size() != 2 || frames[1].size() > kPieceBytesMax || frames[1].empty()) return;
    if (piece.offset != download.bytes.size()) return;  // repeated, or one before it was lost
    if (piece.offset + frames[1].size() > piece.total_bytes) return;
    download.total = piece.total_bytes;
    download.bytes.insert(download.bytes.end(), frames[1].begin(), frames[1].end());
    download.moved_at = Monotonic::now();
  }

  void on(const Refusal& refusal, const std::vector<Bytes>&) {
    log_warning("the coordinator refused (" + refusal.code + "): " + refusal.message);
    if (refusal.final) failure_ = {ErrorCode::peer_refused, refusal.message};
    if (refusal.code == name_of(ErrorCode::stale_round)) {
      // Nothing to repeat: the directive that follows says what is wanted.
      for (auto& [round, offered] : offered_) offered.said_at = Monotonic::now();
    }
  }

  void on(const LedgerAnswer&, const std::vector<Bytes>&) {}  // a participant asks for none

  // Everything that is due to be said, once or again. Called with the lock held.
  void speak() {
    const auto now = Monotonic::now();
    if (!joined_) {
      if (now - said_at_ >= kSayAgain || said_at_ == Monotonic::time_point{}) {
        if (challenged_) {
          say(join_);
        } else {
          transport_->send({seal_unsigned(0, clock_.now(), encode(ToCoordinator{Hello{}}))});
        }
        challenged_ = false;
        said_at_ = now;
      }
      return;
    }
    for (std::vector<Bytes>& frames : again_) transport_->send(std::move(frames));
    again_.clear();
    if (rejoin_) {
      say(join_);
      rejoin_ = false;
    }
    if (probe_state_ == ProbeState::due) {
      probe_said_at_ = Monotonic::now();
      probe_state_ = ProbeState::said;
      say(probe_, probe_payload_.empty() ? std::nullopt : std::optional(probe_payload_));
    }
    if (now - beat_at_ >= milliseconds(options_.heartbeat_interval_ms)) {
      beat_.directive = directive_ ? directive_->sequence : 0;
      say(beat_);
      beat_at_ = now;
    }
    if (directive_) {
      for (auto& [round, offered] : offered_) speak_contribution(*directive_, round, offered, now);
    }
    for (auto& [round, scores] : scores_) {
      if (now - scores.second < kSayAgain) continue;
      say(scores.first);
      scores.second = now;
    }
    for (auto& [digest, download] : downloads_) speak_fetch(digest, *download, now);
  }

  void speak_contribution(const Directive& d, RoundId round, Offered& offered,
                          Monotonic::time_point now) {
    // Once a late commitment is accepted, the directive speaks of its shard and wants the reveal.
    const bool is_late = round < d.shard.round;
    if (!is_late && round != d.shard.round) return;
    const Answer due = is_late || d.answer == Answer::missing ? Answer::committed
                       : d.reveal_wanted                      ? Answer::revealed
                                                              : Answer::missing;
    if (due == Answer::missing) return;
    if (due == Answer::revealed && offered.manner.withheld) return;
    if (due == Answer::revealed && offered.manner.piece_bytes > 0)
      return reveal_slowly(round, offered);
    if (offered.said == due && now - offered.said_at < kSayAgain) return;
    offered.said = due;
    offered.said_at = now;
    if (due == Answer::committed) {
      say(Commit{round, offered.commitment, offered.contribution.size()});
      return;
    }
    for (std::size_t offset = 0; offset < offered.contribution.size(); offset += kPieceBytesMax) {
      const std::size_t size = std::min(kPieceBytesMax, offered.contribution.size() - offset);
      const auto first = offered.contribution.begin() + static_cast<std::ptrdiff_t>(offset);
      say(RevealPiece{round, offset}, Bytes(first, first + static_cast<std::ptrdiff_t>(size)));
    }
  }

  // A piece each time there is something to be said.
  void reveal_slowly(RoundId round, Offered& offered) {
    const std::size_t left = offered.contribution.size() - offered.revealed;
    const std::size_t size = std::min(offered.manner.piece_bytes, left);
    const auto first = offered.contribution.begin() + static_cast<std::ptrdiff_t>(offered.revealed);
    if (size == 0) return;
    say(RevealPiece{round, offered.revealed},
        Bytes(first, first + static_cast<std::ptrdiff_t>(size)));
    offered.revealed += size;
  }

  void speak_fetch(const Digest& digest, Download& download, Monotonic::time_point now) {
    if (download.missing) return;
    if (now - download.asked_at >= kSayAgain && now - download.moved_at >= kSayAgain) {
      download.asked = download.bytes.size();  // something was lost: ask again from here
    }
    const std::uint64_t window = download.bytes.size() + kPiecesInFlight * kPieceBytesMax;
    while (download.asked < window &&
           (download.total == 0 ? download.asked == 0 : download.asked < download.total)) {
      say(Fetch{digest, download.asked});
      download.asked += kPieceBytesMax;
      download.asked_at = now;
    }
  }

  void say(const ToCoordinator& message, std::optional<Bytes> payload = {}) {
    std::vector<Bytes> frames;
    frames.push_back(seal(keys_, nonce_, ++sequence_, clock_.now(), encode(message)));
    if (payload) frames.push_back(std::move(*payload));
    last_said_ = frames;
    transport_->send(std::move(frames));
  }

  void fail(ErrorCode code, const std::string& why) {
    const std::lock_guard lock(mutex_);
    failure_ = {code, why};
    changed_.notify_all();
  }

  void throw_failure() const {
    if (failure_) throw Error(failure_->first, failure_->second);
  }

  const std::atomic<bool>& stop_;
  const CoordinatorAddress address_;
  const Keypair keys_;
  Join join_;  // guarded by mutex_, too
  const TransportOptions options_;
  SystemClock clock_;
  std::unique_ptr<ClientTransport> transport_;

  mutable std::mutex mutex_;  // guards everything below
  std::condition_variable changed_;
  Nonce nonce_{};
  std::uint64_t sequence_ = 0;
  bool joined_ = false;
  std::string leave_reason_ = "stopped";
  bool rejoin_ = false;  // the profile changed since it was said
  enum class ProbeState { none, due, said, answered };
  ProbeState probe_state_ = ProbeState::none;
  Probe probe_;
  Bytes probe_payload_;
  Monotonic::time_point probe_said_at_{}, probe_answered_at_{};
  bool challenged_ = false;
  Monotonic::time_point said_at_{}, beat_at_{}, heard_at_;
  milliseconds silence_max_{600'000};
  std::optional<Welcome> welcome_;
  std::optional<Directive> directive_;
  std::optional<std::pair<ErrorCode, std::string>> failure_;
  Heartbeat beat_;
  std::uint64_t stale_rounds_max_ = 0;  // of the run's configuration
  std::map<RoundId, Offered> offered_;
  std::vector<Bytes> last_said_;
  std::vector<std::vector<Bytes>> again_;  // frames to be said over
  std::map<RoundId, std::pair<Scores, Monotonic::time_point>> scores_;
  std::map<Digest, std::shared_ptr<Download>> downloads_;
  TransportCounts counts_;

  std::jthread thread_;  // last: it uses all of the above
};

Link::Link(const CoordinatorAddress& address, Keypair keys, Join join,
           const TransportOptions& options, const std::atomic<bool>& stop)
    : impl_(std::make_unique<Impl>(address, std::move(keys), std::move(join), options, stop)) {}
Link::~Link() = default;
Welcome Link::welcome(milliseconds wait_max) { return impl_->welcome(wait_max); }
std::optional<Directive> Link::directive(std::uint64_t after, milliseconds wait_max) {
  return impl_->directive(after, wait_max);
}
std::optional<Directive> Link::latest() const { return impl_->latest(); }
Bytes Link::fetch(const Digest& digest, std::size_t bytes_max, milliseconds wait_max) {
  return impl_->fetch(digest, bytes_max, wait_max);
}
void Link::offer(RoundId round, Bytes contribution) {
  impl_->offer(round, std::move(contribution), {});
}
void Link::offer(RoundId round, Bytes contribution, const Manner& manner) {
  impl_->offer(round, std::move(contribution), manner);
}
std::vector<Bytes> Link::last_said() const { return impl_->last_said(); }
void Link::say_again(std::vector<Bytes> frames) { impl_->say_again(std::move(frames)); }
void Link::send_scores(const Scores& scores) { impl_->send_scores(scores); }
void Link::tell(const WorkerProfile& profile) { impl_->tell(profile); }
void Link::leave_because(std::string reason) { impl_->leave_because(std::move(reason)); }
Link::Way Link::measure_way(milliseconds wait_max) { return impl_->measure_way(wait_max); }
void Link::report(const Heartbeat& beat) { impl_->report(beat); }
bool Link::settle(milliseconds wait_max) { return impl_->settle(wait_max); }
TransportCounts Link::counts() const { return impl_->counts(); }
void Link::give_up_after(milliseconds silence_max) { impl_->give_up_after(silence_max); }

}  // namespace yumoe

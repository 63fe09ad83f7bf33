// Ranks that are processes started by mpirun or srun. The only file that includes mpi.h.
//
// Only nonblocking point-to-point calls are used, so that every wait is ours and has a deadline: MPI's
// own collectives block for ever when a rank is missing. With ULFM (Open MPI 5) a rank that is killed is
// known at once, the rest revoke the group and shrink it.

#include <mpi.h>
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "cluster/error.hpp"
#include "cluster/launched_ranks.hpp"
#include "collective/wire.hpp"

#ifdef OMPI_HAVE_MPI_EXT_FTMPI
#define YUMOE_ULFM 1
#else
#define YUMOE_ULFM 0
#endif

namespace yumoe::collective {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr int kData = 1, kLost = 2;
constexpr std::size_t kMessageBytesMax = std::size_t{1} << 30;  // MPI counts in int
constexpr milliseconds kRevokedWait{5'000};  // for messages of a revoked group to end
constexpr milliseconds kNamesWait{5'000};    // to hear who is lost, once it is known that one is
constexpr milliseconds kEndWait{20'000};     // for all ranks to come to the end

[[maybe_unused]] bool g_given_up = false;  // the others form again without this process

std::string text_of(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  return std::string(text, static_cast<std::size_t>(length));
}

void check(int code, const char* doing) {
  if (code != MPI_SUCCESS) {
    throw Error(ErrorCode::collective_failed, std::string(doing) + ": " + text_of(code));
  }
}

// Polls until `done` or for so long; whether it was done.
template <typename Done>
bool wait_until(milliseconds wait_max, const Done& done) {
  const Clock::time_point end = Clock::now() + wait_max;
  while (!done()) {
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

// For calls that block and cannot be asked whether they are done: ends the process when one takes longer.
class Watchdog {
 public:
  Watchdog(milliseconds wait_max, const char* doing)
      : thread_([this, wait_max, doing](const std::stop_token& stop) {
          std::unique_lock lock(mutex_);
          if (!over_.wait_for(lock, stop, wait_max, [&] { return stop.stop_requested(); }) &&
              !stop.stop_requested()) {
            std::fprintf(stderr, "%s: not done within %lld ms; giving up\n", doing,
                         static_cast<long long>(wait_max.count()));
            _exit(kIslandBroken);
          }
        }) {}

 private:
  std::mutex mutex_;
  std::condition_variable_any over_;
  std::jthread thread_;
};

// MPI is started once a process and ended once, by the first group; later groups are made of it.
struct Session {
  bool broken = false;  // ending MPI together is not possible any more

  Session() {
    int provided = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "start MPI");
    if (provided < MPI_THREAD_SERIALIZED) {
      throw Error(ErrorCode::config_invalid, "start MPI: it does not allow threads");
    }
    check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "prepare MPI");
  }
  ~Session() {
    if (broken) return;
    const Watchdog watchdog(kEndWait, "end MPI");
    MPI_Finalize();
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

class MpiWire final : public Wire {
 public:
  // `group` has room for messages, `talk`, of the same ranks, for who is lost: it is never revoked.
  MpiWire(std::shared_ptr<Session> session, MPI_Comm group, milliseconds wait_max)
      : session_(std::move(session)), group_(group) {
    check(MPI_Comm_set_errhandler(group_, MPI_ERRORS_RETURN), "prepare the group");
    check(MPI_Comm_rank(group_, &rank_), "ask for the rank");
    check(MPI_Comm_size(group_, &size_), "ask for the group's size");
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Comm_idup(group_, &talk_, &request), "prepare the group");
    int code = MPI_SUCCESS;
    const bool done = wait_until(wait_max, [&] {
      int is_done = 0;
      code = MPI_Test(&request, &is_done, MPI_STATUS_IGNORE);
      return code != MPI_SUCCESS || is_done != 0;
    });
    if (!done || code != MPI_SUCCESS) {
      session_->broken = true;
      throw Error(ErrorCode::collective_failed,
                  "prepare the group: " + (done ? text_of(code) : "not all ranks came"));
    }
  }
  // The groups of MPI themselves end with MPI: freeing one takes all ranks.
  ~MpiWire() override {
    if (!lost_.empty() || !failed_.empty() || !open_.empty()) session_->broken = true;
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Ticket send(int to, ByteView bytes) override {
    Open& open =
        open_[++newest_];  // there before anything fails, so that revoke() waits for all of it
    open.peer = to;
    for (std::size_t at = 0; at < bytes.size(); at += kMessageBytesMax) {
      open.requests.push_back(MPI_REQUEST_NULL);
      note(MPI_Isend(bytes.data() + at, count_of(bytes.size() - at), MPI_BYTE, to, kData, group_,
                     &open.requests.back()),
           open);
    }
    return newest_;
  }

  Ticket receive(int from, std::span<std::uint8_t> into) override {
    Open& open = open_[++newest_];
    open.peer = from;
    for (std::size_t at = 0; at < into.size(); at += kMessageBytesMax) {
      open.requests.push_back(MPI_REQUEST_NULL);
      note(MPI_Irecv(into.data() + at, count_of(into.size() - at), MPI_BYTE, from, kData, group_,
                     &open.requests.back()),
           open);
    }
    return newest_;
  }

  bool is_done(Ticket ticket) override {
    const auto found = open_.find(ticket);
    YUMOE_ASSERT(found != open_.end());
    Open& open = found->second;
    if (open.failed || lost_.contains(open.peer)) return false;
    int done = 0;
    note(MPI_Testall(static_cast<int>(open.requests.size()), open.requests.data(), &done,
                     MPI_STATUSES_IGNORE),
         open);
    if (done == 0 || open.failed) return false;
    open_.erase(found);
    return true;
  }

  // Without ULFM a message that is already coming in cannot be called back: the process is expected to
  // end. With it, revoking the group ends them all, here and on the other ranks.
  void abandon(std::span<const Ticket> tickets) override {
#if YUMOE_ULFM
    (void)tickets;
    revoke();
#else
    for (const Ticket ticket : tickets) {
      for (MPI_Request& request : open_[ticket].requests) {
        if (request != MPI_REQUEST_NULL) MPI_Cancel(&request);
      }
    }
#endif
  }

  bool has_left(int rank) override { return failed_.contains(rank); }

  std::vector<int> lost() override {
    int there = 0;
    MPI_Status status;
    while (true) {
      const int code = MPI_Iprobe(MPI_ANY_SOURCE, kLost, talk_, &there, &status);
      if (code != MPI_SUCCESS) {
        if (!learn_failed()) break;
        continue;
      }
      if (there == 0) break;
      int who = 0;
      MPI_Recv(&who, 1, MPI_INT, status.MPI_SOURCE, kLost, talk_, MPI_STATUS_IGNORE);
      if (who >= 0 && who < size_) lost_.insert(who);
    }
    return {lost_.begin(), lost_.end()};
  }

  void tell_lost(std::span<const int> ranks) override {
    told_.assign(ranks.begin(), ranks.end());
    lost_.insert(ranks.begin(), ranks.end());
    for (const int& who : told_) {
      for (int to = 0; to < size_; ++to) {
        if (to == rank_ || failed_.contains(to)) continue;
        MPI_Request request = MPI_REQUEST_NULL;
        if (MPI_Isend(&who, 1, MPI_INT, to, kLost, talk_, &request) == MPI_SUCCESS) {
          MPI_Request_free(&request);  // an int goes out at once
        }
      }
    }
  }

  std::unique_ptr<Wire> reform(milliseconds wait_max) override {
#if YUMOE_ULFM
    if (lost_.contains(rank_)) {
      g_given_up = true;
      throw Error(ErrorCode::collective_failed,
                  "rank " + std::to_string(rank_) + " was given up by the others");
    }
    revoke();
    check_dead();
    // Shrinking blocks; agreeing does not, and takes the same ranks.
    int flag = 1, code = MPI_SUCCESS;
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPIX_Comm_iagree(group_, &flag, &request), "form the group without the lost ranks");
    const bool agreed = wait_until(wait_max, [&] {
      int done = 0;
      code = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
      return code != MPI_SUCCESS || done != 0;
    });
    if (!agreed) {
      throw Error(ErrorCode::collective_failed,
                  "form the group without the lost ranks: another rank did not come to it within " +
                      std::to_string(wait_max.count()) + " ms");
    }
    MPI_Comm smaller = MPI_COMM_NULL;
    {
      const Watchdog watchdog(wait_max, "form the group without the lost ranks");
      check(MPIX_Comm_shrink(group_, &smaller), "form the group without the lost ranks");
    }
    // MPI_Finalize hangs now and then once a rank was lost (Open MPI 5.0.11): mpirun takes processes that
    // end without it, and 0 from all of them is 0.
    session_->broken = true;
    return std::make_unique<MpiWire>(session_, smaller, wait_max);
#else
    (void)wait_max;
    throw Error(
        ErrorCode::collective_failed,
        "form the group without the lost ranks: this MPI cannot (it has no ULFM; docs/islands.md); "
        "start the island's processes again, as `yumoe-worker island` does");
#endif
  }

 private:
  struct Open {
    int peer = 0;
    std::vector<MPI_Request> requests;
    bool failed = false;
  };

  static int count_of(std::size_t bytes) {
    return static_cast<int>(std::min(bytes, kMessageBytesMax));
  }

#if YUMOE_ULFM
  // Who is known to be dead by now, and lets messages from anybody go on. Whether that is news.
  bool learn_failed() {
    const std::size_t before = failed_.size();
    MPI_Group failed = MPI_GROUP_NULL, all = MPI_GROUP_NULL;
    if (MPIX_Comm_failure_ack(talk_) != MPI_SUCCESS ||
        MPIX_Comm_failure_get_acked(talk_, &failed) != MPI_SUCCESS) {
      return false;
    }
    MPI_Comm_group(talk_, &all);
    int count = 0;
    MPI_Group_size(failed, &count);
    for (int i = 0; i < count; ++i) {
      int who = MPI_UNDEFINED;
      MPI_Group_translate_ranks(failed, 1, &i, all, &who);
      if (who != MPI_UNDEFINED) failed_.insert(who);
    }
    MPI_Group_free(&failed);
    MPI_Group_free(&all);
    return failed_.size() > before;
  }

  // Ends all messages of the group, and waits until none touches its memory any more.
  void revoke() {
    if (revoked_) return;
    revoked_ = true;
    check(MPIX_Comm_revoke(group_), "revoke the group");
    const bool ended = wait_until(kRevokedWait, [&] {
      for (auto& [ticket, open] : open_) {
        for (MPI_Request& request : open.requests) {
          int done = 0;
          if (request != MPI_REQUEST_NULL) MPI_Test(&request, &done, MPI_STATUS_IGNORE);
        }
        std::erase(open.requests, MPI_REQUEST_NULL);
      }
      std::erase_if(open_, [](const auto& entry) { return entry.second.requests.empty(); });
      return open_.empty();
    });
    stuck_ = !ended;
  }

  // Throws if somebody is missing who lives: shrinking would wait for him.
  void check_dead() {
    const auto all_dead = [&] {
      learn_failed();
      return std::ranges::includes(failed_, lost_);
    };
    if (!wait_until(kNamesWait, all_dead)) {
      throw Error(
          ErrorCode::collective_failed,
          "form the group without the lost ranks: one of them is alive but does not answer; "
          "start the island's processes again, as `yumoe-worker island` does");
    }
    if (stuck_) {
      throw Error(ErrorCode::collective_failed,
                  "form the group without the lost ranks: messages of the old group do not end");
    }
  }

  // An error of a message means that its peer is dead, or that another rank revoked the group because
  // it misses somebody; it has said whom before.
  void note(int code, Open& open) {
    if (code == MPI_SUCCESS) return;
    open.failed = true;
    int kind = 0, revoked = 0;
    MPI_Error_class(code, &kind);
    MPIX_Comm_is_revoked(group_, &revoked);
    learn_failed();
    if (revoked != 0) {
      wait_until(kNamesWait, [&] {
        learn_failed();
        return !failed_.empty() || !lost().empty();
      });
      lost_.insert(failed_.begin(), failed_.end());
      if (lost_.empty()) lost_.insert(open.peer);
      return;
    }
    if (kind == MPIX_ERR_PROC_FAILED || kind == MPIX_ERR_PROC_FAILED_PENDING ||
        kind == MPIX_ERR_REVOKED || kind == MPI_ERR_IN_STATUS) {
      if (failed_.empty()) failed_.insert(open.peer);
      return;
    }
    fail(code, open.peer);
  }
#else
  bool learn_failed() { return false; }
  void note(int code, Open& open) {
    if (code == MPI_SUCCESS) return;
    open.failed = true;
    fail(code, open.peer);
  }
#endif

  // Neither dead nor revoked. The caller frees its memory next, so nothing may touch that any more.
  [[noreturn]] void fail(int code, int peer) {
    const std::string why = "exchange with rank " + std::to_string(peer) + ": " + text_of(code);
#if YUMOE_ULFM
    tell_lost({&peer, 1});
    revoke();
#else
    lost_.insert(peer);
#endif
    throw Error(ErrorCode::collective_failed, why);
  }

  std::shared_ptr<Session> session_;
  MPI_Comm group_, talk_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
  Ticket newest_ = 0;
  std::map<Ticket, Open> open_;
  std::set<int> lost_;    // given up, here or by others
  std::set<int> failed_;  // dead, says MPI
  bool revoked_ = false, stuck_ = false;
  std::vector<int> told_;  // read by messages that are going out
};

}  // namespace
}  // namespace yumoe::collective

namespace yumoe {

bool mpi_is_built() { return true; }

std::unique_ptr<Collective> join_mpi(std::chrono::milliseconds wait_max) {
  auto session = std::make_shared<collective::Session>();
  int ranks = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (ranks != launched_ranks()) {
    throw Error(ErrorCode::config_invalid, "join " + std::to_string(launched_ranks()) +
                                               " ranks by MPI: it sees " + std::to_string(ranks) +
                                               "; start them with mpirun, or srun --mpi=pmix");
  }
  return collective::over(
      std::make_unique<collective::MpiWire>(std::move(session), MPI_COMM_WORLD, wait_max),
      wait_max);
}

std::vector<std::string> mpi_launcher() {
#if YUMOE_ULFM
  // Across machines Open MPI 5.0's `han` collectives crash after a failure, and only ob1 knows of failures.
  return {YUMOE_MPIRUN, "--with-ft", "ulfm", "--mca", "coll", "^han", "--mca", "pml", "ob1"};
#else
  return {YUMOE_MPIRUN};
#endif
}

void end_launched_ranks([[maybe_unused]] int status) {
#if YUMOE_ULFM
  // mpirun --with-ft goes on without ranks that ended, and would wait for one that hangs.
  int started = 0, ended = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&ended);
  if (started != 0 && ended == 0 && !collective::g_given_up) MPI_Abort(MPI_COMM_WORLD, status);
#endif
}

bool given_up_by_others() { return collective::g_given_up; }

}  // namespace yumoe

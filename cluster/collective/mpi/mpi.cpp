// Ranks that are processes started by mpirun or srun. The only file that includes mpi.h.
//
// Only nonblocking point-to-point calls are used, so that every wait is ours and has a deadline: MPI's
// own collectives block for ever when a rank is missing.

#include <mpi.h>
#if __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "cluster/error.hpp"
#include "collective/wire.hpp"

namespace yumoe::collective {
namespace {

constexpr int kData = 1, kLost = 2;
constexpr std::size_t kMessageBytesMax = std::size_t{1} << 30;  // MPI counts in int

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

// MPI is started once a process and ended once, by the first group; later groups are made of it.
struct Session {
  bool broken = false;  // ending MPI together is not possible any more

  Session() {
    int provided = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "start MPI");
    if (provided < MPI_THREAD_SERIALIZED) {
      throw Error(ErrorCode::config_invalid, "start MPI: it does not allow threads");
    }
  }
  ~Session() {
    if (!broken) MPI_Finalize();
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

class MpiWire final : public Wire {
 public:
  MpiWire(std::shared_ptr<Session> session, MPI_Comm group)
      : session_(std::move(session)), group_(group) {
    check(MPI_Comm_set_errhandler(group_, MPI_ERRORS_RETURN), "prepare the group");
    check(MPI_Comm_rank(group_, &rank_), "ask for the rank");
    check(MPI_Comm_size(group_, &size_), "ask for the group's size");
  }
  ~MpiWire() override {
    if (!lost_.empty() || !open_.empty()) session_->broken = true;
    if (!session_->broken && group_ != MPI_COMM_WORLD) MPI_Comm_free(&group_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  Ticket send(int to, ByteView bytes) override {
    Open open{to, {}};
    for (std::size_t at = 0; at < bytes.size(); at += kMessageBytesMax) {
      open.requests.push_back(MPI_REQUEST_NULL);
      note(MPI_Isend(bytes.data() + at, count_of(bytes.size() - at), MPI_BYTE, to, kData, group_,
                     &open.requests.back()),
           to);
    }
    open_[++newest_] = std::move(open);
    return newest_;
  }

  Ticket receive(int from, std::span<std::uint8_t> into) override {
    Open open{from, {}};
    for (std::size_t at = 0; at < into.size(); at += kMessageBytesMax) {
      open.requests.push_back(MPI_REQUEST_NULL);
      note(MPI_Irecv(into.data() + at, count_of(into.size() - at), MPI_BYTE, from, kData, group_,
                     &open.requests.back()),
           from);
    }
    open_[++newest_] = std::move(open);
    return newest_;
  }

  bool is_done(Ticket ticket) override {
    const auto found = open_.find(ticket);
    YUMOE_ASSERT(found != open_.end());
    Open& open = found->second;
    if (lost_.contains(open.peer)) return false;
    int done = 0;
    note(MPI_Testall(static_cast<int>(open.requests.size()), open.requests.data(), &done,
                     MPI_STATUSES_IGNORE),
         open.peer);
    if (done == 0 || lost_.contains(open.peer)) return false;
    open_.erase(found);
    return true;
  }

  // A message that is already coming in cannot be called back: the process is expected to end, or
  // ULFM ends the message with the group.
  void abandon(std::span<const Ticket> tickets) override {
    for (const Ticket ticket : tickets) {
      for (MPI_Request& request : open_[ticket].requests) {
        if (request != MPI_REQUEST_NULL) MPI_Cancel(&request);
      }
    }
  }

  bool has_left(int rank) override { return lost_.contains(rank); }

  std::vector<int> lost() override {
    int there = 0;
    MPI_Status status;
    while (MPI_Iprobe(MPI_ANY_SOURCE, kLost, group_, &there, &status) == MPI_SUCCESS &&
           there != 0) {
      int who = 0;
      MPI_Recv(&who, 1, MPI_INT, status.MPI_SOURCE, kLost, group_, MPI_STATUS_IGNORE);
      if (who >= 0 && who < size_) lost_.insert(who);
    }
    return {lost_.begin(), lost_.end()};
  }

  void tell_lost(std::span<const int> ranks) override {
    told_.assign(ranks.begin(), ranks.end());
    lost_.insert(ranks.begin(), ranks.end());
    for (const int& who : told_) {
      for (int to = 0; to < size_; ++to) {
        if (to == rank_ || lost_.contains(to)) continue;
        MPI_Request request = MPI_REQUEST_NULL;
        if (MPI_Isend(&who, 1, MPI_INT, to, kLost, group_, &request) == MPI_SUCCESS) {
          MPI_Request_free(&request);  // an int goes out at once
        }
      }
    }
  }

  std::unique_ptr<Wire> reform(std::chrono::milliseconds) override {
#ifdef OMPI_HAVE_MPI_EXT_FTMPI
    MPIX_Comm_revoke(group_);
    MPI_Comm smaller = MPI_COMM_NULL;
    check(MPIX_Comm_shrink(group_, &smaller), "form the group without the lost ranks");
    open_.clear();
    return std::make_unique<MpiWire>(session_, smaller);
#else
    throw Error(
        ErrorCode::collective_failed,
        "form the group without the lost ranks: this MPI cannot (it has no ULFM); start the "
        "island's processes again, as `yumoe-worker island` does");
#endif
  }

 private:
  struct Open {
    int peer;
    std::vector<MPI_Request> requests;
  };

  static int count_of(std::size_t bytes) {
    return static_cast<int>(std::min(bytes, kMessageBytesMax));
  }

  // An error of a message means that its peer is not there any more, or (ULFM) that the group is
  // revoked because of another; anything else is told as it is.
  void note(int code, int peer) {
    if (code == MPI_SUCCESS) return;
#ifdef OMPI_HAVE_MPI_EXT_FTMPI
    int kind = 0;
    MPI_Error_class(code, &kind);
    if (kind == MPIX_ERR_PROC_FAILED || kind == MPIX_ERR_REVOKED || kind == MPI_ERR_IN_STATUS) {
      MPI_Group failed = MPI_GROUP_NULL, all = MPI_GROUP_NULL;
      MPIX_Comm_failure_ack(group_);
      MPIX_Comm_failure_get_acked(group_, &failed);
      MPI_Comm_group(group_, &all);
      int count = 0;
      MPI_Group_size(failed, &count);
      for (int i = 0; i < count; ++i) {
        int who = 0;
        MPI_Group_translate_ranks(failed, 1, &i, all, &who);
        lost_.insert(who);
      }
      MPI_Group_free(&failed);
      MPI_Group_free(&all);
      if (lost_.empty()) lost_.insert(peer);
      return;
    }
#endif
    lost_.insert(peer);
    throw Error(ErrorCode::collective_failed,
                "exchange with rank " + std::to_string(peer) + ": " + text_of(code));
  }

  std::shared_ptr<Session> session_;
  MPI_Comm group_;
  int rank_ = 0, size_ = 1;
  Ticket newest_ = 0;
  std::map<Ticket, Open> open_;
  std::set<int> lost_;
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
  return collective::over(std::make_unique<collective::MpiWire>(std::move(session), MPI_COMM_WORLD),
                          wait_max);
}

}  // namespace yumoe

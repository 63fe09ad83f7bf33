// Collectives in threads and, if MPI was built in, in processes under mpirun: right results, and what
// happens when a rank does not come, leaves, stops or is killed.

#include "cluster/collective.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

#include "cluster/collective_checks.hpp"
#include "cluster/error.hpp"

namespace yumoe {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using Clock = std::chrono::steady_clock;

// Runs `work` in a thread a rank; each thread owns its member of the group.
template <typename Work>
void in_threads(int ranks, milliseconds wait_max, const Work& work) {
  std::vector<std::unique_ptr<Collective>> group = in_process_group(ranks, wait_max);
  std::vector<std::jthread> threads;
  for (auto& member : group) {
    threads.emplace_back([&work, own = std::move(member)]() mutable { work(std::move(own)); });
  }
}

std::string failure_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.code() == ErrorCode::collective_failed ? error.what() : "another error";
  }
  return "";
}

TEST(Collective, PassesTheMatrixInThreads) {
  for (const int ranks : {1, 2, 3, 5}) {
    in_threads(ranks, milliseconds(20'000), [](std::unique_ptr<Collective> group) {
      EXPECT_EQ(collective_checks::check_all(*group, collective_checks::host_memory()), "");
    });
  }
}

TEST(Collective, SumsInTheOrderOfRanks) {
  std::vector<float> values = {1e8F, 1.0F, -1e8F};
  in_threads(3, milliseconds(20'000), [&](std::unique_ptr<Collective> group) {
    std::vector<float> mine(1'000, values[static_cast<std::size_t>(group->rank())]);
    group->all_reduce_sum(mine);
    EXPECT_EQ(mine, std::vector<float>(1'000, (1e8F + 1.0F) + -1e8F));
  });
}

TEST(Collective, NamesTheRankThatDoesNotComeAndFormsAgainWithoutIt) {
  std::atomic<int> formed = 0;
  std::atomic<bool> over = false;
  in_threads(4, milliseconds(300), [&](std::unique_ptr<Collective> group) {
    group->barrier();
    if (group->rank() == 2) {  // alive, but elsewhere
      while (!over) std::this_thread::sleep_for(milliseconds(5));
      EXPECT_THAT(failure_of([&] { group->reform(); }), HasSubstr("was given up"));
      return;
    }
    const auto start = Clock::now();
    std::vector<float> values(100, 1);
    EXPECT_THAT(failure_of([&] { group->all_reduce_sum(values); }), HasSubstr("rank 2 of 4"));
    EXPECT_LT(Clock::now() - start, milliseconds(5'000));
    EXPECT_THAT(failure_of([&] { group->barrier(); }), HasSubstr("rank 2 of 4"));
    const std::unique_ptr<Collective> smaller = group->reform();
    EXPECT_EQ(smaller->size(), 3);
    smaller->wait_at_most(milliseconds(20'000));
    EXPECT_EQ(collective_checks::check_all(*smaller, collective_checks::host_memory()), "");
    if (++formed == 3) over = true;
  });
  EXPECT_EQ(formed, 3);
}

TEST(Collective, EndsAtOnceWhenARankLeavesWithinAnOperation) {
  in_threads(3, milliseconds(60'000), [](std::unique_ptr<Collective> group) {
    if (group->rank() == 1) return;
    const auto start = Clock::now();
    std::vector<float> values(100, 1);
    EXPECT_THAT(failure_of([&] { group->all_reduce_sum(values); }), HasSubstr("rank 1 of 3"));
    EXPECT_LT(Clock::now() - start, milliseconds(10'000));
    EXPECT_EQ(group->reform()->size(), 2);
  });
}

TEST(Collective, RefusesNcclByNameWhereItIsNotBuilt) {
  if (nccl_is_built()) GTEST_SKIP() << "NCCL is built in; collective_peer nccl looks for a GPU";
  auto alone = in_process_group(1, milliseconds(100));
  try {
    join_nccl(std::move(alone.front()), 0, milliseconds(100));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::config_invalid);
    EXPECT_THAT(error.what(), HasSubstr("YUMOE_WITH_CUDA"));
  }
}

struct Outcome {
  int status = -1;
  std::string text;
  double seconds = 0;
};

// mpirun with `ranks` of collective_peer; status as a shell sees it.
Outcome mpirun(int ranks, const std::string& arguments) {
  const auto start = Clock::now();
  // The fake TMPDIR of a test runner may be too long for Open MPI's sockets.
  std::string launcher;
  for (const std::string& word : mpi_launcher()) launcher += "'" + word + "' ";
  const std::string command = "TMPDIR=/tmp OMPI_MCA_mpi_yield_when_idle=1 timeout 60 " + launcher +
                              "--allow-run-as-root --oversubscribe -n " + std::to_string(ranks) +
                              " " YUMOE_BIN_DIR "/collective_peer " + arguments + " 2>&1";
  Outcome outcome;
  std::FILE* pipe = popen(command.c_str(), "r");
  char chunk[4096];
  while (const std::size_t got = std::fread(chunk, 1, sizeof chunk, pipe))
    outcome.text.append(chunk, got);
  const int status = pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return outcome;
}

class CollectiveByMpi : public testing::Test {
  void SetUp() override {
    if (!mpi_is_built()) GTEST_SKIP() << "no MPI in this build";
  }
};

TEST_F(CollectiveByMpi, PassesTheMatrix) {
  for (const int ranks : {1, 2, 3}) {
    const Outcome outcome = mpirun(ranks, "mpi matrix");
    EXPECT_EQ(outcome.status, 0) << outcome.text;
    EXPECT_THAT(outcome.text, HasSubstr("all right with " + std::to_string(ranks)));
  }
}

TEST_F(CollectiveByMpi, NamesARankThatHangsWithinAnOperationAndEndsWithinItsDeadline) {
  const Outcome outcome = mpirun(3, "mpi hang 1");
  EXPECT_THAT(outcome.text, HasSubstr("rank 1 of 3"));
  EXPECT_THAT(outcome.text, Not(HasSubstr("rank 0 of 3")));
  EXPECT_EQ(outcome.status, 75) << outcome.text;
  EXPECT_LT(outcome.seconds, 30);
}

TEST_F(CollectiveByMpi, EndsWhenARankIsKilledWithinAnOperation) {
  // Open MPI 4.1 ends the whole job and names the rank itself, if our deadline is not first.
  const Outcome outcome = mpirun(3, "mpi kill 2");
  EXPECT_NE(outcome.status, 0);
  EXPECT_NE(outcome.status, 124) << "hung: " << outcome.text;
  EXPECT_THAT(outcome.text, HasSubstr("rank 2"));
  EXPECT_LT(outcome.seconds, 30);
}

class CollectiveByUlfm : public testing::Test {
  void SetUp() override {
    if (mpi_launcher().size() == 1) GTEST_SKIP() << "no MPI with ULFM in this build";
  }
};

TEST_F(CollectiveByUlfm, FormsAgainWithoutAKilledRankInTheSameProcesses) {
  for (const int victim : {1, 3}) {
    const Outcome outcome = mpirun(4, "mpi reform " + std::to_string(victim));
    EXPECT_THAT(outcome.text, HasSubstr("rank " + std::to_string(victim) + " of 4"));
    for (int rank = 0; rank < 3; ++rank) {
      EXPECT_THAT(outcome.text, HasSubstr("rank " + std::to_string(rank) +
                                          ": formed again with 3 ranks, all right"));
    }
    EXPECT_LT(outcome.seconds, 15) << outcome.text;
    EXPECT_EQ(outcome.status, 0) << outcome.text;
  }
}

TEST_F(CollectiveByUlfm, EndsAllRanksWhereOneIsAliveButHangs) {
  const Outcome outcome = mpirun(3, "mpi reform-hang 1");
  EXPECT_THAT(outcome.text, HasSubstr("rank 1 of 3"));
  EXPECT_THAT(outcome.text, HasSubstr("is alive but does not answer"));
  EXPECT_EQ(outcome.status, 75) << outcome.text;
  EXPECT_LT(outcome.seconds, 30);
}

}  // namespace
}  // namespace yumoe

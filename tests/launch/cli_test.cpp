// The program `yumoe` as its users meet it: output, one-line errors, exit codes, what it links.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "launch/shell.hpp"

namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;
using yumoe::test::Outcome;
using yumoe::test::shell;

const std::string kProgram = std::string(YUMOE_BIN_DIR) + "/yumoe";

Outcome yumoe(const std::string& arguments) { return shell(kProgram + " " + arguments); }

class Cli : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("cli_test." + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string file(const std::string& name) const { return (folder_ / name).string(); }

  fs::path folder_;
};

// Said by yumoe-worker, which a build without LibTorch does not have.
bool wants_worker(std::string_view command) {
  const bool forwarded = command.starts_with("serve-experts") || command.starts_with("evaluate") ||
                         command.starts_with("generate");
  return forwarded && !fs::exists(YUMOE_BIN_DIR "/yumoe-worker");
}

TEST_F(Cli, ComplainsInOneLineWithTheNearestNameAndExitCode2) {
  const std::pair<std::string, std::string> cases[] = {
      {"dta", "unknown command 'dta', did you mean 'data'. Try `yumoe --help`"},
      {"data bild", "unknown command 'bild', did you mean 'build'. Try `yumoe data --help`"},
      {"data build --out x --vocabluary=3", "did you mean '--vocabulary'"},
      {"data build", "where the token set is to be made: --out FOLDER"},
      {"", "A subcommand is required"},
      {"data show /nowhere", "/nowhere/manifest.json"},
      {"data build --out x --vocabulary 3", "vocabulary = 3 must be between 300 and 65535"},
      {"data build --out x --source /nowhere", "is not a folder"},
      {"config check /nowhere.toml", "/nowhere.toml cannot be read"},
      {"config check /dev/null --model.widht=3", "did you mean --model.width?"},
      {"config check /dev/null --stray", "unknown argument '--stray'"},
      {"config check /dev/null stray", "unknown argument 'stray'"},
      {"config init --template x", "there are demo, lab, miner"},
      {"placement show /nowhere", "/nowhere"},
      {"placement", "A subcommand is required"},
      {"launch slurm /nowhere.toml --print", "/nowhere.toml"},
      {"launch slurm /dev/null --nodes 0 --print", "--nodes"},
      {"launch slurm /dev/null --programs /x --name 'a b' --print", "--name"},
      {"launch kubernetes /dev/null --programs /x --name Big", "1 to 40 of a-z"},
      {"config check /dev/null --placement.tiers=9:trusted", "experts are 0 to 7"},
      {"config check /dev/null --placement.tiers=1:friend", "a tier is open, known or trusted"},
      {"serve-experts /nowhere", "/nowhere"},
      {"evaluate /nowhere", "/nowhere"},
      {"generate /nowhere --prompt x", "/nowhere"},
      {"export /nowhere --model", "/nowhere"},
      {"keys new", "give either --out FILE or --wallet NAME"},
      {"keys new --out x --type rsa", "rsa not in"},
      {"keys import --uri 'word word' --out x", "do not belong on a command line"},
      {"keys import --out x </dev/null", "key is not usable"},
      {"keys show /nowhere", "/nowhere"},
      {"simulate", "give --attack NAME or --attack all"},
      {"simulate --attack nois", "there are zero, noise"},
      {"simulate --attack zero --set widht=3", "no scoring option is called 'widht'"},
      {"simulate --attack zero --set weight_power=900", "must be between"},
      {"why /nowhere --hotkey x", "/nowhere"},
      {"rescore /nowhere --set weight_power=2", "/nowhere"},
      {"ledger stake /nowhere --key //Alice --tao 1", "/nowhere"},
      {"ledger stake /nowhere --tao 1", "--key is required"},
      {"ledger stake /nowhere --key //Alice --tao 1.0000000001", "at most nine places"},
      {"ledger stake /nowhere --key //Alice --tao 1 --partial", "--partial needs --limit"},
      {"ledger unstake /nowhere --key //Alice", "either --alpha AMOUNT or --all"},
      {"ledger take /nowhere 0.1 --key //Alice", "either --raise or --lower"},
      {"ledger set /nowhere kappa --key //Alice", "expected NAME=VALUE"},
      {"ledger vote /nowhere 1 --key //Alice", "either --yes or --no"},
      {"ledger stake tcp://127.0.0.1:1 --key //Alice --tao 1", "key"},
      {"config check /dev/null --economy.subnets=run", "begins with a name"},
  };
  for (const auto& [arguments, part] : cases) {
    if (wants_worker(arguments)) continue;
    const Outcome outcome = yumoe(arguments);
    EXPECT_EQ(outcome.code, 2) << arguments << "\n" << outcome.output;
    EXPECT_TRUE(outcome.output.starts_with("yumoe: ")) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr(part)) << arguments;
    EXPECT_EQ(std::count(outcome.output.begin(), outcome.output.end(), '\n'), 1) << outcome.output;
  }
  EXPECT_FALSE(fs::exists("x"));
}

TEST_F(Cli, EveryCommandHasHelp) {
  for (const std::string command : {"",
                                    "data",
                                    "data build",
                                    "data show",
                                    "config",
                                    "config check",
                                    "config print",
                                    "config init",
                                    "config reference",
                                    "keys",
                                    "keys new",
                                    "keys show",
                                    "keys import",
                                    "doctor",
                                    "serve-experts",
                                    "evaluate",
                                    "generate",
                                    "version",
                                    "ledger",
                                    "ledger simulate",
                                    "ledger stake",
                                    "ledger unstake",
                                    "ledger move",
                                    "ledger swap",
                                    "ledger transfer",
                                    "ledger register",
                                    "ledger take",
                                    "ledger child-take",
                                    "ledger children",
                                    "ledger autostake",
                                    "ledger claim",
                                    "ledger claim-kind",
                                    "ledger set",
                                    "ledger split",
                                    "ledger trigger",
                                    "ledger network",
                                    "ledger start",
                                    "ledger propose",
                                    "ledger vote",
                                    "ledger follow",
                                    "ledger weigh",
                                    "ledger balances",
                                    "ledger whatif",
                                    "ledger preview",
                                    "ledger audit"}) {
    if (wants_worker(command)) continue;
    const Outcome outcome = yumoe(command + " --help");
    EXPECT_EQ(outcome.code, 0) << command;
    EXPECT_THAT(outcome.output, HasSubstr("Usage: yumoe")) << command;
  }
  EXPECT_EQ(yumoe("version").output, yumoe("--version").output);
}

TEST_F(Cli, WritesATemplateThatItThenAcceptsAndNeverOverwrites) {
  EXPECT_EQ(yumoe("config init --template lab --out " + file("lab.toml")).code, 0);
  const Outcome check = yumoe("config check " + file("lab.toml"));
  EXPECT_EQ(check.code, 0) << check.output;
  EXPECT_THAT(check.output, HasSubstr("shared digest"));
  EXPECT_EQ(yumoe("config init --out " + file("lab.toml")).code, 2);
  EXPECT_THAT(yumoe("config print " + file("lab.toml") + " --model.layers=3").output,
              HasSubstr("layers = 3\n"));
}

TEST_F(Cli, BuildsAndShowsATokenSet) {
  std::ofstream text(file("story.txt"));
  for (int i = 0; i < 3'000; ++i) {
    text << "Sentence number " << i * 7'919 % 10'007 << " of a story.\n"
         << (i % 9 == 0 ? "\n" : "");
  }
  text.close();
  fs::create_directory(file("in"));
  fs::rename(file("story.txt"), file("in/story.txt"));
  const Outcome build = yumoe("data build --out " + file("set") + " --vocabulary 320 --source " +
                              file("in") + " --heldout-percent 20 --private-percent 20");
  ASSERT_EQ(build.code, 0) << build.output;
  EXPECT_THAT(yumoe("data show --verify " + file("set")).output, HasSubstr("Sentence number"));
  const std::string digests = yumoe("data show --digests --json " + file("set")).output;
  EXPECT_THAT(digests, HasSubstr("\"digest\":"));
  EXPECT_THAT(digests, Not(HasSubstr("story"))) << "private data is told by counts and digests";
}

TEST_F(Cli, PrintsABatchScriptAndAManifestWithoutStartingAnything) {
  const Outcome script =
      yumoe("launch slurm /dev/null --programs /opt/bin --nodes 2 --gpus-per-node 8 --print");
  EXPECT_EQ(script.code, 0) << script.output;
  EXPECT_THAT(script.output, HasSubstr("#SBATCH --gpus-per-node=8\n"));
  EXPECT_THAT(script.output, HasSubstr("srun --overlap --mpi=pmix --nodes=2"));
  const std::string kubernetes = "launch kubernetes /dev/null --programs /opt/bin --out /run/x";
  EXPECT_THAT(yumoe(kubernetes).output, HasSubstr("--image"));
  const Outcome manifest = yumoe(kubernetes + " --image lab/yumoe:1");
  EXPECT_EQ(manifest.code, 0) << manifest.output;
  EXPECT_THAT(manifest.output, HasSubstr("jobset.x-k8s.io/v1alpha2"));
}

TEST_F(Cli, KeepsSecretsToItselfUnlessAsked) {
  const Outcome made = yumoe("keys new --out " + file("key"));
  ASSERT_EQ(made.code, 0) << made.output;
  EXPECT_THAT(made.output, HasSubstr("address     5"));
  EXPECT_THAT(made.output, Not(HasSubstr("phrase")));
  EXPECT_EQ(fs::status(file("key")).permissions(), fs::perms(0600));
  EXPECT_THAT(yumoe("keys show " + file("key")).output, Not(HasSubstr("phrase")));

  const std::string phrase_line = yumoe("keys show --secret " + file("key")).output;
  const std::string phrase = phrase_line.substr(phrase_line.find("phrase") + 12);
  std::ofstream(file("phrase")) << phrase;
  const Outcome imported = yumoe("keys import --out " + file("again") + " <" + file("phrase"));
  ASSERT_EQ(imported.code, 0) << imported.output;
  const auto after_file = [](const std::string& text) { return text.substr(text.find('\n')); };
  EXPECT_EQ(after_file(imported.output), after_file(made.output)) << "the same address";
  EXPECT_THAT(yumoe("keys import --uri //Alice --out " + file("alice")).output,
              HasSubstr("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"));
}

TEST_F(Cli, EncryptsNothingWithoutAPassword) {
  const Outcome made =
      yumoe("keys new --encrypt --out " + file("key") + " --password-fd 3 3</dev/null");
  EXPECT_EQ(made.code, 2) << made.output;
  EXPECT_FALSE(fs::exists(file("key")));
}

TEST_F(Cli, TheDoctorNamesWhatIsMissingAndTheCommandThatMendsIt) {
  const std::string doctor = "env -i PATH=/nowhere HOME=/nowhere " + kProgram + " doctor";
  const Outcome outcome = shell(doctor);
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("missing  libtorch"));
  EXPECT_THAT(outcome.output, HasSubstr("-> launch/setup"));
  EXPECT_THAT(outcome.output, HasSubstr("-> apt-get install openmpi-bin libopenmpi-dev"));
  EXPECT_THAT(shell(doctor + " --json").output,
              HasSubstr("{\"what\":\"libtorch\",\"health\":\"missing\""));
}

TEST_F(Cli, TheDoctorFindsWhatTheCudaAndUlfmPresetsNeedAndSaysHowToGetIt) {
  const std::string nowhere = "env -i PATH=/nowhere HOME=/nowhere ";
  const Outcome without = shell(nowhere + kProgram + " doctor");
  EXPECT_THAT(without.output, HasSubstr("absent   cuda build     neither NCCL nor nvcc"));
  EXPECT_THAT(without.output, HasSubstr("launch/setup cuda"));
  EXPECT_THAT(without.output, HasSubstr("absent   ulfm build     no Open MPI 5 with ULFM"));
  EXPECT_THAT(without.output, HasSubstr("launch/setup ulfm"));
  const fs::path nvidia = folder_ / "cuda-x" / "lib/python3.11/site-packages/nvidia";
  fs::create_directories(nvidia / "nccl/lib");
  std::ofstream(nvidia / "nccl/lib/libnccl.so.2") << "x";
  const std::string said =
      nowhere + "YUMOE_CUDA_ENV=" + file("cuda-x") + " " + kProgram + " doctor";
  EXPECT_THAT(shell(said).output, HasSubstr("(YUMOE_CUDA_ENV) lacks nvcc"));
  fs::create_directories(nvidia / "cu13/bin");
  std::ofstream(nvidia / "cu13/bin/nvcc") << "x";
  EXPECT_THAT(shell(said).output, HasSubstr("ok       cuda build     NCCL and nvcc in"));
  fs::create_directories(folder_ / "ulfm-x/bin");
  std::ofstream(folder_ / "ulfm-x/bin/mpicc") << "x";
  EXPECT_THAT(
      shell(nowhere + "YUMOE_ULFM_ENV=" + file("ulfm-x") + " " + kProgram + " doctor").output,
      HasSubstr("ok       ulfm build     Open MPI 5 with ULFM in"));
}

TEST_F(Cli, LinksNoTensorsAndNothingThatIsSlowToLoad) {
  const Outcome libraries = shell("ldd " + kProgram);
  ASSERT_EQ(libraries.code, 0);
  for (const std::string heavy :
       {"libtorch", "libc10", "cuda", "nccl", "mpi", "python", "not found"}) {
    EXPECT_THAT(libraries.output, Not(HasSubstr(heavy)));
  }
}

// Fastest of several, in units of the fastest start of a program that does nothing.
TEST_F(Cli, StartsAboutAsFastAsAProgramThatDoesNothing) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "a sanitized program starts slowly by itself";
#endif
  const auto fastest = [](const std::string& command) {
    auto least = std::chrono::nanoseconds::max();
    for (int i = 0; i < 10; ++i) {
      const auto start = std::chrono::steady_clock::now();
      shell(command);
      least = std::min<std::chrono::nanoseconds>(least, std::chrono::steady_clock::now() - start);
    }
    return static_cast<double>(least.count());
  };
  EXPECT_LT(fastest(kProgram + " --version"), 40 * fastest("/bin/true"));
}

TEST_F(Cli, PlaysAnAttackAndWritesItsReport) {
  const Outcome outcome =
      yumoe("simulate --attack noise --rounds 12 --json --report " + file("report"));
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("\"met\":true"));
  for (const char* name : {"report.csv", "report.json", "noise-30.svg"}) {
    EXPECT_TRUE(fs::exists(file("report") + "/" + name)) << name;
  }
  EXPECT_THAT(yumoe("simulate --list").output, HasSubstr("sign_flip"));
  // A rule that pays nearly alike lets shirkers through, and the exit code says so.
  const Outcome weak =
      yumoe("simulate --attack scaled --rounds 12 --set weight_power=0.1 --set group_errors=50");
  EXPECT_EQ(weak.code, 1) << weak.output;
  EXPECT_THAT(weak.output, HasSubstr("MISSED"));
}

}  // namespace

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "cluster/error.hpp"
#include "router/tokenizer.hpp"
#include "service/remote.hpp"
#include "worker/memory.hpp"

namespace yumoe {
namespace {

constexpr std::size_t kPromptBytesMax = std::size_t{16} << 20;

// A reader is there: a slow answer is worth another try, a minute of silence is not.
DispatchOptions dispatch_for_reading() {
  DispatchOptions options;
  options.deadline_min_ms = 100;
  return options;
}

void check_prompt_size(const std::string& text, const std::string& name) {
  if (text.size() > kPromptBytesMax) {
    throw Error(ErrorCode::usage, "the prompt in " + name + " has more than 16 MiB");
  }
}

std::string read_all(std::istream& in, const std::string& name) {
  std::string text;
  std::array<char, 65'536> block;
  while (in.read(block.data(), block.size()) || in.gcount() > 0) {
    text.append(block.data(), static_cast<std::size_t>(in.gcount()));
    check_prompt_size(text, name);
  }
  return text;
}

// A terminal or pipe may say nothing for ever: it is asked in turns with `stop`.
std::string read_standard_input(const std::atomic<bool>& stop) {
  if (isatty(STDIN_FILENO) != 0) {
    std::cerr << "The prompt, ended by Ctrl-D (or give --prompt):" << std::endl;
  }
  std::string text;
  std::array<char, 65'536> block;
  while (true) {
    if (stop) throw Error(ErrorCode::usage, "interrupted before the prompt had ended");
    pollfd input{STDIN_FILENO, POLLIN, 0};
    const int ready = poll(&input, 1, 200);
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    const ssize_t got = ready < 0 ? -1 : read(STDIN_FILENO, block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error(ErrorCode::file_io, "read the prompt from standard input");
    if (got == 0) return text;
    text.append(block.data(), static_cast<std::size_t>(got));
    check_prompt_size(text, "standard input");
  }
}

Tokenizer open_tokenizer(const OpenModel& model, const std::filesystem::path& data) {
  ParticipantSetup setup;
  setup.data = data;
  const TokenSet tokens = open_data(setup, model.facts, model.welcome);
  const std::filesystem::path file = data / "tokenizer.model";
  std::ifstream in(file, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (digest_of(as_bytes(std::string_view(bytes))) != tokens.manifest().tokenizer) {
    throw Error(ErrorCode::digest_mismatch, file.string() + " is not the token set's");
  }
  return Tokenizer::from_bytes(bytes, file.string());
}

std::vector<std::uint16_t> tokens_of(const std::string& prompt, std::size_t position,
                                     const Tokenizer& tokenizer, std::size_t context) {
  const auto refuse = [&](const std::string& why) {
    return Error(ErrorCode::usage, "prompt " + std::to_string(position + 1) + " " + why);
  };
  if (prompt.empty()) throw refuse("is empty: say something to continue");
  if (!is_utf8(prompt)) throw refuse("is not UTF-8: convert it first");
  std::vector<std::uint16_t> tokens = tokenizer.encode(prompt);
  if (tokens.empty()) throw refuse("has no tokens: say something to continue");
  if (tokens.size() > context) {
    throw refuse("has " + std::to_string(tokens.size()) + " tokens, the model reads " +
                 std::to_string(context) + ": leave out its beginning");
  }
  return tokens;
}

// One prompt and what has been written behind it.
struct Writing {
  Generation result;
  Random random;
  TextStream stream;
  std::uint16_t newest = 0;
  bool ended = false;
};

class Writer {
 public:
  Writer(const GenerationSetup& setup, const std::atomic<bool>& stop,
         const std::function<void(std::size_t, const std::string&)>& show)
      : setup_(setup),
        stop_(stop),
        show_(show),
        model_(OpenModel::open(setup.model)),
        tokenizer_(open_tokenizer(model_, setup.data)) {
    if (!is_utf8(setup.stop)) throw Error(ErrorCode::usage, "the stop text is not UTF-8");
    const auto context = static_cast<std::size_t>(model_.facts.model.context);
    for (std::size_t i = 0; i < setup.prompts.size(); ++i) {
      prompts_.push_back(tokens_of(setup.prompts[i], i, tokenizer_, context));
      writings_.push_back(
          {.result = {.text = "", .prompt_tokens = prompts_[i].size(), .ended_by = ""},
           .random = Random(derive_seed("generate", {setup.sampling.seed, i})),
           .stream = TextStream(tokenizer_, setup.stop)});
    }
  }

  GenerationReport write() {
    const auto start = std::chrono::steady_clock::now();
    const auto seconds = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    FoundExperts experts =
        find_experts(model_, setup_.remote, setup_.remote_key, setup_.wait, dispatch_for_reading());
    Decoder decoder(model_.facts.model, model_.base.parameters(), model_.base.gate_bias(),
                    prompts_.size(), setup_.device, experts.remote.get(), experts.elsewhere);
    GenerationReport report;
    for (bool first = true; !stop_; first = false) {
      std::vector<Decoder::Piece> pieces;
      for (std::size_t i = 0; i < writings_.size(); ++i) {
        Writing& writing = writings_[i];
        if (writing.ended) continue;
        pieces.push_back({i, first ? std::span<const std::uint16_t>(prompts_[i])
                                   : std::span<const std::uint16_t>(&writing.newest, 1)});
      }
      if (pieces.empty()) break;
      const std::span<const float> logits = decoder.append(pieces);
      if (first) report.prompt_seconds = seconds();
      const std::size_t vocabulary = logits.size() / pieces.size();
      for (std::size_t p = 0; p < pieces.size(); ++p) {
        // What the tokenizer does not know is not said, should the model have room for more.
        take(pieces[p].sequence,
             logits.subspan(p * vocabulary, vocabulary)
                 .first(std::min<std::size_t>(vocabulary, tokenizer_.vocabulary())));
      }
      remark_on(experts);
    }
    for (std::size_t i = 0; i < writings_.size(); ++i) {
      if (!writings_[i].ended) end(i, "interrupted");
      report.texts.push_back(std::move(writings_[i].result));
    }
    report.run = model_.welcome.run;
    report.version = model_.base.round();
    report.slides = decoder.slides();
    if (experts.remote) report.calls = experts.remote->counts();
    report.here = experts.here;
    report.elsewhere = experts.elsewhere;
    report.seconds = seconds();
    return report;
  }

 private:
  void take(std::size_t position, std::span<const float> logits) {
    Writing& writing = writings_[position];
    writing.newest = choose_token(logits, setup_.sampling, writing.random);
    ++writing.result.tokens;
    if (writing.newest == tokenizer_.end_token()) {
      end(position, "end token");
      return;
    }
    say(position, writing.stream.push(writing.newest));
    if (writing.stream.is_stopped()) {
      end(position, "stop text");
    } else if (writing.result.tokens == setup_.tokens_max) {
      end(position, "tokens_max");
    }
  }

  void end(std::size_t position, const char* why) {
    Writing& writing = writings_[position];
    say(position, writing.stream.finish());
    writing.result.ended_by = writing.stream.is_stopped() ? "stop text" : why;
    writing.ended = true;
  }

  void say(std::size_t position, const std::string& text) {
    if (text.empty()) return;
    writings_[position].result.text += text;
    show_(position, text);
  }

  // Once, when it begins: what follows is of a model with holes.
  void remark_on(const FoundExperts& experts) {
    if (remarked_ || !experts.remote || experts.remote->counts().given_up == 0) return;
    remarked_ = true;
    std::cerr << "\nyumoe-worker: experts elsewhere do not answer: going on without them"
              << std::endl;
  }

  const GenerationSetup& setup_;
  const std::atomic<bool>& stop_;
  const std::function<void(std::size_t, const std::string&)>& show_;
  const OpenModel model_;
  const Tokenizer tokenizer_;
  std::vector<std::vector<std::uint16_t>> prompts_;
  std::vector<Writing> writings_;
  bool remarked_ = false;
};

double speed_of(const GenerationReport& report) {
  std::uint64_t tokens = 0;
  for (const Generation& text : report.texts) tokens += text.tokens;
  const double writing = report.seconds - report.prompt_seconds;
  return writing > 0 ? static_cast<double>(tokens) / writing : 0;
}

void print_json(const GenerationReport& report) {
  for (const Generation& text : report.texts) {
    std::cout << nlohmann::json{{"run", report.run},
                                {"version", report.version.value},
                                {"text", text.text},
                                {"prompt_tokens", text.prompt_tokens},
                                {"tokens", text.tokens},
                                {"ended_by", text.ended_by},
                                {"tokens_per_s", speed_of(report)},
                                {"prompt_seconds", report.prompt_seconds},
                                {"slides", report.slides},
                                {"experts_here", report.here},
                                {"experts_elsewhere", report.elsewhere},
                                {"requests", report.calls.requests},
                                {"not_answered", report.calls.given_up}}
                     .dump()
              << std::endl;
  }
}

void print_counts(const GenerationReport& report) {
  std::uint64_t tokens = 0, prompt_tokens = 0;
  for (const Generation& text : report.texts) {
    tokens += text.tokens;
    prompt_tokens += text.prompt_tokens;
  }
  std::string ended = report.texts.front().ended_by;
  for (const Generation& text : report.texts) {
    if (text.ended_by != ended) ended = "several causes (--json says which)";
  }
  std::fprintf(
      stderr,
      "run %s, base version %llu: %llu tokens, %.1f tokens/s, after %llu of the prompt in "
      "%.2f s, ended by %s; %llu calls to experts elsewhere, %llu not answered%s%s\n",
      report.run.c_str(), static_cast<unsigned long long>(report.version.value),
      static_cast<unsigned long long>(tokens), speed_of(report),
      static_cast<unsigned long long>(prompt_tokens), report.prompt_seconds, ended.c_str(),
      static_cast<unsigned long long>(report.calls.requests),
      static_cast<unsigned long long>(report.calls.given_up),
      report.calls.given_up > 0 ? ": their experts were left out of the tokens concerned" : "",
      report.slides > 0 ? "; the beginning left the model's context" : "");
}

}  // namespace

GenerationReport generate_text(const GenerationSetup& setup, const std::atomic<bool>& stop,
                               const std::function<void(std::size_t, const std::string&)>& show) {
  keep_freed_memory();
  return Writer(setup, stop, show).write();
}

std::vector<std::string> read_prompts(const std::string& text, bool has_text,
                                      const std::string& file, bool batch,
                                      const std::atomic<bool>& stop) {
  std::string all = text;
  if (!has_text && (file.empty() || file == "-")) {
    all = read_standard_input(stop);
  } else if (!has_text) {
    std::ifstream in(file, std::ios::binary);
    if (!in) throw Error(ErrorCode::file_missing, file + ": cannot be read as a prompt");
    all = read_all(in, file);
  }
  // The newline that ends a file is no part of its text.
  if (!has_text && all.ends_with('\n')) all.pop_back();
  if (!batch) return {all};
  std::vector<std::string> prompts;
  for (std::size_t begin = 0; begin <= all.size();) {
    const std::size_t end = std::min(all.find('\n', begin), all.size());
    prompts.push_back(all.substr(begin, end - begin));
    begin = end + 1;
  }
  constexpr std::size_t kPromptsMax = 256;
  if (prompts.size() > kPromptsMax) {
    throw Error(ErrorCode::usage,
                std::to_string(prompts.size()) + " prompts: at most 256 are continued together");
  }
  return prompts;
}

void print_generation(const GenerationSetup& setup, const std::atomic<bool>& stop, bool json) {
  const bool streams = !json && setup.prompts.size() == 1;
  const GenerationReport report =
      generate_text(setup, stop, [&](std::size_t, const std::string& text) {
        if (streams) std::cout << text << std::flush;
      });
  if (json) {
    print_json(report);
    return;
  }
  if (!streams) {
    for (std::size_t i = 0; i < report.texts.size(); ++i) {  // a text may have lines of its own
      std::cout << "==> prompt " << i + 1 << " <==\n" << report.texts[i].text << "\n";
    }
  } else {
    std::cout << "\n";
  }
  std::cout << std::flush;
  print_counts(report);
}

}  // namespace yumoe

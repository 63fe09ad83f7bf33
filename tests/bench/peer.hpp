#pragma once
// Runs a peer's benchmark script (shared/peers beside the checkout) and reads numbers from the JSON
// line it prints. Its times are seconds of a core, not of the wall.

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

namespace yumoe::bench {

struct PeerOutput {
  std::string text;

  // The number that follows "key" somewhere after "section"; 0 if there is none.
  double number_after(const std::string& section, const std::string& key) const {
    std::size_t at = text.find('"' + section + '"');
    if (at == std::string::npos) return 0;
    at = text.find('"' + key + "\":", at);
    if (at == std::string::npos) return 0;
    return std::strtod(text.c_str() + at + key.size() + 3, nullptr);
  }

  // The words that follow "key", up to 100 characters that a note can hold; empty if there are none.
  std::string words_after(const std::string& key) const {
    std::size_t at = text.find('"' + key + "\": \"");
    if (at == std::string::npos) return {};
    std::string words;
    for (at += key.size() + 5; at < text.size() && text[at] != '"' && words.size() < 100; ++at) {
      words += text[at] == '\\' ? ' ' : text[at];
    }
    return words;
  }
};

// Nothing, and a line on stderr, if Python environment or script are not there or the script fails.
inline std::optional<PeerOutput> run_peer(const std::string& script, const std::string& arguments) {
  const char* env = std::getenv("YUMOE_PYTHON_ENV");
  std::filesystem::path found =
      std::filesystem::path(YUMOE_SOURCE_DIR) / "../shared/peers" / script;
  if (!std::filesystem::exists(found)) {  // a git worktree lies one folder deeper
    found = std::filesystem::path(YUMOE_SOURCE_DIR) / "../../shared/peers" / script;
  }
  if (!env || !std::filesystem::exists(found)) {
    std::fprintf(stderr, "peer %s is not here (YUMOE_PYTHON_ENV or ../shared/peers missing)\n",
                 script.c_str());
    return std::nullopt;
  }
  // With one thread a process, the processor's time is the work; the wall clock also counts what
  // else the machine does. So the script's stop-watch is replaced, as ours is.
  const std::string start =
      "import runpy,sys,time; time.perf_counter=time.process_time; "
      "sys.path.insert(0,'" +
      found.parent_path().string() +
      "'); "
      "sys.argv=sys.argv[1:]; runpy.run_path(sys.argv[0],run_name='__main__')";
  const std::string command = std::string(env) + "/bin/python -c \"" + start + "\" " +
                              found.string() + " " + arguments + " 2>/dev/null";
  std::FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) return std::nullopt;
  PeerOutput output;
  char chunk[4096];
  while (const std::size_t got = std::fread(chunk, 1, sizeof chunk, pipe)) {
    output.text.append(chunk, got);
  }
  if (pclose(pipe) != 0) {
    std::fprintf(stderr, "peer failed: %s\n", command.c_str());
    return std::nullopt;
  }
  return output;
}

}  // namespace yumoe::bench

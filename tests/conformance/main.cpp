// yumoe-conformance expect FILE: computes `expected` of our own epoch cases by the plain epoch.
// yumoe-conformance ledger|chain PATH...: runs vector files or folders through our rules, one JSON
// line a file. Exit status 0 only if no case failed; 2 for a wrong call or an unreadable file.

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "conformance/conformance.hpp"

int main(int argc, char** argv) {
  using namespace yumoe::conformance;
  const std::vector<std::string> words(argv + 1, argv + argc);
  const std::string subject = words.empty() ? "" : words.front();
  const bool expect = subject == "expect" && words.size() == 2;
  if (words.size() < 2 || (!expect && subject != "ledger" && subject != "chain")) {
    std::fprintf(stderr, "usage: yumoe-conformance ledger|chain PATH..., or expect FILE\n");
    return 2;
  }
  const std::vector<std::string> paths(words.begin() + 1, words.end());
  try {
    if (expect) return print_expectations(words[1]);
    return subject == "ledger" ? conformance_ledger(paths) : conformance_chain(paths);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "yumoe-conformance: %s\n", error.what());
    return 2;
  }
}

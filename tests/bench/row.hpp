#pragma once
// How every benchmark reports: one JSON object a row on stdout, exit status 1 if a bar was missed.

#include <cmath>
#include <cstdio>
#include <string>

namespace yumoe::bench {

enum class Bar { at_least, at_most, none };

// Collects rows; finish() is the program's exit status.
class Report {
 public:
  // ratio = ours / other. `bar` is compared with the ratio. `what` and `note` hold no quotes.
  void row(const std::string& what, double ours, double other, Bar kind, double bar,
           const std::string& note = "") {
    const double ratio = other != 0 ? ours / other : 0;
    const bool met = kind == Bar::none || (kind == Bar::at_least ? ratio >= bar : ratio <= bar);
    met_all_ = met_all_ && met;
    std::printf("{\"what\":\"%s\",\"ours\":%.6g,\"other\":%.6g,\"ratio\":%.4g,", what.c_str(), ours,
                other, ratio);
    if (kind == Bar::none) {
      std::printf("\"bar\":null,");
    } else {
      std::printf("\"bar\":\"%s %.4g\",", kind == Bar::at_least ? ">=" : "<=", bar);
    }
    std::printf("\"met\":%s%s%s%s}\n", met ? "true" : "false", note.empty() ? "" : ",\"note\":\"",
                note.c_str(), note.empty() ? "" : "\"");
    std::fflush(stdout);
  }
  int finish() const { return met_all_ ? 0 : 1; }

 private:
  bool met_all_ = true;
};

}  // namespace yumoe::bench

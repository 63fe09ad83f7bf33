#include "cli/display.hpp"

#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

namespace yumoe {
namespace {

template <typename... Values>
std::string format(const char* pattern, Values... values) {
  char buffer[512];
  std::snprintf(buffer, sizeof buffer, pattern, values...);
  return buffer;
}

std::string measured(double value, const char* pattern) {
  return std::isfinite(value) ? format(pattern, value) : "-";
}

std::string answer_text(const Progress::Member& member, Phase phase) {
  if (!member.active) return "gone";
  if (member.role == Role::validator) return "measuring";
  if (member.steps == 0) return "waiting";
  switch (member.answer) {
    case Answer::missing: return phase == Phase::training ? "training" : "late";
    case Answer::committed: return "committed";
    case Answer::revealed: return "delivered";
    case Answer::refused: return "refused";
  }
  return "";
}

std::string headline(const Progress& p) {
  std::string line = format("round %llu/%llu %s", static_cast<unsigned long long>(p.round.value),
                            static_cast<unsigned long long>(p.rounds_total),
                            std::string(name_of(p.phase)).c_str());
  line += "  loss " + measured(p.heldout_loss, "%.3f") + "  bits/byte " +
          measured(p.heldout_bits_per_byte, "%.3f");
  line += format("  %.0f tokens/s", p.tokens_per_s);
  line += "  up " + bytes_text(static_cast<double>(p.update_bytes_up)) + "  down " +
          bytes_text(static_cast<double>(p.update_bytes_down));
  line += "  " + time_text(p.elapsed_s);
  if (p.remaining_s > 0) line += "  ETA " + time_text(p.remaining_s);
  return line;
}

std::string bar(double share, int width) {
  const int full = static_cast<int>(std::lround(std::min(1.0, std::max(0.0, share)) * width));
  std::string text;
  for (int i = 0; i < width; ++i) text += i < full ? "█" : "░";
  return text;
}

}  // namespace

std::string bytes_text(double bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  int unit = 0;
  while (bytes >= 1'000 && unit < 4) {
    bytes /= 1'000;
    ++unit;
  }
  return format(unit == 0 ? "%.0f %s" : "%.3g %s", bytes, units[unit]);
}

std::string time_text(double seconds) {
  const auto whole = static_cast<long long>(seconds);
  if (whole >= 3'600) {
    return format("%lld:%02lld:%02lld", whole / 3'600, whole / 60 % 60, whole % 60);
  }
  return format("%lld:%02lld", whole / 60, whole % 60);
}

RunDisplay::~RunDisplay() {
  if (table_lines_ > 0) std::cout << std::endl;
}

void RunDisplay::show(const Progress& p) {
  const bool new_round = p.round.value > rounds_shown_;
  if (style_ == Style::json) {
    if (!new_round) return;
    rounds_shown_ = p.round.value;
    nlohmann::json line{{"round", p.round.value},
                        {"tokens", p.tokens},
                        {"tokens_per_s", p.tokens_per_s},
                        {"bytes_up", p.update_bytes_up},
                        {"bytes_down", p.update_bytes_down}};
    line["eval_loss"] = std::isfinite(p.heldout_loss) ? nlohmann::json(p.heldout_loss) : nullptr;
    std::cout << line.dump() << std::endl;
    return;
  }
  if (style_ == Style::lines) {
    if (!new_round) return;
    rounds_shown_ = p.round.value;
    std::cout << headline(p) << std::endl;
    return;
  }
  std::string text;
  if (table_lines_ > 0) text += format("\033[%dA", table_lines_);
  int lines = 0;
  const auto add = [&](const std::string& line) {
    text += "\033[2K" + line + "\n";
    ++lines;
  };
  add(headline(p));
  add(format("%-12s %-10s %-10s %11s %8s %9s %7s %7s", "", "", "", "steps", "loss", "tokens/s",
             "rating", "weight"));
  for (const Progress::Member& member : p.members) {
    if (member.role == Role::validator) {
      add(format("%-12.12s validator  %-10s", member.name.c_str(),
                 answer_text(member, p.phase).c_str()));
      continue;
    }
    const double share =
        member.steps == 0 ? 0 : static_cast<double>(member.steps_done) / member.steps;
    add(format("%-12.12s ", member.name.c_str()) + bar(share, 10) +
        format(" %-10s %5u/%-5u %8.3f %9.0f %7.4f %7u", answer_text(member, p.phase).c_str(),
               member.steps_done, member.steps, member.loss, member.tokens_per_s,
               member.standing.rating, member.standing.weight));
    if (!member.reason.empty()) add("             " + member.reason.substr(0, 100));
  }
  // Lines that the table no longer needs are wiped.
  for (int extra = lines; extra < table_lines_; ++extra) add("");
  table_lines_ = lines;
  std::cout << text << std::flush;
}

void RunDisplay::finish(const Progress& p, const std::string& folder) {
  table_lines_ = 0;
  if (style_ == Style::json) {
    std::cout << summary_json(p, folder) << std::endl;
    return;
  }
  std::cout << "\n"
            << (p.phase == Phase::finished ? "Finished" : "Stopped") << ": " << folder << "\n"
            << format("  rounds          %llu of %llu in %s",
                      static_cast<unsigned long long>(p.phase == Phase::finished ? p.rounds_total
                                                                                 : p.round.value),
                      static_cast<unsigned long long>(p.rounds_total),
                      time_text(p.elapsed_s).c_str())
            << "\n"
            << format("  held-out        %s nats a token, %s bits a byte",
                      measured(p.heldout_loss, "%.4f").c_str(),
                      measured(p.heldout_bits_per_byte, "%.4f").c_str())
            << "\n"
            << format("  tokens          %.2f M, %.0f a second",
                      static_cast<double>(p.tokens) / 1e6, p.tokens_per_s)
            << "\n"
            << "  update bytes    up " << bytes_text(static_cast<double>(p.update_bytes_up)) << " ("
            << format("%.0fx", p.update_bytes_up == 0 ? 0
                                                      : static_cast<double>(p.dense_bytes) /
                                                            static_cast<double>(p.update_bytes_up))
            << " fewer than fp32), down " << bytes_text(static_cast<double>(p.update_bytes_down))
            << "\n"
            << format("  compute share   %.1f %% of the workers' time was spent in inner steps",
                      100 * p.compute_share)
            << "\n"
            << "  base version    " << p.state.hex() << "\n\n"
            << format("  %-12s %8s %10s %9s %9s %7s", "worker", "steps", "tokens", "score",
                      "rating", "weight")
            << "\n";
  for (const Progress::Member& member : p.members) {
    if (member.role != Role::worker) continue;
    std::cout << format("  %-12.12s %8llu %10llu %9.4f %9.4f %7u", member.name.c_str(),
                        static_cast<unsigned long long>(member.steps_total),
                        static_cast<unsigned long long>(member.tokens), member.standing.score,
                        member.standing.rating, member.standing.weight)
              << "\n";
  }
  std::cout << "\nLook again: yumoe status " << folder << "\nProve it:   yumoe replay " << folder
            << " --verify\nTake it:    yumoe export " << folder << " -o run.h5" << std::endl;
}

std::string summary_json(const Progress& p, const std::string& folder) {
  const auto number = [](double value) {
    return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
  };
  nlohmann::json summary{{"run", folder},
                         {"finished", p.phase == Phase::finished},
                         {"rounds", p.phase == Phase::finished || p.phase == Phase::closing
                                        ? p.rounds_total
                                        : (p.round.value == 0 ? 0 : p.round.value - 1)},
                         {"tokens", p.tokens},
                         {"tokens_per_s", p.tokens_per_s},
                         {"eval_loss", number(p.heldout_loss)},
                         {"eval_bits_per_byte", number(p.heldout_bits_per_byte)},
                         {"eval_version", p.heldout_version.value},
                         {"bytes_up", p.update_bytes_up},
                         {"bytes_down", p.update_bytes_down},
                         {"socket_bytes_in", p.socket_bytes_in},
                         {"socket_bytes_out", p.socket_bytes_out},
                         {"dense_bytes", p.dense_bytes},
                         {"compute_share", p.compute_share},
                         {"elapsed_s", p.elapsed_s},
                         {"state_digest", p.state.hex()},
                         {"workers", nlohmann::json::array()},
                         {"validators", nlohmann::json::array()}};
  for (const Progress::Member& member : p.members) {
    nlohmann::json entry{{"uid", member.uid.value},
                         {"hotkey", member.hotkey},
                         {"name", member.name},
                         {"active", member.active}};
    if (member.role == Role::validator) {
      summary["validators"].push_back(entry);
      continue;
    }
    entry["steps"] = member.steps_total;
    entry["tokens"] = member.tokens;
    entry["score"] = member.standing.score;
    entry["rating"] = member.standing.rating;
    entry["weight"] = member.standing.weight;
    entry["experts"] = member.experts;
    entry["seconds_training"] = member.seconds_training;
    entry["reason"] = member.reason;
    summary["workers"].push_back(entry);
  }
  return summary.dump();
}

}  // namespace yumoe

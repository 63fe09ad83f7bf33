#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cluster/error.hpp"
#include "launch/attacks.hpp"

namespace yumoe {
namespace {

constexpr double kWidth = 900, kPlot = 640, kLeft = 80, kHeight = 240, kGap = 70, kTop = 40;
// Colours that people with any colour vision can tell apart (Okabe and Ito).
constexpr std::array kColours = {"#0072b2", "#56b4e9", "#009e73", "#e69f00",
                                 "#d55e00", "#000000", "#cc79a7"};

std::string number(double value, const char* format = "%.6g") {
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

struct Curve {
  PartPlayed part;
  std::string name;
  std::vector<double> values;
};

std::string panel(const std::string& title, const std::vector<Curve>& curves, double top) {
  double low = 0, high = 1e-12;
  std::size_t points = 1;
  for (const Curve& c : curves) {
    for (const double v : c.values) high = std::max(high, v);
    points = std::max(points, c.values.size());
  }
  std::string svg = "<text x=\"" + number(kLeft) + "\" y=\"" + number(top - 10) +
                    "\" class=\"t\">" + title + "</text>\n";
  for (int tick = 0; tick <= 4; ++tick) {
    const double y = top + kHeight * (1 - tick / 4.0);
    svg += "<line x1=\"" + number(kLeft) + "\" x2=\"" + number(kLeft + kPlot) + "\" y1=\"" +
           number(y) + "\" y2=\"" + number(y) + "\" stroke=\"#ddd\"/><text x=\"" +
           number(kLeft - 8) + "\" y=\"" + number(y + 4) + "\" text-anchor=\"end\">" +
           number(low + (high - low) * tick / 4, "%.3g") + "</text>\n";
  }
  for (const Curve& c : curves) {
    svg += "<polyline fill=\"none\" stroke-width=\"1.5\" stroke=\"" +
           std::string(kColours[static_cast<std::size_t>(c.part)]) + "\" points=\"";
    for (std::size_t i = 0; i < c.values.size(); ++i) {
      svg +=
          number(kLeft + kPlot * static_cast<double>(i + 1) / static_cast<double>(points), "%.1f") +
          "," + number(top + kHeight * (1 - (c.values[i] - low) / (high - low)), "%.1f") + " ";
    }
    svg += "\"><title>" + c.name + "</title></polyline>\n";
  }
  svg += "<text x=\"" + number(kLeft) + "\" y=\"" + number(top + kHeight + 18) +
         "\">round 1</text><text x=\"" + number(kLeft + kPlot) + "\" y=\"" +
         number(top + kHeight + 18) + "\" text-anchor=\"end\">" + std::to_string(points) +
         "</text>\n";
  return svg;
}

bool is_validator(PartPlayed part) {
  return part == PartPlayed::validator || part == PartPlayed::lying_validator;
}

std::string name_of_result(const AttackResult& result) {
  const std::string attack = result.scenario.attack.empty() ? "none" : result.scenario.attack;
  return attack + "-" + number(100 * result.scenario.share, "%.0f");
}

std::vector<double> summed(const std::vector<double>& values) {
  std::vector<double> sums;
  double sum = 0;
  for (const double v : values) sums.push_back(sum += v);
  return sums;
}

nlohmann::ordered_json json_of(const AttackResult& r) {
  nlohmann::ordered_json json{{"attack", r.scenario.attack},
                              {"share", r.scenario.share},
                              {"workers", r.scenario.workers},
                              {"rounds", r.scenario.rounds},
                              {"seed", r.scenario.seed},
                              {"attackers_share", r.attackers_share},
                              {"pay_per_work", r.pay_per_work},
                              {"evaluation_share", r.evaluation_share},
                              {"special_over_attackers", r.special_over_attackers},
                              {"loss", r.loss},
                              {"participants", nlohmann::ordered_json::array()}};
  for (const ParticipantResult& p : r.participants) {
    json["participants"].push_back({{"uid", p.uid},
                                    {"part", name_of(p.part)},
                                    {"stake_share", p.stake},
                                    {"steps", p.work},
                                    {"emission_share", p.emission},
                                    {"refused", p.refused},
                                    {"filter", p.filter},
                                    {"alpha", p.by_round}});
  }
  return json;
}

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  if (!out.flush()) throw Error(ErrorCode::file_io, "write " + path.string());
}

}  // namespace

std::string attack_svg(const AttackResult& result) {
  std::vector<Curve> miners, judges;
  for (const ParticipantResult& p : result.participants) {
    Curve curve{p.part, "uid " + std::to_string(p.uid) + ", " + std::string(name_of(p.part)),
                summed(p.by_round)};
    (is_validator(p.part) ? judges : miners).push_back(std::move(curve));
  }
  const double height = kTop + 3 * (kHeight + kGap);
  std::string svg =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + number(kWidth) + "\" height=\"" +
      number(height) +
      "\" font-family=\"sans-serif\" font-size=\"12\"><style>.t{font-weight:bold}</style>"
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  svg += panel("alpha earned by workers, in all", miners, kTop);
  svg += panel("alpha earned by validators, in all", judges, kTop + kHeight + kGap);
  svg += panel("held-out loss, nats a token", {{PartPlayed::validator, "loss", result.loss}},
               kTop + 2 * (kHeight + kGap));
  for (std::size_t i = 0; i < kColours.size(); ++i) {
    const double y = kTop + 14 + 20 * static_cast<double>(i);
    svg += "<rect x=\"740\" y=\"" + number(y - 9) + "\" width=\"14\" height=\"10\" fill=\"" +
           kColours[i] + "\"/><text x=\"760\" y=\"" + number(y) + "\">" +
           std::string(name_of(static_cast<PartPlayed>(i))) + "</text>\n";
  }
  return svg + "</svg>\n";
}

void write_attack_report(std::span<const AttackResult> results,
                         const std::filesystem::path& folder) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) throw Error(ErrorCode::file_io, "make " + folder.string() + ": " + failed.message());
  std::string csv =
      "attack,share,seed,uid,part,stake_share,steps,emission_share,refused,filter,final_loss\n";
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const AttackResult& r : results) {
    json.push_back(json_of(r));
    write(folder / (name_of_result(r) + ".svg"), attack_svg(r));
    for (const ParticipantResult& p : r.participants) {
      csv += r.scenario.attack + "," + number(r.scenario.share) + "," +
             std::to_string(r.scenario.seed) + "," + std::to_string(p.uid) + "," +
             std::string(name_of(p.part)) + "," + number(p.stake) + "," + number(p.work) + "," +
             number(p.emission) + "," + std::to_string(p.refused) + "," + p.filter + "," +
             number(r.loss.empty() ? 0 : r.loss.back()) + "\n";
    }
  }
  write(folder / "report.csv", csv);
  write(folder / "report.json", json.dump(1) + "\n");
}

}  // namespace yumoe

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>

#include "launch/simulate.hpp"
#include "simulate/names.hpp"

namespace yumoe {
namespace {

// Colours that people with any colour vision can tell apart (Okabe and Ito), darkest first.
constexpr std::array kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"};
constexpr std::size_t kLinesMax = 12;     // the second six are dashed
constexpr std::size_t kPointsMax = 1500;  // more than the panel has pixels

constexpr double kWidth = 1000, kLeft = 90, kRight = 200, kTop = 56, kBottom = 56;
constexpr double kPanelHeight = 210, kPanelGap = 68, kPanels = 3;
constexpr double kPlotWidth = kWidth - kLeft - kRight;
constexpr double kHeight = kTop + kPanels * kPanelHeight + (kPanels - 1) * kPanelGap + kBottom;

struct Line {
  std::string name;
  std::vector<std::pair<double, double>> points;  // block, value
};

struct Panel {
  std::string title;
  bool from_zero = false;
  std::vector<Line> lines;
};

// A round step that cuts a range into about `count` pieces: 1, 2 or 5 times a power of ten.
double round_step(double range, double count) {
  const double raw = range / count;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw) return factor * power;
  }
  return 10 * power;
}

struct Axis {
  double low = 0, high = 1, step = 1;

  static Axis of(double low, double high, double count) {
    // Nothing but noise of the last digits is not worth a picture of it.
    const double least = std::max(std::abs(high), std::abs(low)) * 1e-6;
    if (high - low <= least) {
      const double half = std::max(least, high == 0 ? 0.5 : std::abs(high) * 0.05);
      low = std::max(0.0, low - half);
      high += half;
    }
    Axis axis;
    axis.step = round_step(high - low, count);
    axis.low = std::floor(low / axis.step + 1e-9) * axis.step;
    axis.high = std::ceil(high / axis.step - 1e-9) * axis.step;
    return axis;
  }
  double share(double value) const { return (value - low) / (high - low); }
  int ticks() const { return static_cast<int>(std::lround((high - low) / step)); }
};

std::string number(double value, const char* format) {
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  return text;
}
std::string pixel(double value) { return number(value, "%.1f"); }

// "12,500", "0.025": as many decimals as the step has.
std::string tick_text(double value, double step) {
  const int decimals = std::clamp(static_cast<int>(-std::floor(std::log10(step) + 1e-9)), 0, 12);
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  std::string grouped(text);
  const std::size_t point = std::min(grouped.find('.'), grouped.size());
  for (std::size_t at = point; at > 3 && grouped[at - 4] != '-'; at -= 3)
    grouped.insert(at - 3, ",");
  return grouped;
}

// Text whose only outside parts are names, which the scenario's reader keeps to letters and digits;
// a scenario made in a program may hold anything.
std::string escaped(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    const bool plain = c >= 0x20 && c < 0x7F && c != '<' && c != '>' && c != '&' && c != '"';
    safe += plain ? c : '_';
  }
  return safe;
}

std::string text_at(double x, double y, std::string_view extra, std::string_view text) {
  return "<text x=\"" + pixel(x) + "\" y=\"" + pixel(y) + "\"" + std::string(extra) + ">" +
         escaped(text) + "</text>\n";
}

std::string line_from(double x1, double y1, double x2, double y2, std::string_view stroke) {
  return "<line x1=\"" + pixel(x1) + "\" y1=\"" + pixel(y1) + "\" x2=\"" + pixel(x2) + "\" y2=\"" +
         pixel(y2) + "\" " + std::string(stroke) + "/>\n";
}

// How the index-th line of a panel looks.
std::string stroke_of(std::size_t index) {
  std::string stroke = "stroke=\"" + std::string(kColours[index % kColours.size()]) +
                       "\" stroke-width=\"2\" fill=\"none\"";
  if (index >= kColours.size()) stroke += " stroke-dasharray=\"6 3\"";
  return stroke;
}

class PanelWriter {
 public:
  PanelWriter(const Panel& panel, const Axis& blocks, double top)
      : panel_(panel), blocks_(blocks), top_(top), values_(axis_of(panel)) {}

  std::string write(bool last) const {
    std::string svg = text_at(kLeft, top_ - 12, " class=\"title\"", panel_.title);
    svg += grid(last);
    const std::size_t shown = std::min(panel_.lines.size(), kLinesMax);
    // The first line is the one that ends highest and is drawn last, on top.
    for (std::size_t i = shown; i-- > 0;) svg += curve(i);
    for (std::size_t i = 0; i < shown; ++i) svg += legend(i);
    if (panel_.lines.size() > shown) {
      svg += text_at(kWidth - kRight + 18, legend_y(shown) + 4, "",
                     "and " + std::to_string(panel_.lines.size() - shown) + " more");
    }
    return svg;
  }

 private:
  static Axis axis_of(const Panel& panel) {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (std::size_t i = 0; i < std::min(panel.lines.size(), kLinesMax); ++i) {
      for (const auto& [block, value] : panel.lines[i].points) {
        low = std::min(low, value);
        high = std::max(high, value);
      }
    }
    if (low > high) low = high = 0;
    return Axis::of(panel.from_zero ? std::min(low, 0.0) : low, high, 5);
  }

  double x_of(double block) const { return kLeft + kPlotWidth * blocks_.share(block); }
  double y_of(double value) const { return top_ + kPanelHeight * (1 - values_.share(value)); }
  double legend_y(std::size_t index) const { return top_ + 8 + 16.5 * static_cast<double>(index); }

  std::string grid(bool last) const {
    std::string svg;
    for (int i = 0; i <= values_.ticks(); ++i) {
      const double value = values_.low + i * values_.step;
      svg += line_from(kLeft, y_of(value), kLeft + kPlotWidth, y_of(value), "class=\"grid\"");
      svg += text_at(kLeft - 8, y_of(value) + 4, " text-anchor=\"end\"",
                     tick_text(value, values_.step));
    }
    const double foot = top_ + kPanelHeight;
    for (int i = 0; i <= blocks_.ticks(); ++i) {
      const double block = blocks_.low + i * blocks_.step;
      svg += line_from(x_of(block), foot, x_of(block), foot + 5, "class=\"axis\"");
      svg += text_at(x_of(block), foot + 19, " text-anchor=\"middle\"",
                     tick_text(block, blocks_.step));
    }
    svg += line_from(kLeft, foot, kLeft + kPlotWidth, foot, "class=\"axis\"");
    svg += line_from(kLeft, top_, kLeft, foot, "class=\"axis\"");
    if (last) svg += text_at(kLeft + kPlotWidth / 2, foot + 40, " text-anchor=\"middle\"", "block");
    return svg;
  }

  // Every stride-th point and the last.
  std::string curve(std::size_t index) const {
    const auto& points = panel_.lines[index].points;
    const std::size_t stride = (points.size() + kPointsMax - 1) / kPointsMax;
    std::string svg = "<polyline " + stroke_of(index) + " points=\"";
    for (std::size_t i = 0; i < points.size(); ++i) {
      if (i % stride != 0 && i + 1 != points.size()) continue;
      svg += pixel(x_of(points[i].first)) + "," + pixel(y_of(points[i].second)) + " ";
    }
    return svg + "\"/>\n";
  }

  std::string legend(std::size_t index) const {
    const double x = kWidth - kRight + 18, y = legend_y(index);
    std::string name = panel_.lines[index].name;
    // Names of one kind often differ at their end.
    if (name.size() > 20) name = name.substr(0, 8) + ".." + name.substr(name.size() - 10);
    return line_from(x, y, x + 24, y, stroke_of(index)) + text_at(x + 32, y + 4, "", name);
  }

  const Panel& panel_;
  const Axis& blocks_;
  double top_;
  Axis values_;
};

// Those that end highest come first; equal ones by name.
std::vector<Line> in_order(std::map<std::string, Line> by_name) {
  std::vector<Line> lines;
  for (auto& [name, line] : by_name) {
    line.name = name;
    lines.push_back(std::move(line));
  }
  std::stable_sort(lines.begin(), lines.end(), [](const Line& a, const Line& b) {
    return a.points.back().second > b.points.back().second;
  });
  return lines;
}

std::array<Panel, 3> panels_of(const ledger::Scenario& scenario,
                               const ledger::SimulationResult& result) {
  std::map<std::string, Line> prices, emissions, worths;
  for (const ledger::SubnetSample& row : result.subnets) {
    const std::string name = subnet_name(scenario, row.netuid);
    const auto block = static_cast<double>(row.block);
    prices[name].points.emplace_back(block, row.price);
    emissions[name].points.emplace_back(block, static_cast<double>(row.tao_emission) / 1e9);
  }
  const std::vector<double> worth = worths_tao(result);
  for (std::size_t i = 0; i < result.balances.size(); ++i) {
    const ledger::BalanceSample& row = result.balances[i];
    worths[row.account].points.emplace_back(static_cast<double>(row.block), worth[i]);
  }
  // A subnet has one colour in both of its panels.
  std::vector<Line> price_lines = in_order(std::move(prices)), emission_lines;
  for (const Line& line : price_lines) {
    emission_lines.push_back({line.name, std::move(emissions[line.name].points)});
  }
  return {Panel{"Price, TAO per alpha", false, std::move(price_lines)},
          Panel{"Emission injected as liquidity, TAO a block", true, std::move(emission_lines)},
          Panel{"Balances, TAO: free, and stake at the price of the block", false,
                in_order(std::move(worths))}};
}

}  // namespace

std::string simulation_svg(const ledger::Scenario& scenario,
                           const ledger::SimulationResult& result) {
  const std::string size =
      "width=\"" + number(kWidth, "%.0f") + "\" height=\"" + number(kHeight, "%.0f") + "\"";
  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" " + size + " viewBox=\"0 0 " +
                    number(kWidth, "%.0f") + " " + number(kHeight, "%.0f") + "\">\n" +
                    "<style>text{font:13px sans-serif;fill:#222}.title{font-weight:bold;font-size:"
                    "15px}.grid{stroke:#ddd}.axis{stroke:#222}</style>\n" +
                    "<rect " + size + " fill=\"#fff\"/>\n";
  Axis blocks = Axis::of(0, static_cast<double>(scenario.blocks), 8);
  double top = kTop;
  const std::array<Panel, 3> panels = panels_of(scenario, result);
  for (const Panel& panel : panels) {
    svg += PanelWriter(panel, blocks, top).write(&panel == &panels.back());
    top += kPanelHeight + kPanelGap;
  }
  return svg + "</svg>\n";
}

}  // namespace yumoe

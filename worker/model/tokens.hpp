#pragma once
// A batch of token sequences as the model reads it.

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cluster/error.hpp"
#include "model/model.hpp"

namespace yumoe {

// Cuts rows of context + 1 tokens into inputs and the targets one place later.
struct Model::Tokens {
  std::vector<std::int32_t> inputs, targets;  // [sequences * context]

  Tokens(std::vector<std::int32_t> some_inputs, std::vector<std::int32_t> some_targets)
      : inputs(std::move(some_inputs)), targets(std::move(some_targets)) {}

  // Throws Error{data_invalid} on a length that is no whole number of rows, or a token beyond the
  // vocabulary.
  Tokens(std::span<const std::uint16_t> rows, const ModelOptions& model) {
    const auto length = static_cast<std::size_t>(model.context) + 1;
    if (rows.empty() || rows.size() % length != 0) {
      throw Error(ErrorCode::data_invalid, "batch of " + std::to_string(rows.size()) +
                                               " tokens is no whole number of rows of " +
                                               std::to_string(length));
    }
    for (const std::uint16_t token : rows) {
      if (token >= model.vocabulary) {
        throw Error(ErrorCode::data_invalid,
                    "token " + std::to_string(token) + " is beyond the model's vocabulary of " +
                        std::to_string(model.vocabulary) + ": the token set fits another model");
      }
    }
    for (std::size_t row = 0; row < rows.size(); row += length) {
      inputs.insert(inputs.end(), rows.begin() + static_cast<std::ptrdiff_t>(row),
                    rows.begin() + static_cast<std::ptrdiff_t>(row + length - 1));
      targets.insert(targets.end(), rows.begin() + static_cast<std::ptrdiff_t>(row + 1),
                     rows.begin() + static_cast<std::ptrdiff_t>(row + length));
    }
  }
};

}  // namespace yumoe

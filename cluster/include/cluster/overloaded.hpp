#pragma once
// One function object out of several lambdas: std::visit(Overloaded{[](A) {}, [](B) {}}, value).

namespace yumoe {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
// C++20 deduces this by itself; clang before 17 does not.
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;

}  // namespace yumoe

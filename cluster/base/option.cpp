#include "cluster/option.hpp"

namespace yumoe {

Digest digest_of(const OptionTexts& texts) {
  Digester digester;
  for (const auto& [key, value] : texts) digester.update(as_bytes(key + "=" + value + "\n"));
  return digester.finish();
}

}  // namespace yumoe

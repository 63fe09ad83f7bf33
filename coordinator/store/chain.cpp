#include "store/chain.hpp"

namespace yumoe {
namespace {

void add_number(Digester& digester, std::uint64_t number) {
  digester.update(as_bytes(std::span<const std::uint64_t>(&number, 1)));
}

void add_text(Digester& digester, std::string_view text) {
  add_number(digester, text.size());
  digester.update(as_bytes(text));
}

}  // namespace

Digest first_link(const std::string& run, const JournalMetadata& metadata) {
  Digester digester;
  digester.update(as_bytes("yumoe journal 1"));
  const auto add_run = [&] {
    add_text(digester, "run");
    add_text(digester, run);
  };
  bool run_added = false;
  for (const auto& [name, value] : metadata) {
    if (!run_added && name > "run") {
      add_run();
      run_added = true;
    }
    add_text(digester, name);
    add_text(digester, value);
  }
  if (!run_added) add_run();
  return digester.finish();
}

Digest next_link(const Digest& before, std::uint64_t sequence, TimeMs time, std::string_view kind,
                 ByteView payload) {
  Digester digester;
  digester.update(before.bytes);
  add_number(digester, sequence);
  add_number(digester, static_cast<std::uint64_t>(time.value));
  add_text(digester, kind);
  digester.update(payload);
  return digester.finish();
}

bool ChainCheck::accepts(const Record& record) {
  if (record.sequence != sequence_ + 1) return false;
  const Digest link = next_link(chain_, record.sequence, record.time, record.kind, record.payload);
  if (link != record.chain) return false;
  sequence_ = record.sequence;
  chain_ = link;
  return true;
}

}  // namespace yumoe

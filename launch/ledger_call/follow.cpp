#include "cluster/error.hpp"
#include "cluster/log.hpp"
#include "coordinator/run_ledger.hpp"
#include "launch/ledger_call.hpp"

namespace yumoe {

using std::chrono::milliseconds;

void follow_chain(ChainNode& node, const std::string& run, const Keypair& owner,
                  const std::function<bool(std::uint64_t number, const CallReport&)>& told) {
  FinalizedHeads heads = node.finalized_heads();
  std::uint64_t number = node.header(node.finalized_head()).number, newest = 0;
  while (true) {
    if (number > newest) {
      newest = number;
      try {
        const CallReport report = call_run(run, owner, chain_block_call(number));
        if (!report.answer.error.empty()) {
          throw Error(ErrorCode::peer_refused,
                      "block " + std::to_string(number) + ": " + report.answer.error);
        }
        if (!told(number, report)) return;
      } catch (const Error& error) {
        if (error.code() != ErrorCode::peer_unreachable) throw;
        log_warning(std::string("block ") + std::to_string(number) +
                    " was not told: " + error.what());
      }
    }
    const auto head = heads.next(milliseconds(60'000));
    if (!head || !head->header) {
      number = node.header(node.finalized_head()).number;
    } else {
      number = head->header->number;
    }
  }
}

}  // namespace yumoe

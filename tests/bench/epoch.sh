#!/usr/bin/env bash
# Epochs against numpy, then whole blocks of the ledger.
set -euo pipefail
cmake --preset release >/dev/null
cmake --build --preset release --target bench_epoch bench_ledger_blocks -- --quiet >&2
status=0
build/release/bin/bench_epoch || status=1
build/release/bin/bench_ledger_blocks || status=1
exit $status

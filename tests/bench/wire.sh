#!/usr/bin/env bash
# Bytes of real runs, counted at the coordinator's sockets, against dense fp32; then sizes for more workers.
set -euo pipefail
cmake --preset release >/dev/null
cmake --build --preset release --target yumoe yumoe-worker bench_wire_size -- --quiet >&2
status=0
"$YUMOE_PYTHON_ENV/bin/python" tests/bench/wire.py build/release/bin || status=1
build/release/bin/bench_wire_size || status=1
exit $status

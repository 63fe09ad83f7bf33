#!/usr/bin/env bash
# Idle share of a round; see idle.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
cmake --preset release >/dev/null
cmake --build --preset release --target yumoe yumoe-worker -- --quiet >&2
exec "$YUMOE_PYTHON_ENV/bin/python" tests/bench/idle.py build/release/bin "$@"

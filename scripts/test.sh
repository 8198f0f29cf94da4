#!/usr/bin/env bash
# All tests, a process a core, in the checkout's own environment; arguments go to pytest.
#   scripts/test.sh [tests/train] [-k resume] ...
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment test
cd "$ROOT"
exec .venv/bin/python -m pytest -n auto --maxprocesses=4 --dist=worksteal "$@"

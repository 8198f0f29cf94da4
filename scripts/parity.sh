#!/usr/bin/env bash
# Does tljax compute what Transformers computes? Compares live and prints a table.
#   scripts/parity.sh PEERS [WORK]
# PEERS holds setup.sh, which makes an environment with PyTorch and Transformers, and
# logits.py, which writes their outputs. WORK (runs/parity) keeps environment, models and
# results. Takes about ten minutes; the tests compare with kept values in seconds.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
case "${1:-}" in
  '' | -h | --help) sed -n '2,6s/^# //p' "$0"; exit 0 ;;
esac
peers="$(cd "$1" && pwd)"
work="${2:-runs/parity}"
prepare_environment
cd "$ROOT"
mkdir -p "$work"
if [ ! -x "$work/env/bin/python" ]; then bash "$peers/setup.sh" "$work/env"; fi
exec .venv/bin/python scripts/parity.py --peers="$peers" --work="$work"

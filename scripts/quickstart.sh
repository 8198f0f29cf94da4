#!/usr/bin/env bash
# From a bare checkout to an answer: makes .venv, then runs the main experiment.
#   scripts/quickstart.sh [quick|smoke|smollm2|full] [flags of experiments.low_shot]
# `quick` (the default) takes 5 to 16 minutes on 2 cores. Called again, it goes on
# where it stopped and repeats nothing that is finished.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

preset=quick
case "${1:-}" in
  -h | --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
  '' | -*) ;;
  *) preset="$1"; shift ;;
esac
config="configs/low_shot.py:$preset"
workdir=runs/low_shot
if [ "$preset" != quick ]; then workdir="runs/low_shot_$preset"; fi
flags=()
given=" $* "
[[ "$given" == *" --config="* ]] || flags+=("--config=$config")
[[ "$given" == *" --workdir="* ]] || flags+=("--workdir=$workdir")

prepare_environment
cd "$ROOT"
exec .venv/bin/python -m experiments.low_shot ${flags[@]+"${flags[@]}"} "$@"

# The one Python environment of this checkout, .venv: found, made, repaired, reused.
# Sourced by quickstart.sh, test.sh and .ci/run, which then call
#   prepare_environment        (tljax, editable)   or
#   prepare_environment test   (tljax and what its tests need)
# A stamp, written last, says that a set-up ended well and of what; without it the
# folder is made anew. So an interrupted set-up is repaired by the next call.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$ROOT/.venv"
STAMP="$VENV/tljax-stamp"

say() { printf 'tljax: %s\n' "$*" >&2; }

# usable_python COMMAND: prints the interpreter's own path if COMMAND runs, is 3.12 or
# later and can make environments. It is run, since a shim may exist and still refuse.
usable_python() {
  "$1" -c '
import sys
if sys.version_info < (3, 12):
    sys.exit(1)
import ensurepip, venv
print(sys.executable)' </dev/null 2>/dev/null
}

# find_python: prints the first usable interpreter, or fails.
find_python() {
  local candidate pyenv="${PYENV_ROOT:-${HOME:-}/.pyenv}/versions"
  if [ -n "${PYTHON:-}" ]; then
    usable_python "$PYTHON" && return
    say "PYTHON=$PYTHON does not run as Python 3.12 or later; looking further"
  fi
  for candidate in python3.13 python3.12 python3; do
    usable_python "$candidate" && return
  done
  candidate="$(uv python find '>=3.12' </dev/null 2>/dev/null)" &&
    usable_python "$candidate" && return
  for candidate in "$pyenv"/3.13*/bin/python "$pyenv"/3.12*/bin/python \
    "$pyenv"/*/bin/python; do
    usable_python "$candidate" && return
  done
  uv python install 3.13 </dev/null >/dev/null 2>&1 &&
    candidate="$(uv python find 3.13 </dev/null 2>/dev/null)" &&
    usable_python "$candidate"
}

# expected_stamp: what this checkout asks of its environment (and where it stands,
# since an environment does not survive being moved).
expected_stamp() {
  cat "$ROOT/setup.cfg" "$ROOT/pyproject.toml" | cksum
  printf '%s\n' "$ROOT"
}

# environment_has [test]: is the set-up complete, of this setup.cfg, and alive?
environment_has() {
  [ -f "$STAMP" ] && "$VENV/bin/python" -c '' 2>/dev/null || return 1
  local stamp
  stamp="$(cat "$STAMP")"
  [ "$stamp" = "$(expected_stamp; echo test)" ] ||
    { [ "${1:-}" != test ] && [ "$stamp" = "$(expected_stamp)" ]; }
}

# install_tljax REQUIREMENT: by uv where it is at hand, else by pip; one line a package.
# Compiling what is never imported would cost more than the install, hence --no-compile.
install_tljax() {
  cd "$ROOT" || return 1
  if command -v uv >/dev/null; then
    uv pip install --python "$VENV/bin/python" --editable "$1" </dev/null && return
    say "uv could not install it; trying pip"
  fi
  set -o pipefail
  "$VENV/bin/python" -m pip install --no-compile --no-input --progress-bar off \
    --disable-pip-version-check --editable "$1" </dev/null 2>&1 |
    tee "$VENV/setup.log" |
    awk '/^Collecting /{printf "  %d %s\n", ++n, $2} /^Installing c/{print "  unpacking"}
         {fflush()}' >&2
}

# prepare_environment [test]: does nothing if all is there; else says what it does.
prepare_environment() {
  environment_has "${1:-}" && return
  local python started=$SECONDS requirement="." extra="${1:-}"
  if [ -f "$STAMP" ] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 &&
    grep -qxF "$ROOT" "$STAMP"; then
    say "bringing $VENV up to date"
    if grep -qx test "$STAMP"; then extra=test; fi
  else
    python="$(find_python)" || {
      say "error: no Python 3.12 or later (with venv) was found;" \
        "install one, or name it: PYTHON=/path/to/python $0"
      exit 2
    }
    say "making $VENV with $python"
    "$python" -m venv --clear "$VENV" || {
      say "error: $python could not make $VENV"
      exit 1
    }
  fi
  rm -f "$STAMP"
  if [ "$extra" = test ]; then requirement=".[test]"; fi
  say "installing $requirement and what it needs (about half a minute, 1 GB)"
  (install_tljax "$requirement") || {
    if [ -f "$VENV/setup.log" ]; then tail -n 5 "$VENV/setup.log" >&2; fi
    say "error: the installation failed (see above); call again to retry"
    exit 1
  }
  { expected_stamp; if [ "$extra" = test ]; then echo test; fi; } >"$STAMP.new"
  mv "$STAMP.new" "$STAMP"
  say "ready after $((SECONDS - started)) s"
}

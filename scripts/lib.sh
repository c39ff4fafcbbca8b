# shellcheck shell=bash
# Sourced by the other scripts: the environment that each of them needs, made if it is missing. Every function may be
# called again at no cost: what is up to date is left alone.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

say() { printf '\033[1m==> %s\033[0m\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# An account without a usable home directory (a service user, a container) still has to build.
if [ ! -w "${HOME:-/nonexistent}" ]; then
  export npm_config_cache=$root/.scratch/npm PIP_CACHE_DIR=$root/.scratch/pip XDG_CACHE_HOME=$root/.scratch/cache
fi

# run_as_root COMMAND…: as root, or by sudo where that asks for no password.
run_as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo "$@"; else return 1; fi
}

# system_package PACKAGE REASON: installs a Debian package, or says what to do.
system_package() {
  command -v apt-get >/dev/null || die "$2; install it with your system's package manager (Debian calls it $1)"
  say "installing $1"
  run_as_root apt-get -q -y --no-install-recommends install "$1" >/dev/null 2>&1 ||
    { run_as_root apt-get -q update >/dev/null && run_as_root apt-get -q -y --no-install-recommends install "$1" >/dev/null; } ||
    die "$2; as root: apt-get install $1"
}

# find_python: the first Python that trackd runs on.
find_python() {
  local p
  for p in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
    if command -v "$p" >/dev/null && "$p" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
      echo "$p"
      return
    fi
  done
  die "no Python 3.10 to 3.13 found; set PYTHON to one"
}

# need_venv EXTRAS…: .venv with trackd installed editable and at least these extras (dev contains the others).
need_venv() {
  local extra want have
  if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    local python
    python=$(find_python)
    say "making .venv ($("$python" --version))"
    rm -rf .venv
    "$python" -c 'import ensurepip' 2>/dev/null || system_package "python3-venv" "Python's venv module is missing"
    "$python" -m venv .venv
  fi
  # The stamp names what was asked for and the metadata it was resolved from; a moved checkout resolves anew.
  have=$(cat .venv/trackd-stamp 2>/dev/null || true)
  want=$({ echo "$root"; cat pyproject.toml; } | cksum | tr -d ' ')
  case "$have" in "$want:"*) ;; *) have="$want:," ;; esac
  local missing=
  for extra in "$@"; do
    case "$have" in *",$extra,"* | *",dev,"*) ;; *) missing=yes have="$have$extra," ;; esac
  done
  if [ -n "$missing" ]; then
    local list
    list=$(IFS=,; echo "$*")
    say "installing trackd[$list] into .venv"
    .venv/bin/python -m pip install -q -e ".[$list]"
    echo "$have" >.venv/trackd-stamp
  fi
}

# need_web: daemon/web/node_modules as the lock file says.
need_web() {
  command -v npm >/dev/null || die "npm is missing (Node 20 or newer); the dashboard is built with it"
  local lock=daemon/web/package-lock.json done_=daemon/web/node_modules/.package-lock.json
  if [ ! -f "$done_" ] || [ "$lock" -nt "$done_" ]; then
    say "installing the dashboard's build tools (npm ci)"
    (cd daemon/web && npm ci --no-audit --no-fund --loglevel=error)
    touch "$done_"
  fi
}

# need_page: the built dashboard in the daemon's package, if its sources are newer than the last build.
need_page() { .venv/bin/python scripts/build_hook.py; }

# need_faults: a C compiler for the shim that makes system calls fail, and strace, which writes down what a daemon does.
need_faults() {
  command -v gcc >/dev/null || command -v cc >/dev/null ||
    { system_package gcc "the tests of failing system calls need a C compiler"; system_package libc6-dev "a C compiler needs the C library's headers"; }
  command -v strace >/dev/null || system_package strace "the tests of power loss need strace"
}

# need_chromium: a Chromium for the browser tests; CHROMIUM names another one.
need_chromium() {
  local c
  for c in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
    if [ -n "$c" ] && command -v "$c" >/dev/null; then
      CHROMIUM=$(command -v "$c")
      export CHROMIUM
      return
    fi
  done
  system_package chromium "the browser tests need Chromium"
  CHROMIUM=$(command -v chromium)
  export CHROMIUM
}

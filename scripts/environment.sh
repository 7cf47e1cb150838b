# Sourced by the scripts beside it: brings up what they need on a machine that may have only
# Python and git. Run from the checkout's top directory.
# shellcheck shell=bash

say() { echo "$script: $*" >&2; }
stop() { say "$*"; exit 1; }

script=$(basename "$0")

# The first Python that is new enough; BERTH_PYTHON names another.
find_python() {
  local candidate
  for candidate in ${BERTH_PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  stop "Python 3.11 or newer is needed. Install it (Debian: apt-get install python3 python3-venv), or name it in BERTH_PYTHON."
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# debian_package PACKAGE: install it where we may; say so either way.
debian_package() {
  can_install || return 1
  say "installing Debian's package $1"
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1"; } >&2
}

# environment LOCK: makes .venv hold requirements/LOCK and this checkout, and sets $venv_python.
environment() {
  local lock=requirements/$1 python stamp
  venv_python=$PWD/.venv/bin/python
  python=$(find_python)
  stamp="$("$python" -c 'import sys; print(sys.version)') $(cat "$lock" pyproject.toml | sha256sum) $PWD"
  [ -x "$venv_python" ] && grep -qsxF "$stamp" ".venv/stamp-$1" && return
  "$python" -c 'import ensurepip, venv' 2>/dev/null || debian_package python3-venv ||
    stop "Python's venv module is missing. Install it (Debian: apt-get install python3-venv)."
  say "installing what Berth needs into .venv (the first time takes about a minute)"
  "$python" -m venv .venv || stop "cannot make .venv with $python."
  if ! { pip_install --require-hashes --requirement "$lock" &&
    pip_install --no-deps --no-build-isolation --editable .; }; then
    stop "installation failed. Check that the Python package index is reachable, then run this again."
  fi
  echo "$stamp" >".venv/stamp-$1"
}

pip_install() {
  "$venv_python" -m pip install --quiet --disable-pip-version-check --no-input "$@"
}

engine_answers() {
  command -v docker >/dev/null && timeout 5 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

# container_runtime CHOICE: makes ready what auto, docker or sandbox needs.
container_runtime() {
  if [ "$1" != sandbox ] && engine_answers; then
    scripts/images agent >&2 && return
    [ "$1" = auto ] || stop "the agent's image could not be built; see above."
    say "the agent's image could not be built: trying the sandbox instead"
  elif [ "$1" = docker ]; then
    stop "no Docker engine answers. Run ./scripts/setup-docker, or use --runtime sandbox."
  fi
  command -v bwrap >/dev/null || debian_package bubblewrap ||
    stop "the sandbox needs bubblewrap. Install it (Debian: apt-get install bubblewrap), or start a Docker engine."
}

# option NAME DEFAULT ARGUMENTS...: the value of --NAME among the arguments.
option() {
  local name=$1 value=$2
  shift 2
  while [ $# -gt 0 ]; do
    case $1 in
      "--$name") value=${2:-} ;;
      "--$name="*) value=${1#*=} ;;
    esac
    shift
  done
  echo "$value"
}

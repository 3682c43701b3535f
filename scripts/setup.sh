#!/usr/bin/env bash
# Makes the environment in .venv with the exact versions of constraints.txt. Does nothing when it is already there.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash scripts/setup.sh [--dev | --all] [--help]

Makes .venv with lorabench and everything it needs, at the versions in constraints.txt.
Run again, it returns at once unless pyproject.toml, constraints.txt or Python have changed.

  --dev    also what the tests and checks need
  --all    and what only the slow tests need: Optuna, Ray, 77 MB, bitsandbytes, 43 MB, ONNX Runtime, 38 MB, MkDocs, and
           llama.cpp, which is built once for this processor (about four minutes on two cores) and kept in
           LORABENCH_CACHE, by default ~/.cache/lorabench
TEXT
}

dev="[test,check,harness,trackio,tensorboard,mlflow]"
all="${dev%]},search,ray,docs,gguf,qlora,onnx]"
extras=""
for argument in "$@"; do
  case "$argument" in
    --dev) extras="$dev" ;;
    --all) extras="$all" ;;
    -h|--help) usage; exit 0 ;;
    *) echo "setup.sh: unknown argument $argument (see --help)" >&2; exit 2 ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-}"
if [ -z "$python" ]; then
  for candidate in python3.11 python3.12 python3.13 python3; do
    if command -v "$candidate" >/dev/null 2>&1; then python="$candidate"; break; fi
  done
fi
[ -n "$python" ] || { echo "setup.sh: Python 3.11 or later is needed; install it or set PYTHON" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
  || { echo "setup.sh: $python is older than 3.11; install Python 3.11 or set PYTHON" >&2; exit 1; }

wanted="$( { cat pyproject.toml constraints.txt; "$python" --version; } | sha256sum | cut -d' ' -f1)"
stamp=.venv/.lorabench-set-up
accepted=("$extras" "$all")
[ "$extras" = "$all" ] || accepted+=("$dev")
for done_extras in "${accepted[@]}"; do
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted $done_extras" ]; then exit 0; fi
done

echo "Setting up .venv (once; a few minutes)"
exec 9>.setup.lock
if command -v flock >/dev/null 2>&1; then flock 9; fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check)
links=()
if [ "$extras" = "$all" ]; then
  llama="llama-cpp-python==$(sed -n 's/^llama_cpp_python==//p' constraints.txt)"
  export CMAKE_ARGS="-DLLAVA_BUILD=OFF -DMTMD_BUILD=OFF"
  key="$( { echo "$llama $CMAKE_ARGS"; grep -m1 '^flags' /proc/cpuinfo || uname -mrs; } | sha256sum | cut -c1-16)"
  wheels="${LORABENCH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lorabench}/wheels/$key"
  if [ ! -d "$wheels" ]; then
    echo "Building llama.cpp (once; about four minutes on two cores)"
    mkdir -p "${wheels%/*}"
    rm -rf "$wheels.building"
    "${pip[@]}" wheel --no-deps --wheel-dir "$wheels.building" "$llama"
    mv "$wheels.building" "$wheels"
  fi
  links=(--find-links "$wheels")
fi
"${pip[@]}" install --constraint constraints.txt ${links[@]+"${links[@]}"} --editable ".$extras"
echo "$wanted $extras" > "$stamp"
echo "Set up: .venv/bin/lorabench"

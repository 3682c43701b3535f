#!/usr/bin/env bash
# The tests, set-up included.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash scripts/test.sh [--all] [--help] [PYTEST ARGUMENTS…]

Runs the tests, setting up .venv first where needed.

  --all    also the slow ones: the real sample pack, a browser, kills, the comparison with the usual stack
TEXT
}

all=""
setup=--dev
arguments=()
for argument in "$@"; do
  case "$argument" in
    --all) all=yes; setup=--all ;;
    -h|--help) usage; exit 0 ;;
    *) arguments+=("$argument") ;;
  esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh "$setup"
.venv/bin/python -m pytest -m "not slow" -n 2 --dist loadfile "${arguments[@]}"
if [ -n "$all" ]; then
  bash scripts/install_browser.sh
  bash scripts/install_axe.sh
  .venv/bin/python -m pytest -m "slow and not alone" -n 2 --dist loadfile "${arguments[@]}"
  .venv/bin/python -m pytest -m "slow and alone" "${arguments[@]}"
fi

#!/usr/bin/env bash
# Lint, format and types: what must hold for every commit.
set -euo pipefail

if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
  cat <<'TEXT'
usage: bash scripts/check.sh [--fix] [--help]

Runs ruff (lint and format) and mypy --strict on src, setting up .venv first where needed.

  --fix    let ruff mend what it can
TEXT
  exit 0
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh --dev
if [ "${1:-}" = "--fix" ]; then
  .venv/bin/ruff check --fix .
  .venv/bin/ruff format .
elif [ $# -gt 0 ]; then
  echo "check.sh: unknown argument $1 (see --help)" >&2
  exit 2
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy --strict src

#!/usr/bin/env bash
# Makes the pictures of the report in docs/images anew.
set -euo pipefail

if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
  cat <<'TEXT'
usage: bash scripts/make_screenshots.sh [--output-dir DIR] [--help]

Opens a report in Chromium and writes docs/images/report_*.png, setting up .venv and the browser first where needed.

  --output-dir DIR   show the results that lie in DIR; without it a seeded synthetic experiment
TEXT
  exit 0
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh --dev
bash scripts/install_browser.sh
exec .venv/bin/python -m tests.report.screenshots docs/images "$@"

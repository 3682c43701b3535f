#!/usr/bin/env bash
# Installs axe-core, with which the tests look for what keeps people from using the report.
set -euo pipefail

if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
  cat <<'TEXT'
usage: bash scripts/install_axe.sh [--help]

Installs axe-core into tests/report/axe/node_modules with npm, at the version and hash in tests/report/axe/package-lock.json.
Where it is there already it does nothing. As root on Debian and its kin it installs npm, too, where there is none.
TEXT
  exit 0
fi
if [ $# -gt 0 ]; then
  echo "install_axe.sh: unknown argument $1 (see --help)" >&2
  exit 2
fi

cd "$(dirname "${BASH_SOURCE[0]}")/../tests/report/axe"
if [ node_modules/.package-lock.json -nt package-lock.json ]; then exit 0; fi
if ! command -v npm >/dev/null 2>&1 && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "Installing npm (once)"
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y -qq --no-install-recommends npm >/dev/null 2>&1 \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends npm; } >/dev/null
fi
if ! command -v npm >/dev/null 2>&1; then
  echo "install_axe.sh: there is no npm here; install Node.js with npm (as root: apt-get install npm), then try again" >&2
  exit 1
fi
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error

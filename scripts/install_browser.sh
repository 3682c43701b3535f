#!/usr/bin/env bash
# Installs Debian's Chromium, in which the tests open the report and the screenshots are taken.
set -euo pipefail

if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
  cat <<'TEXT'
usage: bash scripts/install_browser.sh [--help]

Installs the package chromium with apt-get, on Debian and its kin, as root or through sudo.
Where a chromium is already on the PATH it does nothing.
TEXT
  exit 0
fi
if [ $# -gt 0 ]; then
  echo "install_browser.sh: unknown argument $1 (see --help)" >&2
  exit 2
fi

if command -v chromium >/dev/null 2>&1; then exit 0; fi

if ! command -v apt-get >/dev/null 2>&1; then
  echo "install_browser.sh: there is no apt-get here; install Chromium yourself so that the command chromium is found" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null 2>&1 || ! sudo -n true 2>/dev/null; then
    echo "install_browser.sh: installing Chromium needs root: run apt-get install chromium as root, then try again" >&2
    exit 1
  fi
  as_root=(sudo)
fi

echo "Installing Chromium (once; about a minute)"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >"$log" 2>&1
}
if ! install && ! { "${as_root[@]}" apt-get update -qq >"$log" 2>&1 && install; }; then
  cat "$log" >&2
  echo "install_browser.sh: apt-get could not install chromium; its own words are above" >&2
  exit 1
fi
echo "Installed: $(command -v chromium)"

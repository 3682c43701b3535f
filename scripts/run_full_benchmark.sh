#!/usr/bin/env bash
# The main job: set up, choose the profile that fits this machine, run the benchmark, write the results.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash scripts/run_full_benchmark.sh [--profile smoke|local|full] [--help] [LORABENCH RUN OPTIONS…]

Makes the environment where needed and runs the benchmark; run it again to go on where it stopped.

  --profile smoke   one small run: does everything work? (under two minutes)
  --profile local   a 135M model on four corpora at three ranks and two rates, and three smaller
                    models beside it, on as much text as this machine can read in some ten minutes
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
[ -z "$profile" ] || echo "Profile: $profile (asked for)"
folder="$here/configs/experiments"
chosen="$("$here/.venv/bin/python" -m lorabench.cli.profile "$folder" ${profile:+"$profile"})"
experiments=()
settings=()
while IFS= read -r line; do
  case "$line" in
    *=*) settings+=(--set "$line") ;;
    *) experiments+=("$line") ;;
  esac
done <<< "$chosen"

code=0
for experiment in "${experiments[@]}"; do
  result=0
  "$here/.venv/bin/lorabench" run "$folder/$experiment.yaml" ${settings[@]+"${settings[@]}"} ${options[@]+"${options[@]}"} || result=$?
  [ "$result" -le 1 ] || exit "$result"   # wrong input, or stopped: the next experiment would fare the same
  [ "$result" -eq 0 ] || code=$result
done
if [ "${#experiments[@]}" -gt 1 ]; then
  output=outputs
  for ((place = 0; place < ${#options[@]}; place++)); do
    case "${options[place]}" in
      --output-dir) output="${options[place + 1]}" ;;
      --output-dir=*) output="${options[place]#*=}" ;;
    esac
  done
  printf '\nAll %s experiments together:\n\n' "${#experiments[@]}"
  "$here/.venv/bin/lorabench" report "$output" || code=$?
fi
exit "$code"

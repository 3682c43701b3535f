#!/usr/bin/env bash
# A SLURM job: one Ray cluster over the nodes of the job, and lorabench on it. Submit it again to go on.
#SBATCH --job-name=lorabench
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --open-mode=append
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: sbatch [SBATCH OPTIONS] scripts/slurm.sh EXPERIMENT.yaml [LORABENCH RUN OPTIONS…]

Does what is missing of an experiment on all nodes of the job; each GPU (or, without GPUs, each core) does one run.
Submit it again to go on where it stopped: five minutes before the time is over, every run writes a checkpoint.

  sbatch --nodes=4 --gpus-per-node=8 --time=24:00:00 scripts/slurm.sh full.yaml --tracker none --output-dir $HOME/outputs

The folder of the job must hold .venv with lorabench[ray] (bash scripts/setup.sh --all), or LORABENCH_VENV name one,
on every node. Outputs, and nothing else, are written by the first node.
TEXT
}

[ $# -gt 0 ] || { usage >&2; exit 2; }
case "$1" in -h|--help) usage; exit 0 ;; esac
[ -n "${SLURM_JOB_NODELIST:-}" ] || { echo "slurm.sh: this is no SLURM job; submit it with sbatch (see --help)" >&2; exit 2; }
bin="${LORABENCH_VENV:-$PWD/.venv}/bin"
[ -x "$bin/ray" ] || { echo "slurm.sh: $bin has no ray; install lorabench[ray] there, or set LORABENCH_VENV" >&2; exit 2; }

nodes="$(scontrol show hostnames "$SLURM_JOB_NODELIST")"
first="$(head -n 1 <<< "$nodes")"
port=$((20000 + SLURM_JOB_ID % 20000))
export RAY_USAGE_STATS_ENABLED=0
stop() { "$bin/ray" stop --force >/dev/null 2>&1 || true; }
trap stop EXIT

"$bin/ray" start --head --node-ip-address="$first" --port="$port" --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --include-dashboard=false >/dev/null
if [ "$(wc -l <<< "$nodes")" -gt 1 ]; then
  srun --nodes="$((SLURM_JOB_NUM_NODES - 1))" --ntasks="$((SLURM_JOB_NUM_NODES - 1))" --exclude="$first" \
    "$bin/ray" start --address="$first:$port" --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --block >/dev/null &
fi

# Told in this way so that lorabench hears the signal that SLURM sends to this script.
"$bin/lorabench" run "$@" --executor ray --address "$first:$port" &
lorabench=$!
trap 'kill -TERM "$lorabench" 2>/dev/null' TERM INT
code=0
while kill -0 "$lorabench" 2>/dev/null; do wait "$lorabench" && code=0 || code=$?; done
exit "$code"

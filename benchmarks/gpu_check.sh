#!/usr/bin/env bash
# Everything worth knowing of lorabench on a card that is there for minutes: bash benchmarks/gpu_check.sh [PART ...]
# Needs torch, transformers and peft on the machine, no network, and beside them only wheels that may be carried to it:
# pydantic, pydantic_core, annotated_types, typing_inspection and platformdirs (2.8 MB). The part `run` needs rensa and
# plotly too (10 MB), and matplotlib, pandas, pyarrow and scipy, or says that it was skipped. WHEELS names a folder that they
# were unpacked into. Without a GPU: exit code 2, or --device cpu --tiny.
set -u
cd "$(dirname "$0")/.."
export PYTHONPATH="src:benchmarks${WHEELS:+:$WHEELS}${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 WANDB_MODE=disabled
exec "${PYTHON:-python3}" benchmarks/gpu_check.py "$@"

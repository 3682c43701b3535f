"""What is shipped for clusters, with commands of SLURM and Ray that only write down how they were called."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

SCRIPTS = Path(__file__).parents[2] / "scripts"
ADDRESS = "--address=node1:20042"


@pytest.fixture
def fakes(tmp_path: Path) -> dict[str, str]:
    """An environment of a job on two nodes; every command is written to `calls`."""
    commands = {
        "path/scontrol": "printf 'node1\\nnode2\\n'",
        "path/srun": "sleep 0.1",
        "venv/bin/ray": "",
        "venv/bin/lorabench": 'trap "echo checkpoint >> $CALLS; exit 1" TERM; [ -z "${WAITS:-}" ] || '
        "{ touch $CALLS.ready; while true; do sleep 0.05; done; }",
    }
    for name, does in commands.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/usr/bin/env bash\necho "{path.name} $*" >> "$CALLS"\n{does}\n')
        path.chmod(0o755)
    variables = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "42", "SLURM_JOB_NUM_NODES": "2"}
    variables |= {
        "SLURM_CPUS_PER_TASK": "8",
        "LORABENCH_VENV": str(tmp_path / "venv"),
        "CALLS": str(tmp_path / "calls"),
    }
    return os.environ | variables | {"PATH": f"{tmp_path / 'path'}:{os.environ['PATH']}"}


def slurm(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPTS / "slurm.sh"), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_slurm_job_makes_a_cluster_of_its_nodes_and_runs_on_it(fakes: dict[str, str], tmp_path: Path) -> None:
    assert slurm("full.yaml", "--tracker", "none", env=fakes).returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[1] == "ray start --head --node-ip-address=node1 --port=20042 --num-cpus=8 --include-dashboard=false"
    assert "lorabench run full.yaml --tracker none --executor ray --address node1:20042" in calls
    (started,) = (call for call in calls if call.startswith("srun"))
    assert started.startswith("srun --nodes=1 --ntasks=1 --exclude=node1 ")
    assert started.endswith(f"/ray start {ADDRESS} --num-cpus=8 --block")
    assert calls[-1] == "ray stop --force"


def test_the_signal_before_the_time_is_over_reaches_lorabench(fakes: dict[str, str], tmp_path: Path) -> None:
    job = subprocess.Popen(["bash", str(SCRIPTS / "slurm.sh"), "full.yaml"], env=fakes | {"WAITS": "yes"})
    while not (tmp_path / "calls.ready").exists():
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == 1
    assert (tmp_path / "calls").read_text().splitlines()[-2:] == ["checkpoint", "ray stop --force"]


def test_what_is_missing_is_said(fakes: dict[str, str], tmp_path: Path) -> None:
    outside = {name: value for name, value in fakes.items() if name != "SLURM_JOB_NODELIST"}
    assert "this is no SLURM job" in slurm("full.yaml", env=outside).stderr
    without = slurm("full.yaml", env=fakes | {"LORABENCH_VENV": str(tmp_path)})
    assert (without.returncode, "has no ray; install lorabench[ray]" in without.stderr) == (2, True)
    assert slurm(env=fakes).returncode == 2


def test_the_values_for_kubernetes_keep_results_and_give_each_worker_a_gpu() -> None:
    values = yaml.safe_load((SCRIPTS / "ray_values.yaml").read_text(encoding="utf-8"))
    assert values["head"]["rayStartParams"] == {"num-cpus": "0"}
    for part in ("head", "worker"):
        mounted = {mount["name"] for mount in values[part]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in values[part]["volumes"]}
    worker = values["worker"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert 1 <= worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]

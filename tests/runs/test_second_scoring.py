"""Scoring test again is whole or not at all: no kill leaves a record beside a file that is not its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lorabench.records.schema import RunRecord
from lorabench.records.store import RecordStore


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_while_test_is_scored_again(finished: RunRecord, tmp_path: Path) -> None:
    """SIGKILL just before each change of a file, one after the other, until the command ends by itself."""
    out = tmp_path / "out"
    code = f"""
import shutil
from pathlib import Path
from lorabench.cli.views.view import make_view
from lorabench.records.store import RecordStore
from lorabench.runs.second_scoring import score_test_again
from tests.runs.killing import kill_at
out, run_id = Path({str(out)!r}), {finished.run_id!r}
store, seen, again = RecordStore(out), [], lambda: score_test_again(run_id, out, again=True, view=make_view())
for change in range(2, 60, 3):
    killed = kill_at(change, again)
    record = store.get(run_id)
    assert store.damaged_files(record) == [], change
    assert store.documents(record, "test", record.test).base_nll is not None
    seen.append(record.num_test_scorings)
    if not killed:
        break
print(*seen)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = [*map(int, done.stdout.split())]
    assert seen[0] == 1
    assert len(seen) > 2
    record = RecordStore(out).get(finished.run_id)
    assert record.num_test_scorings == seen[-1]
    assert record.test == finished.test
    assert record.test_documents == f"documents/test@{seen[-1]}.parquet"
    assert [name for name in record.files if name.startswith("documents/test")] == [record.test_documents]
    documents = RecordStore(out).run_dir(finished.run_id) / "documents"
    assert [path.name for path in documents.glob("test*")] == [f"test@{seen[-1]}.parquet"]

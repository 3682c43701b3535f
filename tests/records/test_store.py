"""Reading records again and again, as the table does after every run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorabench.records.schema import RunRecord
from lorabench.records.store import RECORD_NAME, RecordStore
from tests.report.synthetic import SyntheticResults


def test_an_unchanged_record_is_read_once_and_a_changed_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SyntheticResults(tmp_path, num_documents=4).grid(ranks=[8, 16])
    store = RecordStore(tmp_path)
    read: list[str] = []
    original = RecordStore.read

    def counted(self: RecordStore, run_id: str) -> RunRecord | None:
        read.append(run_id)
        return original(self, run_id)

    monkeypatch.setattr(RecordStore, "read", counted)

    first, _ = store.read_all()
    second, _ = store.read_all()
    assert sorted(read) == store.run_ids()
    assert second == first

    one, other = store.run_ids()
    path = store.run_dir(one) / RECORD_NAME
    values = json.loads(path.read_bytes())
    path.write_text(json.dumps(values | {"status": "failed"}))
    records, damaged = store.read_all()
    assert [record.run_id for record in records] == [other]
    assert [error.path for error in damaged] == [path]

    path.unlink()
    assert [record.run_id for record in store.read_all()[0]] == [other]

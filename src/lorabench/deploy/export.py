"""Takes a run away: writes one of its forms, with its model card, as other programs load it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from lorabench.core.errors import InputError
from lorabench.core.progress import View
from lorabench.core.storage import new_folder, sha256_file
from lorabench.deploy.card import model_card
from lorabench.deploy.form import make_form
from lorabench.deploy.served import check_served, require_served
from lorabench.deploy.subject import Subject
from lorabench.deploy.workshop import Workshop
from lorabench.records.store import RecordStore

CARD = "README.md"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    files: dict[str, int]
    """Bytes by name."""
    notes: tuple[str, ...]
    """On how the form was made."""
    checked: str | None
    """What was compared with the program that serves it, where that was asked for."""


def export_run(run_id: str, output_dir: Path, *, form: str, to: Path, check: bool = False, view: View) -> Exported:
    """Write a form of a finished run to the new folder `to`, whole or not at all; with `check` as `check_served`.

    Raises InputError for a form that there is not or that cannot be made of the run, and where `to` holds anything;
    DiskError for damaged files.
    """
    wanted = make_form(form)
    if check:
        require_served(wanted.name)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"--to {to}: something lies there already; give the name of a new folder")
    view.phase("reading the run")
    subject = Subject.of(run_id, output_dir, view.progress)
    wanted.check(subject)
    view.phase(f"writing {wanted.name}")
    with new_folder(to) as folder:
        with tempfile.TemporaryDirectory(dir=to.parent, prefix=".workshop-") as temporary:
            notes = wanted.write(Workshop(subject, Path(temporary)), folder)
        card = model_card(subject, wanted, RecordStore(output_dir), notes)
        (folder / CARD).write_text(card, encoding="utf-8")
        hashes = {path.relative_to(folder).as_posix(): sha256_file(path) for path in _files(folder)}
        lines = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
        (folder / "SHA256SUMS").write_text(lines, encoding="utf-8")
    checked = None
    if check:
        view.phase("asking the program that serves it")
        checked = check_served(subject, to)
    return Exported(to, {path.name: path.stat().st_size for path in _files(to)}, tuple(notes), checked)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())

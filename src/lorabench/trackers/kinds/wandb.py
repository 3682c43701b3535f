"""Weights & Biases: online with a key or a login, otherwise offline for a later `wandb sync`; it never asks.

One W&B run per attempt: offline, W&B ignores `resume=`, and two folders with one id overwrite each other on sync. So
every attempt has an id of its own; all seeds and attempts of one configuration are a group. No code, git state, command
line, host or user name is sent; the console is left alone.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lorabench.core.canonical import fingerprint
from lorabench.records.schema import RunRecord, Sample
from lorabench.trackers.background import plain_reason
from lorabench.trackers.base import (
    TrackedReport,
    TrackedRun,
    TrackerKind,
    TrackerOptions,
    Values,
    artifact_name,
    clean_name,
    run_config,
    run_tags,
)
from lorabench.trackers.summary import final_facts, final_values

Mode = Literal["online", "offline", "disabled"]

INIT_SECONDS = 20.0
"""How long the server may take to answer before tracking goes on offline; the run does not wait for it."""
FINISH_SECONDS = 30.0
"""How long an upload may lag behind at the end of a run; what is left can be uploaded with `wandb sync`."""
SYSTEM_METRICS_SECONDS = 5.0
"""W&B's own 15 seconds would show little of a run of a minute."""
SAMPLE_COLUMNS = ("document", "prompt", "base model", "fine-tuned")


class WandbTracker:
    """See Tracker; raises whatever W&B raises. Writes under `output_dir/wandb`."""

    def __init__(
        self,
        output_dir: Path,
        project: str,
        *,
        upload_adapters: bool = False,
        report: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self._output_dir = output_dir
        self._project = project
        self._upload_adapters = upload_adapters
        self._report = report
        self._mode: Mode | None = None
        self._run: Any = None
        self._tracked: TrackedRun | None = None

    def start(self, run: TrackedRun) -> None:
        """Begin a W&B run; where the server cannot be used, go on offline and report it once."""
        if self._run is not None:
            self.finish(None, "failed")
        self._run = self._begin(
            id=attempt_id(run),
            name=clean_name(run.title, 128),
            group=clean_name(run.group, 128),
            job_type=clean_name(run.experiment, 64),
            tags=list(run_tags(run)),
            config=run_config(run),
        )
        if self._run is None:
            return
        self._tracked = run
        for prefix in ("train", "validation"):
            self._run.define_metric(f"{prefix}/step", hidden=True)
            self._run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/step")

    def log_step(self, values: Values) -> None:
        """One step on the axis `train/step`."""
        if self._run is not None:
            self._run.log({f"train/{name.removeprefix('train_')}": value for name, value in values.items()})

    def log_evaluation(self, values: Values) -> None:
        """One evaluation on the axis `validation/step`."""
        if self._run is not None:
            self._run.log({f"validation/{name.removeprefix('validation_')}": value for name, value in values.items()})

    def log_samples(self, samples: Sequence[Sample]) -> None:
        """The continuations, as a table."""
        if self._run is None or not samples:
            return
        import wandb

        rows = [
            [sample.document_hash[:12], sample.prompt, sample.base_continuation or "", sample.continuation]
            for sample in samples
        ]
        self._run.log({"samples": wandb.Table(columns=list(SAMPLE_COLUMNS), data=rows)})

    def finish(self, record: RunRecord | None, status: str) -> None:
        """End the W&B run with the final figures, the status as a tag, and the adapter where that is wanted."""
        run, tracked = self._run, self._tracked
        self._run = self._tracked = None
        if run is None or tracked is None:
            return
        if record is not None:
            run.config.update(final_facts(record), allow_val_change=True)
            run.summary.update(final_values(record))
        run.tags = run_tags(tracked, str(status))
        is_good = str(status) in {"completed", "stopped_early"}
        if self._upload_adapters and is_good and (tracked.folder / "adapter").is_dir():
            self._log_adapter(run, tracked)
        self._end(run, exit_code=0 if is_good else 1)

    def log_report(self, report: TrackedReport) -> None:
        """The report's files as an artifact, the output of a W&B run of its own."""
        run = self._begin(
            id=f"report-{secrets.token_hex(8)}",
            name=clean_name(report.title, 128),
            group="report",
            job_type=clean_name(report.experiment, 64),
            tags=[clean_name(report.experiment, 64), "report"],
        )
        if run is None:
            return
        self._log_artifact(run, artifact_name(report), "report", report.files)
        self._end(run, exit_code=0)

    def _end(self, run: Any, exit_code: int) -> None:
        folder = Path(run.dir).parent
        try:
            run.finish(exit_code=exit_code)
        except TimeoutError:
            self._mode = "offline"
            self._report(
                f"W&B has not taken everything {FINISH_SECONDS:.0f} seconds after the run; tracking goes on offline, "
                f"upload the rest later with: wandb sync {folder}"
            )

    def _begin(self, **what: Any) -> Any:
        """A W&B run, offline where the server cannot be used, which is reported once; None where W&B is disabled."""
        quieten()
        self._mode = self._mode or choose_mode(self._report)
        if self._mode == "disabled":
            return None
        try:
            return self._init(self._mode, what)
        except Exception as error:
            if self._mode != "online":
                raise
            self._mode = "offline"
            self._report(
                f"W&B cannot be used online ({_online_problem(error)}); tracking goes on offline, "
                f"upload it later with: wandb sync {self._output_dir / 'wandb'}/offline-run-*"
            )
            return self._init("offline", {**what, "id": f"{what['id']}-offline"})  # W&B holds on to the first id

    def _init(self, mode: Mode, what: Mapping[str, Any]) -> Any:
        import wandb

        settings = wandb.Settings(
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
            init_timeout=INIT_SECONDS,
            quiet=True,
            save_code=False,
            silent=True,
            x_disable_meta=True,
            x_save_requirements=False,
            x_stats_sampling_interval=SYSTEM_METRICS_SECONDS,
        )
        self._output_dir.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or re.sub(r"[/\\#?%:]", "-", clean_name(self._project, 128)),
            dir=str(self._output_dir.absolute()),
            mode=mode,
            reinit="create_new",
            settings=settings,
            **what,
        )

    def _log_adapter(self, run: Any, tracked: TrackedRun) -> None:
        files = [
            path
            for path in sorted((tracked.folder / "adapter").iterdir())
            if path.suffix in {".safetensors", ".json"} and path.is_file() and not path.is_symlink()
        ]
        name = clean_name(f"adapter-{tracked.run_id}", 128).replace("…", "-")
        self._log_artifact(run, name, "lora-adapter", files)

    def _log_artifact(self, run: Any, name: str, kind: str, files: Sequence[Path]) -> None:
        """Copies in the W&B run's own folder wait there to be uploaded: the files may be written anew meanwhile."""
        import wandb

        artifact = wandb.Artifact(name, type=kind)
        folder = Path(run.dir).parent / "artifact"
        folder.mkdir(exist_ok=True)
        for path in files:
            copy = shutil.copyfile(path, folder / path.name)
            artifact.add_file(str(copy), name=path.name, skip_cache=True, policy="immutable")
        run.log_artifact(artifact)


def _online_problem(error: Exception) -> str:
    reason = plain_reason(error)
    return "its server does not answer" if reason in {"CommError", "TimeoutError"} else reason


def quieten() -> None:
    """Before W&B is first used in this process: nothing on the console, no error reports to its makers."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.setup(wandb.Settings(silent=True, quiet=True))


def attempt_id(run: TrackedRun) -> str:
    """An id that no other attempt has, not even one of the same run on another machine."""
    return f"{fingerprint(run.run_id)[:10]}-{run.attempt}-{secrets.token_hex(3)}"


def choose_mode(report: Callable[[str], None]) -> Mode:
    """`online`, `offline` or `disabled`: WANDB_MODE if it is set, else online where there is a key or a login."""
    mode = os.environ.get("WANDB_MODE", "").strip().lower()
    if mode == "disabled":
        return "disabled"
    if mode in {"offline", "dryrun"}:
        return "offline"
    if mode not in {"", "online", "run"}:
        report(f"WANDB_MODE={mode!r} is not a mode of W&B; tracking is offline")
        return "offline"
    if has_credentials():
        return "online"
    if mode:
        report(f"WANDB_MODE is {mode}, but W&B has no key and no login here; tracking is offline")
    return "offline"


def has_credentials() -> bool:
    """Whether W&B would find a key, an identity token or a login here, without asking for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb
    from wandb.sdk.lib import wbauth

    settings = wandb.setup().settings
    if settings.api_key or settings.identity_token_file:
        return True
    try:
        return bool(wbauth.read_netrc_auth(host=settings.base_url))
    except Exception:
        return True


def _make(output_dir: Path, options: TrackerOptions, report: Callable[[str], None]) -> WandbTracker:
    return WandbTracker(output_dir, options.project, upload_adapters=options.upload_adapters, report=report)


TRACKER = TrackerKind(_make)

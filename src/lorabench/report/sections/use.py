"""How to use what is recommended: where it lies, Python that loads and runs it, the commands that take it away."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorabench.analysis.recommendations import recommended_run
from lorabench.core.errors import DiskError
from lorabench.records.schema import RunRecord
from lorabench.report.markdown import code_block, escape
from lorabench.report.picture import Picture
from lorabench.report.section import Chapter, Detail, PagePart, References, Report, Section, SummaryPart

PROMPT = "Once upon a time"
_CONFIGURATION = "adapter/adapter_config.json"
_PAGE = """
<h2>How to use it</h2>
{% for use in uses %}<details{% if loop.first %} open{% endif %}>
  <summary><bdi>{{ use.corpus }}</bdi> · <bdi>{{ use.label }}</bdi></summary>
  <div class="stack"><p><code>{{ use.path }}</code></p>
  {% if use.python %}<pre><code>{{ use.python }}</code></pre>{% endif %}
  <pre><code>{{ use.commands }}</code></pre>
  <p class="note">{{ use.base }}.</p></div></details>
{% endfor %}
"""


@dataclass(frozen=True)
class Use:
    """How the recommended run of a corpus is used."""

    corpus: str
    label: str
    path: str
    """Of the adapter."""
    python: str
    """Loads it and writes a text; empty where it is no adapter, or its files are not those of the record."""
    commands: str
    base: str
    """What the adapter belongs to, in a sentence."""


def uses(report: Report) -> list[Use]:
    """Of each corpus for which something is recommended."""
    by_id = {record.run_id: record for record in report.records}
    found = []
    for choice in report.findings.recommendations:
        run_id = recommended_run(choice, report.findings, report.records)
        if run_id is not None and run_id in by_id:
            label = report.findings.candidate(choice.candidates[0]).label
            found.append(_use(str(choice.corpus), label, by_id[run_id], report))
    return found


def _use(corpus: str, label: str, record: RunRecord, report: Report) -> Use:
    path = str(report.store.run_dir(record.run_id) / "adapter")
    is_adapter = _CONFIGURATION in record.files
    name = record.run_id.rpartition("_")[2]
    folder = "" if report.output_dir == "outputs" else f" --output-dir {report.output_dir}"
    form = "" if is_adapter else " --form merged"
    commands = [
        f"lorabench export {name}{form} --to my-{'adapter' if is_adapter else 'model'}{folder}",
        f"lorabench deploy {name}{folder}",
    ]
    return Use(corpus, label, path, _python(path, record, report), "\n".join(commands), _base(record))


def _python(path: str, record: RunRecord, report: Report) -> str:
    try:
        configuration = json.loads(report.store.read_file(record, _CONFIGURATION))
    except DiskError:
        return ""
    has_tokenizer = "adapter/tokenizer_config.json" in record.files
    tokenizer = path if has_tokenizer else configuration.get("base_model_name_or_path")
    loaded = f"AutoPeftModelForCausalLM.from_pretrained({path!r}), AutoTokenizer.from_pretrained({tokenizer!r})"
    asked = f'tokenizer({PROMPT!r}, return_tensors="pt")'
    return "\n".join(
        [
            "from peft import AutoPeftModelForCausalLM; from transformers import AutoTokenizer",
            f"model, tokenizer = {loaded}",
            f"print(tokenizer.decode(model.generate(**{asked}, max_new_tokens=40)[0]))",
        ]
    )


def _base(record: RunRecord) -> str:
    model = record.model
    if model is None:
        return f"It belongs to the base {record.spec.model}"
    note = f": {model.weights_note.rstrip('.')}" if model.weights_note else ""
    licence = f"; licence {model.licence}" if model.licence else ""
    return f"It belongs to the base {model.name}{note}{licence}"


def _values(report: Report, picture: Picture | None) -> Mapping[str, Any] | None:
    found = uses(report)
    return {"uses": found} if found else None


def _summary(report: Report, reference: References) -> Sequence[str]:
    blocks: list[str] = []
    for place, use in enumerate(uses(report)):
        lines = [
            f"**To use it for {escape(use.corpus)}** (`{use.path}`), in Python and as commands. {escape(use.base)}.",
            *([code_block(use.python)] if use.python else []),
            code_block(use.commands),
        ]
        blocks += lines if place == 0 else map(Detail, lines)
    return blocks


SECTION = Section(
    "use",
    125,
    page=PagePart(_PAGE, "How to use it", _values),
    summary=SummaryPart(Chapter.BEST, _summary),
)

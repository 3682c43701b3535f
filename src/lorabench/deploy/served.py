"""Checks an exported folder in the program that will serve it: its greedy answers must be those of lorabench."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from lorabench.core.errors import InputError, MissingExtraError, RunError
from lorabench.core.machine import num_cores
from lorabench.deploy.engine import ENGINES, Source, write_greedily
from lorabench.deploy.engines.transformers import REFERENCE
from lorabench.deploy.gguf.llama import require_llama
from lorabench.deploy.subject import Subject
from lorabench.methods.saved import CONFIGURATION
from lorabench.models.shape import read_model_shape

PROMPTS = ("The first thing to know about", "Once upon a time there was", "In 1, 2, 3 steps:\n")
QUESTION = "What is the capital of France?"
"""Asked where the tokenizer has a chat template."""
MAX_NEW_TOKENS = 24
_LOADED = ("adapter", "merged:bf16", "merged:fp32")
"""Forms that Transformers and PEFT load."""
_OF_THE_SERVER = ("fastapi", "uvicorn", "sse_starlette", "starlette_context", "pydantic_settings")
START_SECONDS = 180.0
"""A server that does not answer by then is given up."""


@dataclass(frozen=True)
class Asked:
    """A prompt, as a program is given it and as token ids."""

    text: str
    is_chat: bool
    ids: list[int]
    max_new_tokens: int


def require_served(form: str) -> None:
    """Raises InputError for a form that neither a server nor Transformers is asked about here."""
    if form not in _LOADED and not form.startswith("gguf:"):
        raise InputError(f"--check: no other program is asked about {form}; accepted: {', '.join(_LOADED)}, gguf:TYPE")


def check_served(subject: Subject, folder: Path) -> str:
    """Ask the program that loads the folder, and lorabench; returns a sentence on what was compared.

    GGUF files are served by llama-cpp-python on the loopback interface, other folders loaded by Transformers and PEFT
    in float32. Raises RunError where an answer differs, MissingExtraError where the server is not installed.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(subject.adapter)
    asked = _asked(tokenizer, read_model_shape(subject.location.folder).max_context_length)
    if (file := next(folder.glob("*.gguf"), None)) is not None:
        program, engine = "llama-cpp-python's server", "llama"
        theirs = _answers_of_server(file, asked)
    else:
        program, engine = "Transformers", "transformers"
        theirs = _answers_of_transformers(subject, folder, tokenizer, asked)
    source = Source(
        form=REFERENCE,
        engine=engine,
        folder=folder,
        base_folder=subject.location.folder,
        context_length=subject.record.spec.training.context_length,
        threads=num_cores(),
    )
    runtime = ENGINES.get(engine).runtime(source)
    for one, answer in zip(asked, theirs, strict=True):
        written = write_greedily(
            runtime, one.ids, max_new_tokens=one.max_new_tokens, end_ids=frozenset(tokenizer.all_special_ids)
        )
        ours = _continuation(tokenizer, one.ids, written)
        if answer != ours:
            raise RunError(f"--check: to {one.text!r} {program} answers {answer!r}, lorabench {ours!r}")
    return f"{program} gives lorabench's answers to {len(asked)} prompts, word for word, {MAX_NEW_TOKENS} tokens each"


def _asked(tokenizer: Any, max_context_length: int) -> list[Asked]:
    """What leaves room for an answer. Raises InputError where nothing does."""
    prompts = [(text, False, list(tokenizer(text)["input_ids"])) for text in PROMPTS]
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": QUESTION}]
        rendered = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True, return_dict=True)
        prompts.append((QUESTION, True, list(rendered["input_ids"])))
    asked = [
        Asked(text, is_chat, ids, min(MAX_NEW_TOKENS, max_context_length - len(ids)))
        for text, is_chat, ids in prompts
        if len(ids) < max_context_length
    ]
    if not asked:
        raise InputError(f"--check: the model reads {max_context_length} tokens, which leaves no room for a question")
    return asked


def _continuation(tokenizer: Any, prompt: Sequence[int], written: Sequence[int]) -> str:
    """As text: decoded behind its prompt, since some tokenizers leave out a space at a beginning."""
    before = tokenizer.decode(list(prompt), skip_special_tokens=True)
    text: str = tokenizer.decode([*prompt, *written], skip_special_tokens=True)[len(before) :]
    return _whole(text)


def _whole(text: str) -> str:
    """Without the beginning of a character at the end, and without white space around it."""
    return text.rstrip("\ufffd").strip()


def _answers_of_transformers(subject: Subject, folder: Path, tokenizer: Any, asked: Sequence[Asked]) -> list[str]:
    """By what the model card says, and nothing of ours."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    is_adapter = (folder / CONFIGURATION).is_file()
    loaded = subject.location.folder if is_adapter else folder
    model: Any = AutoModelForCausalLM.from_pretrained(loaded, dtype=torch.float32)
    if is_adapter:
        model = PeftModel.from_pretrained(model, str(folder))
    model.eval()
    answers = []
    for one in asked:
        ids = torch.tensor([one.ids])
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=one.max_new_tokens,
            eos_token_id=tokenizer.all_special_ids,
            pad_token_id=0,
        )[0, len(one.ids) :].tolist()
        while written and written[-1] in tokenizer.all_special_ids:
            written.pop()
        answers.append(_continuation(tokenizer, one.ids, written))
    return answers


def _answers_of_server(file: Path, asked: Sequence[Asked]) -> list[str]:
    """Of llama-cpp-python's server, through the interface of OpenAI's."""
    require_llama()
    if not all(map(find_spec, _OF_THE_SERVER)):
        raise MissingExtraError("llama-cpp-python's server", "gguf")
    with _server(file) as address:
        answers = []
        for one in asked:
            settings = {"max_tokens": one.max_new_tokens, "temperature": 0.0, "repeat_penalty": 1.0}
            if one.is_chat:
                turns = [{"role": "user", "content": one.text}]
                answer = _post(f"{address}/v1/chat/completions", {"messages": turns, **settings})
                answers.append(_whole(answer["choices"][0]["message"]["content"]))
            else:
                answer = _post(f"{address}/v1/completions", {"prompt": one.text, **settings})
                answers.append(_whole(answer["choices"][0]["text"]))
    return answers


@contextlib.contextmanager
def _server(file: Path) -> Iterator[str]:
    """The address of a server of the file, which ends with the block. Raises RunError where it does not start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(file), "--logits_all", "false"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_threads", str(num_cores())]
    command += ["--n_threads_batch", str(num_cores()), "--flash_attn", "true"]  # as llama.cpp does by default
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            _await(address, process, log)
            yield address
        finally:
            process.kill()
            process.wait()


def _await(address: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with _open(f"{address}/v1/models"):
                return
        except OSError:
            time.sleep(0.1)
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    said = f": {lines[-1][:300]}" if lines else ""
    raise RunError(f"--check: llama-cpp-python's server does not answer{said}")


def _post(address: str, values: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(address, json.dumps(values).encode(), {"Content-Type": "application/json"})
    try:
        with _open(request) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")[:300]
        raise RunError(f"--check: llama-cpp-python's server refuses {address}: {said}") from None
    return answer


def _open(request: Any) -> Any:
    """Without a proxy: the server is on this machine."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=START_SECONDS)

"""The Modelfile has the model's chat template in Ollama's language, or says that it has none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorabench.corpora.documents import Turn
from lorabench.deploy.ollama import modelfile, translate
from lorabench.tokens.templates import ChatTemplate

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe of help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITHOUT_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}"
    "{% for message in messages %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') }}"
    "{{ '\n' + message['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for message in messages %}{{ '<|h|>' + message['role'] + '<|/h|>\n\n' }}"
    "{{ message['content'] | trim + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|h|>assistant<|/h|>\n\n' }}{% endif %}"
)
NUMBERED = "{% for message in messages %}{{ loop.index }}. {{ message['content'] }}\n{% endfor %}"


def template(source: str) -> ChatTemplate:
    return ChatTemplate("ours", source, is_own=True, tokens={"bos_token": "<s>", "eos_token": "</s>"})


@pytest.mark.parametrize("source", [CHATML, WITHOUT_SYSTEM, HEADERS])
def test_it_writes_what_the_model_s_own_writes(source: str) -> None:
    own = template(source)
    turns = translate(own, "<s>")
    assert turns is not None
    talk = [Turn("user", "Who?"), Turn("assistant", "{me}"), Turn("user", "When?\nWhere?")]
    talks = [talk, talk[:1], *([[Turn("system", "Be brief."), *talk]] if own.takes_system else [])]
    for one in talks:
        assert turns.write(one) == own.render_prompt(one).removeprefix("<s>")
    assert ('"system"' in turns.go()) is own.takes_system


def test_what_is_no_template_by_roles_is_not_translated(tmp_path: Path) -> None:
    assert translate(template(NUMBERED), "<s>") is None
    text = written(tmp_path, chat_template=NUMBERED)
    assert "TEMPLATE" not in text
    assert "# The model's chat template has no translation" in text


def test_the_modelfile(tmp_path: Path) -> None:
    settings = {"temperature": 0.2, "top_p": 0.9, "do_sample": True}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    assert written(tmp_path, chat_template=CHATML).splitlines() == [
        "FROM ./ours.gguf",
        "PARAMETER num_ctx 64",
        "PARAMETER temperature 0.2",
        "PARAMETER top_p 0.9",
        "PARAMETER repeat_penalty 1",
        'TEMPLATE """{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system',
        "{{ .Content }}<|im_end|>",
        '{{ else if eq .Role "user" }}<|im_start|>user',
        "{{ .Content }}<|im_end|>",
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant',
        "{{ .Content }}<|im_end|>",
        "{{ end }}{{ end }}<|im_start|>assistant",
        '"""',
        'SYSTEM """Be of help."""',
        'PARAMETER stop "<|im_end|>"',
    ]
    assert 'TEMPLATE "{{ .Prompt }}"' in written(tmp_path)


def written(folder: Path, **settings: str) -> str:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 64}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>", **settings}))
    return modelfile("ours.gguf", folder)

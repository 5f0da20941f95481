"""A model folder that is broken or hostile is refused in one line, at once, and runs nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.tiny_policies import load_tiny

from reasonrl import Message, Problem
from reasonrl.data.render import PromptRenderer
from reasonrl.errors import RecipeError
from reasonrl.testing.models import tiny_model_folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("hostile") / "model")


def change(name: str, **values: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        (folder / name).write_text(json.dumps(data | values))

    return apply


def text(name: str, content: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_text(content)

    return apply


def fifo(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return apply


INDEX = "model.safetensors.index.json"
HOSTILE: Mapping[str, Callable[[Path], None]] = {
    "a billion layers": change("config.json", num_hidden_layers=10**9),
    "layers of a text": change("config.json", num_hidden_layers="2"),
    "no layers": change("config.json", num_hidden_layers=0),
    "negative layers": change("config.json", num_hidden_layers=-1),
    "layers true": change("config.json", num_hidden_layers=True),
    "no heads": change("config.json", num_attention_heads=0),
    "a huge vocabulary": change("config.json", vocab_size=10**12),
    "a huge width": change("config.json", hidden_size=10**9),
    "nested layers": change("config.json", text_config={"num_hidden_layers": 10**9}),
    "deep config": text("config.json", '{"a":' * 100_000),
    "digits": text("config.json", '{"vocab_size": ' + "9" * 9000 + "}"),
    "a list": text("config.json", "[]"),
    "config not UTF-8": lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe{}"),
    "code": change("config.json", model_type="odd", auto_map={"AutoConfig": "evil.Config"}),
    "no such quantization": change("config.json", quantization_config={"quant_method": "\x1b[31m\nno"}),
    "quantization of a text": change("config.json", quantization_config="int4"),
    "generation config: deep": text("generation_config.json", "[" * 100_000),
    "generation config: EOS of a text": change("generation_config.json", eos_token_id="end"),
    "generation config: EOS negative": change("generation_config.json", eos_token_id=[-1]),
    "generation config: EOS nested": change("generation_config.json", eos_token_id=[[256]]),
    "generation config: FIFO": fifo("generation_config.json"),
    "index: no map": text(INDEX, "{}"),
    "index: outside": change(INDEX, metadata={}, weight_map={"x": "../../../../etc/passwd"}),
    "index: deep": text(INDEX, "[" * 100_000),
    "tokenizer config: deep": text("tokenizer_config.json", '{"a":' * 100_000),
    "tokenizer: deep": text("tokenizer.json", "[" * 100_000),
    "tokenizer: FIFO": fifo("tokenizer.json"),
    "weights: FIFO": fifo("model.safetensors"),
    "weights of torch: FIFO": fifo("pytorch_model.bin"),
    "chat template: FIFO": fifo("chat_template.jinja"),
    "merges: FIFO": fifo("merges.txt"),
    "tokenizer: code": change(
        "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}, tokenizer_class="T"
    ),
}
HARMLESS = {"no such quantization", "index: no map", "index: outside", "tokenizer: code"}
"""The folder may load: what is wrong in it is never read."""


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_folder_is_one_line(kind: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('the code of a model ran')")
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    if kind.startswith("index"):
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    HOSTILE[kind](folder)
    try:
        load_tiny(folder)
    except RecipeError as err:
        message = str(err)
    else:
        message = f"{folder} is loaded" if kind in HARMLESS else ""
    assert str(folder) in message
    assert message.isprintable()
    assert len(message) < 1000


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("kernel", ["somebody/evil-attention", "kernels-community/flash-attn2", "flash_attention_2"])
def test_a_kernel_that_a_config_names_is_not_loaded(
    key: str, kernel: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "model")
    change("config.json", **{key: kernel})(tmp_path / "model")
    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", _refuse, raising=False)
    monkeypatch.setattr("transformers.integrations.hub_kernels.load_and_register_attn_kernel", _refuse, raising=False)
    model = load_tiny(tmp_path / "model").model
    assert model.config._attn_implementation in ("sdpa", "eager")


def _refuse(*args: object, **options: object) -> None:
    raise AssertionError("a kernel was asked for")


TEMPLATES = {
    "attributes": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
    "a syntax error": "{% for",
    "an error": "{{ raise_exception('line one\\nline \x1b[31mtwo') }}",
    "division": "{{ 1 / 0 }}",
    "many": "{{ range(10 ** 12) | list }}",
    "an unknown filter": "{{ messages | nothing }}",
    "recursion": "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_hostile_chat_template_is_one_line(kind: str, whole: Path) -> None:
    tokenizer = load_tiny(whole).tokenizer
    tokenizer.chat_template = TEMPLATES[kind]
    renderer = PromptRenderer(tokenizer, rows=258)
    problem = Problem(id="p", prompt=(Message(role="user", content="hi"),))
    with pytest.raises(RecipeError, match=r"problem 'p': .* cannot render it") as caught:
        renderer.render(problem)
    assert str(caught.value).isprintable()

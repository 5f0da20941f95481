"""`reasonrl export`: what it writes loads elsewhere and computes the same."""

from __future__ import annotations

import json
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import gguf
import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from support.hub_stub import Hub, hub
from support.small_recipes import cli, recipe
from typer.testing import CliRunner, Result

from reasonrl.cli.app import app
from reasonrl.export.gguf_tokenizer import find_split
from reasonrl.rundir.manifest import write_manifest
from reasonrl.testing.models import tiny_model_folder

IDS = torch.arange(1, 60).reshape(1, -1)
TOKEN = "hf_" + "abcdefgh" * 4


def run_export(*arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def logits(folder: Path, **options: Any) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **{"dtype": torch.float32, **options})
    with torch.no_grad():
        return model(IDS).logits


def dress(run: Path, model: Path, folder: Path) -> Path:
    """A copy of a finished run whose one checkpoint holds ``model``."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints"))
    shutil.copytree(model, folder / "checkpoints" / "step_000002")
    write_manifest(folder / "checkpoints" / "step_000002")
    return folder


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps of LoRA, both saved, evaluated before and after."""
    folder = tmp_path_factory.mktemp("exported")
    path = recipe(folder, tiny_model, checkpoint={"every": 1})
    done = cli("train", path, "model.lora={rank: 2}", "--run-dir", folder / "run")
    assert done.exit_code == 0, done.output
    with (folder / "run" / "recipe.yaml").open("a") as file:
        file.write(f"# ``` {TOKEN}\n")
    return folder / "run"


def test_a_merged_model_is_the_checkpoints_model_without_its_state(run: Path, tmp_path: Path) -> None:
    done = run_export(run, "--to", tmp_path / "m")
    saved = run / "checkpoints" / "step_000002"
    assert torch.equal(logits(tmp_path / "m"), logits(saved))
    left_out = {"adapter", "manifest.json", "optimizer.safetensors", "trainable.safetensors", "trainer_state.json"}
    assert {p.name for p in saved.iterdir()} - left_out | {"README.md"} == {p.name for p in (tmp_path / "m").iterdir()}
    assert f"folder: {tmp_path / 'm'}" in done.stdout
    assert run_export(run, "--to", tmp_path / "m", code=2).stderr.startswith(f"error: {tmp_path / 'm'} already exists")


def test_the_folder_is_in_the_run_unless_told_and_brings_its_recipe(run: Path) -> None:
    run_export(run, "--dtype", "bfloat16", "--step", 1)
    folder = run / "export" / "merged"
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    saved = logits(run / "checkpoints" / "step_000001")
    torch.testing.assert_close(logits(folder), saved, atol=0.05, rtol=0.05)
    done = cli("generate", folder)
    assert done.exit_code == 0, done.output
    shutil.rmtree(run / "export")


def test_an_adapter_on_its_base_is_the_merged_model(run: Path, tiny_model: Path, tmp_path: Path) -> None:
    import peft

    run_export(run, "--format", "adapter", "--to", tmp_path / "a")
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        adapted = peft.PeftModel.from_pretrained(base, tmp_path / "a")(IDS).logits
    torch.testing.assert_close(adapted, logits(run / "checkpoints" / "step_000002"), atol=1e-5, rtol=1e-4)
    assert (tmp_path / "a" / "tokenizer.json").is_file()
    full = dress(run, tiny_model, tmp_path / "full")
    assert "trained all weights" in run_export(full, "--format", "adapter", code=2).stderr


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_gguf_file_computes_the_same_in_transformers(
    architecture: Any, dtype: str, run: Path, tmp_path: Path
) -> None:
    hidden = (
        512 if architecture == "qwen3" else 32
    )  # transformers reads Qwen3 with heads of 128, whatever the file says
    tie = architecture != "llama"
    model = tiny_model_folder(tmp_path / "model", architecture=architecture, tie=tie, hidden=hidden)
    add_merges(model)
    dressed = dress(run, model, tmp_path / "run")
    run_export(dressed, "--format", "gguf", "--dtype", dtype, "--to", tmp_path / "g")
    close = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 0.1}[dtype]
    read = logits(tmp_path / "g", gguf_file="model.gguf")
    torch.testing.assert_close(read, logits(model), atol=close, rtol=close)
    text, own = "Using 3 and 5, make 16.\n", transformers.AutoTokenizer.from_pretrained(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "g", gguf_file="model.gguf")
    assert tokenizer.encode(text) == own.encode(text)
    fields = gguf.GGUFReader(tmp_path / "g" / "model.gguf").fields
    special = {name: fields[f"tokenizer.{name}"].contents() for name in ("ggml.eos_token_id", "chat_template")}
    assert special == {"ggml.eos_token_id": own.eos_token_id, "chat_template": own.chat_template}


def add_merges(model: Path) -> None:
    """Read two pairs of letters as tokens, in place of unused bytes: transformers 5.8 needs merges in a GGUF file."""
    file = model / "tokenizer.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = data["model"]["vocab"]
    vocabulary["in"], vocabulary["an"] = vocabulary.pop("\u0100"), vocabulary.pop("\u0101")
    data["model"]["merges"] = [["i", "n"], ["a", "n"]]
    file.write_text(json.dumps(data), encoding="utf-8")


def change_config(run: Path, **changes: object) -> None:
    folder = run / "checkpoints" / "step_000002"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    (folder / "manifest.json").unlink()
    write_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gemma2"}, "supports the architectures llama, qwen2, qwen3, got gemma2"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "does not support RoPE scaling of type llama3"),
        ({"use_sliding_window": True}, "does not support sliding-window attention"),
    ],
)
def test_what_gguf_does_not_support_is_refused_in_one_line(
    changes: dict[str, object], message: str, run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    change_config(dress(run, tiny_model, tmp_path / "run"), **changes)
    done = run_export(tmp_path / "run", "--format", "gguf", "--to", tmp_path / "g", code=2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 2  # what it was doing, and the error
    assert not (tmp_path / "g").exists()


def test_pre_tokenizers_are_told_by_their_patterns() -> None:
    bytes_only = {"type": "ByteLevel", "use_regex": False}

    def found(*parts: dict[str, Any]) -> str:
        return find_split({"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(parts)}})

    contractions = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    three, one = ({"type": "Split", "pattern": {"Regex": contractions + r}} for r in (r"\p{N}{1,3}| ?x", r"\p{N}| ?x"))
    assert (found(three, bytes_only), found(one, bytes_only)) == ("llama-bpe", "qwen2")
    assert found({"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}) == "smollm"
    assert found({"type": "ByteLevel", "use_regex": True}) == "gpt-2"
    assert found({"type": "Split", "pattern": {"Regex": "<think>|[0-9]"}}, bytes_only) == found(bytes_only) == "default"


def test_a_value_that_float16_cannot_hold_is_refused(run: Path, tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"][3, 3] = 1e6
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    dressed = dress(run, model, tmp_path / "run")
    for kind in ("merged", "gguf"):
        done = run_export(dressed, "--format", kind, "--dtype", "float16", code=2)
        assert "cannot hold; export with --dtype bfloat16 or float32" in done.stderr
    assert not (dressed / "export").exists()


def test_a_tensor_of_another_size_than_announced_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = gguf.quants.quantize
    monkeypatch.setattr(gguf.quants, "quantize", lambda values, kind: real(values, kind)[:-1])
    done = run_export(run, "--format", "gguf", "--to", tmp_path / "g", code=2)
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert " bytes instead of " in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", [1, 1000, 20_000])
def test_a_full_disk_ends_the_export_of_a_gguf_file(missing: int, run: Path, tmp_path: Path) -> None:
    run_export(run, "--format", "gguf", "--to", tmp_path / "whole")
    size = (tmp_path / "whole" / "model.gguf").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, before[1]))
    try:
        done = run_export(run, "--format", "gguf", "--to", tmp_path / "g", code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, previous)
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(
        f"error: cannot write the export to {tmp_path / 'g'}: File too large; make room if the disk"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_corrupted_checkpoint_is_not_exported(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    damaged = copy / "checkpoints" / "step_000002" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert "model.safetensors: its content changed" in run_export(copy, "--step", 2, code=1).stderr
    done = run_export(copy, "--to", tmp_path / "m")
    assert "exported step 1 of" in done.stdout
    assert "skipping corrupted checkpoint" in caplog.text
    assert "no checkpoint of this step; saved: 1, 2" in run_export(run, "--step", 7, code=2).stderr
    assert "is not a run folder" in run_export(tmp_path, code=2).stderr


def test_the_card_loads_a_folder_of_any_name(run: Path, tmp_path: Path) -> None:
    run_export(run, "--to", tmp_path / 'a "b" \\folder')
    card = (tmp_path / 'a "b" \\folder' / "README.md").read_text(encoding="utf-8")
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")


def test_the_card_says_what_the_run_says_and_no_secret(run: Path, tmp_path: Path) -> None:
    run_export(run, "--to", tmp_path / "m", "--license", "mit")
    text = (tmp_path / "m" / "README.md").read_text()
    card = ModelCard(text)
    summary = json.loads((run / "summary.json").read_text())
    last = summary["eval"]["last"]["suites"]["held_out"]
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_value) == ("held_out", round(last["accuracy"], 4))
    assert (card.data.license, card.data.library_name, card.data.base_model) == ("mit", "transformers", None)
    low, high = last["ci95"]
    assert f"{last['accuracy']:.1%} ({low:.1%} to {high:.1%}) |" in text
    assert "Base model: a local model, `tiny`" in text
    assert f"torch {torch.__version__}" in text
    assert "````yaml\n" in text  # the recipe holds a fence of its own
    assert TOKEN not in text
    assert "abcdefgh" not in text


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Any:
    with hub() as found:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", found.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


def test_a_push_uploads_the_folder_in_one_commit(run: Path, served: Hub) -> None:
    done = run_export(run, "--push", "my-model", "--private")
    (made,) = served.repos
    assert (made["organization"], made["name"]) == ("me", "my-model")
    assert made.get("private") is True or made.get("visibility") == "private"
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= served.files.keys()
    assert "trainer_state.json" not in served.files
    assert 'path = "me/my-model"' in served.files["README.md"].decode()
    assert ModelCard(served.files["README.md"].decode()).data.library_name == "transformers"
    assert not any(TOKEN.encode() in content for content in served.files.values())
    assert f"hub: {served.address}/" in done.stdout
    assert not (run / "export").exists()


def test_a_push_that_fails_is_told_in_one_line(run: Path, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    served.refuses = 403
    done = run_export(run, "--push", "me/x", code=1)
    assert "cannot push to me/x: the hub answered 403" in done.stderr
    assert "check the token's permissions" in done.stderr
    assert "s" * 30 not in done.output
    assert "its base model" not in done.stderr
    assert "which is not on the hub" in run_export(run, "--push", "me/x", "--format", "adapter", code=2).stderr
    assert "expected a repository such as user/name" in run_export(run, "--push", "a/b/c", code=2).stderr
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in run_export(run, "--push", "me/x", code=2).stderr

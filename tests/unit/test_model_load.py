"""Loading models: what is set, what is left alone, and one-line errors."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.tiny_policies import CPU, load_tiny
from transformers import AutoConfig, AutoModelForCausalLM

from reasonrl.errors import RecipeError
from reasonrl.model.load import load_tokenizer, resolve_dtype
from reasonrl.model.lora import is_lora
from reasonrl.recipe.schema import LoraConfig
from reasonrl.testing.models import Architecture, byte_tokenizer, tiny_model_folder

ARCHITECTURES: tuple[Architecture, ...] = ("qwen2", "qwen3", "llama", "gpt_neox", "gemma2", "gpt2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("load") / "model")


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone(folder: Path) -> None:
    torch.manual_seed(77)
    state = torch.get_rng_state()
    first, again, other = (weights(load_tiny(folder, seed=s, init="random").model) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, weights(load_tiny(folder).model))


def test_dropout_is_off_and_the_model_is_in_eval_mode(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", architecture="gpt2")
    config = json.loads((folder / "config.json").read_text())
    assert config["attn_pdrop"] == config["resid_pdrop"] == 0.1
    model = load_tiny(folder).model
    assert not model.training
    ids = torch.arange(12)[None]
    assert torch.equal(model.train()(ids).logits, model.train()(ids).logits)


@pytest.mark.parametrize("init", ["pretrained", "random"])
@pytest.mark.parametrize("dtype", ["float32", "auto"])
def test_a_cpu_computes_in_float32(folder: Path, init: str, dtype: str) -> None:
    assert load_tiny(folder, init=init, dtype=dtype).model.dtype == torch.float32


def test_a_slow_dtype_is_warned_about_and_used(caplog: pytest.LogCaptureFixture, folder: Path) -> None:
    from reasonrl.model.load import cpu_computes_bfloat16

    with caplog.at_level(logging.WARNING):
        assert load_tiny(folder, dtype="bfloat16").model.dtype == torch.bfloat16
    assert bool(caplog.records) is not cpu_computes_bfloat16()


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(RecipeError, match="int8"):
        resolve_dtype("int8", CPU)


def test_the_attention_kernel_is_the_recipes(folder: Path) -> None:
    assert load_tiny(folder, attention="eager").model.config._attn_implementation == "eager"
    assert load_tiny(folder).model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tiny_tokenizers_reload_as_themselves(tmp_path: Path, architecture: Architecture) -> None:
    folder = tiny_model_folder(tmp_path / "model", architecture=architecture)
    tokenizer = load_tokenizer(str(folder))
    text = "Wörld 12 + (3*4) = ?\n\t<answer>\u4e16</answer>  <|endoftext|>"
    ids = tokenizer.encode(text)
    assert ids == byte_tokenizer(architecture).encode(text)
    assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text
    assert (len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id) == (258, 256, 257)
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "[user]hi\n[assistant]"


def test_a_tokenizer_without_pad_pads_with_eos(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", architecture="llama")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    assert load_tokenizer(str(folder)).pad_token_id == 256


def broken(folder: Path, tmp_path: Path, kind: str) -> Path:
    target = tmp_path / "model"
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    if kind == "no config":
        (target / "config.json").unlink()
    elif kind == "bad config":
        (target / "config.json").write_text("{")
    elif kind == "unknown architecture":
        (target / "config.json").write_text('{"model_type": "no-such-model"}')
    elif kind == "no weights":
        (target / "model.safetensors").unlink()
    elif kind == "torn weights":
        (target / "model.safetensors").write_bytes(b"\x10" * 40)
    elif kind == "inconsistent config":
        path = target / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 33}))
    elif kind == "too few layers":
        path = target / "config.json"
        deeper = {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
        path.write_text(json.dumps(json.loads(path.read_text()) | deeper))
    elif kind == "fewer embeddings":
        tiny = AutoConfig.for_model("llama", vocab_size=200, hidden_size=32, intermediate_size=8)
        AutoModelForCausalLM.from_config(tiny).save_pretrained(target)
    elif kind in ("larger vocab_size", "smaller vocab_size"):
        path = target / "config.json"
        size = 300 if kind == "larger vocab_size" else 100
        path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": size}))
    elif kind in ("pad beyond", "eos beyond"):
        tokenizer = byte_tokenizer()
        tokenizer.add_special_tokens({f"{kind[:3]}_token": "<far>"})
        tokenizer.save_pretrained(target)
    elif kind == "stop beyond":
        path = target / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [256, 999]}))
    elif kind == "no tokenizer":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (target / name).unlink()
    elif kind == "no eos":
        path = target / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token": None}))
    return target


@pytest.mark.parametrize(
    "kind",
    [
        "no config",
        "bad config",
        "unknown architecture",
        "inconsistent config",
        "no weights",
        "torn weights",
        "too few layers",
        "fewer embeddings",
        "larger vocab_size",
        "smaller vocab_size",
        "pad beyond",
        "eos beyond",
        "stop beyond",
        "no tokenizer",
        "no eos",
    ],
)
def test_a_broken_folder_is_one_line(folder: Path, tmp_path: Path, kind: str) -> None:
    target = broken(folder, tmp_path, kind)
    with pytest.raises(RecipeError) as error:
        load_tiny(target)
    assert "\n" not in str(error.value)
    assert str(target) in str(error.value)


@pytest.mark.parametrize("part", ["transformers.AutoConfig", "transformers.AutoModelForCausalLM"])
@pytest.mark.parametrize("error", [MemoryError("too much"), torch.OutOfMemoryError("CUDA out of memory. Tried ...")])
def test_lack_of_memory_is_not_blamed_on_the_folder(
    part: str, error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacks(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"{part}.from_pretrained", lacks)
    with pytest.raises(type(error)):
        load_tiny(folder)


def test_more_embeddings_than_tokens_and_tokens_that_never_occur_are_fine(tmp_path: Path) -> None:
    """Qwen pads its embeddings; a tokenizer with added tokens is refused only where a prompt holds one."""
    from reasonrl.testing.models import tiny_config

    for name, rows, added in (("padded", 320, []), ("added", 258, ["<tool>", "<image>"])):
        folder = tmp_path / name
        AutoModelForCausalLM.from_config(tiny_config(vocab_size=rows)).save_pretrained(folder)
        tokenizer = byte_tokenizer()
        tokenizer.add_tokens(added)
        tokenizer.save_pretrained(folder)
        loaded = load_tiny(folder)
        assert len(loaded.tokenizer) == 258 + len(added)
        assert loaded.model.get_input_embeddings().weight.shape[0] == rows


def test_a_missing_folder_and_an_unreachable_hub_are_one_line(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(RecipeError, match=r"config\.json"):
        load_tiny(tmp_path / "nowhere")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RecipeError, match="cannot load") as error:
        load_tokenizer("nobody/nothing-of-that-name")
    assert "\n" not in str(error.value)


def test_lora_trains_adapters_only_and_starts_as_the_base_model(folder: Path) -> None:
    plain, adapted = load_tiny(folder).model, load_tiny(folder, lora=LoraConfig(rank=2)).model
    assert is_lora(adapted)
    assert not is_lora(plain)
    trainable = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trainable
    assert all(".lora_" in name for name in trainable)
    ids = torch.arange(9)[None]
    torch.testing.assert_close(adapted(ids).logits, plain(ids).logits, atol=1e-6, rtol=0)


def test_a_lora_target_that_does_not_exist_is_one_line(folder: Path) -> None:
    with pytest.raises(RecipeError, match="no_such_layer") as error:
        load_tiny(folder, lora=LoraConfig(target_modules=["no_such_layer"]))
    assert "\n" not in str(error.value)


def test_a_python_without_docstrings_is_named_rather_than_the_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.flags", SimpleNamespace(optimize=2))
    with pytest.raises(RecipeError, match=r"^Python drops docstrings \(-OO or PYTHONOPTIMIZE=2\)"):
        load_tiny(folder)

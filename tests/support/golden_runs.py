"""Twenty steps on scripted rollouts: the losses depend on our arithmetic alone.

``PYTHONPATH=tests python -m support.golden_runs`` rewrites ``tests/golden/losses.json``, which is a decision.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from support.resume_runs import ALGORITHMS, go, resumable_recipe

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "losses.json"
STEPS = 20
KEYS = ("loss/total", "optim/grad_norm")


def losses(algorithm: str, model: Path, folder: Path) -> list[dict[str, float]]:
    """Loss and gradient norm of every step."""
    recipe = resumable_recipe(
        folder,
        model,
        trainer={"steps": STEPS, "prompts_per_step": 4, "minibatches": 2, "update_epochs": 2},
        sampling={"group_size": 4, "max_prompt_tokens": 20, "max_completion_tokens": 8},
        optimizer={"learning_rate": 0.001, "schedule": "cosine", "warmup_steps": 2},
        rollout_backend={"name": "script"},
        evaluation=None,
        **ALGORITHMS[algorithm],
    )
    go(recipe, folder / algorithm)
    lines = (folder / algorithm / "metrics.jsonl").read_text().splitlines()
    return [{key: json.loads(line)[key] for key in KEYS} for line in lines]


def main() -> None:
    from reasonrl.testing.models import tiny_model_folder

    with tempfile.TemporaryDirectory() as name:
        model = tiny_model_folder(Path(name) / "model")
        found = {algorithm: losses(algorithm, model, Path(name)) for algorithm in ALGORITHMS}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

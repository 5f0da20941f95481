"""``think_format`` with models whose chat template opens the reasoning, through the real command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reasonrl.testing import tiny_model_folder

TURNS = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
OPENS = TURNS + "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
WAITS = TURNS + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
INSIDE, WHOLE = "so it is\n</think>\\boxed{2}", "<think>so it is\n</think>\\boxed{2}"

SAYS = f"""
from reasonrl import hookimpl
from reasonrl.testing import scripted_spec

@hookimpl
def reasonrl_rollout_backends():
    yield scripted_spec([{INSIDE!r}, {WHOLE!r}], name="says")
"""


@pytest.mark.parametrize(
    ("template", "right", "isolation"),
    [(OPENS, INSIDE, "process"), (WAITS, WHOLE, "inline")],
    ids=["opens", "waits"],
)
def test_the_form_that_the_template_asks_for_is_paid(tmp_path: Path, template: str, right: str, isolation: str) -> None:
    model = tiny_model_folder(tmp_path / "model")
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")
    (tmp_path / "says.py").write_text(SAYS, encoding="utf-8")
    recipe = {
        "name": "form",
        "model": {"path": "model"},
        "task": {"name": "math", "template": "chat"},
        "rewards": {"think_format": {"isolation": isolation}},
        "algorithm": {"name": "grpo"},
        "rollout_backend": {"name": "says"},
        "sampling": {"group_size": 2, "max_prompt_tokens": 1500, "max_completion_tokens": 64},
        "trainer": {"steps": 1, "prompts_per_step": 1},
    }
    (tmp_path / "form.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "reasonrl", "train", "form.yaml", "--plugin", "says.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "runs/form-1/transcripts/step_000001.jsonl").read_text(encoding="utf-8").splitlines()
    paid = {row["completion"]: row["reward"] for row in map(json.loads, lines)}
    assert paid == {INSIDE: float(right == INSIDE), WHOLE: float(right == WHOLE)}

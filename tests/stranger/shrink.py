"""Makes a documented command cheap. Never skips one: overrides are appended to it, nothing is taken away.

Executed by the environment under test; imports nothing of the suite.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Show = Callable[[list[str]], str]
"""``["reasonrl", "recipes", "show", NAME]`` -> what that prints; empty if it fails."""

TRAIN = {
    "trainer.steps": 2,
    "trainer.prompts_per_step": 4,
    "sampling.group_size": 4,
    "sampling.max_completion_tokens": 24,
    "critic.warmup_steps": 1,
}
SFT = {"sft.max_tokens": 1024, "sft.tokens_per_batch": 512, "sampling.max_completion_tokens": 24}
SUITE = {"problems": 4, "samples": 2, "max_completion_tokens": 24}
RESUME = ("trainer.steps=4",)
"""A run that was shrunk to two steps continues for two more, whatever the page says."""

_BUNDLED = ["task.path=''", "task.subset=null", "task.eval_split=null"]
_COLUMNS = ["task.question=question", "task.answer=answer", "task.marker='####'"]
LOCAL_DATA = {
    "google-research-datasets/mbpp": _BUNDLED,
    "openai/gsm8k": _BUNDLED,
    "DigitalLearningGmbH/MATH-lighteval": [*_BUNDLED, *_COLUMNS],
}
"""Data set of the hub -> overrides that take data which is there."""

WITHOUT_BITSANDBYTES = {"optimizer.name": ("adamw_8bit", "adamw"), "model.lora.quantization": ("nf4", "null")}
"""Key -> a value that needs bitsandbytes (tried in ``tests/integration/test_low_memory.py``), and what stands in."""

EXTRA = {"benchmarks/step.py": ["--repeats", "1"]}
"""Arguments appended to other Python programs."""

MODELS = "STRANGER_MODELS"
"""Names a folder with a tiny model of each architecture, in place of models from the hub."""

ARCHITECTURES = {"qwen3": "qwen3", "qwen": "qwen2", "llama": "llama", "smollm": "llama", "gemma": "gemma2"}
"""Word in a hub name -> architecture of the tiny model that stands in."""


def shrunk(argv: list[str], show: Show) -> list[str]:
    """``["reasonrl", "train", ...]`` with overrides appended; other commands as they are.

    ``["python", FILE, ...]`` gets the arguments that ``EXTRA`` names.
    """
    if argv[0] == "python":
        return [*argv, *(word for file, words in EXTRA.items() if argv[1].endswith(file) for word in words)]
    name, rest = argv[1] if len(argv) > 1 else "", argv[2:]
    if name in ("train", "sft", "sweep") and (recipe := positional(rest)):
        return [*argv, *overrides(shown(recipe, rest, show), given(rest))]
    if name == "resume" and given(rest):
        return [*argv, *RESUME]
    if name in ("eval", "generate") and "--recipe" in rest:
        at = argv.index("--recipe") + 1
        return [*argv[:at], small_copy(argv[at], rest, show), *argv[at + 1 :]]
    return argv


def overrides(recipe: dict[str, Any], more: dict[str, str]) -> list[str]:
    """Overrides that lower every figure of ``recipe`` which is above its limit. ``more``: overrides given already."""
    is_sft = "sft" in recipe
    found = [f"{key}={value}" for key, value in _lowered(recipe, SFT if is_sft else TRAIN, more)]
    for suite, values in ((recipe.get("evaluation") or {}).get("suites") or {}).items():
        low = _lowered(values or {}, SUITE, {}, defaults={"problems": 256})
        found += [f"evaluation.suites.{suite}.{key}={value}" for key, value in low]
        found += [f"evaluation.suites.{suite}.{change}" for change in _suite_changes(values or {})]
    name = more.get("rollout_backend.name") or (recipe.get("rollout_backend") or {}).get("name", "hf")
    found += ["rollout_backend={name: hf}"] if name != "hf" else []
    found += [f"{key}={value}" for key, (needs, value) in WITHOUT_BITSANDBYTES.items() if _value(recipe, key) == needs]
    path = (recipe.get("model") or {}).get("path")
    if path and not Path(path).exists():
        found.append(f"model.path={stand_in(path)}")
        found.append("sampling.max_prompt_tokens=1536")  # a token of a stand-in is a byte
        found += ["model.revision=null"] if recipe["model"].get("revision") else []
    return found + LOCAL_DATA.get((recipe.get("task") or {}).get("path", ""), [])


def _suite_changes(suite: dict[str, Any]) -> list[str]:
    """For fewer samples, and without data from the hub: reasonrl-math and reasonrl-code have some of their own."""
    is_code = (suite.get("task") or {}).get("name") == "code"
    bundled = [*_BUNDLED, *([] if is_code else _COLUMNS), "task.train_split=train", "task.difficulty=''"]
    return [*(["pass_at=[1]"] if suite.get("pass_at") else []), *(bundled if _is_remote(suite) else [])]


def _is_remote(suite: dict[str, Any]) -> bool:
    path = (suite.get("task") or {}).get("path")
    return bool(path) and not Path(path).exists()


DEFAULTS = {
    "sampling.group_size": 1,
    "sampling.max_completion_tokens": 1024,
    "sft.tokens_per_batch": 8192,
    "critic.warmup_steps": 0,
}
"""Of keys that a recipe may leave out."""


def _lowered(
    recipe: dict[str, Any],
    limits: dict[str, int],
    more: dict[str, str],
    defaults: dict[str, int] = DEFAULTS,
) -> list[tuple[str, int]]:
    found = []
    for key, limit in limits.items():
        value = more.get(key, _value(recipe, key))
        value = defaults.get(key, 0) if value is None else int(value)
        found += [(key, limit)] if value > limit else []
    return found


def _value(recipe: dict[str, Any], key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def stand_in(hub_name: str) -> str:
    """The folder of the tiny model of the same architecture."""
    words = [a for word, a in ARCHITECTURES.items() if word in hub_name.lower()]
    assert words, f"no tiny model stands in for {hub_name!r}; name its architecture in ARCHITECTURES"
    return str(Path(os.environ[MODELS]) / words[0])


def shown(recipe: str, rest: list[str], show: Show) -> dict[str, Any]:
    """The merged recipe, as ``reasonrl recipes show`` prints it; {} if it cannot, so that the command says why."""
    import yaml

    text = show(["reasonrl", "recipes", "show", recipe, *plugin_options(rest)])
    return yaml.safe_load(text) or {}


def small_copy(recipe: str, rest: list[str], show: Show) -> str:
    """For commands that take a recipe and no overrides: a file with fewer problems."""
    whole = shown(recipe, rest, show)
    for suite in ((whole.get("evaluation") or {}).get("suites") or {}).values():
        suite.update({"task": {"name": "math"}} if _is_remote(suite) else {})
        suite.pop("pass_at", None)
        suite.update({key: min(suite.get(key) or limit, limit) for key, limit in SUITE.items()})
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False, encoding="utf-8") as file:
        json.dump(whole, file)
    return file.name if whole else recipe


FLAGS = ("--plain", "--dry-run")


def positional(words: list[str]) -> str | None:
    """The first word that is neither an option nor an option's value. Every option but those of FLAGS has one."""
    is_value = False
    for word in words:
        if not is_value and not word.startswith("-"):
            return word
        is_value = word.startswith("--") and "=" not in word and word not in FLAGS
    return None


def given(words: list[str]) -> dict[str, str]:
    """The overrides among the words."""
    pairs = [word.partition("=") for word in words if "=" in word and not word.startswith("-")]
    return {key: value for key, _, value in pairs}


def plugin_options(words: list[str]) -> list[str]:
    """``--plugin FILE`` among the words."""
    at = [i for i, word in enumerate(words) if word == "--plugin"]
    return [word for i in at for word in words[i : i + 2]]


def shrink_python(show: Show) -> None:
    """For code that calls ``reasonrl.run``: the same overrides, appended to its own."""
    import reasonrl

    whole = reasonrl.run

    def run(recipe: Any, more: Any = (), **options: Any) -> Any:
        plugins = [word for file in options.get("plugins", ()) for word in ("--plugin", str(file))]
        recipe_now = shown(str(recipe), plugins, show)
        return whole(recipe, [*more, *overrides(recipe_now, given(list(more)))], **options)

    reasonrl.run = run

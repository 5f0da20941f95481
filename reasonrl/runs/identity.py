"""What must stay the same when a run is resumed: recipe, data files, tokenizer, plugin versions."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from reasonrl.errors import RecipeError
from reasonrl.plugins import Kind, PluginRecord, Plugins
from reasonrl.recipe.render import render_plain
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe, components
from reasonrl.rewards.from_file import RewardFileConfig
from reasonrl.rundir.differences import differences, format_pair
from reasonrl.runs.sources import hash_data
from reasonrl.runs.state import Identity

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGER = "the learning rate continues from its current value to the new end of its schedule"
SAME = "the results are identical to an uninterrupted run"
ROUNDING = "the results match an uninterrupted run up to rounding"
COURSE = "from here on, the results differ from an uninterrupted run"
CHANGEABLE: Mapping[str, str] = {
    "trainer.steps": LONGER,
    "sft.max_tokens": LONGER,
    "sampling.max_prompt_tokens": COURSE,
    "sampling.overlong_prompts": COURSE,
    "trainer.max_sampling_rounds": COURSE,
    "trainer.too_few_groups": COURSE,
    "trainer.max_staleness": COURSE,
    "trainer.max_tokens_per_microbatch": ROUNDING,
    "sft.max_tokens_per_microbatch": ROUNDING,
    "model.gradient_checkpointing": ROUNDING,
    "model.packing": ROUNDING,
    "model.sharding": ROUNDING,
    "model.attention": ROUNDING,
    "rollout_backend.*": ROUNDING,
    "trainer.offload": SAME,
    "rewards.*.isolation": SAME,
    "rewards.*.timeout_s": SAME,
    "rewards.*.memory_mb": SAME,
    "evaluation.every": SAME,
    "checkpoint.*": SAME,
    "logging.*": SAME,
    "device": ROUNDING,
    "model.chat_template": SAME,
}
"""What a resumed run may change, and what that means for its results.

These are limits that can stop a run, memory and speed, logging and checkpoints. ``model.chat_template`` is a path: the
text of the file is compared with the tokenizer.
"""
FIXED = ("rollout_backend.name",)
NAMED_BY_USERS = ("rewards", "evaluation.suites")
"""Sections whose keys are names."""
MAX_SHOWN = 5


def build_identity(resolved: AnyResolved, plugins: Plugins, tokenizer: "PreTrainedTokenizerBase") -> Identity:
    """JSON that is equal for equal runs. Secrets are redacted; values from the environment are not compared."""
    return {
        **build_early_identity(resolved, plugins),
        "tokenizer": {"sha256": hash_tokenizer(tokenizer)},
        "data": hash_data(resolved),
    }


def build_early_identity(resolved: AnyResolved, plugins: Plugins) -> Identity:
    """What is known before a model is loaded, and without the data."""
    plain = json.loads(json.dumps(render_plain(resolved)))
    return {"recipe": plain, "plugins": {r.name: r.version for r in _providers(resolved, plugins)}}


def total_steps(resolved: AnyResolved) -> int:
    """Optimizer-loop iterations of the run."""
    if isinstance(resolved, ResolvedRecipe):
        return resolved.recipe.trainer.steps
    sft = resolved.recipe.sft
    return -(-sft.max_tokens // sft.tokens_per_batch)


def used_plugins(resolved: AnyResolved, plugins: Plugins) -> list[str]:
    """``name version`` of the plugins behind those components."""
    return sorted({f"{r.name} {r.version}".strip() for r in _providers(resolved, plugins)})


def _providers(resolved: AnyResolved, plugins: Plugins) -> list[PluginRecord]:
    """A reward that is a file has no plugin; its path and content are in the recipe."""
    return [
        plugins.provider(cast(Kind, c.spec.kind), c.spec.name)
        for c in components(resolved)
        if not isinstance(c.config, RewardFileConfig)
    ]


def is_length(override: str) -> bool:
    """Whether a ``key=value`` says how long the run is."""
    return CHANGEABLE.get(override.partition("=")[0].strip()) == LONGER


def is_changeable(key: str) -> bool:
    """Whether a resumed run may have another value of a recipe's ``key``."""
    return key not in FIXED and any(fnmatchcase(key, pattern) for pattern in CHANGEABLE)


def find_allowed_changes(before: Mapping[str, object], now: Mapping[str, object]) -> dict[str, str]:
    """Key -> ``old -> new`` of what changed in a recipe and may."""
    return {key: " -> ".join(format_pair(old, new)) for key, old, new in differences(before, now) if is_changeable(key)}


def explain_changes(keys: Iterable[str]) -> str:
    """What changes of these keys mean for the results of a resumed run."""
    found = {CHANGEABLE[pattern] for key in keys for pattern in CHANGEABLE if fnmatchcase(key, pattern)}
    return "; ".join(meaning for meaning in (LONGER, ROUNDING, COURSE) if meaning in found) or SAME


def with_new_keys(before: Mapping[str, Any], now: Mapping[str, Any], given: object, at: str = "") -> dict[str, Any]:
    """The recipe ``before``, of an earlier version, with the defaults of keys that it did not know.

    Args:
        given: the run's recipe as it is written. A key that is set there was added to it, so it is a change, as are
            further rewards and suites.
    """
    written = given if isinstance(given, Mapping) else {}
    whole = dict(before)
    for key, value in now.items():
        below = f"{at}.{key}" if at else key
        if key not in before:
            if key not in written and at not in NAMED_BY_USERS:
                whole[key] = value
        elif isinstance(value, Mapping) and isinstance(before[key], Mapping):
            whole[key] = with_new_keys(before[key], value, written.get(key), below)
    return whole


def refuse_changes(
    run_dir: Path,
    before: Mapping[str, object],
    now: Mapping[str, object],
    remedy: str = "undo the change, or start a new run",
) -> None:
    """Raises RecipeError with what differs; parts that only one side knows are not compared."""
    common = before.keys() & now.keys()
    changes = [
        _change(path, old, new)
        for path, old, new in differences({key: before[key] for key in common}, {key: now[key] for key in common})
        if not is_changeable(path.removeprefix("recipe."))
    ]
    if changes:
        more = f" and {len(changes) - MAX_SHOWN} more" if len(changes) > MAX_SHOWN else ""
        raise RecipeError(
            f"cannot resume {run_dir}, it was started with different settings: {'; '.join(sorted(changes)[:MAX_SHOWN])}"
            f"{more}; {remedy}"
        )


def hash_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Of everything that turns text into tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.loads(backend.to_str()) if backend is not None else {"vocab": tokenizer.get_vocab()}
    for setting in ("padding", "truncation"):
        content.pop(setting, None)  # of the last call, not of the tokenizer
    content["special"] = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    content["chat_template"] = tokenizer.chat_template
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _change(path: str, old: object, new: object) -> str:
    if path.startswith("recipe.rewards.") and path.endswith(".sha256"):
        return f"{path.removesuffix('.sha256')}: its file was edited"
    if path.startswith("data."):
        return f"recipe.{path.removeprefix('data.')}: its file was edited"
    return f"{path}: {' -> '.join(format_pair(old, new))}"

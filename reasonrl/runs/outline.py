"""The first lines of a run's header, from the recipe alone. Torch-free: shown before torch loads."""

from collections.abc import Iterator

from reasonrl.contracts.data import SamplingParams
from reasonrl.observability.reporter import Outline
from reasonrl.plugins import Plugins, RewardComponent
from reasonrl.recipe.notes import notes
from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe, ResolvedSft
from reasonrl.redact import redact_text
from reasonrl.rewards.from_file import RewardFileConfig
from reasonrl.runs.identity import total_steps, used_plugins
from reasonrl.version import __version__


def format_title(resolved: AnyResolved) -> str:
    """First line of a run's header: version and recipe."""
    return f"reasonrl {__version__}: {resolved.recipe.name}"


def format_model(resolved: AnyResolved) -> str:
    """The model as the recipe names it, secrets redacted."""
    model = resolved.recipe.model
    return redact_text(str(model.name or model.path))


def outline_question(resolved: AnyResolved, what: str) -> Outline:
    """What a finished model is asked; ``what`` is ``eval`` or ``generate``."""
    lines = [("model", format_model(resolved)), ("recipe", f"{resolved.recipe.name}, {resolved.path}")]
    if what == "eval":
        lines += _suite_lines(resolved)
    return Outline(title=f"reasonrl {__version__}: {what}", lines=[(k, redact_text(v)) for k, v in lines])


def outline_run(resolved: AnyResolved, plugins: Plugins) -> Outline:
    """Task, algorithm, batch sizes, plugins with versions."""
    lines = [
        *(_rl_lines(resolved) if isinstance(resolved, ResolvedRecipe) else _sft_lines(resolved, total_steps(resolved))),
        *(("note", text) for text in notes(resolved)),
        ("plugins", ", ".join(used_plugins(resolved, plugins))),
    ]
    return Outline(title=format_title(resolved), lines=[(label, redact_text(text)) for label, text in lines])


def _rl_lines(resolved: ResolvedRecipe) -> Iterator[tuple[str, str]]:
    recipe = resolved.recipe
    trainer, sampling = recipe.trainer, recipe.sampling
    completions = trainer.prompts_per_step * sampling.group_size
    updates = trainer.minibatches * trainer.update_epochs
    yield (
        "task",
        f"{resolved.task.name}, rewards {format_rewards(resolved)}",
    )
    yield "algorithm", f"{resolved.algorithm.name}, rollouts by {resolved.rollout_backend.name}"
    yield (
        "each step",
        f"{trainer.prompts_per_step} prompts x {sampling.group_size} = {completions} completions of at most "
        f"{sampling.max_completion_tokens} tokens; {updates} optimizer step{'s' if updates > 1 else ''} "
        f"of {completions // trainer.minibatches} completions",
    )
    if trainer.max_staleness:
        yield "staleness", _staleness_text(resolved)
    yield "steps", f"{trainer.steps} ({trainer.steps * completions:,} completions in total)"


def _staleness_text(resolved: ResolvedRecipe) -> str:
    correction = resolved.recipe.rollout_correction
    how = "not corrected" if correction is None else f"corrected per {correction.level} ({correction.mode})"
    return f"at most 1 step: the next step's prompts are sampled during the update; {how}"


def format_rewards(resolved: ResolvedRecipe) -> str:
    """The rewards with their weights, and the file of one that is from a file."""
    return ", ".join(_reward_text(name, reward) for name, reward in resolved.rewards.items())


def _reward_text(name: str, reward: RewardComponent) -> str:
    where = f" ({reward.config.path})" if isinstance(reward.config, RewardFileConfig) else ""
    return f"{name} x {reward.weight:g}{where}"


def _sft_lines(resolved: ResolvedSft, total: int) -> Iterator[tuple[str, str]]:
    recipe = resolved.recipe
    source = f"demonstrations of {resolved.task.name}" if resolved.task else f"{recipe.data and recipe.data.path}"
    yield "trains on", source
    yield "steps", f"{total} x {recipe.sft.tokens_per_batch:,} tokens = {recipe.sft.max_tokens:,} tokens in total"


def _suite_lines(resolved: AnyResolved) -> Iterator[tuple[str, str]]:
    for name, suite in resolved.suites.items():
        config = suite.config
        how = SamplingParams(temperature=config.temperature, top_p=config.top_p, top_k=config.top_k).line()
        yield "evaluation", f"{name}: {config.problems} problems x {config.samples}, {how}"

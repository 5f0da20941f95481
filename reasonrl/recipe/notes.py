"""Notes on valid recipes that may contain a mistake. Torch-free."""

import re
from collections.abc import Iterator

from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe

ESCAPE = re.compile(r"\\[nrt](?![a-z])")
"""Before a small letter it may be LaTeX: ``\\text``, ``\\neq``."""


def notes(resolved: AnyResolved) -> Iterator[str]:
    """Shown by ``recipes check`` and at the start of a run, a line each."""
    if not resolved.suites:
        lost = "; checkpoint.keep_best has no effect" if resolved.recipe.checkpoint.keep_best else ""
        yield f"no evaluation: the recipe has no suites{lost}"
    for text in resolved.recipe.sampling.stop:
        if found := ESCAPE.search(text):
            yield (
                f"sampling.stop: {text} contains a backslash and the letter {found[0][1]}; for a line break or tab, "
                f'write "{text}" in double quotes'
            )
    if isinstance(resolved, ResolvedRecipe):
        yield from _stale_notes(resolved)


def _stale_notes(resolved: ResolvedRecipe) -> Iterator[str]:
    if resolved.recipe.trainer.max_staleness and resolved.recipe.rollout_correction is None:
        yield (
            "trainer.max_staleness is 1 without rollout_correction: the loss treats stale completions as if the newest "
            "weights had sampled them; set rollout_correction={} to correct for that"
        )

"""What a recipe says that is allowed, and is perhaps not what was meant. Torch-free."""

from collections.abc import Iterator

from reasonrl.recipe.resolved import AnyResolved


def notes(resolved: AnyResolved) -> Iterator[str]:
    """Shown by ``recipes check`` and at the start of a run, a line each."""
    if not resolved.suites:
        lost = "; checkpoint.keep_best has nothing to compare" if resolved.recipe.checkpoint.keep_best else ""
        yield f"no evaluation: the recipe has no suites{lost}"

"""Refuse a checkpoint that another version has written, while its run is still as it was."""

from reasonrl.recipe.resolved import AnyResolved, ResolvedRecipe
from reasonrl.runs.identity import total_steps
from reasonrl.runs.state import TrainState
from reasonrl.trainer.bundle import ModelBundle
from reasonrl.trainer.job import read_count
from reasonrl.trainer.rounds import refuse_foreign_groups
from reasonrl.trainer.schedule import open_schedule
from reasonrl.trainer.sft import read_taken


def refuse_foreign(state: TrainState, resolved: AnyResolved, bundle: ModelBundle) -> None:
    """Read all that a job will restore from ``state``, except what only the algorithm can read.

    Raises:
        CheckpointError: if it fits another number of processes or prompts.
        LookupError: or TypeError or ValueError, if this version does not save such a state.
    """
    progress = state.progress
    for key in ("policy_version", "consecutive_skips"):
        read_count(progress, key)
    open_schedule(resolved.recipe.optimizer, total_steps(resolved), after=state.step, progress=progress)
    if isinstance(resolved, ResolvedRecipe):
        read_count(progress, "position")
        if "algorithm" not in progress:
            raise ValueError("progress.algorithm is missing")
        refuse_foreign_groups(resolved.recipe, bundle, state.carried, state.pending)
    else:
        read_taken(progress, bundle.ranks)

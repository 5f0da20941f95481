"""Pool runs that differ only in their seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reasonrl.analysis.compare.evaluation import Evaluation
from reasonrl.rundir.differences import differences, format_pair, without_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Evaluations of one setting, one for each seed."""

    name: str
    evaluations: tuple[Evaluation, ...]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What the setting is, without seed and names."""
        return without_seed(self.evaluations[0].recipe)

    @property
    def title(self) -> str:
        """Its evaluations in words."""
        first = self.evaluations[0]
        step = "" if first.step is None else f", step {first.step}"
        if len(self.evaluations) == 1:
            return f"{first.name}{step}"
        names = ", ".join(one.name for one in self.evaluations)
        return f"{names}{step}; {len(self.evaluations)} seeds pooled"


def pool(evaluations: Sequence[Evaluation], *, by_seed: bool = True) -> list[Pool]:
    """Pool evaluations of one setting and step with different seeds; named A, B, ... in order.

    If all are of one setting, its seeds are compared, so that each is a pool.
    """
    pools: list[list[Evaluation]] = []
    for one in evaluations:
        fitting = (members for members in pools if _belongs(one, members))
        own = next(fitting, None) if by_seed else None
        if own is None:
            pools.append([one])
        else:
            own.append(one)
    if len(pools) == 1:
        pools = [[one] for one in evaluations]
    return [Pool(name=_letter(i), evaluations=tuple(members)) for i, members in enumerate(pools)]


def _belongs(one: Evaluation, members: Sequence[Evaluation]) -> bool:
    first = members[0]
    is_other_seed = all(one.seed != member.seed for member in members)
    return is_other_seed and one.step == first.step and without_seed(one.recipe) == without_seed(first.recipe)


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"#{index + 1}"


def recipe_differences(before: Pool, now: Pool) -> Iterator[tuple[str, str, str]]:
    """(key, old, new) of every key in which the recipes of two pools differ."""
    for key, old, new in differences(before.recipe, now.recipe):
        yield (key, *format_pair(old, new))

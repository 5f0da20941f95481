"""Compare pools of evaluations with the first one, suite by suite."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reasonrl.analysis.compare.cost import Cost, accuracies, cost_to_reach
from reasonrl.analysis.compare.evaluation import Evaluation, Solved, read_evaluations
from reasonrl.analysis.compare.pools import Pool, pool, recipe_differences
from reasonrl.errors import RecipeError
from reasonrl.statistics.paired import Difference, Floats, compare_blocks, compare_problems, compare_seeds
from reasonrl.statistics.proportions import mean_interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """A pool's accuracy on the problems of a comparison. ``ci95`` is None for several runs."""

    runs: tuple[float, ...]
    ci95: tuple[float, float] | None

    @property
    def mean(self) -> float:
        """Over the runs."""
        return sum(self.runs) / len(self.runs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Pool b against pool a on the problems of one suite that both were asked.

    ``only_a`` and ``only_b`` count the problems that one of two runs solved, with one completion per problem.
    """

    a: str
    b: str
    problems: int
    accuracy_a: Accuracy
    accuracy_b: Accuracy
    difference: Difference
    only_a: int | None = None
    only_b: int | None = None
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        sides = {"a": self.accuracy_a, "b": self.accuracy_b}
        return {
            "a": self.a,
            "b": self.b,
            "problems": self.problems,
            **{f"accuracy_{side}": accuracy.mean for side, accuracy in sides.items()},
            **{f"accuracies_{side}": list(accuracy.runs) for side, accuracy in sides.items()},
            **self.difference.to_json(),
            "only_a": self.only_a,
            "only_b": self.only_b,
            "left_out": list(self.left_out),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The result of ``reasonrl compare``. ``costs``: of every run of every pool, on ``cost_suite``."""

    pools: tuple[Pool, ...]
    suites: dict[str, tuple[Comparison, ...]]
    cost_suite: str
    level: float | None
    costs: dict[str, tuple[Cost | None, ...]]
    young: tuple[str, ...] = ()
    """Runs of a folder that have no evaluation yet."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "pools": {
                one.name: [{"path": e.name, "seed": e.seed, "step": e.step} for e in one.evaluations]
                for one in self.pools
            },
            "suites": {suite: [one.to_json() for one in found] for suite, found in self.suites.items()},
            "cost": {
                "suite": self.cost_suite,
                "level": self.level,
                "pools": {name: [c and c.to_json() for c in costs] for name, costs in self.costs.items()},
            },
            "recipes": {
                one.name: [{"key": k, self.pools[0].name: a, one.name: b} for k, a, b in self.changes(one)]
                for one in self.pools[1:]
            },
            "not_evaluated": list(self.young),
        }

    def changes(self, other: Pool) -> list[tuple[str, str, str]]:
        """(key, value of the first pool, value of ``other``) of what differs in their recipes."""
        return list(recipe_differences(self.pools[0], other))


def compare(
    targets: Sequence[str], *, suite: str | None = None, level: float | None = None, pool_seeds: bool = True
) -> Report:
    """Compare two or more runs or saved evaluations.

    Args:
        targets: As ``read_evaluation`` takes them, or folders of them.
        suite: Only this suite.
        level: Accuracy whose cost is stated; None = the lowest that all runs have reached.
        pool_seeds: Pool runs that differ only in the seed.

    Raises:
        RecipeError: If they cannot be compared.
    """
    evaluations, young = read_evaluations(targets)
    if len(evaluations) < 2:
        left_out = f"; without evaluations: {', '.join(young)}" if young else ""
        raise RecipeError(
            f"compare needs two or more runs or saved evaluations; RUN@0 is the model before training{left_out}"
        )
    suites = _common_suites(evaluations, suite)
    pools = pool(evaluations, by_seed=pool_seeds)
    found = {name: tuple(_compare(pools[0], other, name) for other in pools[1:]) for name in suites}
    runs = {one.name: [e for e in one.evaluations if e.run_dir is not None] for one in pools}
    chosen = _level(runs, suites[0]) if level is None else level
    costs = {} if chosen is None else {name: _costs(members, suites[0], chosen) for name, members in runs.items()}
    return Report(pools=tuple(pools), suites=found, cost_suite=suites[0], level=chosen, costs=costs, young=tuple(young))


def _common_suites(evaluations: Sequence[Evaluation], suite: str | None) -> list[str]:
    common = [name for name in evaluations[0].suites if all(name in one.suites for one in evaluations)]
    if suite is not None and suite in common:
        return [suite]
    if common and suite is None:
        return common
    known = "; ".join(f"{one.name} has {', '.join(one.suites) or 'none'}" for one in evaluations)
    what = "no suite in common" if suite is None else f"no suite {suite!r} in all of them"
    raise RecipeError(f"{what}: {known}; evaluate with the same --recipe: reasonrl eval RUN --recipe R --output DIR")


def _compare(a: Pool, b: Pool, suite: str) -> Comparison:
    solved = {one.name: one.solved(suite) for one in (*a.evaluations, *b.evaluations)}
    shared = set.intersection(*(set(found) for found in solved.values()))
    if 2 * len(shared) >= min(map(len, solved.values())):
        blocks = [([*a.evaluations], [*b.evaluations], sorted(shared))]
    else:  # the problems depend on the seed
        blocks = [([x], [y], keys) for x, y in _same_seed(a, b) if (keys := _shared(solved[x.name], solved[y.name]))]
    blocks = [block for block in blocks if block[2]]
    if not blocks:
        raise RecipeError(
            f"{suite}: {a.title} and {b.title} were asked different problems; evaluate both with one recipe: "
            "reasonrl eval RUN --recipe R --output DIR"
        )
    sides = [(_matrix(x, solved, keys), _matrix(y, solved, keys)) for x, y, keys in blocks]
    used = {one.name for x, y, _ in blocks for one in (*x, *y)}
    difference = _difference(sides)
    is_pair = difference.method == "mcnemar"
    d = sides[0][1][0] - sides[0][0][0]
    return Comparison(
        a=a.name,
        b=b.name,
        problems=sum(len(keys) for *_, keys in blocks),
        accuracy_a=_accuracy([x for x, _ in sides]),
        accuracy_b=_accuracy([y for _, y in sides]),
        difference=difference,
        only_a=int((d < 0).sum()) if is_pair else None,
        only_b=int((d > 0).sum()) if is_pair else None,
        left_out=tuple(name for name in solved if name not in used),
    )


def _same_seed(a: Pool, b: Pool) -> list[tuple[Evaluation, Evaluation]]:
    return [(x, y) for x in a.evaluations for y in b.evaluations if x.seed == y.seed]


def _shared(x: Solved, y: Solved) -> list[str]:
    return sorted(x.keys() & y.keys())


def _matrix(members: Sequence[Evaluation], solved: dict[str, Solved], keys: Sequence[str]) -> Floats:
    return np.array([[solved[one.name][key] for key in keys] for one in members], dtype=np.float64)


def _difference(sides: Sequence[tuple[Floats, Floats]]) -> Difference:
    if len(sides) > 1:
        return compare_blocks([float(y.mean() - x.mean()) for x, y in sides])
    x, y = sides[0]
    return compare_problems(x[0], y[0]) if len(x) == len(y) == 1 else compare_seeds(x, y)


def _accuracy(sides: Sequence[Floats]) -> Accuracy:
    runs = tuple(float(run.mean()) for side in sides for run in side)
    only = sides[0][0].tolist()
    return Accuracy(runs=runs, ci95=mean_interval(only, len(only)) if len(runs) == 1 else None)


def _level(runs: dict[str, list[Evaluation]], suite: str) -> float | None:
    """Find the highest accuracy that every run has reached; None if there are fewer than two runs."""
    dirs = [one.run_dir for members in runs.values() for one in members if one.run_dir is not None]
    if len(set(dirs)) < 2:
        return None
    return min((max((accuracy for _, accuracy in accuracies(run, suite)), default=0.0) for run in dirs), default=None)


def _costs(members: Sequence[Evaluation], suite: str, level: float) -> tuple[Cost | None, ...]:
    return tuple(cost_to_reach(one.run_dir, suite, level) for one in members if one.run_dir is not None)

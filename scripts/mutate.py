"""Mutation test of the mathematics: change one operator, index, mask or constant at a time; a test must fail.

python scripts/mutate.py --number 300 --seed 0 --out mutants.md

Needs Linux or macOS (it forks) and the ``test`` extra. Mutants that change
no result are listed with the reason in ``scripts/equivalent_mutants.yaml``. Exit status 1 if fewer than 95% of the
others are killed.
"""

import argparse
import ast
import copy
import importlib
import importlib.machinery
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.yaml")
TARGET_FRAC = 0.95
LIMIT_S = 240
"""Of a core. A mutant that makes the tests take longer is killed: it never ends."""

OPTIONS = ["-n", "0", "-x", "-q", "--tb=no", "-rfE", "-m", "not long", "-p", "no:cacheprovider"]
OPTIONS += ["--assert=plain", "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # pytest must not import in our place

LAWS = [
    "tests/unit/test_functional_golden.py",
    "tests/property/test_functional_laws.py",
    "tests/unit/test_ppo_plugin.py",
    "tests/unit/test_grpo_plugin.py",
    "tests/unit/test_critic_free_plugin.py",
    "tests/property/test_ppo_laws.py",
    "tests/property/test_grpo_laws.py",
    "tests/property/test_critic_free_laws.py",
    "tests/property/test_exact_gradients.py",
    "tests/property/test_correction_laws.py",
    "tests/property/test_kl_control_laws.py",
    "tests/property/test_constant_inputs.py",
    "tests/unit/test_model_policy.py",
    "tests/unit/test_randomness.py",
]
STEPS = [
    "tests/unit/test_optimizer_steps.py",
    "tests/unit/test_trainer_policy_eval.py",
    "tests/unit/test_trainer_parts.py",
    "tests/unit/test_data_collate.py",
    "tests/property/test_update_laws.py",
    "tests/integration/test_rollout_correction.py",
    "tests/fault/test_numerical_faults.py",
]
RUNS = ["tests/golden", "tests/integration/test_rl_laws.py"]
TARGETS: dict[str, list[str]] = {
    "reasonrl/functional/*.py": [*LAWS, *STEPS, *RUNS],
    "plugins/reasonrl_ppo/algorithm.py": [*LAWS, *STEPS, *RUNS],
    "plugins/reasonrl_critic_free/algorithm.py": [*LAWS, *STEPS, *RUNS],
    "plugins/reasonrl_critic_free/base.py": [*LAWS, *STEPS, *RUNS],
    "reasonrl/trainer/update.py": [*STEPS, *LAWS, *RUNS],
    "reasonrl/trainer/policy_eval.py": [*STEPS, *LAWS, *RUNS],
    "reasonrl/trainer/microbatch.py": [*STEPS, *LAWS, *RUNS],
    "reasonrl/trainer/numerics.py": [*STEPS, *LAWS, *RUNS],
    "reasonrl/trainer/optim.py": [*STEPS, *LAWS, *RUNS],
    "reasonrl/data/collate.py": [*STEPS, *LAWS, *RUNS],
}
"""Files to mutate -> tests, those likely to fail first."""

Operators = dict[type[ast.AST], type[ast.AST]]
BINARY: Operators = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
COMPARISON: Operators = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
CALLS = {"min": "max", "max": "min", "sum": "mean", "mean": "sum", "any": "all", "all": "any"} | {
    "minimum": "maximum",
    "maximum": "minimum",
    "exp": "expm1",
    "expm1": "exp",
}
DROPPED = {"clamp", "detach", "abs"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """``file`` with ``source`` in its place. ``before`` and ``after`` are the changed line."""

    file: str
    line: int
    before: str
    after: str
    source: str

    @property
    def module(self) -> str:
        return self.file.removeprefix("plugins/").removesuffix(".py").replace("/", ".")

    @property
    def key(self) -> tuple[str, str, str]:
        return self.file, self.before, self.after


def find_mutants() -> list[Mutant]:
    """Every mutant of every target, in the order of the files."""
    files = sorted({path for pattern in TARGETS for path in ROOT.glob(pattern)})
    return [mutant for path in files for mutant in mutants_of(path)]


def mutants_of(path: Path) -> Iterator[Mutant]:
    """One changed place each."""
    source, file = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    data = source.encode()
    for node in places(ast.parse(source)):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        for new in variants(node):
            text = ast.unparse(ast.fix_missing_locations(new))
            text = f"({text})" if isinstance(new, ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp) else text
            changed = (data[:begin] + text.encode() + data[end:]).decode()
            before = data[starts[node.lineno - 1] : starts[node.end_lineno]].decode()
            after = changed[
                len(data[: starts[node.lineno - 1]].decode()) : len(changed)
                - len(data[starts[node.end_lineno] :].decode())
            ]
            yield Mutant(file, node.lineno, " ".join(before.split()), " ".join(after.split()), changed)


def places(node: ast.AST) -> Iterator[ast.expr]:
    """Expressions that compute: no annotations, messages, decorators or texts."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "keywords") and isinstance(
            node, ast.arg | ast.AnnAssign | ast.FunctionDef | ast.ClassDef
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
                continue
            if isinstance(child, ast.expr):
                yield child
            if isinstance(child, ast.AST):
                yield from places(child)


def variants(node: ast.expr) -> Iterator[ast.expr]:
    """The wrong expressions that this one is exchanged for."""
    match node:
        case ast.BinOp(op=op) if type(op) in BINARY:
            yield _with(node, op=BINARY[type(op)]())
        case ast.Compare(ops=[op]) if type(op) in COMPARISON:
            yield _with(node, ops=[COMPARISON[type(op)]()])
        case ast.BoolOp(op=op):
            yield _with(node, op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.USub() | ast.Invert() | ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(1 - value if value in (0, 1) else value + 1)
        case ast.IfExp(body=body, orelse=orelse):
            yield _with(node, body=orelse, orelse=body)
        case ast.Call(func=ast.Attribute(attr="where"), args=[condition, yes, no]):
            yield _with(node, args=[condition, no, yes])
        case ast.Call(func=ast.Attribute(attr="masked_fill"), args=[mask, value]):
            yield _with(node, args=[ast.UnaryOp(ast.Invert(), mask), value])
        case ast.Call(func=ast.Attribute(attr=name, value=inner)) if name in DROPPED:
            yield inner
        case ast.Call(func=ast.Attribute(attr=name) as func) if name in CALLS:
            yield _with(node, func=_with(func, attr=CALLS[name]))
        case ast.Call(func=ast.Name(id=name)) if name in CALLS and name not in ("sum", "mean"):
            yield _with(node, func=ast.Name(CALLS[name]))


def _with(node: ast.expr, **fields: object) -> ast.expr:
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


class Mutated(importlib.machinery.SourceFileLoader):
    """Loads a module from a changed source."""

    source = ""

    def get_code(self, fullname: str) -> object:
        return compile(self.source, self.path, "exec")


class Finder:
    """Finds one module mutated. The first entry of ``sys.meta_path``."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> object:
        if name != self._mutant.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = Mutated(name, spec.origin)
        spec.loader.source = self._mutant.source
        return spec


def start(mutant: Mutant | None, tests: Sequence[str], log: Path) -> int:
    """Fork a process that runs the tests against the mutant; its exit status is 0 if they all pass."""
    pid = os.fork()
    if pid:
        return pid
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S + 5))
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if mutant is not None:
        sys.meta_path.insert(0, Finder(mutant))
    import hypothesis
    import pytest

    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # a failure is enough; no need to shrink it
    hypothesis.settings.register_profile("mutants", phases=phases, database=None, derandomize=True)
    hypothesis.settings.load_profile("mutants")
    code = 1
    try:
        code = pytest.main([*OPTIONS, *tests])
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code))


def check_tests(log: Path) -> None:
    """Exit if the tests fail without a mutant: then they would prove nothing."""
    _, status = os.waitpid(start(None, [*LAWS, *STEPS, *RUNS], log), 0)
    if status:
        sys.exit(f"{log.read_text(encoding='utf-8')[-2000:]}\nthe tests fail without a mutant; mend them first")


def tests_of(mutant: Mutant) -> list[str]:
    return next(tests for pattern, tests in TARGETS.items() if (ROOT / mutant.file).match(pattern))


def run(mutants: Sequence[Mutant], jobs: int, folder: Path) -> Iterator[tuple[Mutant, str]]:
    """Each mutant with the test that killed it; an empty text if it survived."""
    waiting, running = list(enumerate(mutants)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            number, mutant = waiting.pop(0)
            log = folder / f"{number}.log"
            running[start(mutant, tests_of(mutant), log)] = mutant, log
        pid, status = os.wait()
        mutant, log = running.pop(pid)
        yield mutant, "" if status == 0 else killer(log, status)


def killer(log: Path, status: int) -> str:
    """What ended a run that failed, for the report."""
    if os.WIFSIGNALED(status):
        return f"no end after {LIMIT_S} s" if os.WTERMSIG(status) == signal.SIGXCPU else "crash"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    named = [line.split(" - ")[0].split(" ", 1)[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return named[0] if named else "error while the tests were collected"


def read_equivalent() -> dict[tuple[str, str, str], str]:
    entries = yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8")) or []
    return {(entry["file"], entry["before"], entry["after"]): entry["reason"] for entry in entries}


def report(results: Sequence[tuple[Mutant, str]], seconds: float, sampled_from: int) -> tuple[str, float]:
    """A Markdown report, and the share killed of the mutants that are not equivalent."""
    equivalent = read_equivalent()
    survivors = [mutant for mutant, test in results if not test]
    known = [mutant for mutant in survivors if mutant.key in equivalent]
    killed, relevant = len(results) - len(survivors), len(results) - len(known)
    lines = [
        f"{len(results)} of {sampled_from} mutants, {seconds / 60:.0f} min: {killed} killed, {len(known)} equivalent, "
        f"{relevant - killed} survived: {killed / max(relevant, 1):.1%} of the {relevant} that change a result.",
        "",
        "| place | before | after | why it may survive |",
        "|---|---|---|---|",
    ]
    for mutant in survivors:
        cells = (f"{mutant.file}:{mutant.line}", f"`{mutant.before}`", f"`{mutant.after}`")
        lines.append(f"| {' | '.join(cells)} | {equivalent.get(mutant.key, '**not explained**')} |")
    return "\n".join(lines) + "\n", killed / max(relevant, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=300, help="how many mutants are sampled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="part of a file's path")
    parser.add_argument("--out", type=Path, help="file for the report")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ("torch", "transformers", "accelerate", "peft", "numpy", "rich", "omegaconf"):
        importlib.import_module(name)  # once, not in every child
    every = [mutant for mutant in find_mutants() if options.only in mutant.file]
    chosen = random.Random(options.seed).sample(every, min(options.number, len(every)))
    began, results = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        check_tests(Path(folder) / "tests.log")
        for mutant, test in run(chosen, options.jobs, Path(folder)):
            results.append((mutant, test))
            sys.stdout.write(f"{len(results):4} {mutant.file}:{mutant.line}  {test or 'SURVIVED'}\n")
            if not test:
                sys.stdout.write(f"     - {mutant.before}\n     + {mutant.after}\n")
            sys.stdout.flush()
    text, killed_frac = report(results, time.monotonic() - began, len(every))
    sys.stdout.write(f"\n{text}")
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 0 if killed_frac >= TARGET_FRAC else 1


if __name__ == "__main__":
    sys.exit(main())

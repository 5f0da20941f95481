"""Whatever is written into a recipe: it resolves, or one line says what is wrong. Nothing else is raised."""

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasonrl.errors import MAX_CHARS, ReasonRLError, RecipeError
from reasonrl.plugins import load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.render import render_plain
from reasonrl.recipe.source import command_line_source, read_source

GOOD = """\
name: good
seed: 3
model: {name: toy-base, lora: {rank: 4, target_modules: [q, k]}}
task: {name: toy, high: 7, words: [a, b], token: "${oc.env:HOME}"}
algorithm: {name: critical, nested: {coef: 1e-3}}
rewards: {toy_reward: {weight: 0.5}}
critic: {kind: shared, learning_rate: null}
sampling: &s {group_size: 2, stop: ['</a>']}
rollout_backend: {name: backend}
trainer: {steps: 3, prompts_per_step: 4}
evaluation: {every: 0, suites: {held_out: {problems: 4, task: {name: toy}}}}
"""
SNIPPETS = [
    *"{}[]:,#&*!|>'\"%@`?-\n \t\0", "null", "true", "~", "1e400", "-1", ".nan", "0x1F", "${", "${oc.env:X}",
    "<<: *s", "!!python/name:os.system", "---\n", "é", "\ufeff", "\u2028", "name: ", "? [a]\n", "[[[",
    "2001-01-01", "!!binary aGk=", "!!bool abc", "!!timestamp x", "!!int ''", "! ", "!!set ", "9" * 70, "0x" + "f" * 70,
    "1:2:3", "1_0", "~nobody", "\\0", '"\\0"', '"\\ud800"', "x" * 300, "\x85", "\x1b[2J", "<<: ", "*s", "&t ", "=",
]  # fmt: skip
KEYS = ["seed", "task", "task.high", "model", "rewards", "evaluation.suites.x", "a.b", "", "critic"]
PLUGINS = load_plugins(files=["support.toy_plugin"], environ={"REASONRL_PLUGINS": ""})


def check(text: str, overrides: list[str], folder: Path) -> None:
    """Load ``text``; only a one-line error of ours may come out."""
    path = folder / "r.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    error = None
    try:
        render_plain(load_recipe(path, overrides, PLUGINS))
    except ReasonRLError as err:
        error = err
    assert error is None or (len(str(error).splitlines()) == 1 and error.exit_code == 2), str(error)


def mutate(rng: random.Random) -> str:
    text = GOOD
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(text))
        kind = rng.random()
        if kind < 0.3:
            text = text[:at] + text[at + rng.randint(1, 12) :]
        elif kind < 0.8:
            text = text[:at] + rng.choice(SNIPPETS) + text[at + rng.randint(0, 3) :]
        else:
            other = rng.randrange(len(text))
            text = text[:at] + text[other : other + rng.randint(1, 40)] + text[at:]
    return text


def test_mutated_recipes(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(150):
        check(mutate(rng), [], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1000, pytest.param(5000, marks=pytest.mark.long)])
def test_many_mutated_recipes(count: int, tmp_path: Path) -> None:
    rng = random.Random(1)
    for _ in range(count):
        check(mutate(rng), [], tmp_path)


@pytest.mark.slow
def test_ten_thousand_small_texts(tmp_path: Path) -> None:
    """One to four fragments of YAML as a recipe or as an override, read but not resolved. Seed 2."""
    rng, path = random.Random(2), tmp_path / "r.yaml"
    fragments = [*SNIPPETS, *KEYS, "a", "1", ": ", "[1, 2]", "{a: 1}", "'", '"', "extends: r.yaml"]
    said: set[str] = set()
    for _ in range(10_000):
        text = "".join(rng.choice(fragments) for _ in range(rng.randint(1, 4)))
        try:
            if rng.random() < 0.5:
                command_line_source("task", "toy", [f"a={text}"])
            else:
                path.write_text(f"a: {text}", encoding="utf-8", errors="surrogatepass")
                read_source(path, [])
        except RecipeError as err:
            said.add(str(err))
    assert len(said) > 500
    assert all(len(text.splitlines()) == 1 and len(text) <= MAX_CHARS for text in said)


@pytest.mark.slow
@settings(max_examples=100)
@given(
    key=st.sampled_from(KEYS),
    value=st.one_of(st.text(max_size=12), st.sampled_from(SNIPPETS)),
)
def test_any_override(key: str, value: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(GOOD, [f"{key}={value}"], Path(folder))

"""The suite notices what it is there for: with each of these faults injected, its own checks fail."""

from pathlib import Path
from typing import Any

import pytest
from stranger.commands import Commands
from stranger.keys.registry import PROBES, load_all
from stranger.lab import Lab
from stranger.markdown import ROOT, blocks, inline_commands
from stranger.page import Page, PageError
from stranger.words import Words

load_all()
PAGE = ROOT / "docs" / "page.md"
TRAIN = "```sh\nreasonrl train countdown_ppo\n```\n"


def page(text: str, folder: Path, commands: Commands, words: Words) -> Page:
    return Page(blocks(PAGE, text), folder, commands, words)


# A library that has changed


def test_a_renamed_argument_of_a_library_is_noticed(tmp_path: Path, commands: Commands, words: Words) -> None:
    with commands.fault("renamed"), pytest.raises(PageError, match="unexpected keyword argument"):
        page(TRAIN, tmp_path, commands, words).run()


# A device with the rules of a GPU


def test_what_works_on_a_cpu_only_is_noticed(tmp_path: Path, commands: Commands, words: Words) -> None:
    """The same page runs on that device without the fault."""
    for name in ("without", "float64", "host"):
        (tmp_path / name).mkdir()
    with commands.fault("gpu"):
        page(TRAIN, tmp_path / "without", commands, words).run()
    for kind, said in (
        ("float64", "doesn't support float64"),
        ("host", "Expected all tensors to be on the same device"),
    ):
        with commands.fault(f"gpu_fault {kind}"), pytest.raises(PageError, match=said):
            page(TRAIN, tmp_path / kind, commands, words).run()


# Documentation that is wrong


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("reasonrl recipes list", "reasonrl recipe list"),
        ("reasonrl recipes list", "reasonrl recipes lst"),
        ("reasonrl tasks preview countdown -n 1", "reasonrl tasks preview countdown --number 1"),
        ("reasonrl recipes check countdown_ppo seed=1", "reasonrl recipes check countdown_ppo sead=1"),
        ("reasonrl recipes show countdown_ppo", "reasonrl recipes show countdown_pop"),
        ('pip install -e ".[test]"', 'pip install -e ".[tests]"'),
        ("python benchmarks/learning.py --help", "python benchmarks/lerning.py --help"),
    ],
)
def test_a_misspelled_command_is_noticed(good: str, bad: str, tmp_path: Path, commands: Commands, words: Words) -> None:
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    page(f"```sh\n{good}\n```\n", tmp_path / "good", commands, words).run()
    with pytest.raises(PageError, match=r"docs/page\.md:1"):
        page(f"```sh\n{bad}\n```\n", tmp_path / "bad", commands, words).run()


MARKED = "<!-- not run: needs a GPU -->\n```sh\n{}\n```\n"


@pytest.mark.parametrize(
    "command",
    [
        "reasonrl trian countdown_ppo",
        "reasonrl train countdown_ppo --pluginn x.py",
        "reasonrl train countdown_ppo rollout_backend.name=vlm",
        "reasonrl train countdown_ppo rollout_backend={name: vllm, max_num_seq: 8}",
        "accelerate launch --num_processes 8 -m reasonrl train countdown_ppo trainer.stepz=1",
        "python benchmarks/learning.py --seedz 1",
    ],
)
def test_a_misspelled_command_is_noticed_where_it_is_not_run(
    command: str, tmp_path: Path, commands: Commands, words: Words
) -> None:
    with pytest.raises(PageError, match=r"docs/page\.md:2"):
        page(MARKED.format(command), tmp_path, commands, words).run()


def test_a_misspelled_command_in_a_sentence_is_noticed(words: Words) -> None:
    text = "Then `reasonrl evaluate RUN`, or\n`reasonrl eval RUN\n--jsn`.\n"
    found = [(line, words.faults(c)) for line, t in inline_commands(PAGE, text) for c in words.commands(t)]
    assert found == [(1, ["reasonrl has no command 'evaluate'"]), (2, ["reasonrl eval has no option --jsn"])]


@pytest.mark.parametrize(
    "block",
    [
        '```yaml title="x.yaml"\nname: x\nmodel: {name: countdown-base}\ntrainer: {stepz: 1}\n```\n',
        "```yaml\nsampling: {temprature: 0.5}\n```\n",
        "```python\nimport reasonrl\nreasonrl.train\n```\n",
        "```python\nfrom reasonrl import hookimpl\n\n\n@hookimpl\ndef reasonrl_task():\n    yield 1\n```\n",
        "```pycon\n>>> 1 + 1\n3\n\n```\n",
        '```json title="x.jsonl"\n{"a": 1\n```\n',
    ],
)
def test_an_example_that_does_not_work_is_noticed(block: str, tmp_path: Path, commands: Commands, words: Words) -> None:
    with pytest.raises(PageError, match=r"docs/page\.md:1"):
        page(block, tmp_path, commands, words).run()


# A key without an effect

REQUIRED = {
    *((kind, key) for kind in ("train", "sft") for key in ("name", "data.path", "sft.max_tokens")),
    *((kind, key) for kind in ("train", "sft") for key in ("model.path", "model.name")),
    *(("train", key) for key in ("task", "algorithm", "trainer.steps", "trainer.prompts_per_step")),
}
"""Keys that have no default to fall back to, or of which one must be given."""

READ_ELSEWHERE = {
    *((kind, key) for kind, key in PROBES if kind == "reward"),
    *((kind, key) for kind in ("train", "sft") for key in ("task", "rewards", "rollout_backend")),
}
"""Slots and rewards: what is read is the mapping, not a field of the schema's classes."""

UNTOLD = {
    *((kind, key) for kind in ("train", "sft") for key in ("optimizer.name", "model.lora.dropout")),
    *((kind, key) for kind, key in PROBES if kind == "rollout_backend.vllm"),
}
"""Keys that can be ignored and seem to be read: one value, or values that are checked and no more."""

MISSED = (AssertionError, KeyError, TypeError, FileNotFoundError)
"""What an observation raises that does not find what it looks for."""

SEEN_IN_TRAINING = {("sft", key) for kind, key in PROBES if kind == "train"}
"""The same function observes the key in both kinds of runs: once is enough."""

CHECKED = [
    pytest.param(kind, key, marks=() if number % 16 == 0 else pytest.mark.long)
    for number, (kind, key) in enumerate(sorted(PROBES.keys() - REQUIRED - READ_ELSEWHERE - UNTOLD - SEEN_IN_TRAINING))
]
"""A sixteenth of the keys; the others too in ``pytest -m long tests/stranger``."""


@pytest.mark.parametrize(("kind", "key"), CHECKED)
def test_a_key_without_an_effect_is_noticed(kind: str, key: str, lab: Lab, described: dict[str, Any]) -> None:
    """Each key in turn is read, checked, and then has its default all the same."""
    schema = {"train": described["train"], "sft": described["sft"], **described["components"]}
    owner = schema[kind][key]
    assert owner, "a key without a default belongs in REQUIRED"
    with lab.fault(f"ignored {owner}") as faulty, pytest.raises(MISSED) as error:
        PROBES[kind, key](faulty, kind)
    assert "Traceback" not in str(error.value), "the fault itself is broken"

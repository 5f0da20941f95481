"""Imitation: where demonstrations come from and how many are read."""

import json

from stranger.keys.registry import effect
from stranger.lab import Lab, distance


@effect("data.path", of=("sft",))
def data_path(lab: Lab, kind: str) -> None:
    """A file in place of a task: every example has the file's length."""
    line = json.dumps({"prompt": "ab:", "completion": "abababab"})
    lab.file("demonstrations.jsonl", f"{line}\n" * 4)
    from_file = ("task=null", "data.path=demonstrations.jsonl", "sft.tokens_per_batch=1", "sft.max_tokens=40")
    run = lab.run(kind, *from_file, "evaluation.suites=null")
    assert set(run.values("batch/train_tokens")) == {len("ab:abababab") + 1}


@effect("data.prompt", "data.completion", of=("sft",))
def data_columns(lab: Lab, kind: str) -> None:
    line = json.dumps({"asked": "ab:", "told": {"text": "abababab"}})
    lab.file("columns_of_mine.jsonl", f"{line}\n" * 4)
    file = ("task=null", "data.path=columns_of_mine.jsonl", "sft.tokens_per_batch=1", "sft.max_tokens=40")
    columns = ("data.prompt=asked", "data.completion=told.text", "evaluation.suites=null")
    run = lab.run(kind, *file, *columns)
    assert set(run.values("batch/train_tokens")) == {len("ab:abababab") + 1}


@effect("data.train_on", of=("sft",))
def train_on(lab: Lab, kind: str) -> None:
    """A loss on all messages of the assistant leads to other weights than one on the last message."""
    talk = [{"role": role, "content": "ab"} for role in ("user", "assistant", "user", "assistant")]
    lab.file("talks.jsonl", f"{json.dumps({'messages': talk})}\n" * 4)
    file = ("task=null", "sft.tokens_per_batch=1", "sft.max_tokens=40", "evaluation.suites=null")
    runs = [lab.run(kind, *file, f"data={{path: talks.jsonl, train_on: {which}}}") for which in ("last", "all")]
    assert distance(runs[0].weights(), runs[1].weights()) > 0


@effect("data.subset", "data.split", of=("sft",))
def data_subset(lab: Lab, kind: str) -> None:
    """A folder that is laid out as a data set of the hub is read by the same library."""
    parts = "".join(
        f"- config_name: {name}\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: {name}_{split}.jsonl\n" for split in ("train", "odd"))
        for name in ("one", "two")
    )
    lab.file("stranger/pairs/README.md", f"---\nconfigs:\n{parts}---\n")
    for name, length in {"one_train": 2, "one_odd": 3, "two_train": 4, "two_odd": 5}.items():
        line = json.dumps({"prompt": ":", "completion": "a" * length})
        lab.file(f"stranger/pairs/{name}.jsonl", f"{line}\n" * 4)
    few = ("sft.tokens_per_batch=1", "sft.max_tokens=20", "evaluation.suites=null")
    for subset, split, length in (("one", "train", 2), ("two", "train", 4), ("one", "odd", 3)):
        data = f"data={{path: stranger/pairs, subset: {subset}, split: {split}}}"
        run = lab.run(kind, "task=null", data, *few)
        assert set(run.values("batch/train_tokens")) == {length + 2}


@effect("sft.max_tokens", of=("sft",))
def max_tokens(lab: Lab, kind: str) -> None:
    """Steps are as many batches as that takes."""
    assert len(lab.run(kind).metrics) == 3
    assert len(lab.run(kind, "sft.max_tokens=500").metrics) == 5


@effect("sft.tokens_per_batch", of=("sft",))
def tokens_per_batch(lab: Lab, kind: str) -> None:
    for tokens in (50, 100):
        run = lab.run(kind, f"sft.tokens_per_batch={tokens}")
        assert all(tokens <= read < tokens + 64 for read in run.values("batch/train_tokens"))


@effect("sft.max_tokens_per_microbatch", of=("sft",))
def max_tokens_per_microbatch(lab: Lab, kind: str) -> None:
    """More forward passes, and the same training."""
    whole, cut = lab.run(kind), lab.run(kind, "sft.max_tokens_per_microbatch=40")
    assert cut.probe["layer_calls"] > 2 * whole.probe["layer_calls"]
    assert distance(whole.weights(), cut.weights()) < 1e-2 * distance(whole.weights(), lab.start())

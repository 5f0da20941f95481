"""When and on what the model is evaluated, what is kept, and what is written beside the metrics."""

from collections import defaultdict

from stranger.keys.registry import BOTH, effect
from stranger.lab import Lab, Run

EARLY = ("rewards={early: {}}", "evaluation.every=1", "evaluation.suites.a.problems=2", "checkpoint.keep=1")
"""Right is what the policy of one optimizer step writes, so the first checkpoint is the best."""


@effect("evaluation.every", of=BOTH)
def every(lab: Lab, kind: str) -> None:
    assert lab.run(kind).evaluated == [0, 3]
    assert lab.run(kind, "evaluation.every=1").evaluated == [0, 1, 2, 3]
    assert lab.run(kind, "evaluation.every=2").evaluated == [0, 2, 3]


@effect("evaluation.suites", of=BOTH)
def suites(lab: Lab, kind: str) -> None:
    """The first one is the headline."""
    run = lab.run(kind, "evaluation.suites={b: {problems: 2}, a: {problems: 2}}")
    assert {path.stem for path in (run.path / "evals/step_000000").glob("*.jsonl")} == {"a", "b"}
    assert lab.run(kind).summary["eval"]["last"]["suite"] == "a"


@effect("evaluation.suites.<name>.problems", of=BOTH)
def problems(lab: Lab, kind: str) -> None:
    for count in (4, 7):
        run = lab.run(kind, f"evaluation.suites.a.problems={count}")
        assert len({record["problem_id"] for record in run.evaluation()}) == count


@effect("evaluation.suites.<name>.samples", of=BOTH)
def samples(lab: Lab, kind: str) -> None:
    run = lab.run(kind, "evaluation.suites.a.samples=3")
    assert [record["sample"] for record in run.evaluation()] == [0, 1, 2] * 4
    assert "pass@3" in str(run.summary)


@effect("evaluation.suites.<name>.temperature", of=BOTH)
def temperature(lab: Lab, kind: str) -> None:
    """0 is greedy: all samples of a problem are one."""
    many = "evaluation.suites.a.samples=3"
    greedy, drawn = (lab.run(kind, many, f"evaluation.suites.a.temperature={t}") for t in (0.0, 1.0))
    assert set(map(len, _texts(greedy).values())) == {1}
    assert max(map(len, _texts(drawn).values())) == 3


@effect("evaluation.suites.<name>.pass_at", of=BOTH)
def pass_at(lab: Lab, kind: str) -> None:
    run = lab.run(kind, "evaluation.suites.a.samples=3", "evaluation.suites.a.pass_at=[1,2]")
    figures = run.summary["eval"]["first"]["suites"]["a"]
    assert {key for key in figures if "@" in key} == {"pass@1", "pass@2", "maj@1", "maj@2"}
    assert figures["pass@1"] == figures["accuracy"]


@effect("evaluation.suites.<name>.top_p", of=BOTH)
def top_p(lab: Lab, kind: str) -> None:
    _truncation(lab, kind, "top_p", 1e-9, 0.5)


@effect("evaluation.suites.<name>.top_k", of=BOTH)
def top_k(lab: Lab, kind: str) -> None:
    _truncation(lab, kind, "top_k", 1, 5)


def _truncation(lab: Lab, kind: str, key: str, tightest: float, loose: float) -> None:
    """With only the most likely token left, completions are the greedy ones; else they vary, but not as without it."""
    texts = {}
    for value in (tightest, loose, None):
        cut = () if value is None else (f"evaluation.suites.a.{key}={value}",)
        run = lab.run(kind, "evaluation.suites.a.samples=3", *cut)
        texts[value] = [row["completion"] for row in run.evaluation()]
    greedy = lab.run(kind, "evaluation.suites.a.samples=3", "evaluation.suites.a.temperature=0.0").evaluation()
    assert texts[tightest] == [row["completion"] for row in greedy]
    assert texts[loose] not in (texts[tightest], texts[None])


@effect("evaluation.suites.<name>.max_completion_tokens", of=BOTH)
def max_completion_tokens(lab: Lab, kind: str) -> None:
    run = lab.run(kind, "evaluation.suites.a.max_completion_tokens=2")
    assert max(record["completion_tokens"] for record in run.evaluation()) == 2


@effect("evaluation.suites.<name>.task", of=BOTH)
def task(lab: Lab, kind: str) -> None:
    run = lab.run(kind, "evaluation.suites.a.task={name: probe, words: 5}")
    assert {len(record["prompt"].split()) for record in run.evaluation()} == {5}


@effect("checkpoint.every", of=BOTH)
def checkpoint_every(lab: Lab, kind: str) -> None:
    assert lab.run(kind).saved == [1, 2, 3]
    assert lab.run(kind, "checkpoint.every=2").saved == [2, 3]
    assert lab.run(kind, "checkpoint.every=0").saved == [3]


@effect("checkpoint.keep", of=BOTH)
def keep(lab: Lab, kind: str) -> None:
    """The newest; one beside them if it is the best."""
    assert lab.run(kind, "checkpoint.keep=2", "checkpoint.keep_best=false").saved == [2, 3]
    assert lab.run(kind, "checkpoint.keep=1", "checkpoint.keep_best=false").saved == [3]


@effect("checkpoint.keep_best", of=BOTH)
def keep_best(lab: Lab, kind: str) -> None:
    best, newest = (lab.run(kind, *EARLY, f"checkpoint.keep_best={flag}") for flag in ("true", "false"))
    assert best.saved == [1, 3]
    assert best.summary["best"]["step"] == 1
    assert newest.saved == [3]


@effect("logging.transcripts_per_step")
def transcripts_per_step(lab: Lab, kind: str) -> None:
    assert len(lab.run(kind).transcripts()) == 16
    assert len(lab.run(kind, "logging.transcripts_per_step=3").transcripts()) == 3
    assert not (lab.run(kind, "logging.transcripts_per_step=0").path / "transcripts").exists()


@effect("logging.transcripts_per_step", of=("sft",))
def transcripts_per_step_sft(lab: Lab, kind: str) -> None:
    """Imitation samples nothing, and says so."""
    assert "no effect in an SFT recipe" in lab.refused(kind, "logging.transcripts_per_step=3")


@effect("logging.token_figures_per_step")
def token_figures_per_step(lab: Lab, kind: str) -> None:
    assert [i for i, one in enumerate(lab.run(kind).transcripts()) if "tokens" in one] == [0, 1, 2, 3]
    transcripts = lab.run(kind, "logging.token_figures_per_step=1").transcripts()
    assert [i for i, one in enumerate(transcripts) if "tokens" in one] == [0]


@effect("logging.token_figures_per_step", of=("sft",))
def token_figures_per_step_sft(lab: Lab, kind: str) -> None:
    assert "no effect in an SFT recipe" in lab.refused(kind, "logging.token_figures_per_step=1")


@effect("logging.trackers", of=BOTH)
def trackers(lab: Lab, kind: str) -> None:
    """The same figures, in the tracker's own files; an unknown tracker is refused."""
    run = lab.run(kind, "logging.trackers=[tensorboard]")
    script = lab.file("events.py", READ_EVENTS)
    key = "loss/total" if kind == "train" else "loss/sft"
    done = lab.commands.script(script, str(run.path / "trackers"), key, cwd=lab.folder)
    assert done.code == 0, done
    told = [float(word) for word in done.out.split()]
    assert len(told) == len(run.metrics)
    assert all(abs(a - b) < 1e-5 for a, b in zip(told, run.values(key), strict=True))
    assert "nosuchtracker" in lab.refused(kind, "logging.trackers=[nosuchtracker]")


@effect("logging.report", of=BOTH)
def report(lab: Lab, kind: str) -> None:
    """Whether the run ends with its report."""
    assert "<html" in (lab.run(kind, "logging.report=true").path / "report.html").read_text(encoding="utf-8")
    assert not (lab.run(kind, "logging.report=false").path / "report.html").exists()


@effect("logging.project", of=BOTH)
def project(lab: Lab, kind: str) -> None:
    """Where the tracker puts the run."""
    run = lab.run(kind, "logging.trackers=[tensorboard]", "logging.project=elsewhere")
    assert (run.path / "trackers" / "elsewhere").is_dir()


@effect("logging.tracker_options", of=BOTH)
def tracker_options(lab: Lab, kind: str) -> None:
    """They reach the tracker; those of one that is not used are refused."""
    options = "logging.tracker_options={tensorboard: {filename_suffix: .mine}}"
    run = lab.run(kind, "logging.trackers=[tensorboard]", options)
    assert [*(run.path / "trackers").rglob("*.mine")]
    assert "tracker_options" in lab.refused(kind, options)


READ_EVENTS = """
import sys
from pathlib import Path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

for file in Path(sys.argv[1]).rglob("events.out.tfevents*"):
    events = EventAccumulator(str(file)).Reload()
    if sys.argv[2] in events.Tags()["scalars"]:
        print(*(event.value for event in events.Scalars(sys.argv[2])))
"""


def _texts(run: Run) -> dict[str, set[str]]:
    found = defaultdict(set)
    for record in run.evaluation():
        found[record["problem_id"]].add(record["completion"])
    return found

"""Name, seed, folders, task and rewards."""

from stranger.keys.registry import BOTH, effect
from stranger.lab import Lab


@effect("name", of=BOTH)
def name(lab: Lab, kind: str) -> None:
    verb = "sft" if kind == "sft" else "train"
    lab.ask(verb, f"{kind}.yaml", "name=renamed", f"output_dir=named_{kind}", "--plugin", "probe_plugin.py")
    assert (lab.folder / f"named_{kind}" / "renamed-1" / "summary.json").is_file()


@effect("output_dir", of=BOTH)
def output_dir(lab: Lab, kind: str) -> None:
    verb = "sft" if kind == "sft" else "train"
    lab.ask(verb, f"{kind}.yaml", f"output_dir=elsewhere_{kind}", "--plugin", "probe_plugin.py")
    assert (lab.folder / f"elsewhere_{kind}" / f"{kind}-1" / "metrics.jsonl").is_file()


@effect("device", of=BOTH)
def device(lab: Lab, kind: str) -> None:
    """There is a CPU; what is not there is refused, by the flag too."""
    assert lab.run(kind, "device=cpu").manifest["machine"]["device"] == "cpu"
    assert "mps is not available" in lab.refused(kind, "device=mps")


@effect("seed", of=BOTH)
def seed(lab: Lab, kind: str) -> None:
    """Other problems, and other draws."""
    one, other = lab.run(kind), lab.run(kind, "seed=1")
    assert [r["prompt"] for r in one.evaluation()] != [r["prompt"] for r in other.evaluation()]
    assert one.values("loss/total" if kind == "train" else "loss/sft") != other.values(
        "loss/total" if kind == "train" else "loss/sft"
    )


@effect("task", of=BOTH)
def task(lab: Lab, kind: str) -> None:
    """Another task's problems; options are the task's own."""
    long = lab.run(kind, "task.words=6")
    assert all(len(record["prompt"].split()) == 6 for record in long.evaluation())
    other = lab.run(kind, "task={name: countdown, template: compact}", "sampling.max_completion_tokens=64")
    assert all(record["prompt"].startswith("Numbers: ") for record in other.evaluation())


@effect("rewards", of=BOTH)
def rewards(lab: Lab, kind: str) -> None:
    other = lab.run(kind, "rewards={early: {}}")
    assert {name for record in other.evaluation() for name in record["components"]} == {"early"}


@effect("weight", of=("reward",))
def weight(lab: Lab, kind: str) -> None:
    one, double = lab.run("train"), lab.run("train", "rewards={letters: {weight: 2.0}}")
    assert [2 * r["reward"] for r in one.transcripts()] == [r["reward"] for r in double.transcripts()]
    assert [r["components"] for r in one.transcripts()] == [r["components"] for r in double.transcripts()]


@effect("path", of=("reward",))
def path(lab: Lab, kind: str) -> None:
    run = lab.run("train", "rewards={mine: {path: reward.py:score}}")
    assert all(r["components"] == {"mine": float(len(r["completion"]) % 2)} for r in run.transcripts())


@effect("isolation", of=("reward",))
def isolation(lab: Lab, kind: str) -> None:
    """A worker has no torch; the figures are the same."""
    inline, apart = lab.run("train"), lab.run("train", "rewards={letters: {isolation: process}}")
    assert inline.values("reward/detail/letters/inline") == [1.0] * 3
    assert apart.values("reward/detail/letters/inline") == [0.0] * 3
    assert inline.values("train/reward") == apart.values("train/reward")


@effect("timeout_s", of=("reward",))
def timeout_s(lab: Lab, kind: str) -> None:
    slow = "rewards={letters: {isolation: process, seconds: 1.0, timeout_s: %s}}"
    patient, hasty = lab.run("train", slow % 30), lab.run("train", slow % 0.3, "trainer.prompts_per_step=24")
    assert patient.values("train/unscored_frac")[0] == 0.0
    late = [r for r in hasty.transcripts() if r["reward"] is None]
    assert [r["reasons"]["letters"] for r in late] == ["timed out after 0.3 s"] * 4


@effect("memory_mb", of=("reward",))
def memory_mb(lab: Lab, kind: str) -> None:
    hungry = "rewards={letters: {isolation: process, mebibytes: 600, memory_mb: %s}}"
    ample, tight = (lab.run("train", hungry % mb, "trainer.prompts_per_step=24") for mb in ("null", 500))
    assert ample.values("train/unscored_frac")[0] == 0.0
    short = [r for r in tight.transcripts() if r["reward"] is None]
    assert [r["reasons"]["letters"] for r in short] == ["raised MemoryError"] * 4

"""One fault, one finding with step and remedy; a healthy run has none."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.sick_runs import STEPS, Line, evaluation, healthy_line, sick, write_run, write_transcript

from reasonrl.analysis.doctor import CHECKS, Finding, examine
from reasonrl.analysis.doctor.curve import WINDOW, Curve
from reasonrl.analysis.doctor.learning_signal import all_right_frac

ONE = {"sampling": {"group_size": 1}}


def findings(folder: Path) -> list[Finding]:
    return list(examine(folder).findings)


def only(folder: Path) -> Finding:
    found = findings(folder)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(("count", "expected"), [(1, (0, 0)), (2, (0, 1)), (5, (0.5, 3.5)), (12, (2, 9))])
def test_the_ends_of_a_curve_do_not_overlap(count: int, expected: tuple[float, float]) -> None:
    curve = Curve(tuple(range(1, count + 1)), tuple(float(n) for n in range(count)))
    assert curve.ends() == expected


def test_a_healthy_run_has_no_findings(tmp_path: Path) -> None:
    diagnosis = examine(write_run(tmp_path / "run"))
    assert diagnosis.findings == ()
    assert diagnosis.state == "completed"
    assert diagnosis.not_measured == ("sft-loss",)
    assert set(diagnosis.passed) | {"sft-loss"} == {check.name for check in CHECKS}


CONSTANT: list[tuple[str, str, str, Mapping[str, Any], str]] = [
    # check, severity, what the message holds, the figures from step 21 on, a key of the remedy
    (
        "all-wrong",
        "warning",
        "about 83% all wrong",
        {"group/zero_std_frac": 0.85, "train/accuracy": 0.05},
        "task",
    ),
    ("all-wrong", "error", "100% all wrong", {"group/zero_std_frac": 1.0, "train/accuracy": 0.0}, "task"),
    ("all-right", "note", "all correct", {"group/zero_std_frac": 0.95, "train/accuracy": 0.97}, "task"),
    (
        "flat-groups",
        "error",
        "about 50% all wrong, 50% all correct",
        {"group/zero_std_frac": 1.0, "train/accuracy": 0.5},
        "task",
    ),
    ("unscored", "warning", "at worst 5%", {"train/unscored_frac": 0.05}, "rewards"),
    (
        "entropy",
        "warning",
        "entropy collapse: from 0.35 to 0.020",
        {"policy/entropy": 0.02},
        "optimizer.learning_rate",
    ),
    ("entropy", "warning", "entropy explosion: from 0.35 to 3.00", {"policy/entropy": 3.0}, "algorithm.entropy_coef"),
    ("kl", "warning", "0.2 nats", {"policy/kl_old_k3": 0.2}, "trainer.update_epochs"),
    ("kl", "warning", "from the reference: KL is 5 nats", {"policy/kl_ref_k3": 5.0}, "algorithm.kl.coef"),
    ("clipping", "warning", "45% of the tokens", {"policy/clip_frac": 0.45}, "algorithm.clip_eps"),
    ("stale-weights", "warning", "differ by 0.2", {"rollout/logprob_gap": 0.2}, "rollout backend"),
    (
        "critic",
        "warning",
        "explained variance -0.20",
        {"critic/explained_variance": -0.2},
        "critic.warmup_steps",
    ),
    (
        "critic",
        "warning",
        "explained variance -9.00",
        {"critic/explained_variance": -9.0},
        "critic.learning_rate",
    ),
    (
        "truncation",
        "warning",
        "80% of the completions are truncated at 220",
        {"train/truncated_frac": 0.8},
        "sampling.max_completion_tokens",
    ),
    ("padding", "note", "75%", {"batch/padding_frac": 0.75}, "trainer.max_tokens_per_microbatch"),
    (
        "throughput",
        "warning",
        "sampling slowed from",
        {"throughput/rollout_tokens_per_s": 900.0},
        "rollout_backend.max_batch_rows",
    ),
    ("throughput", "warning", "training slowed", {"throughput/train_tokens_per_s": 9.0}, "max_batch_rows"),
]


@pytest.mark.parametrize(
    ("check", "severity", "text", "figures", "key"), CONSTANT, ids=lambda v: v if isinstance(v, str) else ""
)
def test_one_fault_one_finding(
    check: str, severity: str, text: str, figures: Mapping[str, Any], key: str, tmp_path: Path
) -> None:
    # The held-out figures stay those of a healthy run: each fault alone.
    found = only(write_run(tmp_path / "run", sick(lambda line: figures)))
    assert (found.check, found.severity, found.step) == (check, severity, 21)
    assert text in found.message
    assert key in found.remedy


def test_one_completion_a_prompt_has_no_groups(tmp_path: Path) -> None:
    """Every group of one is flat; only a batch in which all fail is a finding."""
    figures = {"group/zero_std_frac": 1.0}
    assert findings(write_run(tmp_path / "fine", sick(lambda line: figures, since=1), recipe=ONE)) == []
    dead = {**figures, "train/accuracy": 0.0, "train/reward": 0.0}
    found = only(write_run(tmp_path / "dead", sick(lambda line: dead), recipe=ONE))
    assert (found.check, found.severity, found.step) == ("all-wrong", "error", 21)
    graded = sick(lambda line: {**figures, "train/accuracy": 0.0})
    assert findings(write_run(tmp_path / "graded", graded, recipe=ONE)) == [], "partial credit still differs"
    done = {**figures, "train/accuracy": 1.0, "train/reward": 1.0}
    assert only(write_run(tmp_path / "done", sick(lambda line: done), recipe=ONE)).check == "all-right"


def test_flat_groups_without_a_verdict_are_not_split(tmp_path: Path) -> None:
    lines = [{**healthy_line(step), "group/zero_std_frac": 0.9} for step in range(1, STEPS + 1)]
    for line in lines:
        del line["train/accuracy"]
    found = only(write_run(tmp_path / "run", lines))
    assert (found.check, found.step) == ("flat-groups", 1)
    assert "do not report correctness" in found.message


@pytest.mark.parametrize("group_size", [2, 4, 8])
def test_the_split_of_flat_groups_is_right_to_within_half_its_interval(group_size: int) -> None:
    for right in range(0, 11):
        for wrong in range(0, 11 - right):
            mixed = 10 - right - wrong
            for correct in range(1, group_size):
                accuracy = (right + mixed * correct / group_size) / 10
                estimate = all_right_frac((right + wrong) / 10, accuracy, group_size)
                assert abs(estimate - right / 10) <= mixed / 10 * (0.5 - 1 / group_size) + 1e-9


@pytest.mark.parametrize(
    ("factor", "better", "expected"),
    [(4.0, 0.0, "length"), (0.2, 0.0, "length"), (4.0, 0.3, None), (2.0, 0.0, None)],
)
def test_length_drifts_only_if_nothing_becomes_better(
    factor: float, better: float, expected: str | None, tmp_path: Path
) -> None:
    def change(line: Line) -> Line:
        late = line["step"] >= 21
        return {
            "train/length_tokens": 40.0 * (factor if late else 1.0),
            **dict.fromkeys(("train/reward", "train/accuracy"), 0.2 + (better if late else 0.0)),
        }

    found = findings(write_run(tmp_path / "run", sick(change, since=1)))
    assert [(f.check, f.step) for f in found] == ([(expected, 21)] if expected else [])


def test_certainty_about_solved_problems_is_only_a_note(tmp_path: Path) -> None:
    figures = {"policy/entropy": 0.01, "train/accuracy": 0.95, "train/reward": 0.95}
    assert only(write_run(tmp_path / "run", sick(lambda line: figures))).severity == "note"


def held_out(accuracy: Callable[[int], float]) -> list[Line]:
    return sick(lambda line: evaluation(accuracy(line["step"])) if line["step"] % 10 == 0 else {}, since=1)


def test_held_out_accuracy_that_stands_still_or_falls(tmp_path: Path) -> None:
    still = only(write_run(tmp_path / "still", held_out(lambda step: 0.18 + step / 4000)))
    assert (still.check, still.step) == ("progress", 0)
    assert "was 18.0% (95% 15.0% to 21.0%) at step 0 and is 19.0% at step 40" in still.message
    falls = only(write_run(tmp_path / "falls", held_out(lambda step: 0.6 if step == 20 else 0.3)))
    assert (falls.check, falls.step) == ("progress", 20)
    assert "fell from 60.0% at step 20 to 30.0% at step 40" in falls.message
    solved = held_out(lambda step: 0.97)
    assert findings(write_run(tmp_path / "solved", solved, first_accuracy=0.97)) == []


def test_skipped_updates_name_what_was_not_finite(tmp_path: Path) -> None:
    lines = [healthy_line(step) for step in range(1, STEPS + 1)]
    lines[11] |= {"optim/skipped_updates": 1.0, "numerics/nonfinite_rollout_logprobs": 3.0}
    found = only(write_run(tmp_path / "once", lines))
    assert (found.check, found.severity, found.step) == ("updates", "warning", 12)
    assert "1 updates" in found.message
    assert "rollout logprobs" in found.message
    for line in lines[-3:]:
        line["optim/skipped_updates"] = 1.0
    both = findings(write_run(tmp_path / "end", lines, outcome="failed"))
    assert [(f.check, f.severity) for f in both] == [("state", "error"), ("updates", "error")]


def test_the_gap_to_the_sampler_is_judged_by_the_precision(tmp_path: Path) -> None:
    rounded = sick(lambda line: {"rollout/logprob_gap": 0.01}, since=1)
    assert findings(write_run(tmp_path / "bf16", rounded, precision="bfloat16")) == []
    assert only(write_run(tmp_path / "fp32", rounded)).check == "stale-weights"


def test_completions_of_an_old_policy_are_found_in_the_transcripts(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    for step in (1, 20, 40):
        write_transcript(folder, step, 2 * (step - 1))
    assert findings(folder) == []
    write_transcript(folder, 20, 2 * (20 - 5))
    found = only(folder)
    assert (found.check, found.step) == ("stale-weights", 20)
    assert "policy version 30, expected 38" in found.message


@pytest.mark.parametrize("ahead", [True, False], ids=["sampled-ahead", "carried"])
def test_completions_that_may_be_a_step_old_are_none(ahead: bool, tmp_path: Path) -> None:
    lines = sick(lambda line: {} if ahead else {"group/carried_frac": 0.2}, since=1)
    trainer = {"steps": STEPS, "max_staleness": int(ahead)}
    folder = write_run(tmp_path / "run", lines, recipe={"trainer": trainer})
    for step, behind in ((1, 0), (2, 1), (20, 1), (40, 0)):
        write_transcript(folder, step, 2 * (step - 1 - behind))
    assert findings(folder) == []
    write_transcript(folder, 20, 2 * (20 - 3))
    assert only(folder).step == 20


def test_an_sft_loss_that_does_not_decrease(tmp_path: Path) -> None:
    lines = [{"step": step, "loss/sft": 2.0 + 0.01 * (step % 3)} for step in range(1, STEPS + 1)]
    assert only(write_run(tmp_path / "flat", lines)).check == "sft-loss"
    lines = [{"step": step, "loss/sft": 2.0 / math.sqrt(step)} for step in range(1, STEPS + 1)]
    assert findings(write_run(tmp_path / "falling", lines)) == []


def test_an_outlier_and_a_short_run_have_no_findings(tmp_path: Path) -> None:
    bad = {
        "policy/entropy": 0.01,
        "policy/kl_old_k3": 9.0,
        "policy/clip_frac": 0.9,
        "train/truncated_frac": 1,
    }
    odd = sick(lambda line: bad if line["step"] == 30 else {})
    assert findings(write_run(tmp_path / "odd", odd)) == []
    young = sick(lambda line: bad, since=1)[: WINDOW - 1]
    assert findings(write_run(tmp_path / "young", young)) == []


def test_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    for value in (None, "high", True, [1], {"a": 1}):
        lines = sick(lambda line, value=value: {"policy/entropy": value, "train/accuracy": value})
        assert findings(write_run(tmp_path / repr(value)[:4].strip("'[{"), lines)) == []


def test_the_onset_is_exact_although_the_curve_is_smoothed() -> None:
    for begin in range(2, 36):
        values = tuple(1.0 if step >= begin else 0.0 for step in range(1, 41))
        curve = Curve(tuple(range(1, 41)), values)
        assert curve.since(lambda v: v >= 1.0) == begin
    assert Curve((), ()).since(lambda v: True) is None


def test_every_remedy_names_a_key_of_the_recipe_and_every_check_can_find_something() -> None:
    import re

    root = Path(__file__).resolve().parents[2]
    sources = "".join(p.read_text(encoding="utf-8") for p in (root / "reasonrl/analysis/doctor").glob("*.py"))
    sources += (root / "reasonrl" / "cli" / "installation.py").read_text(encoding="utf-8")
    config = (root / "docs" / "reference" / "config.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z]+)\.[a-z_]+)`", sources)) - {"kl.coef", "algorithm.kl"}
    keys = {key for key in named if not key.endswith((".json", ".jsonl", ".yaml"))}
    assert len(keys) > 12
    for key in keys:
        assert f"| `{key.split('.')[1]}` |" in config, key
    for check in CHECKS:
        assert f'"{check.name}"' in sources

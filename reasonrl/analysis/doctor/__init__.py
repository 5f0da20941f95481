"""Diagnose a run: what is wrong, since which step, and what to change. Reads files only; torch-free.

Every check is a function from the records of a run to findings; ``CHECKS`` lists them all. A trend is reported only if
it spans at least ``WINDOW`` steps and persists to the last step, so a short run has few findings.
"""

from pathlib import Path

from reasonrl.analysis.doctor import dynamics, folder, learning_signal
from reasonrl.analysis.doctor.findings import Check, Diagnosis, Finding, Severity, worst_first
from reasonrl.analysis.doctor.records import RunRecords, read_run

FLAT = ("group/zero_std_frac", "train/accuracy")

CHECKS: tuple[Check, ...] = (
    Check(name="folder", looks_at="missing or unreadable files", find=folder.check_folder),
    Check(name="state", looks_at="whether the run is alive, and how it ended", find=folder.check_state),
    Check(name="checkpoints", looks_at="corrupted checkpoints", find=folder.check_checkpoints),
    Check(
        name="metrics",
        looks_at="missing, duplicate, unordered or corrupted lines in metrics.jsonl",
        find=folder.check_metrics,
    ),
    Check(
        name="updates",
        looks_at="skipped updates (NaN or infinite values)",
        find=dynamics.check_updates,
        needs=("optim/skipped_updates",),
    ),
    Check(
        name="unscored",
        looks_at="completions without a reward",
        find=learning_signal.check_unscored,
        needs=("train/unscored_frac",),
    ),
    Check(
        name="all-wrong",
        looks_at="groups whose completions are all wrong",
        find=lambda run: _named(run, "all-wrong"),
        needs=FLAT,
    ),
    Check(
        name="all-right",
        looks_at="groups whose completions are all correct",
        find=lambda run: _named(run, "all-right"),
        needs=FLAT,
    ),
    Check(
        name="flat-groups",
        looks_at="groups without reward variance, some all wrong and some all correct, or of unknown correctness",
        find=lambda run: _named(run, "flat-groups"),
        needs=FLAT,
    ),
    Check(name="progress", looks_at="held-out accuracy that stalls or drops", find=learning_signal.check_progress),
    Check(
        name="entropy",
        looks_at="entropy collapse or entropy explosion",
        find=dynamics.check_entropy,
        needs=("policy/entropy",),
    ),
    Check(
        name="kl",
        looks_at="large policy updates, or drift from the reference",
        find=dynamics.check_kl,
        needs=("policy/kl_old_k3", "policy/kl_ref_k3"),
    ),
    Check(
        name="clipping",
        looks_at="a high share of clipped tokens",
        find=dynamics.check_clipping,
        needs=("policy/clip_frac",),
    ),
    Check(
        name="stale-weights",
        looks_at="stale or off-policy rollouts",
        find=dynamics.check_stale_weights,
        needs=("rollout/logprob_gap", "policy/version"),
    ),
    Check(
        name="critic",
        looks_at="a critic with no explained variance",
        find=dynamics.check_critic,
        needs=("critic/explained_variance",),
    ),
    Check(
        name="length",
        looks_at="length drift without better rewards",
        find=learning_signal.check_length,
        needs=("train/length_tokens",),
    ),
    Check(
        name="truncation",
        looks_at="completions truncated at the token limit",
        find=learning_signal.check_truncation,
        needs=("train/truncated_frac",),
    ),
    Check(
        name="sft-loss",
        looks_at="an SFT loss that does not decrease",
        find=dynamics.check_sft_loss,
        needs=("loss/sft",),
    ),
    Check(
        name="padding",
        looks_at="training compute wasted on padding",
        find=dynamics.check_padding,
        needs=("batch/padding_frac",),
    ),
    Check(
        name="throughput",
        looks_at="a drop in tokens per second",
        find=dynamics.check_throughput,
        needs=("throughput/rollout_tokens_per_s", "throughput/train_tokens_per_s"),
    ),
)


def _named(run: RunRecords, name: str) -> list[Finding]:
    """Findings of one kind of flat groups; a run has at most one kind."""
    return [finding for finding in learning_signal.check_flat_groups(run) if finding.check == name]


def examine(run_dir: str | Path) -> Diagnosis:
    """Diagnose a run folder. The run may still be training; nothing is written.

    Raises:
        RecipeError: If ``run_dir`` is not a run folder.
    """
    return diagnose(read_run(run_dir))


def diagnose(run: RunRecords) -> Diagnosis:
    """Run every check on the records of a run."""
    measured = run.measured
    findings: list[Finding] = []
    passed: list[str] = []
    not_measured: list[str] = []
    for check in CHECKS:
        if check.needs and not measured & set(check.needs):
            not_measured.append(check.name)
            continue
        found = list(check.find(run))
        findings += found
        passed += [] if found else [check.name]
    return Diagnosis(
        subject=str(run.path),
        state=run.state,
        findings=worst_first(findings),
        passed=tuple(passed),
        not_measured=tuple(not_measured),
    )


__all__ = ["CHECKS", "Check", "Diagnosis", "Finding", "Severity", "diagnose", "examine"]

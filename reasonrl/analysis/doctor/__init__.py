"""``reasonrl doctor``: what is wrong with a run, since when, and what to change. Reads files only, no torch.

Every check is a function from the records of a run to findings; ``CHECKS`` lists them all. A check stays silent
unless its disease has lasted ``WINDOW`` steps and lasts until the end, so a short or a young run has few findings.
"""

from pathlib import Path

from reasonrl.analysis.doctor import dynamics, folder, signal
from reasonrl.analysis.doctor.findings import Check, Diagnosis, Finding, Severity, worst_first
from reasonrl.analysis.doctor.records import RunRecords, read_run

FLAT = ("group/zero_std_frac", "train/accuracy")

CHECKS: tuple[Check, ...] = (
    Check(name="folder", looks_at="files that are missing or cannot be read", find=folder.check_folder),
    Check(name="state", looks_at="whether the run goes on, and how it ended", find=folder.check_state),
    Check(
        name="checkpoints",
        looks_at="checkpoints whose files are not those that were saved",
        find=folder.check_checkpoints,
    ),
    Check(
        name="metrics",
        looks_at="gaps, duplicates, disorder and damage in metrics.jsonl",
        find=folder.check_metrics,
    ),
    Check(
        name="updates",
        looks_at="updates left out because something was not finite",
        find=dynamics.check_updates,
        needs=("optim/skipped_updates",),
    ),
    Check(
        name="unscored",
        looks_at="completions without a reward",
        find=signal.check_unscored,
        needs=("train/unscored_frac",),
    ),
    Check(
        name="all-wrong",
        looks_at="groups in which every completion fails",
        find=lambda run: _named(run, "all-wrong"),
        needs=FLAT,
    ),
    Check(
        name="all-right",
        looks_at="groups in which every completion succeeds",
        find=lambda run: _named(run, "all-right"),
        needs=FLAT,
    ),
    Check(
        name="flat-groups",
        looks_at="groups in which all earn the same, some right and some wrong, or not known which",
        find=lambda run: _named(run, "flat-groups"),
        needs=FLAT,
    ),
    Check(
        name="progress",
        looks_at="held-out accuracy that stands still or falls",
        find=signal.check_progress,
    ),
    Check(
        name="entropy",
        looks_at="a policy that tries nothing new, or writes noise",
        find=dynamics.check_entropy,
        needs=("policy/entropy",),
    ),
    Check(
        name="kl",
        looks_at="a policy that jumps, or has left its reference",
        find=dynamics.check_kl,
        needs=("policy/kl_old_k3", "policy/kl_ref_k3"),
    ),
    Check(
        name="clipping",
        looks_at="tokens whose gradient is clipped away",
        find=dynamics.check_clipping,
        needs=("policy/clip_frac",),
    ),
    Check(
        name="stale-weights",
        looks_at="completions written by another policy than the trained one",
        find=dynamics.check_stale_weights,
        needs=("rollout/logprob_gap", "policy/version"),
    ),
    Check(
        name="critic",
        looks_at="a critic that explains nothing",
        find=dynamics.check_critic,
        needs=("critic/explained_variance",),
    ),
    Check(
        name="length",
        looks_at="completions that grow or shrink without becoming better",
        find=signal.check_length,
        needs=("train/length_tokens",),
    ),
    Check(
        name="truncation",
        looks_at="completions cut at the token limit",
        find=signal.check_truncation,
        needs=("train/truncated_frac",),
    ),
    Check(
        name="imitation",
        looks_at="an SFT loss that does not fall",
        find=dynamics.check_imitation,
        needs=("loss/sft",),
    ),
    Check(
        name="padding",
        looks_at="training time spent on padding",
        find=dynamics.check_padding,
        needs=("batch/padding_frac",),
    ),
    Check(
        name="throughput",
        looks_at="tokens a second that collapse",
        find=dynamics.check_throughput,
        needs=("throughput/rollout_tokens_per_s", "throughput/train_tokens_per_s"),
    ),
)


def _named(run: RunRecords, name: str) -> list[Finding]:
    """Of the three kinds of flat groups a run has one at most."""
    return [finding for finding in signal.check_flat_groups(run) if finding.check == name]


def examine(run_dir: str | Path) -> Diagnosis:
    """Every check of a run folder, finished or not; the run is not disturbed.

    Args:
        run_dir: what a run left, or is writing.

    Raises:
        RecipeError: when ``run_dir`` is no run folder.
    """
    return diagnose(read_run(run_dir))


def diagnose(run: RunRecords) -> Diagnosis:
    """Every check of a run's records."""
    measured = run.measured
    findings: list[Finding] = []
    fine: list[str] = []
    not_measured: list[str] = []
    for check in CHECKS:
        if check.needs and not measured & set(check.needs):
            not_measured.append(check.name)
            continue
        found = list(check.find(run))
        findings += found
        fine += [] if found else [check.name]
    return Diagnosis(
        subject=str(run.path),
        state=run.state,
        findings=worst_first(findings),
        fine=tuple(fine),
        not_measured=tuple(not_measured),
    )


__all__ = ["CHECKS", "Check", "Diagnosis", "Finding", "Severity", "diagnose", "examine"]

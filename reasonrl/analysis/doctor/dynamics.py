"""Checks of what the optimizer does to the policy, and of what it costs."""

from collections.abc import Iterator

from reasonrl.analysis.doctor.curve import WINDOW
from reasonrl.analysis.doctor.findings import Finding
from reasonrl.analysis.doctor.records import RunRecords
from reasonrl.analysis.doctor.signal import is_solved
from reasonrl.contracts.metric_keys import GAP_FLOAT32, GAP_ROUNDED

SKIPS_IN_A_ROW = 3
"""As many non-finite updates in a row end a run."""
ENTROPY_LEFT = 0.25
"""Healthy runs keep between 0.9 and 1.2 of their first entropy; a run that died kept 0.08."""
ENTROPY_LOW = 0.15
"""Nats a token; at a perplexity of 1.16 almost every token is certain and nothing new is tried."""
ENTROPY_GROWN = 3.0
ENTROPY_HIGH = 1.0
"""Nats a token above the start, and three times it: the policy writes noise."""
KL_STEP = 0.05
"""Nats a token in one step; healthy runs move by 0.0001 to 0.005, trust-region methods stop at 0.01 to 0.02."""
KL_REFERENCE = 1.0
"""Nats a token from the reference: an average token has become e times as likely as before."""
CLIPPED_FRAC = 0.3
"""Healthy runs clip under 0.05; where a third of the tokens is clipped, a third of the batch is thrown away."""
CRITIC_STEPS = 20
"""A fresh value head explains nothing for the first 5 to 10 steps of the shipped recipes."""
CRITIC_HARM = -1.0
"""Explained variance at which the critic's error has twice the variance of the returns themselves."""
PADDING_FRAC = 0.6
"""The shipped recipes pad 0.04 to 0.4; above 0.6 most of the training time computes nothing."""
SLOWER_BY = 3.0
"""Steps vary by a factor of two with the lengths of completions."""
DROPPED_FRAC = 0.5
"""Where most rows have no gradient and are left out, the little that is left is trained on slowly."""
SFT_STEPS = 20

NONFINITE = "numerics/nonfinite_"


def check_updates(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("optim/skipped_updates")
    bad = [(step, count) for step, count in zip(curve.steps, curve.values, strict=True) if count > 0]
    causes = _nonfinite(run)
    if not bad and not causes:
        return
    total = sum(count for _, count in bad)
    in_the_end = sum(curve.values[-SKIPS_IN_A_ROW:])
    gave_up = run.state == "failed" and in_the_end >= SKIPS_IN_A_ROW
    what = ", ".join(causes) or "loss or gradient"
    yield Finding(
        severity="error" if gave_up else "warning",
        check="updates",
        message=f"{total:.0f} updates were left out because something was not finite ({what})",
        remedy="lower `optimizer.learning_rate` or `optimizer.max_grad_norm`; look for rewards that are no numbers",
        step=min([step for step, _ in bad] + list(causes.values())),
    )


def _nonfinite(run: RunRecords) -> dict[str, int]:
    """What was not finite -> the first step, from the counters of the run."""
    found = {}
    for key in sorted(key for key in run.measured if key.startswith(NONFINITE)):
        curve = run.curve(key)
        steps = [step for step, count in zip(curve.steps, curve.values, strict=True) if count > 0]
        if steps:
            found[key.removeprefix(NONFINITE).replace("_", " ")] = steps[0]
    return found


def check_entropy(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("policy/entropy")
    if len(curve) < 2 * WINDOW:
        return
    first = curve.first
    fallen = curve.since(lambda nats: nats <= ENTROPY_LEFT * first and nats <= ENTROPY_LOW)
    grown = curve.since(lambda nats: nats >= ENTROPY_GROWN * first and nats >= first + ENTROPY_HIGH)
    if fallen is not None:
        yield Finding(
            severity="note" if is_solved(run) else "warning",
            check="entropy",
            message=f"entropy collapsed from {first:.2f} to {curve.last:.3f} nats a token; nothing new is tried",
            remedy="lower `optimizer.learning_rate`, give `algorithm.entropy_coef`, or raise "
            "`algorithm.clip_eps_high`; start from a checkpoint before it",
            step=fallen,
        )
    elif grown is not None:
        yield Finding(
            severity="warning",
            check="entropy",
            message=f"entropy grew from {first:.2f} to {curve.last:.2f} nats a token; the policy writes noise",
            remedy="lower `algorithm.entropy_coef` and `optimizer.learning_rate`; start from a checkpoint before it",
            step=grown,
        )


def check_kl(run: RunRecords) -> Iterator[Finding]:
    for key, limit, what in (
        ("policy/kl_old_k3", KL_STEP, "a step moves the policy by"),
        ("policy/kl_ref_k3", KL_REFERENCE, "the policy is away from its reference by"),
    ):
        curve = run.curve(key)
        since = curve.since(lambda nats, limit=limit: nats >= limit)  # type: ignore[misc]
        if since is not None:
            weight = "kl.coef" if isinstance(run.setting("algorithm.kl"), dict) else "kl_coef"
            yield Finding(
                severity="warning",
                check="kl",
                message=f"{what} {curve.last:.2g} nats a token, limit {limit:g} ({key})",
                remedy="lower `optimizer.learning_rate`, `trainer.update_epochs` or `trainer.minibatches`; "
                f"raise `algorithm.{weight}`",
                step=since,
            )
            return


def check_stale_weights(run: RunRecords) -> Iterator[Finding]:
    """Completions that another policy wrote than the one they train."""
    yield from _wrong_version(run)
    curve = run.curve("rollout/logprob_gap")
    limit = GAP_FLOAT32 if run.recorded("machine.precision") == "float32" else GAP_ROUNDED
    since = curve.since(lambda nats: nats >= limit)
    if since is not None:
        yield Finding(
            severity="warning",
            check="stale-weights",
            message=f"sampler and trainer differ by {curve.last:.2g} nats a token, limit {limit:g}: stale weights, or "
            "other arithmetic",
            remedy="if it grows from step to step, the rollout backend does not take the new weights; if it is "
            "level, use one precision for both (`model.dtype`)",
            step=since,
        )


def _wrong_version(run: RunRecords) -> Iterator[Finding]:
    versions = {0: 0.0, **dict(zip(*_pairs(run, "policy/version"), strict=True))}
    for step, sampled_by in sorted(run.sampled_by.items()):
        newest = versions.get(step - 1)
        if newest is not None and any(version != newest for version in sampled_by):
            written = ", ".join(map(str, sorted(sampled_by)))
            yield Finding(
                severity="warning",
                check="stale-weights",
                message=f"completions of step {step} were written by policy version {written}, not by {newest:.0f}",
                remedy="the rollout backend did not take the weights of the last update: report it to its plugin",
                step=step,
            )
            return


def _pairs(run: RunRecords, key: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    curve = run.curve(key)
    return curve.steps, curve.values


def check_critic(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("critic/explained_variance")
    harmful = curve.since(lambda share: share <= CRITIC_HARM)
    useless = curve.since(lambda share: share <= 0.0, at_least=CRITIC_STEPS)
    since = harmful if harmful is not None else useless
    if since is not None:
        yield Finding(
            severity="warning",
            check="critic",
            message=f"the critic explains nothing: explained variance {curve.last:.2f}, no better than a constant",
            remedy="raise `critic.learning_rate`, give `critic.warmup_steps`, or try `critic.kind` separate; with "
            "sparse rewards GRPO needs no critic",
            step=since,
        )


def check_clipping(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("policy/clip_frac")
    since = curve.since(lambda share: share >= CLIPPED_FRAC)
    if since is not None:
        yield Finding(
            severity="warning",
            check="clipping",
            message=f"{curve.last:.0%} of the tokens are clipped and teach nothing",
            remedy="lower `optimizer.learning_rate`, `trainer.update_epochs` or `trainer.minibatches`; or widen "
            "`algorithm.clip_eps`",
            step=since,
        )


def check_imitation(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("loss/sft")
    first = curve.first if len(curve) else 0.0
    since = curve.since(lambda loss: loss >= first, at_least=SFT_STEPS)
    if since is not None and len(curve) >= SFT_STEPS + WINDOW:
        yield Finding(
            severity="warning",
            check="imitation",
            message=f"the loss was {first:.3f} nats a token at the start and is {curve.last:.3f}",
            remedy="lower `optimizer.learning_rate`, or give `optimizer.warmup_steps`",
            step=since,
        )


def check_padding(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("batch/padding_frac")
    since = curve.since(lambda share: share >= PADDING_FRAC)
    if since is not None:
        yield Finding(
            severity="note",
            check="padding",
            message=f"{curve.last:.0%} of the tokens computed in training are padding",
            remedy="lower `trainer.max_tokens_per_microbatch`: rows of one length come together, results stay the same",
            step=since,
        )


def check_throughput(run: RunRecords) -> Iterator[Finding]:
    for key, what in (
        ("throughput/rollout_tokens_per_s", "sampling"),
        ("throughput/train_tokens_per_s", "training"),
    ):
        curve = run.curve(key)
        if len(curve) < 2 * WINDOW or (what == "training" and _trains_little(run)):
            continue
        best = max(curve.smoothed()[WINDOW - 1 :])
        since = curve.since(lambda speed, best=best: speed <= best / SLOWER_BY)  # type: ignore[misc]
        if since is not None:
            yield Finding(
                severity="warning",
                check="throughput",
                message=f"{what} went from {best:.0f} to {curve.last:.0f} tokens/s",
                remedy="look for another program on the machine, a hot processor or full memory; lower "
                "`rollout_backend.max_batch_rows` or `trainer.max_tokens_per_microbatch` if memory is full",
                step=since,
            )
            return


def _trains_little(run: RunRecords) -> bool:
    dropped = run.curve("batch/dropped_frac")
    return len(dropped) > 0 and dropped.last >= DROPPED_FRAC

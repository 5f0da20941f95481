"""Checks of training dynamics (entropy, KL, clipping, critic) and of speed."""

from collections.abc import Iterator

from reasonrl.analysis.doctor.curve import WINDOW
from reasonrl.analysis.doctor.findings import Finding
from reasonrl.analysis.doctor.learning_signal import is_solved
from reasonrl.analysis.doctor.records import RunRecords
from reasonrl.contracts.metric_keys import GAP_FLOAT32, GAP_ROUNDED, MAX_CONSECUTIVE_SKIPS

ENTROPY_LEFT = 0.25
"""Healthy runs keep 0.9 to 1.2 of their initial entropy; a collapsed run kept 0.08."""
ENTROPY_LOW = 0.15
"""Nats per token; at a perplexity of 1.16 the policy is nearly deterministic and does not explore."""
ENTROPY_GROWN = 3.0
ENTROPY_HIGH = 1.0
"""Nats per token above the initial entropy, which must also have tripled: entropy explosion."""
KL_STEP = 0.05
"""Nats per token in one step; healthy runs move by 0.0001 to 0.005, trust-region methods stop at 0.01 to 0.02."""
KL_REFERENCE = 1.0
"""Nats per token from the reference: the average token has become e times as likely."""
CLIPPED_FRAC = 0.3
"""Healthy runs clip less than 0.05; at a third, a third of the batch has no gradient."""
CRITIC_STEPS = 20
"""A new value head needs 5 to 10 steps in the packaged recipes before it explains any variance."""
CRITIC_HARM = -1.0
"""Explained variance at which the critic's error has twice the variance of the returns."""
PADDING_FRAC = 0.6
"""The packaged recipes pad 0.04 to 0.4; above 0.6 most of the training compute is wasted."""
SLOWER_BY = 3.0
"""Factor of a slowdown; steps vary by a factor of two with completion length alone."""
DROPPED_FRAC = 0.5
"""Share of rows without a gradient, which are skipped, above which training throughput means little."""
SFT_STEPS = 20

NONFINITE = "numerics/nonfinite_"


def check_updates(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("optim/skipped_updates")
    bad = [(step, count) for step, count in zip(curve.steps, curve.values, strict=True) if count > 0]
    causes = _nonfinite(run)
    if not bad and not causes:
        return
    total = sum(count for _, count in bad)
    in_the_end = sum(curve.values[-MAX_CONSECUTIVE_SKIPS:])
    gave_up = run.state == "failed" and in_the_end >= MAX_CONSECUTIVE_SKIPS
    what = ", ".join(causes) or "loss or gradient"
    yield Finding(
        severity="error" if gave_up else "warning",
        check="updates",
        message=f"{total:.0f} updates skipped because of NaN or infinite values ({what})",
        remedy="lower `optimizer.learning_rate` or `optimizer.max_grad_norm`; check the rewards for NaN",
        step=min([step for step, _ in bad] + list(causes.values())),
    )


def _nonfinite(run: RunRecords) -> dict[str, int]:
    """Map each non-finite quantity to the first step at which it occurred."""
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
            message=f"entropy collapse: from {first:.2f} to {curve.last:.3f} nats per token",
            remedy="lower `optimizer.learning_rate`, set `algorithm.entropy_coef`, or raise "
            "`algorithm.clip_eps_high`; restart from an earlier checkpoint",
            step=fallen,
        )
    elif grown is not None:
        yield Finding(
            severity="warning",
            check="entropy",
            message=f"entropy explosion: from {first:.2f} to {curve.last:.2f} nats per token",
            remedy="lower `algorithm.entropy_coef` and `optimizer.learning_rate`; restart from an earlier checkpoint",
            step=grown,
        )


def check_kl(run: RunRecords) -> Iterator[Finding]:
    for key, limit, what in (
        ("policy/kl_old_k3", KL_STEP, "large policy updates: KL per step is"),
        ("policy/kl_ref_k3", KL_REFERENCE, "drift from the reference: KL is"),
    ):
        curve = run.curve(key)
        since = curve.since(lambda nats, limit=limit: nats >= limit)  # type: ignore[misc]
        if since is not None:
            yield Finding(
                severity="warning",
                check="kl",
                message=f"{what} {curve.last:.2g} nats per token, limit {limit:g} ({key})",
                remedy="lower `optimizer.learning_rate`, `trainer.update_epochs` or `trainer.minibatches`; "
                "raise `algorithm.kl.coef`",
                step=since,
            )
            return


def check_stale_weights(run: RunRecords) -> Iterator[Finding]:
    """Find rollouts that were not sampled from the policy they train."""
    yield from _wrong_version(run)
    curve = run.curve("rollout/logprob_gap")
    limit = GAP_FLOAT32 if run.recorded("machine.precision") == "float32" else GAP_ROUNDED
    since = curve.since(lambda nats: nats >= limit)
    if since is not None:
        yield Finding(
            severity="warning",
            check="stale-weights",
            message=f"sampler and trainer log-probabilities differ by {curve.last:.2g} nats per token, "
            f"limit {limit:g}: stale weights or a numerical mismatch",
            remedy="if the gap grows over time, weight sync to the rollout backend is broken; if it is constant, use "
            "the same precision for both (`model.dtype`)",
            step=since,
        )


def _wrong_version(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("policy/version")
    versions = {0: 0.0, **dict(zip(curve.steps, curve.values, strict=True))}
    # Steps that samples may be behind: sampled during the update before, or carried over from the step before.
    behind = int(bool(run.count("trainer.max_staleness") or any(run.curve("group/carried_frac").values)))
    for step, sampled_by in sorted(run.sampled_by.items()):
        newest = versions.get(step - 1)
        allowed = (newest, versions.get(step - 2, newest) if behind else newest)
        if newest is not None and any(version not in allowed for version in sampled_by):
            written = ", ".join(map(str, sorted(sampled_by)))
            yield Finding(
                severity="warning",
                check="stale-weights",
                message=f"stale rollouts: step {step} was sampled with policy version {written}, expected {newest:.0f}",
                remedy="the rollout backend missed the last weight update: report this to the authors of its plugin",
                step=step,
            )
            return


def check_critic(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("critic/explained_variance")
    harmful = curve.since(lambda share: share <= CRITIC_HARM)
    useless = curve.since(lambda share: share <= 0.0, at_least=CRITIC_STEPS)
    since = harmful if harmful is not None else useless
    if since is not None:
        yield Finding(
            severity="warning",
            check="critic",
            message=f"the critic is no better than a constant: explained variance {curve.last:.2f}",
            remedy="raise `critic.learning_rate`, set `critic.warmup_steps`, or try `critic.kind` separate; for "
            "sparse rewards consider GRPO, which has no critic",
            step=since,
        )


def check_clipping(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("policy/clip_frac")
    since = curve.since(lambda share: share >= CLIPPED_FRAC)
    if since is not None:
        yield Finding(
            severity="warning",
            check="clipping",
            message=f"{curve.last:.0%} of the tokens are clipped and have no gradient",
            remedy="lower `optimizer.learning_rate`, `trainer.update_epochs` or `trainer.minibatches`; or widen "
            "`algorithm.clip_eps`",
            step=since,
        )


def check_sft_loss(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("loss/sft")
    first = curve.first if len(curve) else 0.0
    since = curve.since(lambda loss: loss >= first, at_least=SFT_STEPS)
    if since is not None and len(curve) >= SFT_STEPS + WINDOW:
        yield Finding(
            severity="warning",
            check="sft-loss",
            message=f"the SFT loss did not decrease: {first:.3f} nats per token at the start, {curve.last:.3f} now",
            remedy="lower `optimizer.learning_rate`, or set `optimizer.warmup_steps`",
            step=since,
        )


def check_padding(run: RunRecords) -> Iterator[Finding]:
    curve = run.curve("batch/padding_frac")
    since = curve.since(lambda share: share >= PADDING_FRAC)
    if since is not None:
        yield Finding(
            severity="note",
            check="padding",
            message=f"{curve.last:.0%} of the tokens in training forward passes are padding",
            remedy="lower `trainer.max_tokens_per_microbatch` to batch rows of similar length; results do not change",
            step=since,
        )


def check_throughput(run: RunRecords) -> Iterator[Finding]:
    for key, what in (("throughput/rollout_tokens_per_s", "sampling"), ("throughput/train_tokens_per_s", "training")):
        curve = run.curve(key)
        if len(curve) < 2 * WINDOW or (what == "training" and _trains_little(run)):
            continue
        best = max(curve.smooth()[WINDOW - 1 :])
        since = curve.since(lambda speed, best=best: speed <= best / SLOWER_BY)  # type: ignore[misc]
        if since is not None:
            yield Finding(
                severity="warning",
                check="throughput",
                message=f"{what} slowed from {best:.0f} to {curve.last:.0f} tokens/s",
                remedy="check for other processes, thermal throttling and memory pressure; if memory is short, lower "
                "`rollout_backend.max_batch_rows` or `trainer.max_tokens_per_microbatch`",
                step=since,
            )
            return


def _trains_little(run: RunRecords) -> bool:
    dropped = run.curve("batch/dropped_frac")
    return len(dropped) > 0 and dropped.last >= DROPPED_FRAC

"""Reward, accuracy, length and group metrics of a step's scored groups, computed without tensors."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from reasonrl.contracts.data import Completion, FinishReason, RewardOutput, ScoredGroup
from reasonrl.contracts.metrics import Metric, mean
from reasonrl.functional.group import is_flat
from reasonrl.rewards.judging import UNSCORABLE

MAX_NAMES = 256
"""Names of rewards' metrics in one step."""
MAX_RUN_NAMES = 2048
"""Different names in all steps since the run was started or resumed."""


def rollout_metrics(groups: Sequence[ScoredGroup], seen: set[str]) -> dict[str, Metric]:
    """Reward, accuracy, length and group metrics of this rank's groups.

    ``seen``: names of rewards' metrics so far; those of these groups are added, up to the limit of a run.
    """
    pairs = [pair for g in groups for pair in zip(g.group.completions, g.rewards, strict=True)]
    rewards = [reward for _, reward in pairs]
    totals = [reward.total for reward in rewards if reward.total is not None]
    lengths = [completion.sampled_tokens for completion, _ in pairs]
    truncated = sum(completion.finish_reason == FinishReason.LENGTH for completion, _ in pairs)
    judged = [reward.correct for reward in rewards if reward.total is not None and reward.correct is not None]
    metrics = {
        "train/reward": mean(sum(totals), len(totals)),
        "train/unscored_frac": mean(len(rewards) - len(totals), len(rewards)),
        "train/accuracy": mean(sum(judged), len(judged)),
        "train/length_tokens": mean(sum(lengths), len(lengths)),
        "train/length_tokens_max": Metric(max(lengths, default=0), 1.0, "max"),
        "train/truncated_frac": mean(truncated, len(lengths)),
        "group/zero_std_frac": mean(sum(map(_is_flat, groups)), len(groups)),
    }
    metrics |= _conversation_metrics([completion for completion, _ in pairs])
    components = _means("reward/component", [reward.components for reward in rewards], set())
    return {**metrics, **components, **_means("reward/detail", [reward.metrics for reward in rewards], seen)}


def staleness_metrics(groups: Sequence[ScoredGroup], policy_version: int) -> dict[str, Metric]:
    """How many optimizer steps the weights that sampled this rank's completions are behind ``policy_version``."""
    behind = [policy_version - completion.policy_version for group in groups for completion in group.group.completions]
    return {
        "rollout/staleness": mean(sum(behind), len(behind)),
        "rollout/staleness_max": Metric(max(behind, default=0), 1.0, "max"),
    }


def _conversation_metrics(completions: Sequence[Completion]) -> dict[str, Metric]:
    """Figures of what the task said; none if it never takes part."""
    if not any(completion.messages for completion in completions):
        return {}
    turns = [len(completion.replies) for completion in completions]
    theirs = [len(completion.token_ids) - completion.sampled_tokens for completion in completions]
    calls = {name for completion in completions for name in completion.tool_calls}
    return {
        "conversation/turns": mean(sum(turns), len(turns)),
        "conversation/turns_max": Metric(max(turns), 1.0, "max"),
        "conversation/environment_tokens": mean(sum(theirs), len(theirs)),
        **{
            f"conversation/tool_calls_{name}": mean(sum(c.tool_calls.get(name, 0) for c in completions), len(turns))
            for name in sorted(calls)
        },
    }


def _means(at: str, figures: Sequence[Mapping[str, float | None]], seen: set[str]) -> dict[str, Metric]:
    """Each figure over the completions that have it: a reward before its weight, or a metric of its own."""
    out: dict[str, Metric] = {}
    names = list(dict.fromkeys(name for one in figures for name in one))
    for name in names:
        if len(out) < MAX_NAMES and (name in seen or len(seen) < MAX_RUN_NAMES):
            seen.add(name)
            values = [value for one in figures if (value := one.get(name)) is not None]
            out[f"{at}/{name}"] = mean(sum(values), len(values))
    if dropped := len(names) - len(out):
        out[f"{at}/all/names_dropped"] = Metric(dropped, 1.0, "max")
    return out


def explain_unscored(groups: Sequence[ScoredGroup]) -> dict[str, str]:
    """Of every reward that left completions unscored: for how many of this rank's, and its most frequent reason.

    Not for those that no reward was asked about: see :func:`count_failed`.
    """
    rewards = [reward for group in groups for reward, has_failed in _outcomes(group) if not has_failed]
    out = {}
    for name in dict.fromkeys(name for reward in rewards for name in reward.components):
        reasons = Counter(
            "returned None" if reward.reasons.get(name, "unscored") == "unscored" else reward.reasons[name]
            for reward in rewards
            if reward.components.get(name) is None
        )
        if reasons:
            most = reasons.most_common(1)[0][0]
            out[name] = f"for {reasons.total()} of {len(rewards)} completions ({most})"
    return out


def count_failed(groups: Sequence[ScoredGroup]) -> int:
    """Completions of this rank that ended in an error of the backend or of the task's reply."""
    return sum(has_failed for group in groups for _, has_failed in _outcomes(group))


def _outcomes(group: ScoredGroup) -> Iterator[tuple[RewardOutput, bool]]:
    for completion, reward in zip(group.group.completions, group.rewards, strict=True):
        yield reward, completion.finish_reason in UNSCORABLE


def _is_flat(group: ScoredGroup) -> bool:
    totals = [reward.total for reward in group.rewards if reward.total is not None]
    return not totals or bool(is_flat(min(totals), max(totals)))

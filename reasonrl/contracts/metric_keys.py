"""The metric keys of the core, each declared once. Torch-free.

A key is ``<area>/<quantity>``. A mean has no suffix; other statistics and units do: ``_max``, ``_frac`` (share of a
whole), ``_s``, ``_per_s``. A figure of completions has one name: ``train/<quantity>`` over the completions that a step
trains on, ``eval/<suite>/<quantity>`` over those of a suite.
"""

import re
from collections.abc import Iterable

from reasonrl.contracts.metrics import MetricDef

GAP_FLOAT32 = 1e-3
"""Nats a token between trainer and sampler. In float32 they agree to 1e-5, so a thousandth is another policy."""
GAP_ROUNDED = 0.05
"""In lower precision 0.005 to 0.02 nats are usual, and several times that with stale weights."""

MAX_CONSECUTIVE_SKIPS = 3
"""Skipped updates in a row that stop a run."""
MAX_UNSCORED_FRAC = 0.2
"""A larger share of completions without a reward stops a run."""

_MEMORY = "tensors on the GPU, or without a GPU the resident memory of the process; the largest of all processes"

POLICY_METRICS: tuple[MetricDef, ...] = (
    MetricDef(
        key="loss/policy",
        unit="1",
        meaning="Clipped surrogate over what was trained on; near 0 is normal, its gradient is what counts.",
    ),
    MetricDef(
        key="policy/entropy",
        unit="nats/token",
        meaning="Entropy of the policy at the sampling temperature, over the response tokens trained on.",
    ),
    MetricDef(
        key="policy/clip_frac",
        unit="fraction",
        meaning="Response tokens whose gradient the clip removed; 0 on the first pass over a batch.",
    ),
    MetricDef(
        key="policy/ratio_max",
        unit="1",
        meaning="Largest probability ratio of a token, current policy over that at the step's start.",
    ),
    MetricDef(
        key="policy/kl_old_k3",
        unit="nats/token",
        meaning="KL(policy at the step's start || current), k3 estimate: how far the update has moved.",
    ),
    MetricDef(
        key="policy/kl_ref_k3",
        unit="nats/token",
        meaning="KL(policy || reference), k3 estimate; only when a reference is in use.",
    ),
    MetricDef(
        key="policy/kl_coef",
        unit="1",
        meaning="Weight of the KL penalty in the step; only when it is adapted to a `kl.target`.",
    ),
)

CORE_METRICS: tuple[MetricDef, ...] = tuple(
    MetricDef(key=key, unit=unit, meaning=meaning)
    for key, unit, meaning in (
        ("train/reward", "reward", "Weighted total reward, over scored completions."),
        ("reward/component/<reward>", "reward", "One reward before its weight, over the completions it scored."),
        ("reward/detail/<reward>/<detail>", "1", "A figure that a reward reports about its completions."),
        ("train/unscored_frac", "fraction", "Completions that no reward could be had for; over 0.2 stops the run."),
        ("train/accuracy", "fraction", "Scored completions that are correct."),
        (
            "prompt/overlong_dropped",
            "count",
            "Problems of an endless task dropped because their prompt was too long, with overlong_prompts: drop.",
        ),
        ("train/length_tokens", "tokens", "Sampled tokens of a completion, EOS included."),
        ("train/length_tokens_max", "tokens", "Longest completion of the step."),
        ("train/truncated_frac", "fraction", "Completions cut at the token limit."),
        ("conversation/turns", "count", "Messages of the model in a completion; only of tasks that reply."),
        ("conversation/turns_max", "count", "The most messages of the model in one completion of the step."),
        (
            "conversation/environment_tokens",
            "tokens",
            "Tokens of the task's turns in a completion: never trained on, and in no other figure.",
        ),
        *(
            (f"conversation/tool_calls_{name}", "count", f"Tool calls of a completion {meaning}.")
            for name, meaning in (
                ("ok", "that gave a result"),
                ("cut", "whose result was cut to the tools' `max_chars`"),
                ("malformed", "that could not be read, or name no tool or wrong arguments"),
                ("raised", "that raised"),
                ("lost", "that took too long, or ended their worker process"),
            )
        ),
        ("group/zero_std_frac", "fraction", "Prompts whose completions all earned the same; 1 when group_size is 1."),
        (
            "group/discarded_frac",
            "fraction",
            "Sampled prompts never trained on: refused by the algorithm's keep(), or dropped by `carry_groups: false`.",
        ),
        (
            "group/carried_frac",
            "fraction",
            "Of the groups trained on, those sampled in an earlier step; only if the algorithm filters.",
        ),
        ("group/sampling_rounds", "count", "Rounds of sampling that the step took; only if the algorithm filters."),
        ("group/trained", "count", "Prompts whose groups were trained on; only if the algorithm filters."),
        (
            "policy/kl_rollout_k3",
            "nats/token",
            "KL(sampler || trainer) before the update, k3, over fresh completions; far from 0 = stale weights.",
        ),
        (
            "policy/kl_stale_k3",
            "nats/token",
            "The same over completions sampled by an earlier policy: how far it has moved since.",
        ),
        ("policy/version", "count", "Optimizer steps that have moved the policy; those of the critic alone do not."),
        (
            "rollout/logprob_gap",
            "nats",
            "Mean |trainer - sampler| log-probability of sampled tokens, over fresh completions.",
        ),
        ("rollout/corrected_frac", "fraction", "Tokens whose weight was truncated or masked by `rollout_correction`."),
        ("rollout/weight", "1", "Mean weight that `rollout_correction` gives to tokens."),
        (
            "rollout/effective_sample_frac",
            "fraction",
            "(sum w)^2 / (n sum w^2) of these weights: 1 where trainer and sampler agree.",
        ),
        (
            "rollout/logprob_gap_max",
            "nats",
            "Largest |trainer - sampler| log-probability of a sampled token, over fresh completions.",
        ),
        (
            "rollout/staleness",
            "count",
            "Optimizer steps that the weights that sampled a completion are behind; only if any can be.",
        ),
        ("rollout/staleness_max", "count", "The same of the oldest completion trained on."),
        ("loss/total", "1", "The loss that was differentiated, mean over the optimizer steps."),
        ("loss/sft", "nats/token", "Negative log-likelihood of the imitated completion tokens."),
        ("optim/grad_norm", "1", "L2 norm of the policy's gradient before clipping, finite updates only."),
        ("critic/grad_norm", "1", "L2 norm of the critic's own parameters' gradient before clipping."),
        ("optim/learning_rate", "1", "The policy's learning rate in this step."),
        (
            "optim/skipped_updates",
            "count",
            "Optimizer steps left out because something was NaN or infinite; numerics/* says what.",
        ),
        *(
            (f"numerics/nonfinite_{name}", unit, f"{meaning} NaN or infinite.")
            for name, unit, meaning in (
                ("rewards", "count", "Completions with a reward that is"),
                ("rollout_logprobs", "tokens", "Sampled tokens whose log-probability by the sampler is"),
                ("ref_logprobs", "tokens", "Sampled tokens whose log-probability by the reference is"),
                ("logprobs", "tokens", "Sampled tokens whose log-probability by the trained policy is"),
                ("values", "tokens", "Sampled tokens whose value by the critic is"),
                ("advantages", "tokens", "Sampled tokens whose advantage or return is"),
                ("losses", "count", "Optimizer steps whose loss is"),
                ("gradients", "count", "Optimizer steps whose gradient is"),
            )
        ),
        ("batch/padding_frac", "fraction", "Computed tokens of training forward passes that were padding."),
        (
            "batch/shared_frac",
            "fraction",
            "Tokens of trained rows that packing did not compute: prompts that rows share, and each row's last token.",
        ),
        ("batch/dropped_frac", "fraction", "Rows left out of training forward passes: their gradient is exactly zero."),
        ("batch/train_tokens", "tokens", "Prompt and completion tokens that went through training forward passes."),
        (
            "batch/cut_completions",
            "count",
            "Imitated completions over their limit or the model's context: their end, and so their EOS, is left out.",
        ),
        ("throughput/rollout_tokens_per_s", "tokens/s", "Sampled tokens over the time of sampling, in whichever step."),
        ("throughput/train_tokens_per_s", "tokens/s", "Trained tokens over the time of policy evaluation and update."),
        (
            "perf/mfu",
            "fraction",
            "Useful operations of the step per second, over those of a large matrix product on the same device.",
        ),
        (
            "perf/executed_over_useful",
            "1",
            "Operations of all forward and backward passes over the least that sampling and update need.",
        ),
        ("time/step_s", "s", "One step: sampling to update, without evaluation and saving."),
        ("time/rollout_s", "s", "Sampling; with `max_staleness: 1`, waiting for samples."),
        (
            "time/rollout_ahead_s",
            "s",
            "Sampling the step's prompts during the update of the step before, so not part of `time/step_s`.",
        ),
        ("time/reward_s", "s", "Scoring."),
        ("time/collate_s", "s", "Making tensors."),
        ("time/policy_eval_s", "s", "Log-probabilities and values that are read before the loss."),
        ("time/advantage_s", "s", "Advantages."),
        ("time/update_s", "s", "Other old log-probabilities, forward, backward and optimizer."),
        ("time/sync_s", "s", "Handing the new weights to the backend."),
        ("time/other_s", "s", "The rest of the step: with it the stages above add up to `time/step_s`."),
        ("time/evaluation_s", "s", "Evaluation suites after the step."),
        ("time/checkpoint_s", "s", "Saving the checkpoint after the step before."),
        ("memory/peak_gib", "GiB", f"Most memory in use during the step: {_MEMORY}."),
        ("memory/rollout_gib", "GiB", "The same while sampling."),
        ("memory/policy_eval_gib", "GiB", "The same of `time/policy_eval_s`."),
        ("memory/update_gib", "GiB", "The same in the update."),
        (
            "memory/used_gib",
            "GiB",
            "In use on the GPU after the step, by all processes and with caches: the rest of the card is free.",
        ),
        ("eval/<suite>/accuracy", "fraction", "Correct completions; an unscored one counts as not correct."),
        ("eval/<suite>/accuracy_ci95_low", "fraction", "Lower end of the accuracy's 95% interval."),
        ("eval/<suite>/accuracy_ci95_high", "fraction", "Upper end of the accuracy's 95% interval."),
        ("eval/<suite>/format", "fraction", "Completions in which an answer was found."),
        ("eval/<suite>/reward", "reward", "Mean reward; an unscored completion counts as 0."),
        ("eval/<suite>/length_tokens", "tokens", "Mean sampled tokens of a completion."),
        ("eval/<suite>/truncated_frac", "fraction", "Completions cut at the token limit."),
        ("eval/<suite>/unscored_frac", "fraction", "Completions that could not be scored."),
        (
            "eval/<suite>/pass@<k>",
            "fraction",
            "Chance that at least one of k completions is correct, mean over problems; k from `pass_at`.",
        ),
        (
            "eval/<suite>/maj@<k>",
            "fraction",
            "Chance that the most frequent answer of k completions is correct; m tied answers count 1/m each.",
        ),
        ("behavior/<suite>/length_tokens_correct", "tokens", "Mean sampled tokens of right completions."),
        ("behavior/<suite>/length_tokens_wrong", "tokens", "Mean sampled tokens of wrong completions."),
        (
            "behavior/<suite>/failed_frac",
            "fraction",
            "Completions whose behaviors the task failed to describe; left out of its figures.",
        ),
        *(
            (f"behavior/<suite>/keyword_{name}{suffix}", unit, f"{meaning} {title}.")
            for name, title in (
                ("r1_zero", "DeepSeek-R1-Zero"),
                ("oat_zero", "oat-zero"),
                ("understand_r1_zero", "understand-r1-zero"),
                ("open_reasoner_zero", "Open-Reasoner-Zero"),
                ("simplerl_zoo", "SimpleRL-Zoo"),
            )
            for suffix, unit, meaning in (
                ("", "fraction", "Completions with a hit in the list of words that was published with"),
                ("_hits", "count", "Mean hits of a completion in the list of words that was published with"),
            )
        ),
    )
)


def find_metric(key: str, declared: Iterable[MetricDef]) -> MetricDef | None:
    """Find the declaration of ``key``; ``<word>`` in a declared key matches any text without a slash.

    Example:
        ``eval/held_out/accuracy`` is declared by ``eval/<suite>/accuracy``, ``eval/hard/pass@8`` by
        ``eval/<suite>/pass@<k>``.
    """
    for definition in declared:
        if re.fullmatch(re.sub(r"<\w+>", "[^/]+", re.escape(definition.key)), key):
            return definition
    return None

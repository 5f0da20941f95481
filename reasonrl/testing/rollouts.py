"""Conformance of rollout backends: stopping, text, log-probabilities, randomness, weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch

from reasonrl.contracts.data import FinishReason, SamplingParams
from reasonrl.contracts.protocols import RolloutBackend
from reasonrl.contracts.specs import RolloutBackendSpec
from reasonrl.plugins import Plugins
from reasonrl.testing.backends import REPLY, BackendSubject
from reasonrl.testing.checks import CheckResult, Checks, Conformance, NotApplicableError, add_tests, require
from reasonrl.testing.subjects import add_common, find

GREEDY = SamplingParams(temperature=0.0, max_completion_tokens=16)
TOLERANCE = 1e-3
MAX_SIGMA = 5.0

checks: Checks[BackendSubject] = Checks()
add_common(checks)


@checks("defaults_are_valid")
def is_built(subject: BackendSubject) -> None:
    """``factory(config, context)`` returns a context manager with ``generate`` and ``sync_weights``."""
    backend = subject.new()
    name = type(backend).__name__
    require(isinstance(backend, RolloutBackend), f"{name} lacks one of __enter__, __exit__, generate, sync_weights")


@checks("is_built")
def starts(subject: BackendSubject) -> None:
    """It starts, accepts weights and serves one request."""
    assert subject.original  # the weights as they are before anything changes them
    name = type(subject.backend).__name__
    require(isinstance(subject.backend, RolloutBackend), f"__enter__ returned {name}, expected the backend")
    subject.say_letters()
    require(len(subject.complete(subject.request())) == 1, "got no completion")


@checks("starts")
def answers_every_request_in_order(subject: BackendSubject) -> None:
    """It returns one group per request, with ``group_size`` completions each, for mixed settings."""
    subject.say_letters()
    short = SamplingParams(max_completion_tokens=3)
    requests = [
        subject.request("AB", size=2, seed=1, sampling=short),
        subject.request("A" * 20, size=3, seed=2, sampling=GREEDY),
        subject.request("AB", size=1, seed=3, sampling=replace(short, temperature=0.5)),
    ]
    groups = subject.generate(requests)
    require([g.request for g in groups] == requests, "the groups are not in the order of the requests")
    sizes = [len(group.completions) for group in groups]
    require(sizes == [2, 3, 1], f"got group sizes {sizes}, expected [2, 3, 1]")
    longest = [max(len(c.token_ids) for c in group.completions) for group in groups]
    require(longest == [3, 16, 3], f"got {longest} tokens for limits of 3, 16, 3")
    require(subject.generate([]) == [], "got groups for no requests")


@checks("starts")
def ends_with_eos(subject: BackendSubject) -> None:
    """EOS ends a completion; it is the last token and not in the text."""
    subject.say_letters(eos=2.0)
    limit = SamplingParams(max_completion_tokens=40)
    completions = subject.complete(subject.request(size=16, sampling=limit))
    for completion in completions:
        has_eos = subject.eos in completion.token_ids
        is_eos = completion.finish_reason is FinishReason.EOS
        require(has_eos == is_eos, f"wrong finish_reason {completion.finish_reason} for tokens {completion.token_ids}")
        require(subject.eos not in completion.token_ids[:-1], "tokens after EOS")
        visible = subject.text_of([subject.eos]) in completion.text
        require(not visible, "the text contains the final EOS")
    ended = any(completion.finish_reason is FinishReason.EOS for completion in completions)
    require(ended, "no completion ended with EOS although it is likely")


@checks("starts")
def stops_at_the_token_limit(subject: BackendSubject) -> None:
    """Without EOS a completion has ``max_completion_tokens`` tokens and finish_reason LENGTH."""
    subject.say_letters()
    for completion in subject.complete(subject.request(size=3)):
        length, reason = len(completion.token_ids), completion.finish_reason
        require(length == 12, f"{length} tokens, expected max_completion_tokens 12")
        require(reason is FinishReason.LENGTH, f"finish_reason {reason}, expected LENGTH")


@checks("starts")
def stops_at_stop_strings(subject: BackendSubject) -> None:
    """A stop string, possibly spanning tokens, ends the completion and stays in its text."""
    subject.say({subject.token("A"): 0.0, subject.token("B"): 0.0}, flat=True)
    sampling = SamplingParams(max_completion_tokens=200, stop=("ABA", "never"))
    for completion in subject.complete(subject.request("AB", size=8, sampling=sampling)):
        reason, text = completion.finish_reason, completion.text
        require(reason is FinishReason.STOP_STRING, f"finish_reason {reason} of {text[:40]!r}")
        first = text.find("ABA")
        require(text.endswith("ABA") and first == len(text) - 3, f"{text[-20:]!r} does not end with the first 'ABA'")
        require(len(completion.token_ids) == len(text), f"{len(completion.token_ids)} tokens of {len(text)} letters")


@checks("starts")
def the_text_is_that_of_the_tokens(subject: BackendSubject) -> None:
    """``text`` is ``token_ids`` decoded with special tokens, without the final EOS."""
    subject.say_letters(eos=1.0)
    for completion in subject.complete(subject.request(size=8)):
        text = subject.text_of(subject.visible(completion))
        require(completion.text == text, f"text is {completion.text!r}, the tokens decode to {text!r}")


@checks("starts")
def log_probabilities_are_those_of_a_forward_pass(subject: BackendSubject) -> None:
    """Log-probabilities match the forward pass at the sampling temperature (greedy: 1)."""
    if not subject.spec.provides_logprobs:
        raise NotApplicableError("the backend returns none")
    subject.say_letters(eos=1.0)
    for temperature in (1.0, 0.6, 0.0):
        sampling = SamplingParams(temperature=temperature, max_completion_tokens=12)
        requests = [subject.request("A" * n, size=2, seed=n, sampling=sampling) for n in (1, 2, 9)]
        for group in subject.generate(requests):
            for completion in group.completions:
                given, tokens = completion.logprobs, completion.token_ids
                require(given is not None and len(given) == len(tokens), "expected one log-probability per token")
                table = subject.expected(group.request, completion)
                right = table.gather(-1, torch.tensor(tokens)[:, None])[:, 0]
                worst = (torch.tensor(given) - right).abs().max().item()
                message = f"off by {worst:.3g} at temperature {temperature}, tolerance is {subject.tolerance:g}"
                require(worst <= subject.tolerance, message)


@checks("starts")
def greedy_takes_the_likeliest(subject: BackendSubject) -> None:
    """At temperature 0 every token is the most likely one and all completions are equal."""
    subject.say_letters()
    request = subject.request(size=3, sampling=GREEDY)
    first, *others = subject.complete(request)
    require(all(c.token_ids == first.token_ids for c in others), "greedy completions of one prompt differ")
    table = subject.expected(request, first)
    lost = table.max(-1).values - table.gather(-1, torch.tensor(first.token_ids)[:, None])[:, 0]
    message = f"a token {lost.max().item():.3g} nats below the likeliest was taken"
    require(bool(lost.max() <= 2 * subject.tolerance), message)


@checks("starts")
def samples_differ(subject: BackendSubject) -> None:
    """Samples within a group and across seeds are independent."""
    subject.say_letters()
    groups = subject.generate([subject.request(size=4, seed=seed) for seed in (1, 2)])
    drawn = [completion.token_ids for group in groups for completion in group.completions]
    require(len(set(drawn)) == len(drawn), f"{len(drawn)} samples of 12 letters, only {len(set(drawn))} differ")


@checks("starts")
def the_seed_fixes_the_samples(subject: BackendSubject) -> None:
    """A request gives the same samples regardless of the rest of the batch."""
    subject.say_letters()
    request, other = subject.request(size=2, seed=5), subject.request("ABCDEFG", size=3, seed=6)
    alone = [c.token_ids for c in subject.complete(request)]
    beside = subject.generate([other, request])[1]
    require(
        alone == [c.token_ids for c in beside.completions], "the samples of a request depend on the rest of the batch"
    )


@checks("starts")
def samples_follow_the_distribution(subject: BackendSubject) -> None:
    """First tokens follow the model's distribution at each temperature."""
    letters = {subject.token("A"): 0.0, subject.token("B"): 0.7, subject.token("C"): 1.4}
    subject.say(letters, flat=True)
    for temperature in (1.0, 0.5):
        sampling = SamplingParams(temperature=temperature, max_completion_tokens=1)
        request = subject.request(size=400, seed=8, sampling=sampling)
        completions = subject.complete(request)
        counts = Counter(completion.token_ids[0] for completion in completions)
        shares = subject.expected(request, completions[0])[0].exp()
        for token in letters:
            share = float(shares[token])
            sigma = math.sqrt(400 * share * (1 - share))
            far = abs(counts[token] - 400 * share) / sigma
            message = f"{counts[token]} of 400 samples at temperature {temperature}, expected {400 * share:.0f}"
            require(far <= MAX_SIGMA, message)


@checks("starts")
def new_weights_are_used(subject: BackendSubject) -> None:
    """After ``sync_weights`` completions come from the new weights and have their version."""
    for letter in "AB":
        subject.say({subject.token(letter): 0.0}, flat=True)
        completion = subject.complete(subject.request(sampling=GREEDY))[0]
        require(
            set(completion.text) == {letter}, f"got {completion.text[:20]!r}, expected {letter!r} from the new weights"
        )
        version = completion.policy_version
        require(version == subject.version, f"policy_version is {version} after syncing version {subject.version}")


@checks("starts")
def continues_conversations(subject: BackendSubject) -> None:
    """Later messages of a conversation continue exactly the tokens before them, each within its own limit."""
    subject.say_letters()
    sampling = SamplingParams(max_completion_tokens=40, stop=tuple("AEIOU"))
    requests = [subject.request("B" * n, size=2, seed=n, sampling=sampling) for n in (1, 5)]
    spoken = [c for group in subject.converse(requests) for c in group.completions]
    require(any(len(c.replies) > 2 for c in spoken), "no conversation got beyond two messages")
    require(spoken == [c for g in subject.converse(requests) for c in g.completions], "conversations do not repeat")
    for completion, request in zip(spoken, [r for r in requests for _ in range(2)], strict=True):
        length = len(completion.token_ids)
        require(length <= 40, f"{length} tokens of both sides, over max_completion_tokens 40")
        written = completion.text.replace(REPLY, "")
        require(written == "".join(completion.replies), f"messages {completion.replies} in the text {written!r}")
        if completion.logprobs is None or completion.sampled_mask is None:
            continue
        table = subject.expected(request, completion)
        right = table.gather(-1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        mask = torch.tensor(completion.sampled_mask)
        mask[: completion.sampled_mask.index(False)] = False  # the first message is another check's
        worst = (torch.tensor(completion.logprobs) - right)[mask].abs().max().item() if mask.any() else 0.0
        require(worst <= subject.tolerance, f"log-probabilities of later messages are off by {worst:.3g}")


@checks("starts")
def the_policy_is_left_alone(subject: BackendSubject) -> None:
    """Sampling changes neither the policy's weights nor its mode, gradients or torch's global generator."""
    subject.say_letters()
    policy = subject.tiny.policy
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    policy.train()
    state = torch.get_rng_state()
    subject.complete(subject.request())
    training = policy.training and policy.model.training
    policy.eval()
    require(training, "sampling switched the policy out of train mode")
    require(torch.equal(torch.get_rng_state(), state), "it used torch's global generator")
    same = all(torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
    require(same, "it changed the policy's weights")
    clean = all(p.requires_grad and p.grad is None for p in policy.parameters())
    require(clean, "it froze a parameter or left a gradient")


@checks("starts")
def closes_twice(subject: BackendSubject) -> None:
    """``__exit__`` is idempotent."""
    backend = subject.backend
    subject.entered.clear()
    backend.__exit__(None, None, None)
    backend.__exit__(None, None, None)


def check_rollout(
    spec: str | RolloutBackendSpec,
    config: Mapping[str, object] | None = None,
    *,
    device: str = "cpu",
    tolerance: float = TOLERANCE,
    shape: Mapping[str, object] | None = None,
    plugins: Plugins | None = None,
    files: Sequence[str] = (),
) -> list[CheckResult]:
    """Run every check of a rollout backend.

    Args:
        spec: its name, or a RolloutBackendSpec. config: its options, as in a recipe.
        device: of policy and backend. tolerance: of log-probabilities, in nats; a lower precision needs a larger one.
        shape: of the tiny model where the backend needs another one: ``{"hidden": 256}`` makes larger heads.

    Raises:
        PluginNotFoundError: if there is no such backend, or its modules are not installed.
    """
    found, known = find("rollout_backend", spec, plugins, files)
    subject = BackendSubject(
        spec=found, plugins=known, options=config or {}, device=device, tolerance=tolerance, shape=shape or {}
    )
    try:
        return checks.run(subject, subject.label)
    finally:
        subject.close()


class RolloutConformance(Conformance):
    """Tests of a rollout backend: ``class TestMine(RolloutConformance): spec = "mine"; tolerance = 0.02``."""

    device: ClassVar[str] = "cpu"
    tolerance: ClassVar[float] = TOLERANCE
    shape: ClassVar[Mapping[str, object]] = {}

    @classmethod
    def run_checks(cls) -> list[CheckResult]:
        return check_rollout(
            cls.spec, cls.config, device=cls.device, tolerance=cls.tolerance, shape=cls.shape, files=cls.plugins
        )


add_tests(RolloutConformance, checks)

"""pass@k and maj@k of one problem, from n >= k samples, without bias."""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Estimate P(at least one of k samples is correct) without bias: 1 - C(n-c, k) / C(n, k) (arXiv:2107.03374 eq. 1).

    Example:
        pass_at_k(4, 1, 2) -> 0.5.
    """
    _check(num_samples, k)
    return float(1 - Fraction(math.comb(num_samples - num_correct, k), math.comb(num_samples, k)))


def majority_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """Estimate the score of the most frequent answer among k samples: its mean over all subsets of size k.

    The score of a subset is 1 if the most frequent answer is correct; m tied answers count 1/m each. Samples without
    an answer do not vote, and a subset without any answer scores 0.

    Example:
        majority_at_k(["a", "b", "b"], [True, False, False], 3) -> 0.0.
    """
    _check(len(answers), k)
    votes = Counter(answer for answer in answers if answer is not None)
    right = {answer for answer, ok in zip(answers, correct, strict=True) if ok and answer is not None}
    silent, score = len(answers) - votes.total(), Fraction(0)
    for answer in right:
        others = [count for other, count in votes.items() if other != answer]
        for own in range(1, min(votes[answer], k) + 1):
            ways = _ways(others, silent, k - own, at_most=own)
            score += math.comb(votes[answer], own) * sum(Fraction(n, ties + 1) for ties, n in ways.items())
    return float(score / math.comb(len(answers), k))


def _ways(others: Sequence[int], silent: int, room: int, *, at_most: int) -> dict[int, int]:
    """Count the ways to choose ``room`` samples such that no answer of ``others`` has more than ``at_most`` votes.

    Keyed by the number of answers that have exactly ``at_most``.
    """
    left = sum(others) + silent
    states = {(0, 0): 1}  # (samples chosen, ties): ways
    for count in others:
        left -= count
        following: Counter[tuple[int, int]] = Counter()
        for (chosen, ties), ways in states.items():
            fewest = max(0, room - chosen - left)  # the samples that remain must be able to fill the room
            for votes in range(fewest, min(count, at_most, room - chosen) + 1):
                following[chosen + votes, ties + (votes == at_most)] += ways * math.comb(count, votes)
        states = dict(following)
    total: Counter[int] = Counter()
    for (chosen, ties), ways in states.items():
        total[ties] += ways * math.comb(silent, room - chosen)
    return dict(total)


def _check(num_samples: int, k: int) -> None:
    if not 1 <= k <= num_samples:
        raise ValueError(f"k must be in [1, {num_samples}], got {k}")

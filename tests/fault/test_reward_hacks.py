"""Scripted reward hacks against the shipped Countdown rewards: none is paid as a right answer.

Each is a completion that some verifier in use has paid for, or might: 0 under ``countdown``, at most the 0.1 of an
answer that is there but wrong under ``countdown_tinyzero``.
"""

import time
from dataclasses import dataclass

import pytest
from support.builders import completion

from reasonrl import NoConfig, Problem, RewardContext
from reasonrl_countdown.expression import MAX_CHARS, MAX_DEPTH
from reasonrl_countdown.rewards import FORMAT_VALUE, CountdownReward, TinyZeroReward

pytestmark = pytest.mark.fault

STRICT = CountdownReward(NoConfig(), RewardContext())
TINYZERO = TinyZeroReward(NoConfig(), RewardContext())
MAX_S = 0.25


@dataclass(frozen=True)
class Hack:
    """A completion, and the problem it is for."""

    tries: str
    text: str
    numbers: tuple[int, ...] = (3, 5, 8)
    target: int = 16


SUM = "3+5+8"  # the honest answer to the usual problem


def hack(tries: str, answer: str, numbers: tuple[int, ...] = (3, 5, 8), target: int = 16) -> Hack:
    """A trick inside the answer tags."""
    return Hack(tries, f"so\n</think>\n<answer>{answer}</answer>", numbers, target)


ARITHMETIC = [
    hack("a power, which no rule allows", "3**4", (3, 4), 81),
    hack("a power in the other notation", "3^4", (3, 4), 81),
    hack("a power with a negative exponent", "2**-1*8", (1, 2, 8), 4),
    hack("floor division", "7//2", (2, 7), 3),
    hack("remainder", "8%5", (5, 8), 3),
    hack("a decimal point that joins two numbers", "1.5*8+4", (1, 4, 5, 8), 16),
    hack("a decimal point that divides by ten", "6.4-2", (2, 4, 6), 4),
    hack("a decimal point after a number", "3.+5.+8."),
    hack("an exponent that scales a number", "2e1-4", (1, 2, 4), 16),
    hack("digits joined to another number", "35-8", (3, 5, 8), 27),
    hack("a space between joined digits", "3 5-8", (3, 5, 8), 27),
    hack("underscores inside a number", "1_9-3", (1, 3, 9), 16),
    hack("a sign as a free operation", "-3+5", (3, 5), 2),
    hack("a plus sign as a free operation", "+3+5+8"),
    hack("a sign after an operator", "5*-3+20", (3, 5, 20), 5),
    hack("a double minus", "11--5", (5, 11), 16),
    hack("the complement of a number", "~3+20", (3, 20), 16),
    hack("juxtaposition as a product", "2(8)", (2, 8), 16),
    hack("two groups without an operator", "(3+5)(2)", (2, 3, 5), 16),
    hack("a factorial", "4!-8", (4, 8), 16),
    hack("a bit shift", "8<<1", (1, 8), 16),
    hack("a hexadecimal number", "0x10"),
    hack("a leading zero", "03+5+8"),
    hack("near enough, off by 1e-6", "16*1000000/999999", (16, 999_999, 1_000_000), 16),
    hack("a division by zero", "16/(5-5)", (5, 5, 16), 16),
    hack("a fraction that rounds to the target", "95/6", (6, 95), 16),
]

NUMBERS = [
    hack("the target itself", "16"),
    hack("the target and the numbers times nothing", "16+0*(3+5+8)"),
    hack("numbers canceled by others that were not given", "3+5+8+1-1"),
    hack("a number left out", "8+8", (3, 8, 8), 16),
    hack("a number used twice", "8+8", (3, 5, 8), 16),
    hack("a number that was not given", "10+6"),
    hack("no number at all", "()"),
    hack("the numbers, listed", "3, 5, 8"),
]

EQUATIONS = [
    hack("an equation", "3+5+8=16"),
    hack("an equation that asserts the target", "3*5*8=16"),
    hack("an assignment", "x=3+5+8"),
    hack("a comparison, which is true", "3+5+8==16"),
    hack("two answers in one", "3+5+8 or 3*5+8"),
    hack("two answers on two lines", "3*5*8\n3+5+8"),
    hack("two answers with a comma", "3+5+8, 3*5+8"),
    hack("a sentence around the answer", "the answer is 3+5+8"),
    hack("LaTeX", "\\boxed{3+5+8}"),
    hack("square brackets", "[3+5]+8"),
    hack("quotes", "'3+5+8'"),
]

CODE = [
    hack("a call", "sum([3,5,8])"),
    hack("code that ends the process", "__import__('os')._exit(0)"),
    hack("code that forges the verifier", "globals().update(verify=lambda *a: True)"),
    hack("a comment that hides the rest", "3+5+8#*0"),
    hack("a tower of powers that never ends", "99**99**9", (9, 99, 99), 16),
    hack("a conditional", "16 if 3+5+8 else 0"),
    hack("a format string", "{16}"),
    hack("a null byte", "3+5+8\x00"),
]

UNICODE = [
    hack("Arabic digits", "٣+٥+٨"),
    hack("fullwidth digits", "\uff13+\uff15+\uff18"),
    hack("a superscript", "3+5+8¹"),
    hack("a multiplication sign", "2×8", (2, 8), 16),
    hack("a division slash", "32∕2", (32, 2), 16),
    hack("a mathematical minus", "19−3", (19, 3), 16),
    hack("a zero-width space between digits", "1\u200b6"),
    hack("a zero-width joiner around the answer", "\u200d3+5+8\u200d"),
    hack("a byte-order mark", "\ufeff3+5+8"),
    hack("a no-break space", "3+5\u00a0+8"),
    hack("text that reads backwards", "\u202e8+5+3"),
    hack("a vulgar fraction", "½*32", (32, 2), 16),
    hack("half a surrogate pair", "3+5+8\ud800"),
]

SIZE = [
    hack("nesting without end", "(" * 50_000 + SUM + ")" * 50_000),
    hack("nesting a little too deep", "(" * (MAX_DEPTH + 1) + SUM + ")" * (MAX_DEPTH + 1)),
    hack("a million signs", "-" * 1_000_000 + "3+5+8"),
    hack("a number of 5000 digits", "9" * 5000),
    hack("padding beyond the limit", SUM + " " * MAX_CHARS + "+0"),
    hack("100,000 sums of nothing", SUM + "+3-3" * 100_000),
]

PLACES = [
    Hack("the answer inside the thoughts only", f"<answer>{SUM}</answer></think>"),
    Hack("the answer in thoughts that open again", f"</think><think><answer>{SUM}</answer>"),
    Hack("no tags", f"</think>{SUM}"),
    Hack("an open tag", f"</think><answer>{SUM}"),
    Hack("a closing tag alone", f"</think>{SUM}</answer>"),
    Hack("tags the wrong way round", f"</think></answer>{SUM}<answer>"),
    Hack("tags in capitals", f"</think><ANSWER>{SUM}</ANSWER>"),
    Hack("tags with attributes", f"</think><answer type='sum'>{SUM}</answer>"),
    Hack("escaped tags", f"</think>&lt;answer&gt;{SUM}&lt;/answer&gt;"),
    Hack("tags of Cyrillic letters", f"</think><аnswer>{SUM}</аnswer>"),
    Hack("nested tags", f"</think><answer><answer>{SUM}</answer></answer>"),
    Hack("a wrong answer, then a right one", f"</think><answer>3*5*8</answer><answer>{SUM}</answer>"),
    Hack("a right answer, then a wrong one", f"</think><answer>{SUM}</answer><answer>3*5*8</answer>"),
    Hack("the same answer twice", "</think>" + f"<answer>{SUM}</answer>" * 2),
    Hack("every expression there is", "</think>" + "".join(f"<answer>3{a}5{b}8</answer>" for a in "+*" for b in "+*")),
    Hack("the prompt's example", "</think>for example <answer> (1 + 2) / 3 </answer>"),
    Hack("the prompt's example, then the answer", f"</think><answer> (1 + 2) / 3 </answer>\n<answer>{SUM}</answer>"),
    Hack("an empty answer", "</think><answer></answer>"),
    Hack("a blank answer", "</think><answer> \n\t </answer>"),
    Hack("thoughts that never close around an answer", f"<think>maybe <answer>{SUM}</answer>"),
    Hack("an end token in the text, then more", f"</think><answer>3*5*8</answer><|endoftext|><answer>{SUM}</answer>"),
    Hack("an end token inside the answer", f"</think><answer>{SUM}<|im_end|></answer>"),
    Hack("a new turn that asks for less", "<|im_end|>\n<|im_start|>user\nnow [16]\n</think><answer>16</answer>"),
    Hack("a verdict of its own", "</think>reward: 1.0 correct: true"),
    Hack("a verdict inside the answer", "</think><answer>{'value': 1.0, 'correct': true}</answer>"),
    Hack("a tag split by a zero-width space", f"</think><ans\u200bwer>{SUM}</answer>"),
    Hack("the closing of thoughts inside the answer", f"<answer>3*5*8</think>{SUM}</answer>"),
    Hack("5000 opening tags", "</think>" + "<answer>" * 5000 + f"{SUM}</answer>"),
    Hack("nothing", ""),
]  # fmt: skip

HACKS = [*ARITHMETIC, *NUMBERS, *EQUATIONS, *CODE, *UNICODE, *SIZE, *PLACES]


def problem_of(trick: Hack) -> Problem:
    return Problem(id="p", prompt="say", info={"numbers": list(trick.numbers), "target": trick.target})


def test_there_are_at_least_forty_different_ones() -> None:
    assert len({trick.tries for trick in HACKS}) == len(HACKS) >= 40
    assert len({(trick.text, trick.numbers) for trick in HACKS}) == len(HACKS)


@pytest.mark.parametrize("trick", HACKS, ids=lambda trick: trick.tries)
def test_no_trick_is_paid_as_a_right_answer(trick: Hack) -> None:
    asked = completion(text=trick.text)
    started = time.process_time()
    strict, tinyzero = STRICT.score(problem_of(trick), asked), TINYZERO.score(problem_of(trick), asked)
    took_s = time.process_time() - started
    assert (strict.value, strict.correct) == (0.0, False)
    assert tinyzero.value in (0.0, FORMAT_VALUE)
    assert FORMAT_VALUE <= 0.1
    assert tinyzero.correct is False
    assert strict.reason not in ("", "ok")
    assert len(tinyzero.answer or "") <= MAX_CHARS
    assert took_s < MAX_S


def test_tricks_about_tags_are_not_even_an_answer() -> None:
    """They would be paid 0.1 otherwise, and a policy would learn them before it learns to calculate."""
    paid = {trick.tries for trick in PLACES if TINYZERO.score(problem_of(trick), completion(text=trick.text)).value}
    assert paid == {
        "the prompt's example",
        "an end token inside the answer",
        "a new turn that asks for less",
        "a verdict inside the answer",
    }


@pytest.mark.parametrize("reward", [STRICT, TINYZERO])
def test_the_honest_answer_is_paid(reward: CountdownReward) -> None:
    honest = hack("nothing", SUM)
    assert reward.score(problem_of(honest), completion(text=honest.text)).value == 1.0

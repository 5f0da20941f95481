"""Answers as people and models write them: read once, compared by value."""

from reasonrl_math.answers.agree import agree, is_consistent
from reasonrl_math.answers.boxes import last_box
from reasonrl_math.answers.describe import describe
from reasonrl_math.answers.nodes import Answer, Claim, Group, Matrix, Quantity, UnreadableError
from reasonrl_math.answers.numbers import UndefinedError, folded
from reasonrl_math.answers.shapes import read

__all__ = ["Answer", "UnreadableError", "agree", "describe", "last_box", "read", "read_known"]


def read_known(text: str) -> Answer:
    """``text`` as a known answer: also defined, and free of contradictions.

    Raises:
        UnreadableError: if the text cannot be read.
    """
    answer = read(text)
    _check(answer)
    return answer


def _check(answer: Answer) -> None:
    if isinstance(answer, Quantity):
        try:
            folded(answer.value)
        except UndefinedError as err:
            raise UnreadableError(str(err)) from err
    elif isinstance(answer, Claim):
        if not is_consistent(answer):
            raise UnreadableError("its sides differ")
        _check(answer.values[0])
    elif isinstance(answer, Group):
        for item in answer.items:
            _check(item)
    elif isinstance(answer, Matrix):
        for item in (cell for row in answer.rows for cell in row):
            _check(item)

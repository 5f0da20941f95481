"""The calculator of the task countdown."""

from reasonrl_countdown.expression import evaluate_postfix, parse_postfix

RESULT = "={result}\n"
"""How a result follows its call."""


def calc(expression: str) -> str:
    """Evaluate an expression of whole numbers exactly; a value that is not whole is a fraction such as 7/2.

    Args:
        expression: the expression, with + - * / and parentheses.

    Raises:
        ValueError: If it is anything else, or divides by zero.
    """
    postfix = parse_postfix(expression)
    value = None if postfix is None else evaluate_postfix(postfix)
    if value is None:
        raise ValueError("no value")
    return str(value)


def without_tags(text: str) -> str:
    """Return ``text`` with its calls as equations: ``(5+8)*3=39``."""
    return text.replace("<calc>", "").replace("</calc>", "")

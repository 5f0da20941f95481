"""Countdown: make an expression that reaches a target from given numbers, each used exactly once. Torch-free."""

from reasonrl_countdown.expression import Verdict, verify
from reasonrl_countdown.extraction import extract_answer
from reasonrl_countdown.solver import solve

__all__ = ["Verdict", "extract_answer", "solve", "verify"]

"""Countdown: reach a target with an expression that uses each given number exactly once. Torch-free."""

from reasonrl_countdown.expression import Verdict, verify
from reasonrl_countdown.extraction import extract_answer
from reasonrl_countdown.solver import solve

__all__ = ["Verdict", "extract_answer", "solve", "verify"]

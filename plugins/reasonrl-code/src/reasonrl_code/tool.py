"""A tool for a model: run Python."""

from reasonrl_code.limits import Limits
from reasonrl_code.sandbox import Launcher, Ran

LIMITS = Limits(seconds=5.0, output_kb=64)
MAX_SHOWN = 4000
_ENDS = {
    "too_slow": "stopped: out of time",
    "output": "stopped: too much output",
    "killed": "ended by a signal",
    "lost": "stopped",
}


def run_python(code: str) -> str:
    """Run a Python program and return what it prints.

    The program has the standard library, no network and no files. It runs for a few seconds at most, and nothing of
    it is kept for the next call.

    Args:
        code: The program. Only what it prints is returned.

    Returns:
        Standard output, then the last lines of the error if the program failed.
    """
    with Launcher(LIMITS) as launcher, launcher.open() as sandbox:
        return _describe(sandbox.run(code))


def _describe(ran: Ran) -> str:
    """What the model reads."""
    shown = _clip(ran.stdout, "output").rstrip()
    ending = _ENDS.get(ran.status, "")
    if ran.status == "failed":
        ending = "\n".join(ran.stderr.strip().splitlines()[-3:]) or f"exit status {ran.exit_code}"
    text = "\n".join(part for part in (shown, ending[-MAX_SHOWN:]) if part)
    return text or "(no output)"


def _clip(text: str, what: str) -> str:
    left_out = len(text) - MAX_SHOWN
    return text if left_out <= 0 else f"{text[:MAX_SHOWN]}\n[{left_out} characters of {what} left out]"

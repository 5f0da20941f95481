"""Every error that reasonrl raises on purpose.

    ReasonRLError
      RecipeError            what the user wrote: a recipe, an override, a command line argument
      RunDirInUseError       another process holds the run folder
      PluginError            something about a plugin
        PluginNotFoundError    no component of that name
        PluginConflictError    two providers of one name
        PluginContractError    a plugin returned or raised what its contract forbids
      RolloutError           the backend could not produce completions
      CheckpointError        a checkpoint cannot be written or trusted
      TrainingError          the run cannot continue (too many unscored completions, non-finite updates)
      ProcessError           the processes of a run disagree, or another one has failed
      UnexpectedError        any other error, which is its cause
      ShapeError             tensors that do not fit together

A message says where, what we got, what was expected and what to do next, in one line, and no secret.
"""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from reasonrl.redact import redact_text
from reasonrl.restore.call import restored
from reasonrl.signals import is_raised_by_hand
from reasonrl.text import clip, escape

# What is caught where a plugin's code is called. Its sys.exit() must not end a run as if that had been wanted;
# Ctrl-C passes.
RAISABLE = (Exception, SystemExit)
MAX_TEXT = 100_000
"""Characters of an error's text that are read."""
_CLASS_NAME: Callable[[type], str] = type.__dict__["__name__"].__get__  # a plugin's metaclass is not asked
NO_FOLDER = "the working directory was deleted; change to another one"
MAX_CHARS = 1000
"""Of a message; what it quotes may be of any length."""


class ReasonRLError(Exception):
    """Base of all errors raised on purpose; the command line prints the message and no traceback."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(clip(redact_text(arg), MAX_CHARS) if isinstance(arg, str) else arg for arg in args))


class RecipeError(ReasonRLError, ValueError):
    """The user's input is wrong."""

    exit_code = 2


class RunDirInUseError(ReasonRLError):
    """Another process holds the lock of the run folder."""

    exit_code = 3


class PluginError(ReasonRLError):
    """Something about a plugin."""

    exit_code = 2


class PluginNotFoundError(PluginError, LookupError):
    """No component of that name is installed."""


class PluginConflictError(PluginError):
    """Two distributions provide one name."""


class PluginContractError(PluginError):
    """A plugin returned or raised what its contract forbids."""


class RolloutError(ReasonRLError):
    """The backend could not produce completions."""


class CheckpointError(ReasonRLError):
    """A checkpoint cannot be written or trusted."""


class TrainingError(ReasonRLError):
    """The run cannot continue."""


class ProcessError(ReasonRLError):
    """The processes of a run disagree, or another one has failed, with that exit code."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class UnexpectedError(ReasonRLError):
    """Any other error, which is its ``__cause__``."""


class ShapeError(ReasonRLError, ValueError):
    """Tensors that do not fit together."""


class InterruptRaisedError(Exception):
    """A plugin raised what is meant to end a command, such as KeyboardInterrupt, by itself."""


@contextmanager
def plugin_code(owner: str) -> Iterator[None]:
    """Run a plugin's code inside: only Ctrl-C and the signals end a command, not the plugin.

    What it changes of the process (working directory, standard streams, signal handlers, built-in functions, torch's
    settings) is as before afterwards. ``owner``: whose code it is, for warnings.

    Raises:
        InterruptRaisedError: for a KeyboardInterrupt that no signal caused, and the like. Everything else passes.
    """
    try:
        with restored(owner):
            yield
    except RAISABLE:
        raise
    except BaseException as err:  # also asyncio's CancelledError, which is not an Exception
        if isinstance(err, KeyboardInterrupt) and not is_raised_by_hand(err):
            raise
        if isinstance(err, GeneratorExit) and _closes_a_generator(err):
            raise
        raise InterruptRaisedError("without a signal") from err


def _closes_a_generator(error: GeneratorExit) -> bool:
    """Whether Python raised it at a ``yield``, not code by itself."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is None or bool(place.tb_frame.f_code.co_flags & inspect.CO_GENERATOR)


@contextmanager
def plugin_call(what: str, *, invalid: str = "") -> Iterator[str]:
    """Run a plugin's code inside, which may raise anything; the error names its owner and the call. Gives ``what``.

    Errors raised on purpose and Ctrl-C pass. So does lack of memory, with a note of ``what``: it breaks no contract.

    Args:
        what: owner and call, such as ``task 'countdown': size('train')``.
        invalid: whose input a ValueError refuses; without it a ValueError is like any other error.

    Raises:
        RecipeError: for a ValueError, with ``invalid``.
        PluginContractError: for anything else, ``sys.exit()`` included.
    """
    try:
        with plugin_code(what):
            yield what
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as err:  # also asyncio's CancelledError, which is not an Exception
        if isinstance(err, ReasonRLError) and not isinstance(err, ShapeError):
            raise
        if is_out_of_memory(err):
            err.add_note(f"in {what}")
            raise
        if invalid and isinstance(err, ValueError) and not isinstance(err, ShapeError):
            raise RecipeError(f"{invalid}: {one_line(err)}") from err
        raise PluginContractError(f"{what} raised {describe(err)}") from err


@contextmanager
def usable_paths(what: str = "") -> Iterator[None]:
    """Turn what the file system refuses, such as a name that is too long, into a user's error. ``what``: its place.

    Raises:
        RecipeError: for an OSError.
    """
    try:
        yield
    except OSError as err:
        place = f"{what}: " if what else ""
        name = f"{clip(one_line(err.filename), 200)}: " if err.filename is not None else ""
        if _lacks_folder(err):
            raise RecipeError(NO_FOLDER) from err
        raise RecipeError(f"{place}{name}{err.strerror or one_line(err)}; choose another path") from err


def _lacks_folder(error: OSError) -> bool:
    """Whether the reason is that the working directory was deleted: it names no file."""
    if not isinstance(error, FileNotFoundError) or error.filename is not None:
        return False
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def check_returned(holds: bool, call: str, got: object, expected: str) -> None:
    """Raise PluginContractError unless what the ``call`` of a plugin returned ``holds``."""
    if not holds:
        raise PluginContractError(f"{call} returned {type(got).__name__}, expected {expected}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the machine, or the GPU, had no memory left. torch says so in several ways."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    marks = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(mark in _text(error) for mark in marks)


def note_stage(error: BaseException, stage: str) -> None:
    """Mark an error of lack of memory with the stage of a step that it happened in; the innermost one stays."""
    if is_out_of_memory(error) and stage_of(error) is None:
        with suppress(*RAISABLE):  # a plugin's error may have no room for it
            error.stage = stage  # type: ignore[attr-defined]


def stage_of(error: BaseException) -> str | None:
    """The stage that ``note_stage`` has marked."""
    return getattr(error, "stage", None)


def tell(error: BaseException) -> tuple[str, int]:
    """An error as another process reports it: its line and its exit code."""
    if isinstance(error, ReasonRLError):
        return with_notes(one_line(error), error), error.exit_code
    return with_notes(describe(error), error), 1


def leave_to_first(error: BaseException) -> None:
    """Mark an error that the first process of the run reports for all."""
    with suppress(*RAISABLE):
        error.is_reported = True  # type: ignore[attr-defined]


def is_left_to_first(error: BaseException | None) -> bool:
    """Whether the error, or what it was made from, is so marked."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        with suppress(*RAISABLE):  # a plugin's error may refuse to be asked
            if getattr(error, "is_reported", False) is True:
                return True
        error = error.__cause__
    return False


def one_line(error: object) -> str:
    """Text of an error without line breaks, its middle left out if it is long; control characters are escaped."""
    text = " ".join(_text(error)[:MAX_TEXT].split())
    if len(text) > MAX_CHARS:
        text = clip(redact_text(text), MAX_CHARS)  # half a secret would not be recognized later
    return escape(text)


def name_of(error: BaseException) -> str:
    """Name of the class of an error, as a plugin raised it."""
    raised = error.__cause__ if isinstance(error, InterruptRaisedError) else error
    return escape(_CLASS_NAME(type(raised)))


def describe(error: BaseException) -> str:
    """``ValueError: message``, on one line."""
    text, name = one_line(error), name_of(error)
    return f"{name}: {text}" if text else name


def describe_os_error(error: OSError) -> str:
    """Say on one line what the file system refused, of which file, and what to do."""
    if _lacks_folder(error):
        return NO_FOLDER
    where = f"{error.filename}: " if error.filename is not None else ""
    return redact_text(
        one_line(f"{where}{error.strerror or describe(error)}; check the file and the disk, then try again")
    )


def with_notes(text: str, error: BaseException) -> str:
    """``text`` and what was noted on the error on its way up."""
    try:
        notes = [one_line(note) for note in getattr(error, "__notes__", ())]
    except RAISABLE:  # a plugin's error may have anything in its place
        notes = []
    return "; ".join([text, *notes])


def _text(error: object) -> str:
    try:
        return str(error)
    except BaseException as err:  # an error of a plugin may not even have a text
        if isinstance(err, KeyboardInterrupt) and type(err) is not KeyboardInterrupt:  # ours, by a signal
            raise
        return f"(its message cannot be read: {type(err).__name__})"

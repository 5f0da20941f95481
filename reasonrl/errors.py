"""Every error that reasonrl raises on purpose.

    ReasonRLError
      RecipeError            what the user wrote: a recipe, an override, a command line argument
      RunDirInUseError       another process holds the run folder
      PluginError            something about a plugin
        PluginNotFoundError    no component of that name
        PluginConflictError    two providers of one name
        PluginContractError    a plugin returned or raised what its contract forbids
      RolloutError           the engine could not produce completions
      CheckpointError        a checkpoint cannot be written or trusted
      TrainingError          the run cannot go on (too many unscored completions, non-finite updates)
      ShapeError             tensors that do not fit together

A message says where, what we got, what was expected and what to do next, in one line, and no secret.
"""

from reasonrl.redact import redact_text

# What is caught where a plugin's code is called. Its sys.exit() must not end a run as if that had been wanted;
# Ctrl-C passes.
RAISABLE = (Exception, SystemExit)


class ReasonRLError(Exception):
    """Base of all errors raised on purpose; the command line prints the message and no traceback."""

    exit_code = 1

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact_text(arg) if isinstance(arg, str) else arg for arg in args))


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
    """The engine could not produce completions."""


class CheckpointError(ReasonRLError):
    """A checkpoint cannot be written or trusted."""


class TrainingError(ReasonRLError):
    """The run cannot go on."""


class ShapeError(ReasonRLError, ValueError):
    """Tensors that do not fit together."""

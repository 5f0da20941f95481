"""Saved models: ``checkpoints/step_000020/`` is a Hugging Face model folder, there whole or not at all."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from reasonrl.errors import CheckpointError

STEP_DIR = re.compile(r"step_(\d{6,})")


def step_dir(run_dir: Path, step: int) -> Path:
    return run_dir / "checkpoints" / f"step_{step:06d}"


def saved_steps(run_dir: Path) -> list[int]:
    """Steps that have a saved model, oldest first."""
    folder = run_dir / "checkpoints"
    if not folder.is_dir():
        return []
    return sorted(int(m.group(1)) for entry in folder.iterdir() if (m := STEP_DIR.fullmatch(entry.name)))


def save_step(run_dir: Path, step: int, write: Callable[[Path], None], *, keep: int) -> Path:
    """Let ``write`` fill a temporary folder, then move it into place and drop all but the last ``keep``.

    Raises: CheckpointError when the disk refuses; earlier checkpoints are untouched.
    """
    final = step_dir(run_dir, step)
    temporary = final.with_name(f".tmp-{final.name}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.replace(final)
    except (OSError, SafetensorError) as err:  # a full disk reaches us as either
        reason = getattr(err, "strerror", None) or err
        raise CheckpointError(
            f"cannot save checkpoint {final}: {reason}; earlier checkpoints are kept"
        ) from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # also when interrupted; moved away if all went well
    for old in saved_steps(run_dir)[:-keep]:
        shutil.rmtree(step_dir(run_dir, old), ignore_errors=True)
    return final

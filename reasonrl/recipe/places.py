"""Tell local folders from Hugging Face hub names. Torch-free."""

import re
from pathlib import Path

from reasonrl.rundir.layout import CHECKPOINTS, RUN, find_steps, is_run

_HUB_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$")


def is_hub_name(text: str) -> bool:
    """Whether ``text`` may be a model on the hub; ``runs/none`` is a run that is not there, where there are others."""
    return _HUB_NAME.match(text) is not None and not holds_runs(Path(text).parent)


def holds_runs(folder: Path) -> bool:
    """Whether there are run folders in ``folder``, which is not the working folder."""
    return folder != Path() and folder.is_dir() and any(folder.glob(f"*/{RUN}"))


def no_model(folder: Path, shown: str) -> str:
    """Why a folder without ``config.json`` is not a model, and what to name instead."""
    saved = [path for _, path in find_steps((folder / CHECKPOINTS).glob("*")) if (path / "config.json").is_file()]
    if is_run(folder) and saved:
        return f"{shown} is a run folder, expected a model folder; its newest model: {saved[-1]}"
    return f"{shown} is not a model folder: it has no config.json"

"""Who may read a run folder is the umask's decision, for every file in it."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.processes import child
from support.small_recipes import cli, recipe, sft_recipe


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}


def expected(folder: Path, mask: int) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): (0o777 if path.is_dir() else 0o666) & ~mask
        for path in [folder, *folder.rglob("*")]
    }


def go(*arguments: object) -> Any:
    done = cli(*arguments)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002], ids=oct)
def test_every_file_of_a_run_follows_the_umask(mask: int, tiny_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with umask(mask):
        go("train", recipe(tmp_path, tiny_model), "model.lora={rank: 2}", "--run-dir", run)
        go("resume", run, "trainer.steps=3")
        go(
            "sft",
            sft_recipe(tmp_path, tiny_model),
            "--run-dir",
            tmp_path / "sft",
            "--output",
            tmp_path / "copy",
        )
    for folder in (run, tmp_path / "sft", tmp_path / "copy"):
        assert modes(folder) == expected(folder, mask)
    assert any(name.endswith("optimizer.safetensors") for name in modes(run))


def fail_under(mask: int, folder: Path) -> None:
    """Create a run folder and another folder as an ordinary user, who cannot write to what the umask makes."""
    from reasonrl.errors import RecipeError
    from reasonrl.rundir.folder import RunDir
    from reasonrl.rundir.new_folder import new_folder

    if os.getuid() == 0:
        os.setresuid(65534, 65534, 65534)
    os.umask(mask)
    with pytest.raises(RecipeError, match="Permission denied"):
        RunDir.create(output_dir=folder, name="run")
    with pytest.raises(PermissionError), new_folder(folder / "export") as made:
        (made / "x").touch()


@pytest.mark.parametrize("mask", [0o777, 0o377], ids=oct)
def test_a_umask_that_denies_everything_leaves_nothing_behind(mask: int) -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    process = child(fail_under, mask, folder)
    process.join(60)
    left = [path.name for path in folder.iterdir()]
    shutil.rmtree(folder)
    assert process.exitcode == 0
    assert left == []

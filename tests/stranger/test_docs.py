"""The documentation does what it says, from its first block to its last."""

from pathlib import Path

import pytest
from stranger.commands import Commands
from stranger.markdown import ROOT, blocks, inline_commands, pages
from stranger.page import Page
from stranger.words import Words

WITH_BLOCKS = [page for page in pages() if blocks(page)]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=name_of)
def test_every_block_of_the_page_runs(page: Path, tmp_path: Path, commands: Commands, words: Words) -> None:
    Page(blocks(page), tmp_path, commands, words).run()


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_commands_in_sentences_exist(page: Path, tmp_path: Path, commands: Commands, words: Words) -> None:
    faults = []
    for line, text in inline_commands(page):
        for command in words.commands(text):
            faults += [f"{name_of(page)}:{line}: {fault}" for fault in words.faults(command)]
            if (checked := words.recipe_of(command)) is not None:
                done = commands.reasonrl("recipes", "check", *checked, cwd=ROOT / "recipes")
                faults += [f"{name_of(page)}:{line}: {done}"] if done.code else []
    assert not faults, "\n".join(faults)

"""Stop strings with a backslash and a letter where a line break was meant."""

import json
from pathlib import Path

import pytest

from reasonrl.errors import RecipeError
from reasonrl.plugins import Plugins, load_plugins
from reasonrl.recipe.load import load_recipe
from reasonrl.recipe.notes import notes

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
ONLY_ESCAPES = [r"\n", r"\n\n", r"\t", r"\r\n"]
NOTED = [r"Q:\n", r"\nQ:", r"\n---", r"a\tB"]
MEANT = ["\n", "\n\n", "\t", "</answer>", r"\text{", r"\neq", r"\right)", "\\", r"\boxed", "n"]


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return load_plugins(environ={"REASONRL_PLUGINS": "reasonrl"})


def told(stop: str, folder: Path, plugins: Plugins, *, by_file: bool) -> list[str]:
    text = json.dumps([stop])  # in double quotes, with every backslash doubled
    path = folder / "r.yaml"
    path.write_text(f"extends: {RECIPES}/countdown_grpo.yaml\n")
    if by_file:
        path.write_text(path.read_text() + f"sampling: {{stop: {text}}}\n")
    resolved = load_recipe(path, [] if by_file else [f"sampling.stop={text}"], plugins)
    assert resolved.recipe.sampling.stop == [stop]
    return list(notes(resolved))


@pytest.mark.parametrize("by_file", [True, False])
@pytest.mark.parametrize("stop", ONLY_ESCAPES)
def test_only_escapes_are_refused(stop: str, by_file: bool, tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(RecipeError) as caught:
        told(stop, tmp_path, plugins, by_file=by_file)
    letter = stop[1]
    said = f'sampling.stop must be written ["{stop}"] with double quotes, got a backslash and the letter {letter}'
    assert str(caught.value).endswith(said)


@pytest.mark.parametrize("by_file", [True, False])
@pytest.mark.parametrize("stop", NOTED)
def test_an_escape_among_other_text_is_noted(stop: str, by_file: bool, tmp_path: Path, plugins: Plugins) -> None:
    (note,) = told(stop, tmp_path, plugins, by_file=by_file)
    assert note.startswith(f"sampling.stop: {stop} contains a backslash and the letter ")
    assert note.endswith(f'write "{stop}" in double quotes')


@pytest.mark.parametrize("by_file", [True, False])
@pytest.mark.parametrize("stop", MEANT)
def test_what_is_meant_is_left_alone(stop: str, by_file: bool, tmp_path: Path, plugins: Plugins) -> None:
    assert told(stop, tmp_path, plugins, by_file=by_file) == []


def test_single_quotes_are_how_it_happens(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "r.yaml").write_text(f"extends: {RECIPES}/countdown_grpo.yaml\nsampling:\n  stop: ['\\n']\n")
    with pytest.raises(RecipeError, match=r"r\.yaml:3: sampling\.stop must be written"):
        load_recipe(tmp_path / "r.yaml", [], plugins)

"""Arguments and options that several commands share."""

from typing import Annotated

import typer

from reasonrl.recipe.schema import Device

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe overrides, such as trainer.steps=10.")
]
RunDir = Annotated[
    str | None, typer.Option("--run-dir", metavar="DIR", help="Run folder to create (default runs/<name>-<n>).")
]
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe file, or name of a packaged recipe.")]
Target = Annotated[
    str, typer.Argument(metavar="RUN|MODEL", help="Run folder, model folder, adapter folder or hub model.")
]
ForRecipe = Annotated[
    str | None, typer.Option("--recipe", metavar="RECIPE", help="Recipe to use instead of the run's own.")
]
Play = Annotated[
    bool, typer.Option("--play", help="Reply to the model yourself, instead of the task; an empty line ends it.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail if the newest checkpoint is corrupted.")]
OnDevice = Annotated[Device | None, typer.Option("--device", help="Device to use instead of the recipe's.")]
Plain = Annotated[bool, typer.Option("--plain", help="Print one line per step instead of the live view.")]


def device_override(device: Device | None) -> list[str]:
    """Return ``--device`` as a recipe override."""
    return [f"device={device}"] if device else []

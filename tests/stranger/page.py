"""One page of the documentation, done from its first block to its last in a folder of its own."""

import ast
import json
import re
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path

import yaml
from stranger.commands import Commands, Done
from stranger.markdown import ROOT, Block
from stranger.words import Words

PLUGINS = ("plugins/reasonrl-code", "plugins/reasonrl-math", "plugins/reasonrl-reasoning-gym")
CLONE = ("recipes", "benchmarks", *PLUGINS, "pyproject.toml")
"""What a clone holds beside the package: the folder in which the commands of a page are typed. No ``reasonrl/``."""

AROUND = {
    "name": "around",
    "model": {"name": "countdown-base"},
    "task": {"name": "countdown", "template": "compact"},
    "algorithm": {"name": "grpo"},
    "sampling": {"group_size": 4, "max_prompt_tokens": 1024, "max_completion_tokens": 64},
    "trainer": {"steps": 2, "prompts_per_step": 8},
}
"""The recipe around a part of one, on a page that shows no whole one."""

REAL = {
    "README.md": "train generate eval",
    "resume.md": "resume",
    "sft.md": "sft",
    "doctor.md": "doctor",
    "plugins.md": "plugins",
    "write-a-plugin.md": "plugins",
}
"""Page -> commands that are not forked there; ``shim.py`` adds those that start fast."""

RUN = re.compile(r"\bruns/([A-Za-z0-9_.]+?)-1\b")
STEP = re.compile(r"\bstep_\d{6}\b")


def lay_out_clone(folder: Path) -> None:
    """What stands around the package in a clone, in ``folder``."""
    ignored = shutil.ignore_patterns("__pycache__", "results", "*.egg-info")
    for name in CLONE:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=ignored)
        else:
            shutil.copy(ROOT / name, target)


class PageError(AssertionError):
    """A block that does not do what a page says. Its text begins with ``page:line``."""


class Page:
    """The blocks of a page in ``folder``. ``words`` checks what is not run."""

    def __init__(self, blocks: Sequence[Block], folder: Path, commands: Commands, words: Words) -> None:
        self._blocks = blocks
        self._folder = folder
        self._commands = commands
        self._words = words

    def run(self) -> None:
        """Raises: PageError at the first block that fails."""
        self._lay_out()
        for block in self._blocks:
            if block.not_run is not None:
                self._check_only(block)
            else:
                self._runs_it_needs(block)
                getattr(self, f"_{block.language}")(block)

    def _lay_out(self) -> None:
        lay_out_clone(self._folder)
        (self._folder / "around.yaml").write_text(yaml.safe_dump(AROUND), encoding="utf-8")
        for block in self._blocks:
            if block.is_file:
                (self._folder / block.title).write_text(block.text, encoding="utf-8")

    def _runs_it_needs(self, block: Block) -> None:
        """A page about what a run leaves takes for granted that there is one."""
        if block.language in ("sh", "python"):
            for name in dict.fromkeys(RUN.findall(block.text)):
                if not (self._folder / "runs" / f"{name}-1").exists():
                    self._expect(block, self._commands.reasonrl("train", name, cwd=self._folder, shrink=True))

    # Languages

    def _sh(self, block: Block) -> None:
        self._expect(block, self._commands.shell(block.text, cwd=self._folder, **self._real(block)))

    def _real(self, block: Block) -> dict[str, str]:
        """Each command is somewhere a process of its own, with all that takes."""
        return {"STRANGER_REAL": REAL.get(block.page.name, "")}

    def _python(self, block: Block) -> None:
        if block.title.startswith("test_"):
            self._expect(block, self._commands.shell(f"pytest {block.title}", cwd=self._folder))
            return
        name = block.title or f"block_{block.line}.py"
        run = re.search(r"runs/([\w.-]+)", block.text)
        saved = self._folder.glob(f"runs/{run[1] if run else '*'}/checkpoints/step_*")
        newest = sorted(path.name for path in saved)[-1:]
        text = STEP.sub(newest[0], block.text) if newest else block.text
        (self._folder / name).write_text(text, encoding="utf-8")
        self._expect(block, self._commands.script(Path(name), cwd=self._folder, shrink=True))
        if "@hookimpl" in block.text:
            shown = self._commands.reasonrl("plugins", "list", "--json", "--plugin", name, cwd=self._folder)
            self._expect(block, shown)
            (mine,) = [p for p in json.loads(shown.out) if p["distribution"] == "--plugin"]
            self._hold(block, mine["status"] == "active", f"the plugin is {mine}")

    def _yaml(self, block: Block) -> None:
        recipe = self._recipe_file(block)
        self._expect(block, self._recipe_check(recipe))
        if not self._is_trained_by_the_page(block):
            kind = "sft" if "sft" in yaml.safe_load(block.text) else "train"
            command = [kind, recipe, *self._plugin_options()]
            self._expect(block, self._commands.reasonrl(*command, cwd=self._folder, shrink=True))

    def _recipe_file(self, block: Block) -> str:
        """The block as a whole recipe: a part of one is laid over the page's own, or over ``AROUND``."""
        if block.is_file:
            return block.title
        whole = yaml.safe_load(block.text)
        name = f"part_{block.line}.yaml"
        if "trainer" not in whole and "sft" not in whole:
            mine = [b.title for b in self._blocks if b.language == "yaml" and b.is_file]
            whole = {"extends": mine[-1] if mine else "around.yaml", **whole}
        (self._folder / name).write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
        return name

    def _recipe_check(self, recipe: str, *overrides: str) -> Done:
        command = ["recipes", "check", recipe, *overrides, *self._plugin_options()]
        return self._commands.reasonrl(*command, cwd=self._folder)

    def _plugin_options(self) -> list[str]:
        """The page's plugins, unless it has installed them."""
        if (self._folder / ".site").exists():
            return []
        mine = [b.title for b in self._blocks if b.title.endswith(".py") and "@hookimpl" in b.text]
        return [word for name in mine for word in ("--plugin", name)]

    def _is_trained_by_the_page(self, block: Block) -> bool:
        trained = rf"reasonrl (train|sft) .*\b{re.escape(block.title)}\b"
        return block.is_file and any(re.search(trained, b.text) for b in self._blocks if b.language == "sh")

    def _pycon(self, block: Block) -> None:
        file = self._folder / f"session_{block.line}.txt"
        file.write_text(block.text, encoding="utf-8")
        code = f"import doctest, sys\nsys.exit(doctest.testfile({str(file)!r}, module_relative=False).failed)\n"
        script = file.with_suffix(".py")
        script.write_text(code, encoding="utf-8")
        self._expect(block, self._commands.script(script, cwd=self._folder))

    def _json(self, block: Block) -> None:
        for line in block.text.splitlines() if block.title.endswith(".jsonl") else [block.text]:
            self._hold(block, _parses(json.loads, line), f"does not parse: {line}")

    def _toml(self, block: Block) -> None:
        self._hold(block, _parses(tomllib.loads, block.text), "does not parse")

    def _pyi(self, block: Block) -> None:
        self._hold(block, _parses(ast.parse, block.text), "does not parse")

    def _math(self, block: Block) -> None:
        """Nothing to do: `test_equations.py` builds the site."""

    def _text(self, block: Block) -> None:
        """Nothing to do."""

    # What is not run

    def _check_only(self, block: Block) -> None:
        if block.language == "yaml":
            self._expect(block, self._recipe_check(self._recipe_file(block)))
        elif block.language == "python":
            self._pyi(block)
        elif block.language == "sh":
            for command in self._words.commands(block.text):
                self._check_command(block, command)

    def _check_command(self, block: Block, command: list[str]) -> None:
        faults = self._words.faults(command)
        self._hold(block, not faults, "; ".join(faults))
        at = self._words.recipe_of(command)
        if at is not None:
            self._expect(block, self._recipe_check(*at))

    # Outcomes

    def _expect(self, block: Block, done: Done) -> None:
        self._hold(block, done.code == 0, str(done))

    def _hold(self, block: Block, holds: bool, what: str) -> None:
        if not holds:
            raise PageError(f"{block.where}: {what}")


def _parses(parse: object, text: str) -> bool:
    assert callable(parse)
    try:
        parse(text)
    except ValueError:  # JSON and TOML
        return False
    except SyntaxError:
        return False
    return True

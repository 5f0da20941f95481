"""The documentation builds, with every equation rendered; one that cannot be rendered stops the build."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from stranger.markdown import ROOT

SITE = {
    "site_name": "equations",
    "hooks": [str(ROOT / "scripts" / "equations.py")],
    "markdown_extensions": ["tables", "pymdownx.superfences"],
    "plugins": [],
}


def build(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    options = ["--strict", "--config-file", config, "--site-dir", folder / "site"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def build_page(folder: Path, page: str) -> subprocess.CompletedProcess[str]:
    (folder / "docs").mkdir()
    (folder / "docs" / "index.md").write_text(page, encoding="utf-8")
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(SITE), encoding="utf-8")
    return build(folder, folder / "mkdocs.yml")


def test_the_documentation_builds_with_every_equation_rendered(tmp_path: Path) -> None:
    done = build(tmp_path, ROOT / "mkdocs.yml")
    assert done.returncode == 0, done.stderr
    for source in sorted((ROOT / "docs" / "algorithms").glob("*.md")):
        name = "" if source.stem == "index" else source.stem
        page = (tmp_path / "site" / "algorithms" / name / "index.html").read_text(encoding="utf-8")
        text = source.read_text(encoding="utf-8")
        assert page.count('display="block"') == text.count("```math\n") > 0
        assert page.count('display="inline"') == len(re.findall(r"\$`[^`]+`\$", text))
        assert not re.search(r"\$<code>|\\(frac|sum|text)\b", page)


def test_both_kinds_of_equations_are_rendered(tmp_path: Path) -> None:
    page = "Inline $`a < b_i`$ and `$HOME`.\n\n| x |\n|---|\n| $`\\frac{a}{b}`$ |\n\n```math\n\\sum_i x_i^2\n```\n"
    done = build_page(tmp_path, page)
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert (made.count('display="inline"'), made.count('display="block"')) == (2, 1)
    assert "<code>$HOME</code>" in made
    assert "<mfrac>" in made


@pytest.mark.parametrize(
    ("equation", "message"),
    [
        ("\\frac{a}{b", "unbalanced braces"),
        ("\\nosuchcommand{a}", "unknown command \\nosuchcommand"),
        ("\\begin{aligned} a \\end{aligned}", "unknown environment aligned"),
        ("\\left( a", "ExtraLeftOrMissingRightError"),
        ("a_b_c", "DoubleSubscriptsError"),
        ("\\operatorname{clip}(r)", "GitHub does not render \\operatorname"),
    ],
)
@pytest.mark.parametrize("form", ["```math\n{}\n```\n", "x $`{}`$ y\n"], ids=["display", "inline"])
def test_a_broken_equation_stops_the_build(form: str, equation: str, message: str, tmp_path: Path) -> None:
    done = build_page(tmp_path, form.replace("{}", equation, 1))
    assert done.returncode != 0
    assert message in done.stderr
    assert "index.md" in done.stderr
    assert "Traceback" not in done.stderr


def test_function_names_are_spaced_as_in_tex(tmp_path: Path) -> None:
    done = build_page(tmp_path, "$`\\ln p + \\text{clip}(r)`$\n")
    assert done.returncode == 0, done.stderr
    made = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert re.search(r'<mo [^>]*rspace="0.17em"[^>]*>ln</mo>', made)
    assert re.search(r'<mo [^>]*rspace="0"[^>]*>clip</mo>', made)

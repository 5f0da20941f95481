"""Code blocks of the documentation are written so that ``tests/stranger`` can run each of them."""

import pytest
from stranger.markdown import ROOT, blocks, faults_of_form, pages

PAGE = ROOT / "docs" / "page.md"


def test_every_block_can_be_run_or_says_why_not() -> None:
    faults = [fault for page in pages() for block in blocks(page) for fault in faults_of_form(block)]
    assert not faults, "see CONTRIBUTING.md, Documentation\n" + "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```\nx\n```\n", "its language is ''"),
        ("```bash\nx\n```\n", "its language is 'bash'"),
        ("```text\nreasonrl train x\n```\n", "holds a command"),
        ("<!-- not run: too lazy -->\n```sh\nx\n```\n", "marked 'not run: too lazy'"),
        ("<!-- not run: needs a GPU, eight of them -->\n```sh\nx\n```\n", ""),
        ('```python title="a.py"\nx\n```\n', ""),
        ("```math\n\\frac{a}{b}\n```\n", ""),
    ],
)
def test_a_block_that_cannot_be_run_is_named(text: str, fault: str) -> None:
    faults = [found for block in blocks(PAGE, text) for found in faults_of_form(block)]
    assert fault in "".join(faults)
    assert bool(faults) == bool(fault)


def test_blocks_keep_line_title_and_mark() -> None:
    text = 'a\n\n<!-- not run: needs the hub -->\n```yaml title="x.yaml"\nname: x\n```\n\n- b\n  ```sh\n  y\n  ```\n'
    first, second = blocks(PAGE, text)
    assert (first.line, first.title, first.text, first.not_run) == (4, "x.yaml", "name: x\n", "needs the hub")
    assert (second.line, second.text, second.not_run) == (9, "y\n", None)

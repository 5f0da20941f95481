"""A picture of the documentation, on a desktop and on a phone, for the README.

python scripts/site_picture.py [SITE]

Needs Chromium and `pip install -e ".[browser,docs]"`. SITE: a folder that `mkdocs build` wrote; without it the site is
built. Writes docs/assets/site.png.
"""

import subprocess
import sys
import tempfile
from base64 import b64encode
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = "explain/rl-from-zero/index.html"
VIEWS = ((900, 620, "light", "#grpo-ask-several-times"), (330, 620, "dark", "#small-steps-the-clip"))
"""Width, height, scheme and place of each picture."""

sys.path += [str(ROOT / "tests")]


def main(arguments: list[str]) -> None:
    """Build the site if need be, and take the picture."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(arguments[0] if arguments else folder)
        if not arguments:
            subprocess.run([sys.executable, "-m", "mkdocs", "build", "--site-dir", folder], cwd=ROOT, check=True)
        images = "".join(f'<img src="data:image/png;base64,{b64encode(shot(site, *view)).decode()}">' for view in VIEWS)
        page = Path(folder) / "both.html"
        style = (
            "body {margin: 0; padding: 20px; display: flex; gap: 20px; background: #e8eaf6} img {border-radius: 10px}"
        )
        page.write_text(f"<style>{style}</style>{images}", encoding="utf-8")
        width = sum(view[0] for view in VIEWS) + 60
        (ROOT / "docs" / "assets" / "site.png").write_bytes(picture(page, "", width, VIEWS[0][1] + 40, "light"))


def shot(site: Path, width: int, height: int, scheme: str, place: str) -> bytes:
    """The page as a reader sees it who has followed a link."""
    return picture(site / PAGE, place, width, height, scheme)


def picture(file: Path, place: str, width: int, height: int, scheme: str) -> bytes:
    from support.browser import visit

    with visit(file, place, viewport={"width": width, "height": height}, color_scheme=scheme) as seen:
        return bytes(seen.page.screenshot())


if __name__ == "__main__":
    main(sys.argv[1:])

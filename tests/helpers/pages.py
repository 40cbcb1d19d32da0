"""Code blocks of the documentation: what a page tells people to type is what a test runs."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def block(page: str, kind: str) -> str:
    """The one block of a page that opens with ```kind."""
    text = (ROOT / page).read_text("utf-8")
    found = re.findall(rf"^```{re.escape(kind)}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{page} has {len(found)} blocks {kind}"
    return str(found[0])


def placed(text: str, places: dict[str, str]) -> str:
    """The block with a test's places instead of the page's; each must be in it."""
    for old, new in places.items():
        assert old in text, old
        text = text.replace(old, new)
    return text

"""Which pages the documentation has, in their order, and their texts.

A page is written once for each language, below `relay/docs/callers`. Its code is written once: a
line `[code]` of a translation stands for the next block of the English page. Must not know
settings or HTML.
"""

import re
from pathlib import Path
from typing import Final

import relay

SOURCE: Final = "en"
GROUPS: Final = {
    "begin": ("start", "claude-code", "agents", "sdks"),
    "api": ("authentication", "models", "messages", "chat", "responses"),
    "reference": ("errors", "limits", "usage"),
}
PAGES: Final = tuple(page for pages in GROUPS.values() for page in pages)
FIRST: Final = PAGES[0]  # served at /docs itself

_FOLDER: Final = Path(relay.__file__).parent / "docs" / "callers"
_BLOCK: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_PLACE: Final = re.compile(r"^\[code\]$", re.MULTILINE)


def page_path(page: str) -> str:
    """Where a page is served."""
    return "/docs" if page == FIRST else f"/docs/{page}"


def read_text(page: str, language: str) -> str:
    """A page's text in one language, with its code, before it is filled.

    Raises:
        ValueError: a translation has another number of code blocks.
    """
    source = (_FOLDER / SOURCE / f"{page}.md").read_text("utf-8")
    if language == SOURCE:
        return source
    text = (_FOLDER / language / f"{page}.md").read_text("utf-8")
    blocks = _BLOCK.findall(source)
    if len(_PLACE.findall(text)) != len(blocks):
        raise ValueError(f"{language}/{page}.md: {len(blocks)} lines [code] are needed")
    rest = iter(blocks)
    return _PLACE.sub(lambda _: next(rest), text)

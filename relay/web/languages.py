"""The texts of the pages, in each language, and which language a browser gets.

A text is found by its key, such as `login.title`; `languages/*.toml` has a table for each page;
the texts for administrators are in files of their own.
Every language has every key: a test sees to it. Must not know pages.
"""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_FOLDER: Final = Path(__file__).parent / "languages"
DEFAULT: Final = "en"
NAMES: Final = {"en": "English", "zh": "中文"}
_MAX_FIELD: Final = 500

Translate = Callable[..., str]


def read_texts() -> dict[str, dict[str, str]]:
    """All texts: language → key → text."""
    return {
        language: {
            key: text
            for path in sorted(_FOLDER.glob(f"{language}*.toml"))
            for key, text in _flat(tomllib.loads(path.read_text("utf-8"))).items()
        }
        for language in NAMES
    }


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            texts |= _flat(value, f"{prefix}{name}.")
        else:
            texts[prefix + name] = value
    return texts


def translator(texts: dict[str, str]) -> Translate:
    """A function that finds a text by its key, and puts values in place of `{names}`."""

    def translate(key: str, **values: object) -> str:
        text = texts[key]
        return text.format(**values) if values else text

    return translate


def choose(cookie: str, accept_language: str) -> str:
    """The language of a browser: what its user chose here, else the one it prefers."""
    if cookie in NAMES:
        return cookie
    wanted: list[tuple[float, int, str]] = []
    for number, part in enumerate(accept_language[:_MAX_FIELD].split(",")):
        name, _, options = part.strip().partition(";")
        try:
            weight = float(options.strip().removeprefix("q=")) if options else 1.0
        except ValueError:
            continue
        primary = name.partition("-")[0].casefold()
        if primary in NAMES and weight > 0:
            wanted.append((-weight, number, primary))
    return min(wanted)[2] if wanted else DEFAULT

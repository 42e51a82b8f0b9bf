"""The relay's own sentences in the language of a page: reasons of requests, states, settings.

They are written in English: in the log, in errors, in the database. A page in another language
shows them by `languages/reasons.*.toml`. Words that are not in that table, such as those of an
upstream, stay as they came, in quotation marks. Must not know pages.
"""

import re
import tomllib
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from relay.web.languages import DEFAULT, NAMES

_FOLDER: Final = Path(__file__).parent / "languages"
_MAX_WORDS: Final = 1_000  # longer ones are quoted unread
_MAX_DEPTH: Final = 8
_MAX_KNOWN: Final = 2_000
_PLACE: Final = re.compile(r"\{([a-z]+)([0-9]*)\}")
_SHAPES: Final = {
    "number": r"[0-9][0-9,._]*",
    "field": r"[A-Za-z0-9_.\[\]/-]{1,100}",
    "file": r"\S{1,200}",
}
_QUOTED: Final = "“{}”"
_SETTING: Final = "{field} "  # begins a sentence about a setting


class _Sentence(NamedTuple):
    """One row of the table, and its words in the other language."""

    words: re.Pattern[str]
    text: str


def load() -> None:
    """Read all tables now: their patterns take 20 ms to compile."""
    for language in NAMES:
        if language != DEFAULT:
            _sentences(language)


@cache
def _sentences(language: str) -> tuple[_Sentence, ...]:
    """The table of a language, the sentences with the most words of their own first."""
    tables = tomllib.loads((_FOLDER / f"reasons.{language}.toml").read_text("utf-8"))
    rows = [row for table in tables.values() for row in table.items()]
    # An error of a section begins with a setting's name; with its path, a colon follows that.
    rows += [
        (english.replace(_SETTING, "{field}: ", 1), text.replace(_SETTING, "{field}：", 1))
        for english, text in rows
        if english.startswith(_SETTING) and text.startswith(_SETTING)
    ]
    rows.sort(key=lambda row: -len(_PLACE.sub("", row[0])))
    return tuple(_Sentence(_pattern(english), text) for english, text in rows)


def _pattern(english: str) -> re.Pattern[str]:
    parts = []
    at = 0
    for place in _PLACE.finditer(english):
        parts.append(_literal(english[at : place.start()]))
        parts.append(f"(?P<{place[1]}{place[2]}>{_SHAPES.get(place[1], '.+?')})")
        at = place.end()
    return re.compile("".join(parts) + _literal(english[at:]), re.DOTALL)


def _literal(text: str) -> str:
    return re.escape(text.replace("{{", "{").replace("}}", "}"))


def in_language(words: str, language: str) -> str:
    """A sentence of the relay in a language; unknown words in quotation marks."""
    if language == DEFAULT or not words:
        return words
    return translated(words, language) or _QUOTED.format(words)


@lru_cache(maxsize=_MAX_KNOWN)
def translated(words: str, language: str) -> str:
    """A sentence of the relay in another language; empty: it is none of those that are known."""
    if len(words) > _MAX_WORDS:
        return ""
    return _Translation(language).of(words, 0)[0]


class _Translation:
    """Finds one sentence, and the sentences within it."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._found: dict[str, tuple[str, int]] = {}

    def of(self, words: str, depth: int) -> tuple[str, int]:
        """The other words, and how many parts of them are only quoted; the fewest count."""
        if words in self._found:
            return self._found[words]
        best = ("", 0)
        for sentence in _sentences(self._language):
            match = sentence.words.fullmatch(words)
            if match is None:
                continue
            text, unknown = self._filled(sentence.text, match.groupdict(), depth)
            if not best[0] or unknown < best[1]:
                best = (text, unknown)
            if unknown == 0:
                break
        self._found[words] = best
        return best

    def _filled(self, text: str, places: dict[str, str], depth: int) -> tuple[str, int]:
        values = {}
        unknown = 0
        for name, value in places.items():
            values[name] = value
            if name.startswith("said"):
                values[name] = _QUOTED.format(value)
            elif name.startswith("why"):
                inner, quoted = self.of(value, depth + 1) if depth < _MAX_DEPTH else ("", 0)
                values[name] = inner or _QUOTED.format(value)
                unknown += quoted if inner else 1
        return text.format(**values), unknown

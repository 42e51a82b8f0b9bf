"""Keeps the present edition of the documentation in each language.

An edition is made by the first request for it, on a thread, and again after the settings have
changed. Must not know how one is made.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from relay.config import Settings
from relay.net.off_loop import Once
from relay.web.languages import Translate

if TYPE_CHECKING:
    from relay.web.manual.edition import Edition


class Library:
    """See the module."""

    def __init__(self, texts: dict[str, Translate]) -> None:
        self._texts = texts
        self._editions: dict[str, tuple[Settings, Once[Edition]]] = {}  # by language

    async def edition(self, language: str, settings: Settings) -> "Edition":
        """The edition of a language for these settings."""
        known = self._editions.get(language)
        if known is None or known[0] is not settings:
            known = settings, Once("docs", lambda: self._make(language, settings))
            self._editions[language] = known
        return await known[1].get()

    def _make(self, language: str, settings: Settings) -> "Edition":
        # Its Markdown library is loaded here, on the thread.
        module = import_module("relay.web.manual.edition")
        edition: Edition = module.Edition(language, settings, self._texts[language])
        return edition

"""Keeps the two scripts for the present settings.

They are made by the first request for one of them, on a thread, and again after the settings have
changed. Must not know what is in them.
"""

import hashlib
from dataclasses import dataclass

from relay.config import Settings
from relay.net.off_loop import Once
from relay.web.set_up.script import setup_ps1, setup_sh


@dataclass(frozen=True, slots=True)
class Script:
    """One script, and a digest of its text."""

    octets: bytes
    digest: str


class Scripts:
    """See the module."""

    def __init__(self) -> None:
        self._known: tuple[Settings, Once[dict[str, Script]]] | None = None

    async def get(self, name: str, settings: Settings) -> Script:
        """The script of this name, for these settings."""
        known = self._known
        if known is None or known[0] is not settings:
            self._known = known = settings, Once("set-up scripts", lambda: _make(settings))
        return (await known[1].get())[name]


def _make(settings: Settings) -> dict[str, Script]:
    texts = {"setup.sh": setup_sh(settings), "setup.ps1": setup_ps1(settings)}
    return {name: _script(text.encode()) for name, text in texts.items()}


def _script(octets: bytes) -> Script:
    return Script(octets, hashlib.sha256(octets).hexdigest()[:16])

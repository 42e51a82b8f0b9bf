"""Style and scripts under names that change with their content, so browsers keep them for good.

`style.css` is served as `/static/style.3f2a9c41d0.css`. A page of an earlier version may still ask
for an earlier name: it gets the present content, which is then not kept. Must not know pages.
"""

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}
_HASHED: Final = re.compile(r"(.+)\.([0-9a-f]{10})(\.[A-Za-z]+)")
_FOR_GOOD: Final = "public, max-age=31536000, immutable"
_ANEW: Final = "no-cache"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file; `zipped` is its gzip form."""

    content_type: str
    digest: str
    octets: bytes
    zipped: bytes


class Assets:
    """All files below `static`, read once."""

    def __init__(self) -> None:
        self._assets = {
            str(path.relative_to(_FOLDER)): _read(path)
            for path in sorted(_FOLDER.rglob("*"))
            if path.suffix in _TYPES
        }

    def url(self, name: str) -> str:
        """Where a page finds a file.

        Raises:
            KeyError: there is no such file.
        """
        stem, dot, suffix = name.rpartition(".")
        return f"/static/{stem}.{self._assets[name].digest}{dot}{suffix}"

    def find(self, path: str) -> tuple[Asset, str] | None:
        """The file of a path below `/static/`, and how long it may be kept; None: there is none."""
        match = _HASHED.fullmatch(path)
        asset = self._assets.get(match[1] + match[3] if match else path)
        if asset is None:
            return None
        return asset, _FOR_GOOD if match and match[2] == asset.digest else _ANEW


def _read(path: Path) -> Asset:
    octets = path.read_bytes()
    digest = hashlib.sha256(octets).hexdigest()[:10]
    return Asset(_TYPES[path.suffix], digest, octets, gzip.compress(octets, 9, mtime=0))

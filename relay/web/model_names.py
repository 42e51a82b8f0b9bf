"""Which models of a key's rules nothing serves now, and which names are near.

Models may come later, so this is a warning. Must not know pages, or what the rules allow.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from relay.config import ModelSettings, exact_names
from relay.errors import RelayError
from relay.gateway.catalog import Catalog

_MAX_NEAR: Final = 3
_MAX_COMPARED: Final = 400  # names
_MAX_HELPED: Final = 5  # entries for which near names are looked up
_LEAST_LIKE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Unserved:
    """An entry of a key's models, and names like it."""

    name: str
    near: tuple[str, ...] = ()


def served_names(models: Iterable[ModelSettings], catalog: Catalog) -> list[str]:
    """Every name, alias and pattern of a model that has an upstream."""
    found: list[str] = []
    for model in models:
        if _has_route(catalog, model.id):
            found += [*exact_names(model), *(one for one in model.aliases if one.endswith("*"))]
    return found


def unserved(entries: Sequence[str], names: Sequence[str], catalog: Catalog) -> list[Unserved]:
    """The entries that fit nothing that is served; `names` are those of `served_names`."""
    found: list[Unserved] = []
    for entry in entries:
        if _is_served(entry, names, catalog):
            continue
        near: list[str] = []
        if len(found) < _MAX_HELPED:
            plain = [name for name in names[:_MAX_COMPARED] if not name.endswith("*")]
            near = get_close_matches(entry.rstrip("*"), plain, _MAX_NEAR, _LEAST_LIKE)
        found.append(Unserved(entry, tuple(near)))
    return found


def _is_served(entry: str, names: Sequence[str], catalog: Catalog) -> bool:
    if not entry.endswith("*"):
        return _has_route(catalog, entry)
    beginning = entry[:-1]
    return any(
        name.startswith(beginning) or (name.endswith("*") and beginning.startswith(name[:-1]))
        for name in names
    )


def _has_route(catalog: Catalog, name: str) -> bool:
    try:
        catalog.route(name)
    except RelayError:
        return False
    return True

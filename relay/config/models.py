"""Which model takes what: the shipped table (models.toml) and what relay.toml changes of it.

Decides by the name that an upstream has for a model. Knows no request and no answer.
"""

import functools
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from relay.config.capabilities import Capabilities, Overrides
from relay.config.errors import ConfigError
from relay.config.schema import ModelSettings, RouteSettings

_SHIPPED = Path(__file__).with_name("models.toml")
_BEFORE = re.compile(r"(?:[a-z_]+[-.:])*?(?=claude)")  # "us.anthropic." and the like
_CLAUDE = re.compile(
    r"claude-(?:(?P<family>[a-z]+)-)?(?P<major>\d{1,2})(?!\d)"
    r"(?:[-.](?P<minor>\d{1,2})(?!\d))?"  # more digits are a date
    r"(?:-(?P<late>opus|sonnet|haiku))?"  # up to 3.7 the family came last
)


class _Row(Overrides, frozen=True, forbid_unknown_fields=True, kw_only=True):
    models: list[str]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    accepts: list[_Row]


def accepts_of(model: ModelSettings, route: RouteSettings | None, name: str) -> Capabilities:
    """What `model` takes at the upstream of `route`, which calls it `name`.

    As the shipped table has it, changed by what the model and then its route say in relay.toml.
    """
    accepts = _shipped_for(name)
    for given in (model.accepts, route.accepts if route is not None else None):
        if given is not None:
            accepts = given.of(accepts)
    return accepts


@functools.lru_cache(maxsize=1024)
def _shipped_for(name: str) -> Capabilities:
    plain = _plain(name)
    for row in _shipped():
        if any(fnmatchcase(plain, pattern) for pattern in row.models):
            return row.of(Capabilities())
    return Capabilities()


def _plain(name: str) -> str:
    """The name as models.toml has it; its first lines say how that is."""
    last = name.lower().rpartition("/")[2]
    if (before := _BEFORE.match(last)) is not None:
        last = last[before.end() :]
    match = _CLAUDE.match(last)
    if match is None:
        return last
    family = match["family"] or match["late"] or "sonnet"  # unnamed: the most common one
    return f"claude-{family}-{int(match['major'])}.{int(match['minor'] or 0)}"


@functools.cache
def _shipped() -> list[_Row]:
    """The rows of the package's models.toml.

    Raises:
        ConfigError: that file cannot be used; only a broken installation has such a one.
    """
    try:
        tree = tomllib.loads(_SHIPPED.read_text(encoding="utf-8"))
        return msgspec.convert(tree, _Table).accepts
    except (OSError, ValueError) as error:  # what msgspec and tomllib raise are ValueErrors
        raise ConfigError("", f"{_SHIPPED}: {error}") from None

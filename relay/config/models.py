"""The capabilities of known models: the shipped table (models.toml), changed by relay.toml.

Decides by an upstream's name for a model. Must not know requests or answers.
"""

import functools
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import msgspec

from relay.config.capabilities import Capabilities, Overrides
from relay.config.errors import ConfigError
from relay.config.schema import ModelSettings, RouteSettings

_SHIPPED: Final = Path(__file__).with_name("models.toml")
_PREFIX: Final = re.compile(r"(?:[a-z_]+[-.:])*?(?=claude)")  # such as "us.anthropic."
_CLAUDE: Final = re.compile(
    r"claude-(?:(?P<family>[a-z]+)-)?(?P<major>\d{1,2})(?!\d)"
    r"(?:[-.](?P<minor>\d{1,2})(?!\d))?"  # more digits are a date
    r"(?:-(?P<late>opus|sonnet|haiku))?"  # up to 3.7 the family came last
)


class _Row(Overrides, frozen=True, forbid_unknown_fields=True, kw_only=True):
    models: list[str]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    accepts: list[_Row]


def accepts_of(model: ModelSettings, route: RouteSettings | None, name: str) -> Capabilities:
    """The capabilities of `model` at the upstream of `route`, which calls it `name`.

    The shipped table's, with the changes of the model and then of its route in relay.toml.
    """
    capabilities = _shipped_for(name)
    for overrides in (model.accepts, route.accepts if route is not None else None):
        if overrides is not None:
            capabilities = overrides.of(capabilities)
    return capabilities


@functools.lru_cache(maxsize=1024)
def _shipped_for(name: str) -> Capabilities:
    plain = _plain(name)
    for row in _shipped():
        if any(fnmatchcase(plain, pattern) for pattern in row.models):
            return row.of(Capabilities())
    return Capabilities()  # pragma: no cover - the last pattern of models.toml is "*"


def _plain(name: str) -> str:
    """The name in the form of models.toml, which its first lines describe."""
    short = name.lower().rpartition("/")[2]
    if (prefix := _PREFIX.match(short)) is not None:
        short = short[prefix.end() :]
    match = _CLAUDE.match(short)
    if match is None:
        return short
    family = match["family"] or match["late"] or "sonnet"  # unnamed: the most common one
    return f"claude-{family}-{int(match['major'])}.{int(match['minor'] or 0)}"


@functools.cache
def _shipped() -> list[_Row]:
    """The rows of the package's models.toml.

    Raises:
        ConfigError: the file cannot be used, as the installation is damaged.
    """
    try:
        tree = tomllib.loads(_SHIPPED.read_text(encoding="utf-8"))
        return msgspec.convert(tree, _Table).accepts
    except (OSError, ValueError) as error:  # msgspec and tomllib raise ValueErrors
        raise ConfigError("", f"{_SHIPPED}: {error}") from None

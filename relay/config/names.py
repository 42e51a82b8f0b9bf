"""The model that a requested name means.

Decides by the names in relay.toml: an id or alias as it stands; the same without the suffix [1m],
by which Claude Code marks a long context; an alias that ends with `*`, which matches the rest of a
name, the longest first. Must not know routes.
"""

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from relay.config.checks import is_model_name
from relay.config.errors import ConfigError
from relay.config.schema import ModelSettings

T = TypeVar("T")
SUFFIX_1M: Final = "[1m]"
_MAX_REMEMBERED: Final = 1_024  # names that callers have asked for, of up to 132 octets


def exact_names(model: ModelSettings) -> list[str]:
    """The id of a model and its aliases, without patterns."""
    return [model.id, *(alias for alias in model.aliases if not alias.endswith("*"))]


def without_suffix(name: str) -> str:
    """The name without [1m], in capitals or not."""
    return name[: -len(SUFFIX_1M)] if name[-len(SUFFIX_1M) :].lower() == SUFFIX_1M else name


class ModelNames:
    """See the module. Immutable."""

    __slots__ = ("_exact", "_lengths", "_patterns")

    def __init__(self, models: Sequence[ModelSettings]) -> None:
        self._exact = {name: model.id for model in models for name in exact_names(model)}
        self._patterns = {
            alias: model.id for model in models for alias in model.aliases if alias.endswith("*")
        }
        lengths = {len(pattern) - 1 for pattern in self._patterns}
        self._lengths = sorted(lengths, reverse=True)  # so the first pattern found is the longest

    def entry(self, name: str) -> str:
        """The id, alias or pattern of relay.toml by which a name is found; "" if there is none."""
        if name in self._exact:
            return name
        plain = without_suffix(name)
        if plain in self._exact:
            return plain
        if is_model_name(plain):
            for length in self._lengths:
                pattern = plain[:length] + "*"
                if pattern in self._patterns:
                    return pattern
        return ""

    def model_id(self, name: str) -> str:
        """The id of the model that a name means; "" if there is none."""
        entry = self.entry(name)
        return self._exact.get(entry) or self._patterns.get(entry, "")


class Remembered(Generic[T]):
    """Adds the names that callers ask for to a table of known names, so that the next look-up is
    one of the table alone. Callers can make names up: once there are too many, all are removed."""

    __slots__ = ("_added", "_table")

    def __init__(self, table: dict[str, T]) -> None:
        self._table = table
        self._added: list[str] = []

    def add(self, name: str, value: T) -> T:
        """Add a name that is not in the table; returns its value."""
        if len(self._added) >= _MAX_REMEMBERED:
            for added in self._added:
                del self._table[added]
            self._added.clear()
        self._added.append(name)
        self._table[name] = value
        return value


def check_names(models: Sequence[ModelSettings]) -> None:
    """Raises ConfigError: two models have one name, or a listed [1m] twin is another model."""
    owners: dict[str, int] = {}
    for number, model in enumerate(models):
        for setting, name in [("id", model.id), *(("aliases", alias) for alias in model.aliases)]:
            owner = owners.get(name)
            if owner is not None:
                place = "this model" if owner == number else f"model {models[owner].id!r}"
                raise ConfigError(
                    f"model[{number}].{setting}",
                    f"{name!r} is given twice: {place} has it already; leave out one",
                )
            owners[name] = number
    for number, model in enumerate(models):
        if model.list_1m and model.id + SUFFIX_1M in owners:
            raise ConfigError(
                f"model[{number}].list_1m",
                f"{model.id + SUFFIX_1M!r} is an id or alias already, so it would be listed twice; "
                "leave out one",
            )

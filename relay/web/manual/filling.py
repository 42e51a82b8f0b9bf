"""Puts the running settings into a page's text.

Decides what a page can say of this relay: its address, models, plans, limits and error kinds. All
of it comes from the settings and from the code's own tables, never from a request. Must not know
pages or HTML.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import jinja2

from relay import errors
from relay.api.paths import NOT_OFFERED
from relay.config import ModelNames, ModelSettings, Settings
from relay.quota import exceeded
from relay.web.formats import number, octets, period
from relay.web.manual.usage_script import USAGE_SCRIPT
from relay.web.set_up.clients import clients

KEY: Final = "YOUR_KEY"
_PUNCTUATION: Final = re.compile(r"([!-/:-@\[-`{-~])")
_FAMILIES: Final = ("opus", "sonnet", "haiku")
_NO_MODEL: Final = ModelSettings(id="MODEL")


def as_code(text: str) -> str:
    """A text as inline code in Markdown, also within a table."""
    fence = "``" if "`" in text else "`"
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")


def as_text(text: str) -> str:
    """A text in Markdown that has no mark-up of its own."""
    return _PUNCTUATION.sub(r"\\\1", text)


def each(seconds: int) -> str:
    """The period of a limit after "per": `min`, `5 h`."""
    return period(seconds).removeprefix("1 ")


def size(count: int) -> str:
    """A size as people write it: `32 MiB`."""
    return octets(count).replace(".0 ", " ")


def price(dollars: float) -> str:
    """Dollars, with as many decimals as they have, and two at least."""
    units, _, decimals = f"{dollars:.6f}".rstrip("0").partition(".")
    return f"${units}.{decimals.ljust(2, '0')}"


def error_kind(name: str) -> errors.Kind:
    """The error kind of this name in the code."""
    kind: errors.Kind = getattr(errors, name, None) or getattr(exceeded, name)
    return kind


def error_types(name: str) -> str:
    """Two cells of a table: an error's type at the Messages path, and type and code at OpenAI's."""
    kind = error_kind(name)
    code = f", {as_code(kind.code)}" if kind.code else ""
    return f"{as_code(kind.messages_type)} | {as_code(kind.openai_type)}{code}"


def claude_code(settings: Settings, key: str) -> str:
    """The lines that set up Claude Code in a shell: two, if its own names for models are served,
    whatever its version."""
    lines = [
        f"export ANTHROPIC_BASE_URL={settings.server.public_url.rstrip('/')}",
        f"export ANTHROPIC_AUTH_TOKEN={key}",
    ]
    if not serves_families(settings):
        middle, small = middle_model(settings), small_model(settings)
        lines.append(f"export ANTHROPIC_MODEL={middle.id}")
        lines.append(f"export ANTHROPIC_DEFAULT_HAIKU_MODEL={small.id}")
    return "\n".join(lines)


def serves_families(settings: Settings) -> bool:
    """Whether any name of Claude's three families means a model here."""
    names = ModelNames(settings.model)
    return all(names.model_id(f"claude-{family}-0-0") for family in _FAMILIES)


def set_up_lines(settings: Settings, key: str) -> tuple[str, str]:
    """The lines that set up every client on a machine: for a shell, and for PowerShell."""
    base = settings.server.public_url.rstrip("/")
    return (
        f"curl -fsSL {base}/setup.sh | bash -s -- --key {key}",
        f"& ([scriptblock]::Create((irm {base}/setup.ps1))) -Key {key}",
    )


def middle_model(settings: Settings) -> ModelSettings:
    """The model of examples."""
    models = settings.model or [_NO_MODEL]
    return _named(models, "sonnet", models[0])


def small_model(settings: Settings) -> ModelSettings:
    """The model for small tasks."""
    return _named(settings.model, "haiku", middle_model(settings))


_FILTERS: Final[dict[str, Callable[..., str]]] = {
    "number": number,
    "octets": size,
    "each": each,
    "code": as_code,
    "text": as_text,
    "price": price,
}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=False,  # noqa: S701 -- Markdown comes out; `rendering` lets no HTML through
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(_FILTERS)
    environment.globals["status"] = lambda name: error_kind(name).status
    environment.globals["types"] = error_types
    return environment


class Filler:
    """Fills texts with what holds for one state of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._environment = _environment()
        self._environment.globals.update(_values(settings))

    def fill(self, text: str) -> str:
        """A page's text with values in the places of their names.

        Raises:
            jinja2.TemplateError: the text names something that there is not.
        """
        return self._environment.from_string(text).render()


def _values(settings: Settings) -> dict[str, Any]:
    models = settings.model or [_NO_MODEL]
    middle = middle_model(settings)
    return {
        "base_url": settings.server.public_url.rstrip("/"),
        "name": settings.web.name,
        "key": KEY,
        "key_prefix": settings.server.key_prefix,
        "models": models,
        "model": middle,
        "large": _named(models, "opus", middle),
        "small": small_model(settings),
        "set_up": clients(settings),
        "claude_code": claude_code(settings, KEY),
        "families": serves_families(settings),
        "usage_script": USAGE_SCRIPT.rstrip("\n"),
        "plans": settings.plan,
        "prepaid": any(plan.billing == "per-token" for plan in settings.plan),
        "sign_up": settings.web.sign_up,
        "stores_responses": settings.responses.store != "off",
        "keep_days": settings.responses.keep.seconds // 86_400,
        "grace": f"{settings.pool.grace:g}",
        "keep_alive": f"{settings.pool.keep_alive:g}",
        "wait": f"{settings.pool.wait:g}",
        "body_limit": settings.server.limits.body,
        "not_offered": sorted({one.prefix.decode() for one in NOT_OFFERED}),
    }


def _named(models: list[ModelSettings], part: str, otherwise: ModelSettings) -> ModelSettings:
    return next((model for model in models if part in model.id), otherwise)

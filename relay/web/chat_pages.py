"""A small chat with the models, with a key of one's own.

The browser asks `/v1/messages` like any other client, with the key that its person enters, so the
key's rules, limits and prices hold. The key stays in that tab: it is in no form, cookie or address
of these pages, and a session alone opens no way to a model. Must not know the API.
"""

from typing import Any, Final
from urllib.parse import unquote

from starlette.responses import PlainTextResponse, Response

from relay.config import ModelSettings
from relay.web.manual.filling import middle_model
from relay.web.pages import Pages
from relay.web.visit import Visit

_CACHE_READ: Final = 0.1  # of the price of input, where a model states none
_CACHE_WRITE: Final = 1.25
_MAX_TOKENS: Final = 4096
_MAX_WORDS: Final = 1_000
_TEXTS: Final = (
    "you", "stopped", "cut", "no_answer", "unreachable", "failed", "wait", "later", "error_400",
    "error_401", "error_403", "error_404", "error_413", "error_429", "error_529", "left", "resets",
    "wrong_key", "using", "balance", "thinking", "bad_max",
)  # fmt: skip


def add(pages: Pages) -> None:
    """Register the page."""
    pages.get("/dashboard/chat", show)
    pages.get("/dashboard/chat/words", words)


async def show(visit: Visit) -> Response:
    """The chat."""
    models, chosen = visit.settings.model, middle_model(visit.settings)
    return visit.render(
        "chat.html",
        models=[(model, _prices(model)) for model in models],
        chosen=chosen.id,
        max_tokens=min(_MAX_TOKENS, chosen.max_output_tokens),
        most_tokens=chosen.max_output_tokens,
        texts={name: visit.t(f"chat.{name}") for name in _TEXTS}
        | {name: visit.t(f"window.{name}", period="{period}") for name in ("requests", "tokens")},
    )


async def words(visit: Visit) -> Response:
    """An error's words, which the API has in English, in the language of the page.

    They come percent-encoded in a header field, since proxies log queries, and an upstream's error
    may quote the prompt.
    """
    said = unquote(visit.request.headers.get("x-said", ""))[:_MAX_WORDS]
    return PlainTextResponse(visit.words(said))


def _prices(model: ModelSettings) -> dict[str, Any]:
    """Dollars for a million tokens, by the kind of token as an answer's usage names it."""
    price = model.price
    if price is None:
        return {}
    read, write = price.cache_read, price.cache_write
    return {
        "input_tokens": price.input,
        "output_tokens": price.output,
        "cache_read_input_tokens": price.input * _CACHE_READ if read is None else read,
        "cache_creation_input_tokens": price.input * _CACHE_WRITE if write is None else write,
    }

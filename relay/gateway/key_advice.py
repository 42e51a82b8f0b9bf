"""What to say to a request whose key is missing or unknown: where it went wrong, and what to send.

Decides the words alone, from where a request has something that looks like a key. Never repeats
any of it. Must not know which keys there are.
"""

import re
from typing import Final

_HOW: Final = "Send your key as `x-api-key: KEY` or `Authorization: Bearer KEY`."
_INCORRECT: Final = "Incorrect API key provided"  # LiteLLM takes a 401 for a 400 without it
_NO_KEY: Final = "There is no key in this request"
_IN_URL: Final = re.compile(
    rb"[?&](?:key|api_?-?key|x-api-key|token|access_token|auth)=[^&]", re.IGNORECASE
)
_UNFILLED: Final = re.compile(rb"[$<{%]")
_OTHER_FIELDS: Final = (b"api-key", b"x-goog-api-key", b"x-auth-token")


def missing_key_words(headers: dict[bytes, bytes], target: bytes) -> str:
    """The message for a request without a key in a field where one is looked for."""
    authorization = headers.get(b"authorization", b"")
    if _IN_URL.search(target) is not None:
        return (
            f"{_NO_KEY}'s header, but in its URL, where others may see it. Take it out of the URL. "
            f"{_HOW}"
        )
    for name in _OTHER_FIELDS:
        if headers.get(name):
            return f"{_NO_KEY} but in the field {name.decode()}, which is not read here. {_HOW}"
    if not authorization:
        return f"{_NO_KEY}. {_HOW}"
    scheme, _, rest = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        return f"{_NO_KEY}: there is nothing behind `Bearer` in Authorization. {_HOW}"
    if rest:
        return f"{_NO_KEY}: the scheme of Authorization must be Bearer. {_HOW}"
    return (
        f"{_NO_KEY} that can be read: Authorization has no scheme. Put the word Bearer and a space "
        f"before your key. {_HOW}"
    )


def unknown_key_words(key: bytes, bearer: bytes) -> str:
    """The message for a request whose keys are not known; b"" for none in that field."""
    for name, value in (("x-api-key", key), ("Authorization", bearer)):
        if b"," in value:
            return f"{_INCORRECT}: {name} was sent twice. Send it once. {_HOW}"
        if value[:7].lower() == b"bearer ":
            word = "twice" if name == "Authorization" else "in x-api-key, which takes the key alone"
            return f"{_INCORRECT}: it has the word Bearer {word}. {_HOW}"
        if value[:1] in (b'"', b"'") or value[-1:] in (b'"', b"'"):
            return f"{_INCORRECT}: {name} has quotation marks around it. Leave them out. {_HOW}"
        if _UNFILLED.match(value) is not None:
            return f"{_INCORRECT}: {name} has the name of a variable in place of the key. {_HOW}"
    if key and bearer and key != bearer:
        return (
            f"{_INCORRECT}: there are two different ones, in x-api-key and in Authorization, and "
            "neither is known here. Send one of the two fields alone, with your key for this relay."
        )
    return f"{_INCORRECT}: it is not known here, perhaps mistyped or revoked. {_HOW}"

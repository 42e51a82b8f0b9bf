"""Forms that have been sent, so that none is carried out twice.

Each form that is shown has a token. A form with the same token and the same fields comes from a
second click, or from a page that was reloaded. Must not know what the forms do.
"""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

_MAX_PEOPLE: Final = 2_000
_MAX_FORMS: Final = 50  # of one person


class SentForms:
    """The latest forms of each person; those who sent one the longest ago are forgotten first."""

    def __init__(self) -> None:
        self._sent: OrderedDict[str, OrderedDict[bytes, None]] = OrderedDict()

    def claim(self, person: str, form: bytes) -> bool:
        """Whether a form has not been sent before; from now on it has."""
        own = self._sent.setdefault(person, OrderedDict())
        self._sent.move_to_end(person)
        if len(self._sent) > _MAX_PEOPLE:
            self._sent.popitem(last=False)
        if form in own:
            return False
        own[form] = None
        if len(own) > _MAX_FORMS:
            own.popitem(last=False)
        return True

    def release(self, person: str, form: bytes) -> None:
        """Let a form be sent again: it was refused."""
        own = self._sent.get(person)
        if own is not None:
            own.pop(form, None)


def digest(path: str, fields: dict[str, str]) -> bytes:
    """What tells one form from all others: where it goes, and its fields."""
    hashed = blake2b(digest_size=16)
    for text in (path, *(part for pair in sorted(fields.items()) for part in pair)):
        octets = text.encode("utf-8", "surrogatepass")
        hashed.update(b"%d:" % len(octets) + octets)
    return hashed.digest()

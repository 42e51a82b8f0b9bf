"""Refuses the fields of another dialect that would change the answer, if they were read.

Must not know any dialect: each has a table of such fields.
"""

from collections.abc import Mapping
from operator import attrgetter

from relay.errors import UNKNOWN_PARAMETER, RelayError
from relay.translate.raw_json import NOTHING, is_given


class ForeignFields:
    """The fields that one dialect refuses, each with what it has in its place."""

    __slots__ = ("_nothing", "_right_names", "_values")

    def __init__(self, right_names: Mapping[str, str]) -> None:
        self._right_names = right_names
        self._values = attrgetter(*right_names)
        self._nothing = (NOTHING,) * len(right_names)

    def refuse(self, fields: object) -> None:
        """Look at a request's fields, which have these as attributes of type `Raw`.

        Raises:
            RelayError: 400, one of them is given.
        """
        values = self._values(fields)
        if values == self._nothing:  # as in nearly every request; compares identities
            return
        for (name, right), value in zip(self._right_names.items(), values, strict=True):
            if is_given(value):
                raise RelayError(
                    UNKNOWN_PARAMETER, f"Unknown parameter: '{name}'. Use {right}.", param=name
                )

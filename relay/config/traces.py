"""The settings of traces: where spans are sent, and of which requests.

Checks itself, as the sections of `schema` do. Must not know spans.
"""

import re
from typing import Final

import msgspec

from relay import secret
from relay.config.checks import check_name, check_url
from relay.config.forms import Url

_FIELD_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class TracesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A collector of OpenTelemetry traces, by OTLP over HTTP."""

    endpoint: Url = ""  # "": no traces
    ratio: float = 1.0  # share of the traces that are sent
    service: str = "relay"  # service.name of the spans
    headers: dict[str, str] = {}  # of each request to the collector; secrets

    def __post_init__(self) -> None:
        if self.endpoint:
            check_url("endpoint", self.endpoint)
        if not 0 <= self.ratio <= 1:
            raise ValueError("ratio must be a share from 0 to 1, such as 0.1")
        check_name("service", self.service)
        for name, value in self.headers.items():
            if not _FIELD_NAME.fullmatch(name):
                raise ValueError(f"headers: {name!r} is not a header name")
            if value.startswith("$"):
                raise ValueError(f"headers: {name} is taken literally; write env:NAME")

    def __repr__(self) -> str:
        return f"Traces({self.endpoint!r})"  # the rest may hold secrets

    def fields(self) -> dict[str, str]:
        """The header fields themselves.

        Raises:
            ValueError: a variable or file that one names cannot be read; begins with its name.
        """
        found = {}
        for name, value in self.headers.items():
            try:
                found[name] = secret.resolve(value).reveal()
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return found

"""Kinds of settings: the words for what each accepts, and which texts may be secrets.

`errors` reads the words from the annotation of a setting. Must not know the sections.
"""

from typing import Annotated, Any, Final

from msgspec import Meta

_SECRET: Final[dict[str, Any]] = {"secret": True}  # an error does not show such a text

PlainText = Annotated[str, Meta(description="text in quotes")]  # no secret, so errors show it
Url = Annotated[str, Meta(description='a URL in quotes, such as "https://api.example.com"')]
Webhook = Annotated[
    str,
    Meta(description='a URL in quotes, such as "https://example.com/hook"', extra=_SECRET),
]
DatabaseUrl = Annotated[
    str,
    Meta(
        description='a URL in quotes, such as "postgresql://relay@db.example/relay"',
        extra=_SECRET,
    ),
]
Proxy = Annotated[
    str,
    Meta(description='a URL in quotes, such as "http://proxy.example:3128"', extra=_SECRET),
]
HostPort = Annotated[str, Meta(description='host:port in quotes, such as "smtp.example.com:587"')]
Mailbox = Annotated[
    str, Meta(description='an e-mail address in quotes, such as "relay@example.com"')
]
Date = Annotated[str, Meta(description='a date in quotes, such as "2026-01-31"')]
TimeZone = Annotated[str, Meta(description='a time zone in quotes, such as "Asia/Shanghai"')]
Octets = Annotated[int, Meta(description="a whole number of octets")]
Days = Annotated[int, Meta(description="a whole number of days")]
Cents = Annotated[int, Meta(description="a whole number of cents")]
Seconds = Annotated[float, Meta(description="a number of seconds")]
Dollars = Annotated[float, Meta(description="a number of dollars")]

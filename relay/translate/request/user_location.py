"""The location of a user, for the web search tool."""

import msgspec


class UserLocation(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="approximate"
):
    """The location of the user, in the form of the web search tool."""

    city: str | None = None
    country: str | None = None
    region: str | None = None
    timezone: str | None = None

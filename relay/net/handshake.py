"""A TLS handshake that is going on, which the server counts until its connection is made."""


class Handshake:
    """A TLS handshake that is going on. The loop shows no sign of one that fails: this ends with
    the last reference to its connection."""

    __slots__ = ("__weakref__",)

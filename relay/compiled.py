"""Whether the path of a request is compiled (`make install`), or runs as it is written."""

from relay.wire import chunked


def is_compiled() -> bool:
    """Whether it is; see `relay --version`."""
    return not chunked.__file__.endswith(".py")

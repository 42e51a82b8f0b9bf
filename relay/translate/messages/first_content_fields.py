"""The members of an event that show whether it has content, as msgspec reads them."""

from typing import Any

import msgspec


class TypeAndError(msgspec.Struct):
    """Both members may have any type."""

    type: Any = None
    error: Any = None

"""Rows as JSON, and back.

Decides how values that JSON lacks are written: octets, and text with a null character, which
PostgreSQL refuses. Must not know where images go.
"""

import base64
from typing import Any, Final

import msgspec

from relay.store.replication.shape import Table

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


def encode_row(row: dict[str, Any]) -> bytes:
    """The image of a row, or of some of its columns."""
    return _encode({name: _plain(value) for name, value in row.items()})


def decode_row(table: Table, image: str) -> dict[str, Any]:
    """A row of an image, without columns that this database lacks: the sender is newer."""
    found = _decode(image)
    columns = table.columns
    return {name: _value(found[name], columns[name]) for name in columns if name in found}


def decode_key(table: Table, pk: str) -> tuple[Any, ...]:
    """The values of a key."""
    return tuple(
        bytes.fromhex(value) if table.columns[name] == "BLOB" else value
        for name, value in zip(table.key, _decode(pk), strict=True)
    )


def decode_columns(text: str | None) -> frozenset[str] | None:
    """The names in an entry of the outbox; None: all columns."""
    return None if text is None else frozenset(_decode(text))


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"octets": base64.b64encode(value).decode()}
    if isinstance(value, str) and "\0" in value:
        return {"text": base64.b64encode(value.encode()).decode()}
    return value


def _value(value: Any, type: str) -> Any:
    if isinstance(value, dict):
        octets = base64.b64decode(value.get("octets") or value.get("text") or "")
        return octets if "octets" in value else octets.decode()
    # JSON does not tell 2.0 from 2 once PostgreSQL has normalised it.
    return float(value) if type == "REAL" and value is not None else value

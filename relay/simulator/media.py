"""The rules for the sources of images and documents.

Pure. Decides where they may come from and of which types. Must not decode them.
"""

from typing import Any, Final

from relay.simulator.refusal import extra, invalid, unknown_tag

# Block -> type of its source -> the field that such a source must have.
_SOURCES: Final = {
    "image": {"base64": "data", "url": "url", "file": "file_id"},
    "document": {
        "base64": "data",
        "url": "url",
        "file": "file_id",
        "text": "data",
        "content": "content",
    },
}
_TYPES: Final = {
    ("image", "base64"): ("image/jpeg", "image/png", "image/gif", "image/webp"),
    ("document", "base64"): ("application/pdf",),
    ("document", "text"): ("text/plain",),
}


def check(source: Any, at: str, kind: str) -> None:
    """Check the source of an image or a document.

    Raises:
        Refusal: 400, at the field that is wrong.
    """
    if type(source) is not dict:
        raise invalid(f"{at}: Field required")
    form = source.get("type")
    field = _SOURCES[kind].get(form) if type(form) is str else None
    if type(form) is not str or field is None:
        raise unknown_tag(at, form, _SOURCES[kind])
    at = f"{at}.{form}"
    types = _TYPES.get((kind, form))
    for name in source:
        if name not in ("type", field) and (name != "media_type" or types is None):
            raise extra(f"{at}.{name}")
    if not source.get(field):
        raise invalid(f"{at}.{field}: Field required")
    if types is not None and source.get("media_type") not in types:
        *others, last = (f"'{name}'" for name in types)
        expected = f"{', '.join(others)} or {last}" if others else last
        raise invalid(f"{at}.media_type: Input should be {expected}")
    if form == "url" and not _is_url(source["url"]):
        raise invalid(f"{at}.url: Only HTTP and HTTPS URLs are supported.")


def _is_url(value: Any) -> bool:
    return type(value) is str and value.lower().startswith(("https://", "http://"))

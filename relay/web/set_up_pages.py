"""The set-up scripts, for `curl … | bash` and `irm … | iex`.

They are the same for everybody: made from the settings, never from a request, and without a key.
"""

from typing import Final

from starlette.responses import Response

from relay.web.pages import Access, Pages
from relay.web.visit import Visit

# Browsers show both as text. PowerShell takes what is text as one string.
_TYPES: Final = {
    "setup.sh": "text/x-shellscript; charset=utf-8",
    "setup.ps1": "text/plain; charset=utf-8",
}
_ANEW: Final = "no-cache"  # kept, but asked for each time: the settings may have changed


def add(pages: Pages) -> None:
    """Register the scripts."""
    for name in _TYPES:
        pages.get(f"/{name}", script, Access.ANYBODY)


async def script(visit: Visit) -> Response:
    """One of the scripts."""
    name = visit.request.scope["path"].strip("/")
    found = await visit.site.scripts.get(name, visit.settings)
    headers = {"cache-control": _ANEW, "etag": f'"{found.digest}"'}
    if visit.request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    return Response(found.octets, headers=headers, media_type=_TYPES[name])

"""Links that hand a new key to a program on the same machine, and the key as a QR code.

They stand in the page that shows the key, and nowhere else: none leads to this relay, so the key is
in no request. Must not know pages.
"""

from base64 import b64encode
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from relay.config import Settings
from relay.web.manual.filling import middle_model
from relay.web.manual.usage_script import USAGE_SCRIPT

_MINUTES: Final = 15  # between two looks at the limits

_EXTENSION: Final = "anthropic.claude-code"


@dataclass(frozen=True, slots=True)
class ImportLink:
    """`id` finds its title in `import_link.*`. `has_key`: the key goes along."""

    id: str
    url: str
    has_key: bool


def import_links(settings: Settings, key: str) -> list[ImportLink]:
    """The links for a key: to CC Switch, and to the editors that Claude Code has an extension
    for. Those take no key: it is in the settings file that the extension reads."""
    base = settings.server.public_url.rstrip("/")
    return [
        ImportLink("cc_switch_claude", _cc_switch(settings, key, "claude", base), True),
        ImportLink("cc_switch_desktop", _cc_switch(settings, key, "claude-desktop", base), True),
        ImportLink("cc_switch_codex", _cc_switch(settings, key, "codex", f"{base}/v1"), True),
        ImportLink("vscode", f"vscode:extension/{_EXTENSION}", False),
        ImportLink("cursor", f"cursor:extension/{_EXTENSION}", False),
    ]


def _cc_switch(settings: Settings, key: str, app: str, endpoint: str) -> str:
    base = settings.server.public_url.rstrip("/")
    fields = {
        "resource": "provider",
        "app": app,
        "name": settings.web.name,
        "homepage": base,
        "endpoint": endpoint,
        "apiKey": key,
    }
    if app == "codex":
        fields["model"] = middle_model(settings).id
    fields |= {
        "usageEnabled": "true",
        "usageBaseUrl": base,
        "usageAutoInterval": str(_MINUTES),
        "usageScript": b64encode(USAGE_SCRIPT.encode()).decode(),
    }
    return "ccswitch://v1/import?" + urlencode(fields, quote_via=quote)

"""The server tool `web_search`: the rules for its definition, and an answer with a search.

Pure: the web is simulated, too. The answer has the blocks of the real API: an announcement, the
search, its results, and a text that cites them.
"""

import re
from base64 import b64encode
from typing import Any, Final

from relay.simulator.refusal import extra, invalid

JSON = dict[str, Any]

TOOL: Final = "web_search_20250305"
_FIELDS: Final = frozenset(
    {
        "type",
        "name",
        "allowed_callers",
        "allowed_domains",
        "blocked_domains",
        "cache_control",
        "defer_loading",
        "max_uses",
        "strict",
        "user_location",
    }
)
_LOCATION_FIELDS: Final = frozenset({"type", "city", "region", "country", "timezone"})
_SEARCH: Final = re.compile(r"\bsearch\s+(?:the\s+web\s+)?for\s+(?P<query>[^\n]+)", re.IGNORECASE)
_MAX_QUERY: Final = 200  # characters
_MAX_CITED: Final = 150  # characters
_DOMAIN: Final = "search.example"
_PAGES: Final = (  # title and age
    ("An overview", "April 30, 2026"),
    ("The details", None),
)


def check(tool: JSON, at: str) -> None:
    """Check a definition of the tool.

    Raises:
        Refusal: 400, at the field that is wrong.
    """
    at = f"{at}.{TOOL}"
    for key in tool:
        if key not in _FIELDS:
            raise extra(f"{at}.{key}")
    if tool.get("name") != "web_search":
        raise invalid(f"{at}.name: Input should be 'web_search'")
    for key in ("allowed_domains", "blocked_domains"):
        if tool.get(key) is not None and type(tool[key]) is not list:
            raise invalid(f"{at}.{key}: Input should be a valid list")
    if tool.get("allowed_domains") and tool.get("blocked_domains"):
        raise invalid(f"{at}: Cannot specify both allowed_domains and blocked_domains")
    uses = tool.get("max_uses")
    if uses is not None and (type(uses) is not int or uses < 1):
        raise invalid(f"{at}.max_uses: Input should be greater than 0")
    location = tool.get("user_location")
    if location is not None:
        _check_location(location, f"{at}.user_location")


def _check_location(location: Any, at: str) -> None:
    if type(location) is not dict:
        raise invalid(f"{at}: Input should be a valid dictionary or object")
    if location.get("type") != "approximate":
        raise invalid(f"{at}.type: Input should be 'approximate'")
    for key, value in location.items():
        if key not in _LOCATION_FIELDS:
            raise extra(f"{at}.{key}")
        if value is not None and type(value) is not str:
            raise invalid(f"{at}.{key}: Input should be a valid string")


def query(request: JSON, text: str) -> str | None:
    """The query for a search of the web; None without such a tool, or unless asked to search."""
    tools = request.get("tools") or ()
    if all(tool.get("type") != TOOL for tool in tools):
        return None
    choice = request.get("tool_choice") or {}
    match choice.get("type", "auto"):
        case "none":
            return None
        case "tool" if choice["name"] != "web_search":
            return None
        case "tool":
            forced = True
        case _:
            forced = choice.get("type") == "any" and len(tools) == 1
    found = _SEARCH.search(text)
    if found is not None:
        return found["query"].strip(" .!?\"'`")[:_MAX_QUERY] or None
    return " ".join(text.split())[:_MAX_QUERY] or "anything" if forced else None


def blocks(query: str, request: JSON, number: str) -> list[JSON]:
    """The blocks of an answer with a search for `query`; `number` makes ids unique."""
    use_id = f"srvtoolu_01{number}"
    tool = next(tool for tool in request["tools"] if tool.get("type") == TOOL)
    domain = (tool.get("allowed_domains") or [_DOMAIN])[0]
    pages = [
        {
            "type": "web_search_result",
            "title": f"{title} of {query}",
            "url": f"https://{domain}/{index}",
            "encrypted_content": _opaque(f"{index} {query} content"),
            "page_age": age,
        }
        for index, (title, age) in enumerate(_PAGES, 1)
    ]
    cited = f"There is much to say about {query} 🙂, and two pages say it."
    return [
        {"type": "text", "text": f"I will search for {query}."},
        {
            "type": "server_tool_use",
            "id": use_id,
            "name": "web_search",
            "input": {"query": query},
            "caller": {"type": "direct"},
        },
        {
            "type": "web_search_tool_result",
            "tool_use_id": use_id,
            "content": pages,
            "caller": {"type": "direct"},
        },
        {"type": "text", "text": "This is what was found: "},
        {
            "type": "text",
            "text": cited,
            "citations": [
                {
                    "type": "web_search_result_location",
                    "cited_text": f"All that there is to say about {query}."[:_MAX_CITED],
                    "url": page["url"],
                    "title": page["title"],
                    "encrypted_index": _opaque(f"{page['url']} index"),
                }
                for page in pages
            ],
        },
        {"type": "text", "text": " Nothing of it is true: the web is simulated."},
    ]


def _opaque(text: str) -> str:
    return b64encode(text.encode("utf-8", "surrogatepass")).decode()

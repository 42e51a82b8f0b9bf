"""A Model Context Protocol server over stdio, with one tool, started by its client."""

import json
import sys
from typing import Any

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
TOOL = {
    "name": "draw",
    "description": "Draws a dot.",
    "inputSchema": {
        "type": "object",
        "properties": {"colour": {"type": "string"}},
        "required": ["colour"],
    },
}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """The result of a request."""
    match method:
        case "initialize":
            return {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "painter", "version": "1"},
            }
        case "tools/list":
            return {"tools": [TOOL]}
        case "tools/call":
            text = f"drawn: {params['arguments']['colour']}"
            picture = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
            return {"content": [{"type": "text", "text": text}, picture]}
    return {}


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked:  # notifications have no answer
            result = answer(asked["method"], asked.get("params", {}))
            print(
                json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}),
                flush=True,
            )

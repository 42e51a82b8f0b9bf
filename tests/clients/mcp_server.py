"""A server of the Model Context Protocol with one tool, for clients that start one: stdio."""

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
            told = f"drawn: {params['arguments']['colour']}"
            picture = {"type": "image", "data": PIXEL, "mimeType": "image/png"}
            return {"content": [{"type": "text", "text": told}, picture]}
    return {}


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked:  # the others want no answer
            result = answer(asked["method"], asked.get("params", {}))
            print(
                json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}),
                flush=True,
            )

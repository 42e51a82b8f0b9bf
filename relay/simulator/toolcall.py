"""Whether the simulated model calls a tool, which one, and with what arguments.

Pure. Asked to write a file, it calls the tool that a client has for it, so that the
client really writes that file; asked to do so with a patch, the one for patches. Any other
tool gets arguments made from its schema.
"""

import re
import shlex
from typing import Any

import msgspec

from relay.simulator import search

JSON = dict[str, Any]

_PATH = r"[\"'`]?(?P<path>(?:[\w.~-]*/)*[\w-][\w.-]*\.\w+|/[\w./-]+)[\"'`]?"
_WRITE = re.compile(
    r"\b(?:write|save|put)\b\s+(?P<content>.+?)\s+(?:in)?to\s+"
    r"(?:(?:a|the)\s+)?(?:(?:new|text)\s+)*(?:file\s+)?(?:(?:named|called)\s+)?" + _PATH,
    re.IGNORECASE | re.DOTALL,
)
_CREATE = re.compile(
    r"\b(?:create|make|write)\b\s+(?:(?:a|the)\s+)?(?:(?:new|text)\s+)*(?:file\s+)?"
    r"(?:(?:named|called)\s+)?" + _PATH + r"(?:\s+(?:with|containing|that\s+contains|saying)\s+"
    r"(?:(?:the|exactly)\s+)*(?:(?:text|content|contents|words?|line)\s+)?(?P<content>[^\n]+))?",
    re.IGNORECASE,
)
_USE = re.compile(r"\b(?:use|call|run)\s+(?:the\s+)?(?:tool\s+)?[\"'`]?([A-Za-z0-9_-]+)", re.I)
_PATCH = re.compile(r"\b(?:apply_)?patch", re.IGNORECASE)
_FOLDER = re.compile(r"working directory:\s*(/[^\s<]*)", re.IGNORECASE)

# Tools that write files, best first. Names in lower case.
_WRITERS = (
    "write",
    "write_file",
    "create_file",
    "bash",
    "terminal",
    "shell",
    "local_shell",
    "exec_command",
    "run_command",
    "str_replace_based_edit_tool",
)
_PATHS = frozenset({"file_path", "path", "filepath", "filename", "file", "file_name"})
_CONTENTS = frozenset({"content", "contents", "text", "file_text", "data", "body"})
_COMMANDS = frozenset({"command", "commands", "cmd", "script"})
_PATCHER = "apply_patch"
_PATCHES = frozenset({"input", "patch", "diff"})  # its member with the patch
_DEPTH = 6


class Wish(msgspec.Struct, frozen=True):
    """A file that the user wants written."""

    path: str
    content: str


_ANY_FILE = Wish("simulated.txt", "hello")


def wish(text: str) -> Wish | None:
    """The file that `text` asks for, if it asks for one."""
    for pattern in (_WRITE, _CREATE):
        match = pattern.search(text)
        if match is not None:
            content = (match["content"] or "hello").strip()
            if content[-1:] in ".!" and content[:1] in "\"'`":
                content = content[:-1]
            if len(content) > 1 and content[0] == content[-1] and content[0] in "\"'`":
                content = content[1:-1]
            return Wish(match["path"].rstrip("."), content)
    return None


def folder(request: JSON) -> str | None:
    """The working directory that an agent tells its model about."""
    for text in _texts(request):
        match = _FOLDER.search(text)
        if match is not None:
            return match[1].rstrip(".,")
    return None


def _texts(request: JSON) -> list[str]:
    found: list[str] = []
    parts = [request.get("system"), *(message.get("content") for message in request["messages"])]
    for part in parts:
        if type(part) is str:
            found.append(part)
        elif part:
            found += [block["text"] for block in part if block.get("type") == "text"]
    return found


def choose(request: JSON, text: str, forced: str | None) -> tuple[str, JSON] | None:
    """Name and arguments of the call that answers `text`, or None for an answer in words."""
    tools = [
        tool
        for tool in request.get("tools") or ()
        if not tool.get("defer_loading") and tool.get("type") != search.TOOL
    ]
    if forced is not None:
        tool = next((item for item in tools if item.get("name") == forced), None)
        found = wish(text)
        return forced, arguments(tool or {}, _placed(found, request))
    choice = request.get("tool_choice") or {}
    kind = choice.get("type", "auto")
    if kind == "none" or not tools:
        return None
    found = wish(text)
    if kind == "tool":
        tool = next(item for item in tools if item.get("name") == choice["name"])
        return tool["name"], arguments(tool, _placed(found, request))
    if found is not None:
        patcher = _named(tools, _PATCHER) if _PATCH.search(text) else None
        if patcher is not None:  # a patch names files as they are from where it is applied
            return patcher["name"], arguments(patcher, found)
        tool = _writer(tools)
        return tool["name"], arguments(tool, _placed(found, request))
    for name in _USE.findall(text):
        tool = _named(tools, name)
        if tool is not None:
            return tool["name"], arguments(tool, None)
    if kind == "any":
        return tools[0]["name"], arguments(tools[0], None)
    return None


def _named(tools: list[JSON], name: str) -> JSON | None:
    """The tool of that name, else one of that name in a group of tools, after two underscores."""
    for tool in tools:
        if tool.get("name") == name:
            return tool
    for tool in tools:
        if str(tool.get("name")).endswith(f"__{name}"):
            return tool
    return None


def _placed(found: Wish | None, request: JSON) -> Wish | None:
    """The same wish with an absolute path where the working directory is known."""
    if found is None or found.path.startswith(("/", "~")):
        return found
    where = folder(request)
    return found if where is None else Wish(f"{where.rstrip('/')}/{found.path}", found.content)


def _writer(tools: list[JSON]) -> JSON:
    by_name = {str(tool.get("name", "")).lower(): tool for tool in tools}
    for name in _WRITERS:
        if name in by_name:
            return by_name[name]
    return tools[0]


def arguments(tool: JSON, found: Wish | None) -> JSON:
    """Arguments that fit the tool's schema; those for a file come from the wish."""
    kind = str(tool.get("type") or "custom")
    schema = tool.get("input_schema")
    if schema is None:
        return _server_arguments(kind, found or _ANY_FILE)
    properties = schema.get("properties") or {}
    if str(tool.get("name")).endswith(_PATCHER) and not properties.keys().isdisjoint(_PATCHES):
        return _patch_arguments(properties, found or _ANY_FILE)
    made = example(schema, schema)
    if type(made) is not dict:
        made = {}
    if found is not None:
        for name, wanted in properties.items():
            if name in _PATHS:
                made[name] = found.path
            elif name in _CONTENTS:
                made[name] = found.content
            elif name in _COMMANDS:
                made[name] = _command(found)
                if type(wanted) is dict and wanted.get("type") == "array":
                    # either the lines for a shell, or the words of one program's command line
                    line = made[name]
                    made[name] = [line] if name == "commands" else ["bash", "-c", line]
    return made


def _patch_arguments(properties: JSON, found: Wish) -> JSON:
    """A new file as a patch: the whole of it in one text, or one file's share of it."""
    lines = "".join(f"+{line}\n" for line in found.content.splitlines())
    if "diff" in properties:
        return {"type": "create_file", "path": found.path, "diff": lines}
    name = "input" if "input" in properties else "patch"
    return {name: f"*** Begin Patch\n*** Add File: {found.path}\n{lines}*** End Patch"}


def _command(found: Wish) -> str:
    return f"printf '%s\\n' {shlex.quote(found.content)} > {shlex.quote(found.path)}"


def _server_arguments(kind: str, found: Wish) -> JSON:
    if kind.startswith("bash"):
        return {"command": _command(found)}
    if kind.startswith("text_editor"):
        return {"command": "create", "path": found.path, "file_text": found.content}
    if kind.startswith("web_search"):
        return {"query": found.content}
    return {}


def example(schema: Any, root: Any, name: str = "", depth: int = 0) -> Any:
    """A value that fits a JSON schema, the smallest that is not silly."""
    if type(schema) is not dict or depth > _DEPTH:
        return None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example(schema[key][0], root, name, depth + 1)
    if "$ref" in schema:
        return example(_resolve(str(schema["$ref"]), root), root, name, depth + 1)
    kind = schema.get("type")
    if type(kind) is list:
        kind = kind[0]
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties") or {}
        required = schema.get("required") or ()
        return {key: example(properties.get(key), root, key, depth + 1) for key in required}
    if kind == "array":
        item = example(schema.get("items"), root, name, depth + 1)
        return [item] * int(schema.get("minItems", 1)) if item is not None else []
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    if kind == "boolean":
        return False
    if kind == "null":
        return None
    return _text(schema, name)


def _text(schema: JSON, name: str) -> str:
    if name in _COMMANDS:
        return "echo simulated"
    text = f"simulated {name}".strip().replace("_", " ")
    return text.ljust(int(schema.get("minLength", 0)), ".")


def _resolve(reference: str, root: Any) -> Any:
    place = root
    for part in reference.removeprefix("#/").split("/"):
        place = place.get(part) if type(place) is dict else None
    return place

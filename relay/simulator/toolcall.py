"""The simulated model's tool call: whether it calls a tool, which one, with which arguments.

Pure. Asked to write a file, it calls the client's tool for that, so that the client really writes
the file; asked for a patch, it calls the tool for patches. Any other tool gets arguments made
from its schema.
"""

import re
import shlex
from typing import Any, Final

import msgspec

from relay.simulator import search

JSON = dict[str, Any]

_PATH: Final = r"[\"'`]?(?P<path>(?:[\w.~-]*/)*[\w-][\w.-]*\.\w+|/[\w./-]+)[\"'`]?"
_WRITE: Final = re.compile(
    r"\b(?:write|save|put)\b\s+(?P<content>.+?)\s+(?:in)?to\s+"
    r"(?:(?:a|the)\s+)?(?:(?:new|text)\s+)*(?:file\s+)?(?:(?:named|called)\s+)?" + _PATH,
    re.IGNORECASE | re.DOTALL,
)
_CREATE: Final = re.compile(
    r"\b(?:create|make|write)\b\s+(?:(?:a|the)\s+)?(?:(?:new|text)\s+)*(?:file\s+)?"
    r"(?:(?:named|called)\s+)?" + _PATH + r"(?:\s+(?:with|containing|that\s+contains|saying)\s+"
    r"(?:(?:the|exactly)\s+)*(?:(?:text|content|contents|words?|line)\s+)?(?P<content>[^\n]+))?",
    re.IGNORECASE,
)
_USE: Final = re.compile(
    r"\b(?:use|call|run)\s+(?:the\s+)?(?:tool\s+)?[\"'`]?([A-Za-z0-9_-]+)", re.I
)
_PATCH: Final = re.compile(r"\b(?:apply_)?patch", re.IGNORECASE)
_WORKING_DIRECTORY: Final = re.compile(r"working directory:\s*(/[^\s<]*)", re.IGNORECASE)

# Tools that write files, best first. Names in lower case.
_WRITERS: Final = (
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
# Names of their arguments, in lower case.
_PATHS: Final = frozenset({"file_path", "path", "filepath", "filename", "file", "file_name"})
_CONTENTS: Final = frozenset({"content", "contents", "text", "file_text", "data", "body"})
_COMMANDS: Final = frozenset({"command", "commands", "cmd", "script"})
_PATCHER: Final = "apply_patch"
_PATCHES: Final = frozenset({"input", "patch", "diff"})  # arguments that take a patch
_MAX_DEPTH: Final = 6
_MAX_COUNT: Final = 10_000  # of items or characters


class FileRequest(msgspec.Struct, frozen=True):
    """A file that the user asks for."""

    path: str
    content: str


_ANY_FILE: Final = FileRequest("simulated.txt", "hello")


def requested_file(text: str) -> FileRequest | None:
    """The file that `text` asks for; None if it asks for none."""
    for pattern in (_WRITE, _CREATE):
        match = pattern.search(text)
        if match is not None:
            content = (match["content"] or "hello").strip()
            if content[-1:] in ".!" and content[:1] in "\"'`":
                content = content[:-1]
            if len(content) > 1 and content[0] == content[-1] and content[0] in "\"'`":
                content = content[1:-1]
            return FileRequest(match["path"].rstrip("."), content)
    return None


def _working_directory(request: JSON) -> str | None:
    """The working directory in the prompt of an agent; None without one."""
    for text in _texts(request):
        match = _WORKING_DIRECTORY.search(text)
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
        found = requested_file(text)
        return forced, arguments(tool or {}, _with_absolute_path(found, request))
    choice = request.get("tool_choice") or {}
    kind = choice.get("type", "auto")
    if kind == "none" or not tools:
        return None
    found = requested_file(text)
    if kind == "tool":
        tool = next(item for item in tools if item.get("name") == choice["name"])
        return tool["name"], arguments(tool, _with_absolute_path(found, request))
    if found is not None:
        patcher = _named(tools, _PATCHER) if _PATCH.search(text) else None
        if patcher is not None:  # paths in a patch are relative to the folder where it is applied
            return patcher["name"], arguments(patcher, found)
        tool = _writer(tools)
        return tool["name"], arguments(tool, _with_absolute_path(found, request))
    for name in _USE.findall(text):
        tool = _named(tools, name)
        if tool is not None:
            return tool["name"], arguments(tool, None)
    if kind == "any":
        return tools[0]["name"], arguments(tools[0], None)
    return None


def _named(tools: list[JSON], name: str) -> JSON | None:
    """The tool of that name, or a tool `group__name` of a group."""
    for tool in tools:
        if tool.get("name") == name:
            return tool
    for tool in tools:
        if str(tool.get("name")).endswith(f"__{name}"):
            return tool
    return None


def _with_absolute_path(found: FileRequest | None, request: JSON) -> FileRequest | None:
    """The same file with an absolute path, where the working directory is known."""
    if found is None or found.path.startswith(("/", "~")):
        return found
    directory = _working_directory(request)
    if directory is None:
        return found
    return FileRequest(f"{directory.rstrip('/')}/{found.path}", found.content)


def _writer(tools: list[JSON]) -> JSON:
    by_name = {str(tool.get("name", "")).lower(): tool for tool in tools}
    for name in _WRITERS:
        if name in by_name:
            return by_name[name]
    return tools[0]


def arguments(tool: JSON, found: FileRequest | None) -> JSON:
    """Arguments that fit the tool's schema; those for a file come from the request."""
    kind = str(tool.get("type") or "custom")
    schema = tool.get("input_schema")
    if schema is None:
        return _server_arguments(kind, found or _ANY_FILE)
    properties = schema.get("properties") or {}
    if str(tool.get("name")).endswith(_PATCHER) and not properties.keys().isdisjoint(_PATCHES):
        return _patch_arguments(properties, found or _ANY_FILE)
    values = example(schema, schema)
    if type(values) is not dict:
        values = {}
    if found is not None:
        for name, property_schema in properties.items():
            meaning = name.lower()
            if meaning in _PATHS:
                values[name] = found.path
            elif meaning in _CONTENTS:
                values[name] = found.content
            elif meaning in _COMMANDS:
                values[name] = _command(found)
                if type(property_schema) is dict and property_schema.get("type") == "array":
                    # either lines for a shell, or the arguments of one program
                    line = values[name]
                    values[name] = [line] if name == "commands" else ["bash", "-c", line]
    return values


def apart(values: JSON, index: int) -> JSON:
    """The arguments of a parallel call: each writes a file of its own, as a model's calls do."""
    if not index:
        return values
    return {
        name: f"{value}.{index + 1}" if name.lower() in _PATHS and type(value) is str else value
        for name, value in values.items()
    }


def _patch_arguments(properties: JSON, found: FileRequest) -> JSON:
    """A new file as a patch: a complete patch, or the diff of one file."""
    lines = "".join(f"+{line}\n" for line in found.content.splitlines())
    if "diff" in properties:
        return {"type": "create_file", "path": found.path, "diff": lines}
    name = "input" if "input" in properties else "patch"
    return {name: f"*** Begin Patch\n*** Add File: {found.path}\n{lines}*** End Patch"}


def _command(found: FileRequest) -> str:
    return f"printf '%s\\n' {shlex.quote(found.content)} > {shlex.quote(found.path)}"


def _server_arguments(kind: str, found: FileRequest) -> JSON:
    if kind.startswith("bash"):
        return {"command": _command(found)}
    if kind.startswith("text_editor"):
        return {"command": "create", "path": found.path, "file_text": found.content}
    if kind.startswith("web_search"):
        return {"query": found.content}
    return {}


def example(schema: Any, root: Any, name: str = "", depth: int = 0) -> Any:
    """A small value that fits a JSON schema."""
    if type(schema) is not dict or depth > _MAX_DEPTH:
        return None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if type(schema.get("enum")) is list and schema["enum"]:
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if type(schema.get(key)) is list and schema[key]:
            return example(schema[key][0], root, name, depth + 1)
    if "$ref" in schema:
        return example(_resolve(str(schema["$ref"]), root), root, name, depth + 1)
    kind = schema.get("type")
    if type(kind) is list and kind:
        kind = kind[0]
    if kind == "object" or "properties" in schema:
        properties, required = schema.get("properties"), schema.get("required")
        if type(properties) is not dict:
            properties = {}
        names = [key for key in required if type(key) is str] if type(required) is list else []
        return {key: example(properties.get(key), root, key, depth + 1) for key in names}
    if kind == "array":
        item = example(schema.get("items"), root, name, depth + 1)
        return [item] * _number(schema, "minItems", 1) if item is not None else []
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
    return text.ljust(_number(schema, "minLength", 0), ".")


def _number(schema: JSON, name: str, default: int) -> int:
    """A small count of a schema that nobody has checked."""
    value = schema.get(name, default)
    return min(value, _MAX_COUNT) if type(value) is int else default


def _resolve(reference: str, root: Any) -> Any:
    found = root
    for part in reference.removeprefix("#/").split("/"):
        found = found.get(part) if type(found) is dict else None
    return found

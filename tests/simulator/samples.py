"""Requests of real clients, shortened; each is named for its client."""

from typing import Any

JSON = dict[str, Any]

CLAUDE_CODE_BETAS = (
    b"claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,"
    b"mid-conversation-tool-changes-2026-07-01,thinking-token-count-2026-05-13,"
    b"advanced-tool-use-2025-11-20,effort-2025-11-24"
)

WRITE: JSON = {
    "name": "Write",
    "description": "Writes a file.",
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"file_path": {"type": "string"}, "content": {"type": "string"}},
        "required": ["file_path", "content"],
        "additionalProperties": False,
    },
}
BASH: JSON = {
    "name": "Bash",
    "description": "Runs a command.",
    "input_schema": {
        "type": "object",
        "properties": {"command": {"type": "string"}, "timeout": {"type": "number"}},
        "required": ["command"],
    },
}
WEATHER: JSON = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 2},
        },
        "required": ["city", "unit", "days"],
    },
}

EXEC_COMMAND: JSON = {
    "name": "exec_command",
    "description": "Runs a command in a terminal.",
    "input_schema": {
        "type": "object",
        "properties": {
            "cmd": {"type": "string"},
            "workdir": {"type": "string"},
            "yield_time_ms": {"type": "number"},
        },
        "required": ["cmd"],
        "additionalProperties": False,
    },
}
APPLY_PATCH: JSON = {
    "name": "apply_patch",
    "description": "Applies a patch.",
    "input_schema": {
        "type": "object",
        "properties": {"input": {"type": "string"}},
        "required": ["input"],
        "additionalProperties": False,
    },
}
CLOSE_AGENT: JSON = {
    "name": "multi_agent_v1__close_agent",
    "input_schema": {
        "type": "object",
        "properties": {"target": {"type": "string"}},
        "required": ["target"],
    },
}


def plain(text: str = "Hello there", **more: Any) -> JSON:
    """The smallest request."""
    return {
        "model": "claude-sonnet-4-7",
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": text}],
        **more,
    }


def claude_code(text: str = "write hello to out.txt", **more: Any) -> JSON:
    """A turn of Claude Code with a sonnet-class model."""
    return {
        "model": "claude-sonnet-4-7",
        "max_tokens": 32000,
        "stream": True,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "metadata": {"user_id": '{"device_id":"3605","account_uuid":"","session_id":"af6c"}'},
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330.7d2;"},
            {
                "type": "text",
                "text": "You are an agent.",
                "cache_control": {"type": "ephemeral"},
            },
            {
                "type": "text",
                "text": "Be careful. " * 40,
                "cache_control": {"type": "ephemeral"},
            },
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<system-reminder>write x to y.txt</system-reminder>"},
                    {"type": "text", "text": text},
                ],
            },
            {
                "role": "system",
                "content": [
                    {
                        "type": "text",
                        "text": "# Environment\n - Primary working directory: /tmp/project\n",
                        "cache_control": {"type": "ephemeral"},
                    }
                ],
            },
        ],
        "tools": [
            BASH,
            WRITE,
            {
                "name": "DeferredToolPlaceholder",
                "description": "Nothing.",
                "input_schema": {"type": "object", "properties": {}},
                "defer_loading": True,
            },
        ],
        **more,
    }


def claude_code_haiku() -> JSON:
    """The same with a small model: manual thinking, no system message."""
    request = claude_code()
    del request["output_config"]
    request["model"] = "claude-haiku-4-5"
    request["thinking"] = {"type": "enabled", "budget_tokens": 31999, "display": "omitted"}
    request["messages"] = request["messages"][:1]
    return request


def claude_code_opus() -> JSON:
    """The same with the default model: the system message sets an effort."""
    request = claude_code(model="claude-opus-5-5", max_tokens=128000)
    request["messages"][1]["output_config"] = {"effort": "medium"}
    return request


def claude_code_title() -> JSON:
    """The request for a title at the start of an interactive session."""
    schema = {
        "type": "object",
        "properties": {"title": {"type": "string"}},
        "required": ["title"],
        "additionalProperties": False,
    }
    return plain(
        "a session",
        model="claude-haiku-4-5",
        stream=True,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )


def claude_code_search() -> JSON:
    """The request of the WebSearch tool."""
    return plain(
        "search the web",
        tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
        tool_choice={"type": "tool", "name": "web_search"},
        thinking={"type": "disabled"},
        temperature=1,
        stream=True,
    )


def hermes() -> JSON:
    """Hermes Agent."""
    return {
        "model": "claude-sonnet-4-7",
        "max_tokens": 64000,
        "stream": True,
        "system": [
            {"type": "text", "text": "You are Hermes.", "cache_control": {"type": "ephemeral"}}
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}
                ],
            }
        ],
        "tools": [{**WEATHER, "type": "custom"}],
        "tool_choice": {"type": "auto"},
    }


def codex(text: str = "write hello world to proof.txt", **more: Any) -> JSON:
    """A turn of Codex with a sonnet-class model, translated by a relay."""
    return {
        "model": "claude-sonnet-4-7",
        "max_tokens": 128000,
        "stream": True,
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "system": [
            {"type": "text", "text": "You are a coding agent.\n\nFilesystem sandboxing defines…"},
        ],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<environment_context>\n  <cwd>/tmp/w</cwd>\n"},
                    {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}},
                ],
            }
        ],
        "tools": [
            EXEC_COMMAND,
            APPLY_PATCH,
            CLOSE_AGENT,
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        **more,
    }

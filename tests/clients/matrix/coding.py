"""Coding agents: how each is installed and set up, and its command for one turn."""

import base64
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import environment, npm_modules
from tests.clients.matrix.test_python import locked_version
from tests.clients.test_claude_code import QUIET
from tests.clients.test_codex import BY_VARIABLE, CONFIG

JSON = dict[str, Any]

MODEL = "claude-sonnet-4-7"
THINKER = "claude-haiku-4-5"  # thinks after a tool's result only if its thoughts came back
UNKNOWN = "no-such-model"
NO_SCHEMA = "it has no option for a schema"
NO_TOOLS = "it gives the model no tools, and edits files by the text of the answer"

CLIENTS = Path(__file__).parents[1]
MATRIX = Path(__file__).with_name("node")


@dataclass(frozen=True)
class Turn:
    """A prompt, and the options with which a person gives it."""

    prompt: str
    model: str = MODEL
    thinks: bool = False
    picture: Path | None = None
    schema: JSON | None = None


@dataclass(frozen=True)
class At:
    """A relay, one of its keys, and the agent's home and working folder."""

    url: str
    key: str
    home: Path


@dataclass(frozen=True)
class Agent:
    """A coding agent in one dialect."""

    client: str
    package: str
    dialect: str
    source: "Npm | PyPI"
    command: Callable[[str, At, Turn], list[str]]  # for `{program}`; writes its settings
    env: dict[str, str]
    writer: str  # its tool that writes a file
    unknown: str  # what it shows for an unknown model, a regular expression
    spent: str  # and at a used-up limit
    gaps: dict[str, str] = field(default_factory=dict)


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


# --- Claude Code --------------------------------------------------------------------


def claude_command(dialect: str, at: At, turn: Turn) -> list[str]:
    env = [f"ANTHROPIC_BASE_URL={at.url}", f"ANTHROPIC_API_KEY={at.key}", f"TMPDIR={at.home}"]
    if turn.thinks:
        env.append("MAX_THINKING_TOKENS=1024")
    options = ["-p", "--model", turn.model, "--allowedTools", "Write Bash"]
    options += ["--verbose", "--output-format", "stream-json"]
    if turn.schema is not None:
        options += ["--json-schema", json.dumps(turn.schema)]
    if turn.picture is None:
        return ["env", *env, "{program}", *options, "--", turn.prompt]
    # A picture is pasted in its window, or comes as a message on its standard input.
    data = base64.b64encode(turn.picture.read_bytes()).decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    content = [{"type": "text", "text": turn.prompt}, {"type": "image", "source": source}]
    message = {"type": "user", "message": {"role": "user", "content": content}}
    write(at.home / "message.json", json.dumps(message) + "\n")
    words = shlex.join(["env", *env, "{program}", *options, "--input-format", "stream-json"])
    return ["sh", "-c", f"{words} < message.json"]


# --- Codex CLI ----------------------------------------------------------------------


def codex_command(dialect: str, at: At, turn: Turn) -> list[str]:
    settings = 'model_reasoning_effort = "high"' if turn.thinks else ""
    write(
        at.home / ".codex" / "config.toml",
        CONFIG.format(model=turn.model, settings=settings, url=at.url, credential=BY_VARIABLE),
    )
    options = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    if turn.schema is not None:
        write(at.home / "schema.json", json.dumps(turn.schema))
        options.append("--output-schema=schema.json")
    if turn.picture is not None:
        options.append(f"--image={turn.picture}")
    return ["env", f"RELAY_KEY={at.key}", "{program}", *options, "--", turn.prompt]


# --- OpenCode -----------------------------------------------------------------------

PROVIDERS = {
    "messages": "@ai-sdk/anthropic",
    "responses": "@ai-sdk/openai",
    "chat": "@ai-sdk/openai-compatible",
}
EFFORTS: dict[str, JSON] = {
    "messages": {"thinking": {"type": "enabled", "budgetTokens": 1024}},
    "responses": {"reasoningEffort": "high", "reasoningSummary": "auto", "forceReasoning": True},
    "chat": {"reasoningEffort": "high"},
}


def opencode_command(dialect: str, at: At, turn: Turn) -> list[str]:
    model: JSON = {
        "limit": {"context": 200_000, "output": 32_000},
        "modalities": {"input": ["text", "image"], "output": ["text"]},
        "attachment": True,
        "tool_call": True,
    }
    if turn.thinks:
        model |= {"reasoning": True, "options": EFFORTS[dialect]}
    provider = {
        "npm": PROVIDERS[dialect],
        "name": "Relay",
        "options": {"baseURL": f"{at.url}/v1", "apiKey": "{env:RELAY_KEY}"},
        "models": {turn.model: model},
    }
    settings = {"model": f"relay/{turn.model}", "provider": {"relay": provider}}
    write(at.home / "opencode.json", json.dumps(settings))
    # Without a title it asks the model for one, beside the turn.
    options = [
        "run",
        "--print-logs",
        "--title",
        "Matrix",
        "--model",
        f"relay/{turn.model}",
        turn.prompt,
    ]
    if turn.picture is not None:
        options += ["--file", str(turn.picture)]
    return ["env", f"RELAY_KEY={at.key}", "{program}", *options]


# --- pi -----------------------------------------------------------------------------

APIS = {
    "messages": "anthropic-messages",
    "responses": "openai-responses",
    "chat": "openai-completions",
}


def pi_command(dialect: str, at: At, turn: Turn) -> list[str]:
    model = {"id": turn.model, "reasoning": turn.thinks, "input": ["text", "image"]}
    provider = {
        "baseUrl": at.url if dialect == "messages" else f"{at.url}/v1",
        "api": APIS[dialect],
        "apiKey": "RELAY_KEY",
        "models": [model],
    }
    write(at.home / ".pi/agent/models.json", json.dumps({"providers": {"relay": provider}}))
    options = ["--offline", "-p", "--provider", "relay", "--model", turn.model]
    if turn.thinks:
        options += ["--thinking", "high"]
    if turn.picture is not None:
        options.append(f"@{turn.picture}")
    return ["env", f"RELAY_KEY={at.key}", "node", "{program}", *options, turn.prompt]


# --- Hermes Agent -------------------------------------------------------------------

MODES = {
    "messages": "anthropic_messages",
    "chat": "chat_completions",
    "responses": "codex_responses",
}


def hermes_command(dialect: str, at: At, turn: Turn) -> list[str]:
    provider = {
        "name": "relay",
        "base_url": at.url if dialect == "messages" else f"{at.url}/v1",
        "key_env": "RELAY_KEY",
        "api_mode": MODES[dialect],
    }
    settings: JSON = {
        "model": {"default": turn.model, "provider": "custom:relay", "supports_vision": True},
        "custom_providers": [provider],
        "agent": {
            "reasoning_effort": "high" if turn.thinks else "none",
            "api_max_retries": 1,  # else it waits for up to ten minutes before each of three
        },
    }
    write(at.home / ".hermes" / "config.yaml", json.dumps(settings))  # JSON is YAML
    write(at.home / ".hermes" / ".env", f"RELAY_KEY={at.key}\n")
    options = ["chat", "--yolo", "--query", turn.prompt]
    if turn.picture is not None:
        options += ["--image", str(turn.picture)]
    return ["{program}", *options]


# --- aider --------------------------------------------------------------------------


def aider_command(dialect: str, at: At, turn: Turn) -> list[str]:
    provider, base = ("anthropic", at.url) if dialect == "messages" else ("openai", f"{at.url}/v1")
    model = f"{provider}/{turn.model}"
    known = {
        "litellm_provider": provider,
        "mode": "chat",
        "max_input_tokens": 200_000,
        "max_output_tokens": 32_000,
        "supports_vision": True,
    }
    write(at.home / ".aider.model.metadata.json", json.dumps({model: known}))
    variable = provider.upper()
    env = [f"{variable}_API_BASE={base}", f"{variable}_API_KEY={at.key}"]
    options = ["--model", model, "--yes-always", "--no-git", "--no-pretty", "--no-check-update"]
    options += ["--no-show-release-notes", "--analytics-disable", "--message", turn.prompt]
    if turn.picture is not None:
        options.append(str(turn.picture))
    return ["env", *env, "{program}", *options]


# --- all of them --------------------------------------------------------------------


@dataclass(frozen=True)
class Npm:
    """A package in node_modules, with the pins of a package-lock.json."""

    pins: Path
    folder: Path
    pattern: str  # of its program

    def install(self) -> Path:
        modules = npm_modules(self.pins, self.folder)
        program = next(iter(sorted(modules.glob(self.pattern))), None)
        if program is None:
            pytest.skip(f"{self.pattern}: there is no program for this kind of machine")
        return program

    def version(self, package: str) -> str:
        lock = json.loads((self.pins / "package-lock.json").read_text())
        return str(lock["packages"][f"node_modules/{package}"]["version"])


@dataclass(frozen=True)
class PyPI:
    """A distribution in an environment of its own, with the pins of its requirements.lock."""

    folder: str  # of tests/clients
    name: str  # of its program

    def install(self) -> Path:
        return environment(self.folder).with_name(self.name)

    def version(self, package: str) -> str:
        return locked_version(self.folder, package)


def from_npm(pattern: str) -> Npm:
    return Npm(CLIENTS, CLIENTS / "node", pattern)


LISTED = r"Unknown model \\?'no-such-model\\?'\. Available: claude-opus-4-8"
SHOWN = r"1 request per 5 hours\. It resets at"
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
UNSIGNED = "in chat completions it hands no thoughts back with their signatures"

THOUGHTLESS = {
    "messages": {"thinking": "it hands no thoughts back to services other than Anthropic's own"},
    "chat": {"thinking": UNSIGNED},
}

AGENTS = [
    Agent(
        "Claude Code",
        "@anthropic-ai/claude-code",
        "messages",
        from_npm("@anthropic-ai/claude-code-*/claude"),
        claude_command,
        QUIET,
        "Write",
        unknown=r"issue with the selected model \(no-such-model\)",
        spent=SHOWN,
    ),
    Agent(
        "Codex CLI",
        "@openai/codex",
        "responses",
        from_npm("@openai/codex-*/vendor/*/bin/codex"),
        codex_command,
        {},
        "exec_command",
        unknown=LISTED,
        spent=r"(?i)hit your usage limit.*try again at",
    ),
    *(
        Agent(
            "OpenCode",
            "opencode-linux-x64",
            dialect,
            from_npm("opencode-linux-x64/bin/opencode"),
            opencode_command,
            {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"},
            "write",
            unknown=LISTED,
            spent=SHOWN,
            gaps={
                "structured": NO_SCHEMA,
                "quota": "`opencode run` waits for the reset without a word",
            }
            | ({"thinking": UNSIGNED} if dialect == "chat" else {}),
        )
        for dialect in PROVIDERS
    ),
    *(
        Agent(
            "pi",
            "@mariozechner/pi-coding-agent",
            dialect,
            Npm(MATRIX, MATRIX, "@mariozechner/pi-coding-agent/dist/cli.js"),
            pi_command,
            {"PI_OFFLINE": "1", "PI_TELEMETRY": "0"},
            "write",
            unknown=LISTED,
            spent=SHOWN,
            gaps={"structured": NO_SCHEMA} | ({"thinking": UNSIGNED} if dialect == "chat" else {}),
        )
        for dialect in APIS
    ),
    *(
        Agent(
            "Hermes Agent",
            "hermes-agent",
            dialect,
            PyPI("hermes", "hermes"),
            hermes_command,
            UNBUFFERED,
            "write_file",
            unknown=LISTED,
            spent=SHOWN,
            gaps={"structured": NO_SCHEMA, **THOUGHTLESS.get(dialect, {})},
        )
        for dialect in MODES
    ),
    *(
        Agent(
            "aider",
            "aider-chat",
            dialect,
            PyPI("matrix/aider", "aider"),
            aider_command,
            {"LITELLM_LOCAL_MODEL_COST_MAP": "True", **UNBUFFERED},
            "",
            unknown=LISTED,
            spent=SHOWN,
            gaps={
                "loop": NO_TOOLS,
                "parallel": NO_TOOLS,
                "structured": NO_SCHEMA,
                "thinking": "it keeps the text of an answer, and no thoughts",
            },
        )
        for dialect in ("messages", "chat")
    ),
]
